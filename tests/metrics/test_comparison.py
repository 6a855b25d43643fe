"""All figures put real images before a good mixture's, before independent pixels, before one again and again."""

import pytest
import torch

from pygen.density import ClassConditional, GaussianMixture
from pygen.metrics import compare_images, independent_pixels, mmd_test

# Lower is better of these, higher of the others.
DISTANCES = ("frechet_distance", "kernel_distance", "mmd", "two_sample_accuracy")


@pytest.fixture(scope="module")
def figures(train, held_out, classifier):
    (images, labels), (reference, _) = train, held_out
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    mixture = GaussianMixture(10, covariance_type="diag", reg_covar=1e-3, random_state=0)
    mixture = ClassConditional(mixture).fit((images * 255 / 15 + noise).div(18), labels)
    drawn, _ = mixture.sample(len(images), random_state=0)
    made = {
        "real": images,
        "mixture": (drawn * 18 - 0.5).div(17).clamp(0, 1).float(),
        "independent": independent_pixels(images, len(images), random_state=0),
        "collapsed": images[:1].repeat(len(images), 1, 1, 1),
    }
    found = {}
    for name, fake in made.items():
        found[name] = compare_images(reference, fake, classifier)
        features = (classifier.features(rows)[:540] for rows in (reference, fake))
        found[name]["mmd"] = mmd_test(*features, random_state=0).distance
    return found


# One real image again and again is precise: precision and density do not see the collapse.
@pytest.mark.parametrize(
    "name", ["class_entropy", "smallest_share", "recall", "coverage", *DISTANCES]
)
def test_order(figures, name):
    sign = -1 if name in DISTANCES else 1
    kinds = ("real", "mixture", "independent", "collapsed")
    real, mixture, independent, collapsed = (sign * figures[kind][name] for kind in kinds)
    assert real > mixture
    assert mixture > independent
    assert independent > collapsed


@pytest.mark.parametrize("name", ["precision", "density"])
def test_real_images_are_more_precise_than_independent_pixels(figures, name):
    assert figures["real"][name] > figures["independent"][name] + 0.1
    assert figures["mixture"][name] > figures["independent"][name] + 0.05


def test_numpy_and_tensors(train, held_out, classifier, figures):
    found = compare_images(held_out[0].numpy(), train[0].numpy(), classifier)
    assert found == {name: figures["real"][name] for name in found}


def test_independent_pixels(train):
    images = (train[0] * 255).to(torch.uint8)
    drawn = independent_pixels(images, 20_000, random_state=0)
    assert drawn.dtype == torch.uint8
    assert drawn.shape == (20_000, 1, 8, 8)
    # Each pixel has its own distribution, ...
    expected, found = images.double(), drawn.double()
    error = (found.mean(0) - expected.mean(0)).abs()
    assert (error <= 5 * expected.std(0) / 20_000**0.5).all()
    # ... and knows nothing of its neighbour.
    correlation = torch.corrcoef(found[:, 0, 3, 3:5].T)[0, 1]
    assert abs(correlation) < 5 / 20_000**0.5
    assert abs(torch.corrcoef(expected[:, 0, 3, 3:5].T)[0, 1]) > 0.2
    assert torch.equal(drawn, independent_pixels(images, 20_000, random_state=0))
