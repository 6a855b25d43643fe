"""ConvBnAct2d and ConvTransposeBnAct2d against PyTorch's own three layers, in float64."""

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from torch import nn

import pygen
from pygen.nn import ConvBnAct2d, ConvTransposeBnAct2d, accelerated, dcgan_init_, fold

KINDS = [ConvBnAct2d, ConvTransposeBnAct2d]
HOT = {"kernel_size": 4, "stride": 2, "padding": 1}
LAYERS = {
    "none": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
OF_NORM = ("eps", "momentum", "affine", "track_running_stats")


def plain(kind, *, norm="batch", activation="relu", slope=0.01, bias=False, **options):
    """The same out of PyTorch's layers, with as many random draws."""
    of_norm = {name: options.pop(name) for name in OF_NORM if name in options}
    layer = nn.Conv2d if kind is ConvBnAct2d else nn.ConvTranspose2d
    layers = OrderedDict(conv=layer(4, 6, bias=bias, **options))
    if norm == "batch":
        layers["norm"] = nn.BatchNorm2d(6, **of_norm)
    slopes = {"negative_slope": slope} if activation == "leaky_relu" else {}
    layers["activation"] = LAYERS[activation](**slopes)
    return nn.Sequential(layers).double()


def both(kind, **options):
    torch.manual_seed(0)
    network = plain(kind, **options)
    torch.manual_seed(0)
    block = kind(4, 6, **options, dtype=torch.float64)
    for name, parameter in network.named_parameters():
        if name != "conv.weight":
            with torch.no_grad():
                parameter.uniform_(0.5, 1.5)
    block.load_state_dict(network.state_dict(), strict=True)
    return network, block


def picture(seed=1, n=3):
    return torch.randn(
        n, 4, 8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def agree(network, block, x=None):
    """Results, all gradients and buffers of a pass in whatever mode they are in."""
    results = []
    for each in (network, block):
        leaf = (picture() if x is None else x).clone().requires_grad_()
        each.zero_grad()
        y = each(leaf)
        (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape).cos()).sum().backward()
        gradients = {f"{name}.grad": p.grad for name, p in each.named_parameters()}
        results.append({"y": y, "x.grad": leaf.grad, **gradients, **dict(each.named_buffers())})
    assert results[0].keys() == results[1].keys()
    for name, tensor in results[0].items():
        torch.testing.assert_close(
            results[1][name],
            tensor,
            rtol=1e-9,
            atol=1e-11,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def agree_in_both_modes(network, block):
    agree(network, block)
    agree(network.eval(), block.eval(), picture(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", LAYERS)
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("bias", [True, False])
def test_activations(kind, activation, norm, bias):
    networks = both(kind, **HOT, activation=activation, slope=0.2, norm=norm, bias=bias)
    agree_in_both_modes(*networks)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3},
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": (0, 1), "dilation": (2, 1)},
        {**HOT, "groups": 2},
        {"kernel_size": (8, 6)},
    ],
    ids=str,
)
def test_geometries(kind, geometry):
    agree_in_both_modes(*both(kind, **geometry))


def test_geometries_of_one_kind():
    agree_in_both_modes(
        *both(ConvTransposeBnAct2d, kernel_size=3, stride=2, padding=1, output_padding=1)
    )
    agree_in_both_modes(*both(ConvBnAct2d, kernel_size=3, padding="same"))


@pytest.mark.parametrize("padding_mode", ["reflect", "replicate", "circular"])
def test_padding_modes(padding_mode):
    agree_in_both_modes(*both(ConvBnAct2d, **HOT, padding_mode=padding_mode))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {"momentum": None},
        {"momentum": 0.4, "eps": 0.1},
        {"affine": False},
        {"track_running_stats": False},
    ],
    ids=str,
)
def test_options_of_batch_norm(kind, options):
    network, block = both(kind, **HOT, **options)
    for seed in range(3):
        agree(network, block, picture(seed))
    agree_in_both_modes(network, block)


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_those_of_the_plain_layers(kind):
    torch.manual_seed(3)
    expected = plain(kind, **HOT, bias=True).state_dict()
    torch.manual_seed(3)
    state = kind(4, 6, **HOT, bias=True).double().state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor.to(state[name].dtype), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_in_both_directions(kind, tmp_path):
    network, block = both(kind, **HOT)
    block(picture())
    torch.save(block.state_dict(), tmp_path / "block.pt")
    assert list(block.state_dict()) == [
        "conv.weight",
        *[f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")],
        "norm.num_batches_tracked",
    ]
    network.load_state_dict(torch.load(tmp_path / "block.pt"), strict=True)
    agree_in_both_modes(network, block)
    torch.save(network.state_dict(), tmp_path / "network.pt")
    other = kind(4, 6, **HOT, dtype=torch.float64).eval()
    other.load_state_dict(torch.load(tmp_path / "network.pt"), strict=True)
    agree(network, other)


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_computed_together(kind, monkeypatch):
    _, block = both(kind, **HOT)
    assert [run.names for run in accelerated(block).runs] == [("conv", "norm", "activation")]
    monkeypatch.setattr(nn.functional, "batch_norm", None)
    monkeypatch.setattr(nn.functional, "relu", None)
    block(picture())
    pygen.restore(block)
    with pytest.raises(TypeError, match="not callable"):
        block(picture())


def test_what_accelerate_leaves_alone_does_its_own_work():
    assert accelerated(ConvBnAct2d(4, 6, 3, padding=1, padding_mode="reflect")).runs == []
    assert accelerated(ConvBnAct2d(4, 6, 3, norm="none", activation="none")).runs == []
    assert accelerated(ConvBnAct2d(4, 6, 3, dtype=torch.complex64)).runs == []


@pytest.mark.parametrize("kind", KINDS)
def test_copies(kind):
    network, block = both(kind, **HOT)
    for copied in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert accelerated(copied).runs
        agree(copy.deepcopy(network), copied)
        with torch.no_grad():
            copied.norm.weight.fill_(7.0)
        assert not (block.norm.weight == 7).any()
    agree_in_both_modes(network, block)


@pytest.mark.parametrize("kind", KINDS)
def test_restored_and_accelerated(kind):
    network, block = both(kind, **HOT)
    pygen.restore(block)
    assert not accelerated(block).runs
    agree(network, block)
    pygen.accelerate(block, verbose=False)
    assert accelerated(block).runs
    agree_in_both_modes(network, block)


@pytest.mark.parametrize("kind", KINDS)
def test_folded(kind):
    network, block = both(kind, **HOT)
    agree(network, block)
    folded = fold(block)
    assert type(folded.norm) is nn.Identity
    torch.testing.assert_close(folded(picture(2)), network.eval()(picture(2)))


@pytest.mark.parametrize("kind", KINDS)
def test_spectral_norm_and_frozen_parts(kind):
    network, block = both(kind, **HOT)
    for each in (network, block):
        torch.manual_seed(1)
        nn.utils.parametrizations.spectral_norm(each.conv)
        each.norm.weight.requires_grad_(False)
    agree_in_both_modes(network, block)


@pytest.mark.parametrize("kind", KINDS)
def test_hooks(kind):
    network, block = both(kind, **HOT)
    made = []
    block.norm.register_forward_hook(lambda module, args, y: made.append(y))
    agree(network, block)
    torch.testing.assert_close(made[0], network[:2](picture()))


@pytest.mark.parametrize("kind", KINDS)
def test_batch_norm_converted(kind):
    network, block = both(kind, **HOT)
    block = nn.SyncBatchNorm.convert_sync_batchnorm(block)
    assert type(block.norm) is nn.SyncBatchNorm
    agree(network.eval(), block.eval())


@pytest.mark.parametrize("kind", KINDS)
def test_radfords_weights(kind):
    torch.manual_seed(0)
    block = dcgan_init_(kind(64, 32, 4, bias=True))
    assert block.conv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.norm.weight.mean().item() == pytest.approx(1, abs=0.02)
    assert not block.conv.bias.any()


@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind):
    network, block = both(kind, **HOT)
    block.compile(fullgraph=True, backend="aot_eager")
    for training in (True, True, False):
        agree(network.train(training), block.train(training))
    torch.compiler.reset()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [True, False])
