import pytest
import torch
from torch import nn as torch_nn
from torch.nn.utils import parametrizations

from pygen import nn
from pygen.nn.runs import kind


def convolutions(network):
    kinds = (torch_nn.Conv2d, torch_nn.ConvTranspose2d)
    return [layer for layer in network.layers if isinstance(layer, kinds)]


@pytest.mark.parametrize(
    ("shape", "base", "channels"),
    [
        ((3, 64, 64), (4, 4), [512, 256, 128, 64]),
        ((3, 32, 32), (4, 4), [256, 128, 64]),
        ((1, 28, 28), (7, 7), [128, 64]),
        ((1, 8, 8), (2, 2), [128, 64]),
        ((2, 33, 47), (5, 6), [256, 128, 64]),
        ((4, 3, 40), (2, 10), [128, 64]),
        ((3, 256, 256), (4, 4), [512, 512, 512, 256, 128, 64]),
    ],
    ids=str,
)
def test_the_two_are_mirrored(shape, base, channels):
    generator, discriminator = nn.DCGANGenerator(10, shape), nn.DCGANDiscriminator(shape)
    up, down = convolutions(generator), convolutions(discriminator)
    assert [layer.in_channels for layer in up] == [10, *channels]
    assert [layer.out_channels for layer in up] == [*channels, shape[0]]
    assert [layer.in_channels for layer in down] == [shape[0], *reversed(channels)]
    assert [layer.out_channels for layer in down] == [*reversed(channels), 1]
    assert up[0].kernel_size == down[-1].kernel_size == base
    assert {layer.kernel_size for layer in up[1:] + down[:-1]} == {(4, 4)}
    assert {layer.stride for layer in up[1:] + down[:-1]} == {(2, 2)}


def test_radfords_rules():
    generator, discriminator = (
        nn.DCGANGenerator(10, (3, 64, 64)),
        nn.DCGANDiscriminator((3, 64, 64)),
    )
    kinds = [kind(layer).__name__ for layer in generator.layers]
    middle = ["ConvTranspose2d", "BatchNorm2d", "ReLU"]
    assert kinds == ["Unflatten", *middle * 4, "ConvTranspose2d", "Tanh"]
    assert [layer.bias is not None for layer in convolutions(generator)] == [False] * 4 + [True]
    kinds = [kind(layer).__name__ for layer in discriminator.layers]
    middle = ["Conv2d", "BatchNorm2d", "LeakyReLU"]
    assert kinds == ["Conv2d", "LeakyReLU", *middle * 3, "Conv2d", "Flatten"]
    assert [layer.bias is not None for layer in convolutions(discriminator)] == [
        True,
        False,
        False,
        False,
        True,
    ]
    assert {
        layer.negative_slope
        for layer in discriminator.layers
        if isinstance(layer, torch_nn.LeakyReLU)
    } == {0.2}


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 47)], ids=str)
def test_norms_of_the_discriminator(norm, spectral_norm, shape):
    network = nn.DCGANDiscriminator(shape, width=4, norm=norm, spectral_norm=spectral_norm)
    kinds = {"batch": torch_nn.BatchNorm2d, "instance": torch_nn.InstanceNorm2d, "none": ()}
    others = [kind for name, kind in kinds.items() if name not in (norm, "none")]
    assert not any(isinstance(layer, tuple(others)) for layer in network.layers)
    has_norm = any(isinstance(layer, kinds[norm]) for layer in network.layers)
    assert has_norm == (norm != "none")
    x = torch.randn(6, *shape)
    # Two passes before one backward pass, as real and fake pictures take.
    with torch.autocast("cpu", torch.bfloat16):
        (network(x).float().sum() + network(-x).float().square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_only_batch_norm_couples_the_pictures_of_a_batch(norm):
    network = nn.DCGANDiscriminator((1, 8, 8), width=4, norm=norm)
    x = torch.randn(6, 1, 8, 8)
    changed = torch.cat([x[:1], x[1:] + 1])
    with torch.no_grad():
        assert torch.equal(network(changed)[0], network(x)[0]) == (norm != "batch")


@pytest.mark.parametrize("norm", ["instance", "none", "dense"])
def test_gradient_penalty(norm):
    """The derivative of a gradient's length against its difference quotient."""
    torch.manual_seed(0)
    network = (
        nn.MLPDiscriminator((1, 8, 8), n_classes=2)
        if norm == "dense"
        else nn.DCGANDiscriminator((1, 8, 8), width=4, norm=norm, n_classes=2)
    ).double()
    x, y = torch.randn(3, 1, 8, 8, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 1])

    def penalty():
        (gradient,) = torch.autograd.grad(network(x, y).sum(), x, create_graph=True)
        return gradient.square().sum()

    weight = next(network.parameters())
    (found,) = torch.autograd.grad(penalty(), weight)
    step = 1e-6 * torch.randn_like(weight)
    values = []
    for sign in (1, -2):
        with torch.no_grad():
            weight.add_(sign * step)
        values.append(penalty().item())
    assert values[0] - values[1] == pytest.approx(2 * (found * step).sum().item(), rel=1e-3)


def test_unknown_norm():
    with pytest.raises(
        ValueError, match=r'norm must be "batch", "instance" or "none"; got \'layer\''
    ):
        nn.DCGANDiscriminator((1, 8, 8), norm="layer")


@pytest.mark.parametrize("kind", ["MLPDiscriminator", "DCGANDiscriminator"])
def test_spectral_norm_bounds_every_layer(kind):
    network = getattr(nn, kind)((2, 12, 12), spectral_norm=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(30)
        for _ in range(50):  # power iteration
            network(torch.randn(2, 2, 12, 12))
    layers = [layer for layer in network.layers if hasattr(layer, "weight")]
    weights = [layer.weight.flatten(1) for layer in layers if layer.weight.dim() > 1]
    assert len(weights) == 3
    for weight in weights:
        assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, rel=0.02)


def test_dcgan_init():
    torch.manual_seed(0)
    for network in (nn.DCGANGenerator(100, (3, 32, 32)), nn.DCGANDiscriminator((3, 32, 32))):
        for layer in network.layers:
            mean = 1.0 if isinstance(layer, torch_nn.BatchNorm2d) else 0.0
            if hasattr(layer, "weight"):
                n = layer.weight.numel()
                # 5 standard deviations of a mean and of a standard deviation of n draws.
                assert abs(layer.weight.mean().item() - mean) < 5 * 0.02 / n**0.5
                assert abs(layer.weight.std().item() / 0.02 - 1) < 5 / (2 * n) ** 0.5
            if getattr(layer, "bias", None) is not None:
                assert not layer.bias.any()


def test_dcgan_init_of_other_modules():
    linear = torch_nn.Linear(3, 3)
    conv = parametrizations.spectral_norm(torch_nn.Conv2d(30, 30, 3))
    before = linear.weight.clone()
    module = torch_nn.Sequential(linear, conv, torch_nn.InstanceNorm2d(3))
    assert nn.dcgan_init_(module) is module
    assert torch.equal(linear.weight, before)
    assert conv.parametrizations.weight.original.std().item() == pytest.approx(0.02, rel=0.05)


def test_their_layers_are_accelerated():
    generator, discriminator = nn.DCGANGenerator(5, (1, 16, 16)), nn.DCGANDiscriminator((1, 16, 16))
    assert [len(run.names) for run in nn.accelerated(generator).runs] == [3, 3, 2]
    assert [len(run.names) for run in nn.accelerated(discriminator).runs] == [2, 3, 1]
