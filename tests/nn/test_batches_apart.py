"""Several batches given as one: the results and the running statistics of one after the other."""

import copy

import pytest
import torch
from torch import nn

import pygen
from pygen.nn import batches_apart


@pytest.fixture
def network():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 4, 2, 1, bias=False),
        nn.BatchNorm2d(3),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.Tanh(),
    ).double()
    return pygen.accelerate(network, verbose=False)


def check(network, n_batches):
    other = copy.deepcopy(network)
    x = torch.randn(6, 2, 8, 8, dtype=torch.float64)
    expected = torch.cat([other(part) for part in x.chunk(n_batches)])
    with batches_apart(network, n_batches):
        got = network(x)
    torch.testing.assert_close(got, expected)
    got.square().sum().backward()
    expected.square().sum().backward()
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(dict(network.named_buffers()), dict(other.named_buffers()))
    agree = network(x)
    torch.testing.assert_close(agree, other(x))
    return got, agree


@pytest.mark.parametrize("n_batches", [1, 2, 3])
def test_as_one_after_the_other(network, n_batches):
    apart, together = check(network, n_batches)
    assert (n_batches == 1) == torch.allclose(apart, together)


def test_layers_that_do_their_own_work(network):
    for layer in network:
        layer.register_forward_hook(lambda *_: None)
    check(network, 2)


def test_evaluation(network):
    network.eval()
    apart, together = check(network, 2)
    torch.testing.assert_close(apart, together)


def test_batches_that_do_not_fit(network):
    with pytest.raises(ValueError, match="divide the batch of 5"), batches_apart(network, 2):
        network(torch.zeros(5, 2, 8, 8, dtype=torch.float64))
    check(network, 2)


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d(4), nn.BatchNorm1d(4), nn.SyncBatchNorm(4)],
    ids=lambda n: type(n).__name__,
)
def test_batch_norms_that_know_nothing_of_it(network, norm):
    with (
        pytest.raises(ValueError, match=f"joined to the convolutions.*{type(norm).__name__}"),
        batches_apart(nn.Sequential(network, norm), 2),
    ):
        pass


def test_the_mean_over_all_batches(network):
    network[1].momentum = None
    with pytest.raises(ValueError, match="with a momentum"), batches_apart(network, 2):
        pass
