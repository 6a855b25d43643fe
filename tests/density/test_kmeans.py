import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from torch.utils._python_dispatch import TorchDispatchMode

from pygen.density.kmeans import kmeans, kmeans_plusplus
from pygen.random import new_state

X = torch.from_numpy(load_digits().data)


def inertia(x, labels, centres):
    return float((x.double() - centres[labels]).square().sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_good_as_scikit_learns(dtype):
    # Two local searches from random starts: their best and typical results agree within a few percent.
    mine = sorted(inertia(X, *kmeans(X.to(dtype), 10, new_state(seed))) for seed in range(10))
    peer = sorted(
        KMeans(10, n_init=1, random_state=seed).fit(X.numpy()).inertia_ for seed in range(10)
    )
    assert mine[0] < 1.01 * peer[0]
    assert np.median(mine) < 1.02 * np.median(peer)


def test_centres_are_the_means_of_their_rows():
    labels, centres = kmeans(X, 10, new_state(0), tol=0)
    for k in range(10):
        torch.testing.assert_close(centres[k], X[labels == k].mean(0), rtol=1e-9, atol=1e-9)
    assert torch.equal(torch.cdist(X, centres).argmin(1), labels)


def test_plus_plus_spreads_its_centres():
    def potential(chosen):
        return float(torch.cdist(X, X[chosen]).amin(1).square().sum())

    g = torch.Generator().manual_seed(0)
    spread = [potential(kmeans_plusplus(X, 10, new_state(seed), None)) for seed in range(10)]
    random = [potential(torch.randperm(len(X), generator=g)[:10]) for _ in range(10)]
    assert np.mean(spread) < 0.9 * np.mean(random)


def test_weights_equal_repetition():
    weights = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(0))
    x = X[:200]
    _, weighted = kmeans(x, 5, new_state(1), weights.double())
    _, repeated = kmeans(x.repeat_interleave(weights, 0), 5, new_state(1))
    torch.testing.assert_close(weighted, repeated, rtol=1e-9, atol=1e-9)


def test_more_clusters_than_distinct_rows():
    x = torch.tensor([[0.0], [0.0], [1.0], [1.0], [1.0]])
    labels, centres = kmeans(x, 4, new_state(0))
    assert torch.equal(centres[labels], x.double())


def test_far_from_zero():
    x = (X + 1e4).float()
    labels, centres = kmeans(x, 10, new_state(0))
    assert inertia(x, labels, centres) < 1.1 * inertia(X, *kmeans(X, 10, new_state(0)))


class NoReading(TorchDispatchMode):
    """Fails where the host would wait for a value of the device."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator)
        assert not any(part in name for part in ("_local_scalar_dense", "nonzero", "aten.equal")), (
            name
        )
        return operator(*args, **(kwargs or {}))


def test_plus_plus_never_waits_for_the_device():
    with NoReading():
        kmeans_plusplus(X, 10, new_state(0), None)
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReading():
        X[X.sum(1).argmax()]
