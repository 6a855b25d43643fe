import pytest
import torch

from pygen.metrics import Classifier
from pygen.metrics.classifier import N_FEATURES


def test_right_on_held_out_digits(classifier, held_out):
    assert classifier.score(*held_out) >= 0.96
    assert classifier.score(held_out[0], held_out[1].roll(1)) < 0.2
    features = classifier.features(held_out[0])
    assert features.shape == (540, N_FEATURES)
    assert (features.std(0) > 0).sum() > N_FEATURES / 2


def test_same_seed_same_classifier_whatever_the_global_generator(train):
    images, labels = train[0][:200], train[1][:200]
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = Classifier(max_steps=5, random_state=3).fit(images, labels)
    assert torch.equal(torch.rand(1), expected)
    again = Classifier(max_steps=5, random_state=3).fit(images, labels)
    other = Classifier(max_steps=5, random_state=4).fit(images, labels)
    assert torch.equal(first.features(images), again.features(images))
    assert not torch.equal(first.features(images), other.features(images))


def test_bytes_arrays_and_labels_of_any_value(train):
    images, labels = train
    x, y = images[:300], labels[:300] * 7 - 3
    classifier = Classifier(max_steps=100, random_state=0).fit(x, y)
    assert classifier.classes_.tolist() == list(range(-3, 64, 7))
    predicted = classifier.predict(x)
    assert (predicted == y).double().mean() > 0.9
    as_bytes = (x * 255).round().to(torch.uint8)
    assert torch.equal(classifier.predict(as_bytes), predicted)
    assert torch.equal(classifier.predict(x.numpy()), predicted)
    assert classifier.score(x.numpy(), y.numpy()) == (predicted == y).double().mean()


@pytest.mark.parametrize("shape", [(3, 33, 47), (4, 5, 3)])
def test_any_size(shape):
    images = torch.rand(8, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    classifier = Classifier(max_steps=2, random_state=0).fit(images, labels)
    assert classifier.features(images).shape == (8, N_FEATURES)


def test_refused(train):
    images, labels = train
    with pytest.raises(ValueError, match=r"integers \[1257\].*found torch.int64 \[5\]"):
        Classifier().fit(images, labels[:5])
    with pytest.raises(ValueError, match="at least two classes"):
        Classifier().fit(images, labels * 0)
    with pytest.raises(ValueError, match=r"\[N, C, H, W\]"):
        Classifier().fit(images.flatten(1), labels)
    with pytest.raises(ValueError, match=r"floats in \[0, 1\], found torch.float32 from -1 to 1"):
        Classifier().fit(images * 2 - 1, labels)
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        Classifier().fit(images * torch.nan, labels)
