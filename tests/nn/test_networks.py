import copy
import inspect
import json

import numpy as np
import pytest
import torch
from torch import nn as torch_nn

from pygen import nn

SHAPES = [
    (c, *side) for c in (1, 2, 3, 4) for side in [(8, 8), (28, 28), (32, 32), (33, 47), (64, 64)]
]
N_ROWS = 4
LATENT = 5

# Small: what is tested does not depend on the width.
ARGUMENTS = {
    "MLPEncoder": {"n_outputs": 6, "hidden": (16, 8)},
    "MLPDecoder": {"latent_dim": LATENT, "hidden": (16,)},
    "ConvEncoder": {"n_outputs": 6, "channels": (4, 8, 8, 8)},
    "ConvDecoder": {"latent_dim": LATENT, "channels": (8, 8, 4)},
    "MLPGenerator": {"latent_dim": LATENT, "hidden": (16, 32)},
    "MLPDiscriminator": {"hidden": (32, 16)},
    "DCGANGenerator": {"latent_dim": LATENT, "width": 4},
    "DCGANDiscriminator": {"width": 4},
}
NAMES = list(ARGUMENTS)
IMAGES = ["ConvEncoder", "ConvDecoder", "DCGANGenerator", "DCGANDiscriminator"]


def make(name, shape=(1, 28, 28), **arguments):
    torch.manual_seed(0)
    return getattr(nn, name)(shape=shape, **(ARGUMENTS[name] | arguments))


def result(network):
    """Shape of one row of what comes out."""
    made = hasattr(network, "latent_dim")
    return network.shape if made else (6,) if "Encoder" in type(network).__name__ else ()


def rows(network, n=N_ROWS):
    """What goes in, and labels where the network takes them."""
    generator = torch.Generator().manual_seed(1)
    row = (network.latent_dim,) if hasattr(network, "latent_dim") else network.shape
    x = torch.randn(n, *row, generator=generator)
    return (x, torch.arange(n) % network.n_classes) if network.n_classes else (x,)


def train(network, device="cpu", **autocast):
    """One gradient step that lowers the loss by 5% to first order; the loss before and after."""
    inputs = [x.to(device) for x in rows(network)]
    parameters = list(network.parameters())
    losses = []
    for _ in range(2):
        with torch.autocast(torch.device(device).type, torch.bfloat16, **autocast):
            out = network(*inputs)
            loss = (out.float() - 0.5).square().mean()
        gradients = torch.autograd.grad(loss, parameters)
        squares = sum(g.square().sum() for g in gradients)
        assert squares > 0
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= 0.05 * loss / squares * gradient
        losses.append(loss.item())
    return out, losses


def test_every_network_is_tested():
    classes = {name for name in nn.__all__ if inspect.isclass(getattr(nn, name))}
    exported = {name for name in classes - {"Network"} if issubclass(getattr(nn, name), nn.Network)}
    assert exported == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_one_training_step(name, shape):
    network = make(name, shape, n_classes=3 * (shape[0] % 2))
    out, (before, after) = train(network, enabled=False)
    assert out.shape == (N_ROWS, *result(network))
    assert out.dtype == torch.float32
    assert after < before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 33, 47), (3, 32, 32)], ids=str)
def test_bf16_channels_last(device, name, shape):
    network = make(name, shape, n_classes=2).to(device, memory_format=torch.channels_last)
    plain = copy.deepcopy(network).eval()
    inputs = [x.to(device) for x in rows(network)]
    expected = plain(*inputs).detach()
    with torch.autocast(device.type, torch.bfloat16):
        found = plain(*inputs)
    # bf16 has 8 binary digits; a few layers of it are off by a few parts of that.
    assert (found.float() - expected).abs().max() <= 0.03 * expected.abs().max()
    out, (before, after) = train(network, device)
    assert out.dtype == torch.bfloat16
    assert after < before


