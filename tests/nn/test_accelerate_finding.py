"""Which runs are found, and why the rest is left alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import pygen
from pygen.nn import accelerated
from pygen.nn.runs import find_runs


def found(network):
    """The runs that are made, once outputs are known to be what they were, in both modes."""
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    network.double()
    other = pygen.accelerate(network, copy=True, verbose=False)
    for training in (True, True, False):
        expected, y = network.train(training)(x), other.train(training)(x)
        if isinstance(expected, torch.Tensor):
            expected, y = [expected], [y]
        for pair in zip(y, expected, strict=True):
            torch.testing.assert_close(*pair, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dict(other.named_buffers()), dict(network.named_buffers()))
    return [run.names for run in accelerated(other).runs]


def reason(network):
    (why,) = accelerated(network).left_alone.values()
    return why


class Layers(nn.Module):
    """Three layers, used as a function says."""

    def __init__(self, use, **others):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.act = nn.ReLU()
        self.use = use
        for name, module in others.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.use(self, x)


class OfTwoDevices(nn.Module):
    """What PyTorch's tutorial had before 2024: a question that tracing cannot answer."""

    def __init__(self):
        super().__init__()
        self.ngpu = 1
        self.main = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU(), nn.Conv2d(4, 1, 3)
        )

    def forward(self, x):
        if x.is_cuda and self.ngpu > 1:
            return nn.parallel.data_parallel(self.main, x, range(self.ngpu))
        return self.main(x)


def test_sequential_in_what_cannot_be_traced():
    network = OfTwoDevices()
    assert found(network) == [("main.0.0", "main.0.1", "main.1")]
    report = accelerated(network)
    assert list(report.untraced) == [""]
    assert "control flow" in report.untraced[""]
    assert report.left_alone["main.2"] == "its result is returned"


def test_a_sequential_with_a_part_that_cannot_be_traced():
    part = Layers(lambda self, x: self.act(self.norm(self.conv(x))) if x.sum() > -1e9 else x)
    whole = Layers(lambda self, x: self.act(self.norm(self.conv(x))))
    network = nn.Sequential(part, nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), whole)
    assert found(network) == [("1", "2"), ("3.conv", "3.norm", "3.act")]
    report = accelerated(pygen.accelerate(network, verbose=False))
    assert list(report.untraced) == ["0"]
    assert report.left_alone == {"0.conv": "no forward that can be traced calls it"}


@pytest.mark.parametrize(
    ("use", "runs", "why"),
    [
        (lambda m, x: F.relu(m.norm(m.conv(x))), [("conv", "norm")], "then relu, which is no"),
        (lambda m, x: m.norm(m.conv(x)).relu(), [("conv", "norm")], "then relu, which is no"),
        (lambda m, x: m.act(m.conv(x)), [("conv", "act")], ""),
        (lambda m, x: m.norm(m.act(m.conv(x))), [("conv", "act")], ""),
        (lambda m, x: m.act(m.norm(m.conv(x))) + x, [("conv", "norm", "act")], ""),
        (lambda m, x: m.act(x + m.norm(m.conv(x))), [("conv", "norm")], "then add"),
        (lambda m, x: m.act(m.act(m.norm(m.conv(x)))), [("conv", "norm", "act")], ""),
        (lambda m, x: m.act(m.norm(m.conv(m.act(x)))), [("conv", "norm", "act")], ""),
        (lambda m, x: m.norm(m.norm(m.conv(x))), [], "then BatchNorm2d, which is called more than"),
        (lambda m, x: m.norm(m.conv(m.conv(x))), [], "is called more than once"),
        (lambda m, x: [h := m.conv(x), m.norm(h)], [], "its result is used 2 times"),
        (lambda m, x: m.norm(m.conv(x).add_(1)), [], "then add_, which is no module"),
        (lambda m, x: m.norm(m.conv(x) + m.conv.weight.sum()), [], "then add"),
        (lambda m, x: m.norm(m.conv(x) if m.training else x), [("conv", "norm")], "is returned"),
        (lambda m, x: m.norm(m.conv(x)) if m.training else m.conv(x), [], "what follows differs"),
        (lambda m, x: [x := layer(x) for layer in m.children()], [], "its result is used 2 times"),
    ],
)
def test_uses_of_layers(use, runs, why):
    network = Layers(use)
    assert found(network) == runs
    report = accelerated(pygen.accelerate(network, verbose=False))
    (got,) = [run.end for run in report.runs] + list(report.left_alone.values())
    assert why in got
    assert bool(got) == bool(why)


def test_one_object_in_two_places():
    conv, norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    assert found(nn.Sequential(conv, norm, conv)) == []
    assert found(Layers(lambda m, x: m.norm(m.conv(x)), other=nn.ModuleList([conv, conv]))) == [
        ("conv", "norm")
    ]
    twice = Layers(lambda m, x: m.norm(m.conv(x)))
    twice.again = twice.norm
    assert found(twice) == []
    assert reason(twice) == "then BatchNorm2d, which is in more than one place"


def test_optional_arguments_are_tried():
    class Optional(Layers):
        def forward(self, x, mask=None):
            h = self.norm(self.conv(x))
            return self.act(h) if mask is None else h * mask

    class Features(Layers):
        def forward(self, x, features=False):
            h = self.conv(x)
            return h if features else self.act(self.norm(h))

    class Many(Layers):
        def forward(self, x, a=1, b=2, c=3, d=4):
            return self.act(self.norm(self.conv(x)))

    network = Optional(None)
    assert found(network) == [("conv", "norm")]
    other = pygen.accelerate(network, copy=True, verbose=False)
    x, mask = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(other(x, mask=mask), network(x, mask=mask))
    assert found(Features(None)) == []
    assert found(Many(None)) == []
    assert "more than 3 optional arguments" in accelerated(Many(None)).untraced[""]