def test_memory_formats(kind, layout, training):
    networks = [each.to(memory_format=layout).train(training) for each in both(kind, **HOT)]
    x = picture().to(memory_format=layout)
    expected, y = (each(x) for each in networks)
    assert y.is_contiguous(memory_format=layout)
    assert y.stride() == expected.stride()
    agree(*networks, x)


@pytest.mark.parametrize("kind", KINDS)
def test_devices_and_dtypes(kind):
    block = kind(4, 6, **HOT, bias=True, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in block.parameters()} == {("meta", torch.bfloat16)}
    y = kind(4, 6, **HOT).to(torch.bfloat16)(picture().bfloat16())
    assert y.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", KINDS)
def test_bad_arguments(kind):
    with pytest.raises(ValueError, match='norm must be "batch" or "none"; got \'layer\''):
        kind(4, 6, 3, norm="layer")
    with pytest.raises(ValueError, match=r"activation must be none, relu.*; got 'gelu'"):
        kind(4, 6, 3, activation="gelu")
    with pytest.raises(ValueError, match="divisible by groups"):
        kind(4, 6, 3, groups=3)
    with pytest.raises(ValueError, match="padding"):
        kind(4, 6, 3, padding_mode="reflexion")
    block = kind(4, 6, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        block(picture(n=1)[..., :1, :1])
    with pytest.raises(RuntimeError, match="channels"):
        block(picture()[:, :3])
