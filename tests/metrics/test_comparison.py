"""All figures at once put real images before independent pixels, and those before one image again and again."""

import pytest
import torch

from pygen.metrics import compare_images, independent_pixels

# Lower is better of these, higher of the others.
DISTANCES = ("frechet_distance", "kernel_distance", "two_sample_accuracy")


@pytest.fixture(scope="module")
def figures(train, held_out, classifier):
    images, (reference, _) = train[0], held_out
    made = {
        "real": images,
        "independent": independent_pixels(images, len(images), random_state=0),
        "collapsed": images[:1].repeat(len(images), 1, 1, 1),
    }
    return {name: compare_images(reference, fake, classifier) for name, fake in made.items()}


# One real image again and again is precise: precision and density do not see the collapse.
@pytest.mark.parametrize(
    "name", ["class_entropy", "smallest_share", "recall", "coverage", *DISTANCES]
)
def test_order(figures, name):
    sign = -1 if name in DISTANCES else 1
    real, independent, collapsed = (
        sign * figures[kind][name] for kind in ("real", "independent", "collapsed")
    )
    assert real > independent
    assert independent > collapsed


@pytest.mark.parametrize("name", ["precision", "density"])
def test_real_images_are_more_precise_than_independent_pixels(figures, name):
    assert figures["real"][name] > figures["independent"][name] + 0.1


def test_numpy_and_tensors(train, held_out, classifier, figures):
    found = compare_images(held_out[0].numpy(), train[0].numpy(), classifier)
    assert found == figures["real"]


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