def test_transposed_convolutions_that_are_told_their_size():
    network = Layers(lambda m, x: m.norm(m.conv(x, output_size=[17, 17])))
    network.conv = nn.ConvTranspose2d(3, 3, 3, 2)
    assert found(network) == []
    assert reason(network) == "is given more than a tensor"


class Mine(nn.Conv2d):
    pass


OBSTACLES = {
    "SyncBatchNorm": (1, lambda m: nn.SyncBatchNorm(3), "then SyncBatchNorm"),
    "instance norm": (1, lambda m: nn.InstanceNorm2d(3), "then InstanceNorm2d"),
    "spectral norm": (0, parametrizations.spectral_norm, "is parametrised"),
    "old spectral norm": (0, spectral_norm, "has SpectralNorm"),
    "weight norm": (0, parametrizations.weight_norm, "is parametrised"),
    "old weight norm": (0, weight_norm, "has WeightNorm"),
    "parametrised norm": (1, parametrizations.weight_norm, "BatchNorm2d, which is parametrised"),
    "padding": (
        0,
        lambda m: nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
        "has padding_mode='reflect'",
    ),
    "subclass": (0, lambda m: Mine(3, 3, 3), "is of a subclass"),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils:FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", OBSTACLES)
def test_layers_that_are_left_alone(name):
    position, make, why = OBSTACLES[name]
    layers = [nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()]
    if name == "parametrised norm":
        layers[1].weight = nn.Parameter(torch.ones(3, 1))
    network = nn.Sequential(*layers)
    network[position] = make(layers[position])
    assert why in reason(network)
    kinds = [type(layer) for layer in network]
    assert [type(layer) for layer in pygen.accelerate(network, verbose=False)] == kinds


def test_a_lazy_layer():
    network = nn.Sequential(nn.LazyConv2d(3, 3), nn.BatchNorm2d(3))
    assert "run the network once" in reason(network)
    network(torch.randn(1, 2, 8, 8))
    network = pygen.accelerate(network, verbose=False)
    assert len(accelerated(network).runs) == 1


def test_complex_weights():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, dtype=torch.complex64), nn.Tanh())
    assert reason(network) == "has complex weights"


HOOKS = {
    "forward": lambda m: m.register_forward_hook(lambda m, x, y: y * 2),
    "forward_pre": lambda m: m.register_forward_pre_hook(lambda m, x: (x[0] * 2,)),
    "backward": lambda m: m.register_full_backward_hook(lambda m, dx, dy: None),
    "backward_pre": lambda m: m.register_full_backward_pre_hook(lambda m, dy: None),
    "own": lambda m: setattr(m, "forward", lambda x: x * 2),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks(hook):
    for position, n_runs in [(0, 0), (1, 0), (2, 1)]:
        network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.Tanh())
        HOOKS[hook](network[position])
        runs = found(network)
        assert len(runs) == n_runs
        report = accelerated(pygen.accelerate(network, verbose=False))
        (why,) = [run.end for run in report.runs] + list(report.left_alone.values())
        assert "has hooks, or a forward of its own" in why


def test_searching_leaves_no_trace():
    def use(self, x):
        self.kept = x = x + torch.randn(3, 8, 8)
        return self.act(self.norm(self.conv(x)))

    network = Layers(use)
    network.norm.eval()
    before = [{**m.__dict__} for m in network.modules()]
    state = torch.get_rng_state()
    assert [run.names for run in find_runs(network).runs] == [("conv", "norm", "act")]
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.__dict__ for m in network.modules()] == before
    assert [m.training for m in network.modules()] == [True, True, False, True]


@pytest.mark.parametrize("act", [nn.ReLU(True), nn.LeakyReLU(0.2, True), nn.Tanh(), nn.Sigmoid()])
@pytest.mark.parametrize(
    "norm",
    [
        {},
        {"affine": False},
        {"momentum": None},
        {"momentum": 0.3, "eps": 0.1},
        {"track_running_stats": False},
        {"affine": False, "track_running_stats": False, "momentum": None},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 4, 4, 2, 1),
        nn.Conv2d(3, 6, (3, 2), (1, 2), "valid", 2, groups=3, bias=False),
        nn.Conv2d(3, 2, 5, padding="same"),
        nn.ConvTranspose2d(3, 4, 4, 2, 1),
        nn.ConvTranspose2d(3, 6, 3, (2, 3), (1, 0), (1, 2), groups=3, bias=False),
    ],
)
def test_every_kind_of_layer(conv, norm, act):
    network = nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels, **norm), act)
    assert found(network) == [("0", "1", "2")]


def test_pygens_own_networks():
    generator = pygen.nn.DCGANGenerator(5, (1, 28, 28), width=4)
    discriminator = pygen.nn.DCGANDiscriminator((1, 28, 28), width=4)
    assert [len(run.names) for run in accelerated_runs(generator)] == [3, 3, 2]
    assert [len(run.names) for run in accelerated_runs(discriminator)] == [2, 3]
    z = torch.randn(3, 5)
    expected = pygen.restore(pygen.accelerate(generator, copy=True, verbose=False))(z)
    torch.testing.assert_close(generator(z), expected)


def accelerated_runs(network):
    return accelerated(pygen.accelerate(network, verbose=False)).runs
