"""Frechet and kernel distance against known answers and other formulas."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from pygen.deep import losses
from pygen.metrics import frechet_distance, kernel_distance


def features(n, f, seed, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(f, f, generator=g, dtype=torch.float64)
    return (torch.randn(n, f, generator=g, dtype=torch.float64) @ mix + mix[0]).to(dtype)


def with_moments(mean, deviations, n=64):
    """Rows whose mean and unbiased covariance are exactly these, along the axes."""
    f = len(mean)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((n, f)))
    q, _ = torch.linalg.qr(x - x.mean(0))
    return q * (n - 1) ** 0.5 * torch.tensor(deviations) + torch.tensor(mean)


def test_frechet_of_known_moments():
    # Along the axes: the squared difference of the means and of the standard deviations.
    x = with_moments([0.0, 1.0, 2.0], [1.0, 2.0, 0.0])
    y = with_moments([3.0, 1.0, 0.0], [1.0, 0.5, 4.0])
    assert frechet_distance(x, y) == pytest.approx(9 + 4 + 1.5**2 + 4**2, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frechet_is_the_formula(dtype):
    x, y = features(200, 20, 0, dtype), features(150, 20, 1, dtype)
    a, b = np.cov(x.double().numpy().T), np.cov(y.double().numpy().T)
    means = ((x.double().mean(0) - y.double().mean(0)) ** 2).sum().item()
    expected = means + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


class AsTheyAre(nn.Module):
    """Features handed to torchmetrics in place of images."""

    num_features = 20

    def forward(self, features):
        return features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_frechet_is_that_of_torchmetrics(dtype):
    x, y = features(5000, 20, 0, dtype), features(150, 20, 1, dtype)  # one in several parts
    peer = FrechetInceptionDistance(AsTheyAre(), input_img_size=(20,)).set_dtype(torch.float64)
    peer.update(x.double(), real=True)
    peer.update(y.double(), real=False)
    assert frechet_distance(x, y) == pytest.approx(peer.compute().item(), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`")
@pytest.mark.parametrize("rows", [1024, 7])
def test_kernel_distance_is_that_of_torchmetrics(rows, monkeypatch):
    """With one subset, which is all: over many the KID is the mean of figures of which ours is the expectation."""
    monkeypatch.setattr(losses, "_KERNEL_ROWS", rows)
    x, y = features(100, 20, 0), features(100, 20, 1)

    def peer(subsets, subset_size):
        metric = KernelInceptionDistance(AsTheyAre(), subsets=subsets, subset_size=subset_size)
        metric.update(x, real=True)
        metric.update(y, real=False)
        return (value.item() for value in metric.compute())

    (found, (expected, _)) = kernel_distance(x, y).item(), peer(1, 100)
    assert found == pytest.approx(expected, rel=1e-6)
    torch.manual_seed(0)  # torchmetrics draws its subsets by the global generator
    mean, deviation = peer(400, 50)
    assert abs(mean - found) < 5 * deviation / 400**0.5


def test_frechet_of_collapsed_and_of_equal_features():
    x = features(200, 20, 0)
    constant = x[:1].repeat(100, 1)
    expected = (x.mean(0) - x[0]).square().sum() + x.var(0).sum()
    assert frechet_distance(x, constant) == pytest.approx(expected.item(), rel=1e-9)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-9 * x.var(0).sum().item())
    assert frechet_distance(x[:, :1], x[:, :1] + 3) == pytest.approx(9)


def test_frechet_refuses_too_few_rows():
    with pytest.raises(ValueError, match="at least 21 made rows, one more than features"):
        frechet_distance(features(200, 20, 0), features(20, 20, 1))


def test_kernel_distance_is_its_definition():
    x, y = features(12, 4, 0), features(9, 4, 1)

    def mean(a, b, same):
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not (same and i == j)]
        return sum((a[i] @ b[j] / 4 + 1).item() ** 3 for i, j in pairs) / len(pairs)

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert kernel_distance(x, y).item() == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased():
    g = torch.Generator().manual_seed(0)
    draws = [
        kernel_distance(*torch.randn(2, 20, 3, generator=g, dtype=torch.float64))
        for _ in range(400)
    ]
    values = torch.stack(draws)
    assert abs(values.mean()) < 4 * values.std() / 400**0.5
    assert values.min() < 0
