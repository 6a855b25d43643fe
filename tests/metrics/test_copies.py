"""Nearest training images and the copying test, against every pair and against scipy."""

import math

import pytest
import torch
from scipy.stats import mannwhitneyu

from pygen.metrics import memorisation, nearest
from pygen.metrics import memorisation as function


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("few", [False, True])
def test_nearest_is_the_least_of_all(dtype, few, monkeypatch):
    if few:
        module = __import__(function.__module__, fromlist=["_"])
        monkeypatch.setattr(module, "_QUERIES", 4)
        monkeypatch.setattr(module, "_POINTS", 7)
    g = torch.Generator().manual_seed(0)
    images = (torch.rand(10, 1, 3, 2, generator=g) * 255).to(dtype)
    others = (torch.rand(30, 1, 3, 2, generator=g) * 255).to(dtype)
    others[17] = images[4]
    others[23] = images[4]
    found = nearest(images, others, 3)
    for i, image in enumerate(images):
        distances = [
            math.dist(image.flatten().tolist(), other.flatten().tolist()) for other in others
        ]
        assert found.distances[i].tolist() == pytest.approx(sorted(distances)[:3], rel=1e-12)
        assert [distances[k] for k in found.indices[i]] == sorted(distances)[:3]
    assert found.distances[4, :2].tolist() == [0, 0]
    assert found.indices[4, :2].tolist() == [17, 23]
    assert torch.equal(nearest(images, others).indices, found.indices[:, :1])


def test_memorisation_is_mann_and_whitneys_share():
    g = torch.Generator().manual_seed(0)
    made = torch.randint(0, 9, (40,), generator=g).double()  # with ties
    held_out = torch.randint(2, 12, (25,), generator=g).double()
    expected = mannwhitneyu(held_out.numpy(), made.numpy()).statistic / (40 * 25)
    assert memorisation(made, held_out) == pytest.approx(expected, rel=1e-12)
    assert memorisation(held_out, held_out) == 0.5
    assert memorisation(held_out - 100, held_out) == 1
    assert memorisation(held_out + 100, held_out) == 0


def test_copies_are_seen(train, held_out):
    images, (others, _) = train[0], held_out
    learned, rest = images[:800], images[800:]
    typical = nearest(others, learned).distances[:, 0]
    copied = nearest((learned[:300] + 0.01 * torch.rand_like(learned[:300])), learned)
    assert copied.indices[:, 0].tolist() == list(range(300))
    assert memorisation(copied.distances[:, 0], typical) > 0.99
    new = nearest(rest, learned).distances[:, 0]
    assert memorisation(new, typical) == pytest.approx(0.5, abs=0.06)


def test_refused():
    with pytest.raises(ValueError, match=r"one shape.*\[2, 3\] and \[2, 4\]"):
        nearest(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="M >= 1"):
        nearest(torch.zeros(2, 3), torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"k: expected 1 to 2.*found 3"):
        nearest(torch.zeros(2, 3), torch.zeros(2, 3), 3)
    with pytest.raises(ValueError, match="at least one"):
        memorisation(torch.zeros(0), torch.zeros(2))