@pytest.mark.parametrize("name", IMAGES)
def test_channels_last_is_kept_between_layers(name):
    network = make(name, (3, 32, 32)).to(memory_format=torch.channels_last)
    checked = 0
    for layer in network.modules():
        if isinstance(layer, torch_nn.Conv2d | torch_nn.ConvTranspose2d):

            def check(layer, inputs, out):
                nonlocal checked
                checked += 1
                assert out.is_contiguous(memory_format=torch.channels_last)

            layer.register_forward_hook(check)
    x, *y = rows(network)
    network(x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, *y)
    assert checked >= 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n_classes", [0, 3])
def test_a_row_does_not_depend_on_the_others_in_eval_mode(name, n_classes):
    network = make(name, (3, 33, 47), n_classes=n_classes)
    network(*rows(network))  # running statistics that are not the initial ones
    network.eval()
    inputs = rows(network)
    with torch.no_grad():
        whole = network(*inputs)
        others = [x.clone() for x in inputs]
        others[0][1:] = 7.0
        assert torch.equal(network(*others)[0], whole[0])
        # Matrix products of another number of rows are rounded otherwise.
        alone = network(*(x[:1] for x in inputs))
    torch.testing.assert_close(alone, whole[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_labels_matter_and_only_ones_own(name):
    network = make(name, (2, 9, 8), n_classes=3).eval()
    x, y = rows(network)
    with torch.no_grad():
        before, after = network(x, y), network(x, torch.tensor([0, 2, 2, 0]))
    same = y == torch.tensor([0, 2, 2, 0])
    assert torch.equal(before[same], after[same])
    assert all((a != b).any() for a, b in zip(before[~same], after[~same], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_arguments_rebuild_the_network(name):
    numbers = {
        k: np.int64(v) for k, v in ARGUMENTS[name].items() if k in ("latent_dim", "n_outputs")
    }
    options = {"spectral_norm": True} if "Discriminator" in name else {}
    network = make(name, torch.Size((2, 9, 12)), n_classes=3, **numbers, **options)
    arguments = json.loads(json.dumps(network.arguments))
    assert set(arguments) == set(inspect.signature(type(network)).parameters)
    again = getattr(nn, name)(**arguments)
    assert again.arguments == network.arguments == copy.deepcopy(network).arguments
    again.load_state_dict(network.state_dict())
    inputs = rows(network)
    assert torch.equal(again.eval()(*inputs), network.eval()(*inputs))


def test_arguments_have_the_values_given():
    found = nn.ConvEncoder((1, 8, 8), 4, channels=[3, 5], strides=(2, 1)).arguments
    assert found == {
        "shape": [1, 8, 8],
        "n_outputs": 4,
        "channels": [3, 5],
        "strides": [2, 1],
        "n_classes": 0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_bad_labels(name):
    network = make(name, n_classes=3)
    x, y = rows(network)
    with pytest.raises(ValueError, match=r"has 3 classes and needs labels: give y"):
        network(x)
    for bad in (y[:2], y.float(), y.int(), y[:, None]):
        with pytest.raises(ValueError, match=r"labels must be int64 \[4\], one for each row; got"):
            network(x, bad)
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), got"):
            network(x, torch.tensor([0, 1, 2, wrong]))
    with pytest.raises(ValueError, match=r"no classes .* but was given labels"):
        make(name)(x, y)


@pytest.mark.parametrize("name", NAMES)
def test_bad_rows(name):
    network = make(name)
    (x,) = rows(network)
    for bad in (x[0], x[..., :-1], x[None]):
        with pytest.raises(ValueError, match=rf"{name} expects \['N', .*\], got \["):
            network(bad)


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments(name):
    with pytest.raises(ValueError, match="shape must"):
        make(name, (1, 0, 8))
    with pytest.raises(ValueError, match="shape must"):
        make(name, ())
    with pytest.raises(ValueError, match="n_classes must be at least 0; got -1"):
        make(name, n_classes=-1)
    for argument, value in ARGUMENTS[name].items():
        wrong = (4, 0) if isinstance(value, tuple) else 0
        with pytest.raises(ValueError, match=f"{argument} must be at least 1; got"):
            make(name, **{argument: wrong})
        if argument == "channels":
            with pytest.raises(ValueError, match="channels must not be empty"):
                make(name, channels=())
    if name in IMAGES:
        with pytest.raises(ValueError, match=r"shape must be \(C, H, W\)"):
            make(name, (28, 28))


def test_strides_must_fit_the_channels():
    with pytest.raises(ValueError, match="equally many"):
        nn.ConvEncoder((1, 8, 8), 2, channels=(4, 4))
    with pytest.raises(ValueError, match="one stride more"):
        nn.ConvDecoder(2, (1, 8, 8), channels=(4, 4))


def test_normalisation_of_the_dense_generator():
    norms = [make("MLPGenerator", norm=norm).state_dict() for norm in ("batch", "none")]
    assert [any("running_mean" in name for name in names) for names in norms] == [True, False]
    with pytest.raises(ValueError, match=r'norm must be "batch" or "none"; got \'layer\''):
        make("MLPGenerator", norm="layer")


@pytest.mark.parametrize("name", ["MLPEncoder", "MLPDecoder", "MLPGenerator", "MLPDiscriminator"])
@pytest.mark.parametrize("shape", [(7,), (5, 3), (2, 3, 4, 5)], ids=str)
def test_dense_networks_take_any_shape(name, shape):
    network = make(name, shape, hidden=())
    assert network(*rows(network)).shape == (N_ROWS, *result(network))


@pytest.mark.parametrize("strides", [(1, 1, 1, 1), (2, 2, 2, 2), (1, 3, 2, 1)])
@pytest.mark.parametrize("name", ["ConvEncoder", "ConvDecoder"])
def test_strides(name, strides):
    network = make(name, (1, 13, 6), strides=strides)
    assert network(*rows(network)).shape == (N_ROWS, *result(network))


def test_decoders_return_logits():
    for name in ("MLPDecoder", "ConvDecoder"):
        network = make(name)
        with torch.no_grad():
            assert network(100 * rows(network)[0]).abs().max() > 2


def test_the_middle_is_what_crops_and_pads():
    """A generator of 5x7 makes 8x8; its discriminator sees the picture in the middle of 8x8."""
    generator = make("DCGANGenerator", (1, 5, 7)).eval()
    x = rows(generator)[0]
    whole = generator.layers(x)
    assert whole.shape == (N_ROWS, 1, 8, 8)
    assert torch.equal(generator(x), whole[:, :, 1:6, 0:7])
    discriminator = make("DCGANDiscriminator", (1, 5, 7)).eval()
    picture = torch.zeros(N_ROWS, 1, 8, 8)
    picture[:, :, 1:6, 0:7] = torch.randn(N_ROWS, 1, 5, 7)
    assert torch.equal(discriminator(picture[:, :, 1:6, 0:7]), discriminator.layers(picture)[:, 0])


def test_torch_compile():
    network = make("DCGANGenerator", (1, 33, 47), n_classes=3).eval()
    inputs = rows(network)
    compiled = torch.compile(network, fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)


def test_conv_decoder_begins_at_the_mean_of_each_channel():
    decoder = nn.ConvDecoder(3, (2, 8, 6))
    mean = torch.stack([torch.full((8, 6), 0.2), torch.linspace(0.5, 0.9, 48).view(8, 6)])
    decoder.begin_at(mean)
    made = decoder(torch.zeros(1, 3)).sigmoid()[0].mean((1, 2))
    torch.testing.assert_close(made, torch.tensor([0.2, 0.7]), rtol=0, atol=0.02)
    decoder.begin_at(torch.stack([torch.zeros(8, 6), torch.ones(8, 6)]))
    assert all(value.isfinite().all() for value in decoder.state_dict().values())
