"""Which operators an accelerated network calls, and in which memory formats pictures pass between its runs."""

import copy

import pytest
import torch
from operator_calls import OperatorCalls
from torch import nn

import pygen


@pytest.mark.parametrize("training", [True, False])
def test_the_kernels_memory_format_between_runs_alone(training):
    """Each layer would arrange its pictures anew, forward and backward."""
    network = nn.Sequential(
        *(nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 9, 4, 2, 1), nn.BatchNorm2d(9)),
        *(nn.Conv2d(9, 7, 4, 2, 1), nn.BatchNorm2d(7), nn.Tanh()),
    ).double()
    other = pygen.accelerate(network, copy=True, verbose=False)
    for each in (network, other):
        each.train(training)
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()
    with OperatorCalls() as called:
        y = other(x)
    assert [call.channels_last for call in called.named("pygen.")] == [True, True, True]
    assert y.stride() == network(x).stride()
    gradient = torch.ones_like(y)
    with OperatorCalls() as called:
        y.backward(gradient)
    assert [call.channels_last for call in called.named("pygen.")] == [False, True, True]


@pytest.mark.parametrize(
    ("n", "side", "training", "n_runs"),
    [(64, 8, True, 1), (64, 4, True, 0), (4, 8, True, 0), (64, 8, False, 0)],
)
def test_what_is_faster_apart_is_left_to_pytorch(n, side, training, n_runs):
    """In float32 on a CPU: small pictures, small batches, and inference of narrow convolutions."""
    network = nn.Sequential(nn.Conv2d(32, 64, 4, 2, 1), nn.BatchNorm2d(64), nn.ReLU())
    other = pygen.accelerate(network.train(training), copy=True, verbose=False)
    x = torch.randn(n, 32, side, side, generator=torch.Generator().manual_seed(2))
    with torch.set_grad_enabled(training), OperatorCalls() as called:
        y = other(x)
    assert len(called.named("pygen.")) == n_runs
    torch.testing.assert_close(y, network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n", "n_runs"), [(7, 0), (8, 1)])
def test_batch_norm_is_folded_where_there_are_more_weights_than_pixels(n, n_runs):
    """For as few pictures as a pass over the weights is worth, in inference."""
    network = nn.Sequential(nn.ConvTranspose2d(256, 99, 4, 2, 1), nn.BatchNorm2d(99), nn.ReLU())
    torch.manual_seed(2)
    x = torch.randn(64, 256, 4, 4)
    with torch.no_grad():
        network.train()(x)
        other = pygen.accelerate(network.eval(), copy=True, verbose=False)
        with OperatorCalls() as called:
            y = other(x[:n])
        assert len(called.named("pygen.")) == n_runs
        torch.testing.assert_close(y, network(x[:n]), rtol=1e-4, atol=1e-5)


def test_no_weights_are_rearranged_for_one_picture():
    """There are more of them than of the picture's numbers."""
    network = nn.Sequential(
        *(nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh()),
    ).eval()
    other = pygen.accelerate(network, copy=True, verbose=False)
    x = torch.randn(1, 32, 2, 2, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), OperatorCalls() as called:
        y = other(x)
    assert not called.named("aten.clone", "aten._to_copy")
    torch.testing.assert_close(y, network(x))


@pytest.mark.parametrize(("latent", "n_copies"), [(8, 0), (200, 2)])
def test_maps_are_not_rearranged_around_convolutions_alone(latent, n_copies):
    """As between runs; but after DCGAN's first layer, forward and back, where its weights are more."""
    generator = nn.Sequential(
        *(nn.ConvTranspose2d(latent, 32, 4), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU()),
    )
    discriminator = nn.Sequential(
        *(nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 1, 4)),
    )
    torch.manual_seed(0)
    network = nn.Sequential(generator, discriminator).double()
    other = pygen.accelerate(network, copy=True, verbose=False)
    x = torch.randn(64, latent, 1, 1).double()
    expected = network(x)
    with OperatorCalls() as called:
        y = other(x)
        y.sum().backward()
    shapes = [call.shape for call in called.named("aten.clone")]
    assert shapes.count(torch.Size((64, 32, 4, 4))) == n_copies
    torch.testing.assert_close(y, expected)


def viewed(module, args):
    assert args[0].view(len(args[0]), -1).shape[1] == 512


def hook(network):
    network[3].register_forward_pre_hook(viewed)


def replace_last(network):
    network[3] = nn.Conv2d(32, 7, 3, padding=1).double()


def rearrange_last(network):
    network[3].to(memory_format=torch.channels_last)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("change", [hook, replace_last, rearrange_last])
def test_memory_format_once_the_next_convolution_changed(change, copies):
    """What comes to it is as the kernels arrange it only as long as nobody else sees it."""
    torch.manual_seed(0)
    layers = nn.Conv2d(16, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 5, 4)
    network = nn.Sequential(*layers).double()
    other = pygen.accelerate(network, copy=True, verbose=False)
    if copies:
        other = copy.deepcopy(other)
    x = torch.randn(64, 16, 8, 8).double()
    assert other(x).stride() == network(x).stride()
    for each in (network, other):
        torch.manual_seed(1)
        change(each)
    torch.testing.assert_close(other(x), network(x))
    assert other(x).stride() == network(x).stride()
