"""Accelerated networks compute what they did, of whatever form they are."""

import copy

import pytest
import torch
from published_forms import CHANNELS, FORMS, LATENT
from torch import nn

import pygen
from pygen.nn import accelerated

# Of a tensor's largest number. Seen: 2e-14 and 7e-6; after training 1e-9 and 2e-7.
ONE_PASS = {torch.float64: 1e-12, torch.float32: 1e-4}
TRAINED = {torch.float64: 1e-7, torch.float32: 1e-5}


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def networks(form, dtype=torch.float64):
    torch.manual_seed(0)
    return [kind().to(dtype) for kind in FORMS[form]]


def closest(tensors, others, tolerance):
    tensors, others = dict(tensors), dict(others)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        scale = max(0.01, others[name].abs().max().item())
        torch.testing.assert_close(
            tensor, others[name], rtol=0, atol=tolerance * scale, msg=lambda m, n=name: f"{n}: {m}"
        )


def inputs(form, dtype, n=5):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(n, LATENT, 1, 1, generator=generator, dtype=dtype)
    x = torch.rand(n, CHANNELS, 32, 32, generator=generator, dtype=dtype) * 2 - 1
    return z, x


EXPECTED = {
    "sequential": (
        [[f"main.{i}" for i in run] for run in [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10)]],
        [[f"main.{i}" for i in run] for run in [(0, 1), (2, 3, 4), (5, 6, 7), (8, 9)]],
    ),
    "blocks": (
        [[f"blocks.{i}.conv", f"blocks.{i}.norm", "blocks.0.activation"] for i in (0, 1)]
        + [["output"]],
        [[f"middle.{i}.{name}" for name in ("conv", "norm", "act")] for i in (0, 1)],
    ),
    "functional": (
        [["deconv1", "bn1"], ["deconv2", "bn2"], ["deconv3", "bn3"], ["deconv4"]],
        [["conv1"], ["conv2", "bn2"], ["conv3", "bn3"], ["conv4"]],
    ),
}


def test_runs_that_are_found(form):
    for network, expected in zip(networks(form), EXPECTED[form], strict=True):
        assert accelerated(network).runs == []
        pygen.accelerate(network, verbose=False)
        report = accelerated(network)
        assert [list(run.names) for run in report.runs] == expected
        n_convolutions = sum(
            isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in network.modules()
        )
        assert len(report.left_alone) == n_convolutions - len(expected)
        assert not report.untraced
        assert all(report.left_alone.values())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_outputs_and_gradients(form, dtype, training):
    for network, x in zip(networks(form, dtype), inputs(form, dtype), strict=True):
        other = pygen.accelerate(network, copy=True, verbose=False)
        results = []
        for each in (network, other):
            each.train()
            # Running statistics of their own, for evaluation.
            each(x)
            each.train(training)
            leaf = x.clone().requires_grad_()
            y = each(leaf)
            y.square().mean().backward()
            gradients = {f"{name}.grad": p.grad for name, p in each.named_parameters()}
            results.append({"y": y, "x.grad": leaf.grad, **gradients, **each.state_dict()})
        closest(*reversed(results), ONE_PASS[dtype])
        assert results[0]["y"].stride() == results[1]["y"].stride()


def train(generator, discriminator, dtype, steps=20):
    """A GAN's training as tutorials write it."""
    random = torch.Generator().manual_seed(2)
    loss = nn.BCELoss()
    adam_d = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    adam_g = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real, fake = torch.ones(8, dtype=dtype), torch.zeros(8, dtype=dtype)
    for _ in range(steps):
        x = torch.rand(8, CHANNELS, 32, 32, generator=random, dtype=dtype) * 2 - 1
        z = torch.randn(8, LATENT, 1, 1, generator=random, dtype=dtype)
        discriminator.zero_grad()
        loss(discriminator(x), real).backward()
        made = generator(z)
        loss(discriminator(made.detach()), fake).backward()
        adam_d.step()
        generator.zero_grad()
        loss(discriminator(made), real).backward()
        adam_g.step()


def without_idle_biases(state, network):
    """Biases that batch norm takes away go where rounding leads Adam; in a run their gradient is 0."""
    normed = [run for run in accelerated(network).runs if "BatchNorm2d" in run.kinds]
    idle = {f"{run.names[0]}.bias" for run in normed}
    idle |= {f"{run.names[1]}.running_mean" for run in normed if f"{run.names[0]}.bias" in state}
    return {name: tensor for name, tensor in state.items() if name not in idle}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_twenty_steps_of_a_gan(form, dtype):
    originals = networks(form, dtype)
    others = [pygen.accelerate(network, copy=True, verbose=False) for network in originals]
    before = copy.deepcopy(originals[0].state_dict())
    train(*originals, dtype)
    train(*others, dtype)
    moved = max((v - before[k]).abs().max() for k, v in originals[0].state_dict().items())
    assert moved > 1e-3
    for original, other in zip(originals, others, strict=True):
        compared = [original.state_dict(), other.state_dict()]
        if dtype == torch.float32:
            compared = [without_idle_biases(state, other) for state in compared]
        closest(*compared, TRAINED[dtype])


def test_checkpoints_in_both_directions(form, tmp_path):
    for network, x in zip(networks(form), inputs(form, torch.float64), strict=True):
        network(x)
        torch.save(network.state_dict(), tmp_path / "before.pt")
        other = pygen.accelerate(type(network)().double(), verbose=False)
        other.load_state_dict(torch.load(tmp_path / "before.pt"), strict=True)
        torch.testing.assert_close(other.eval()(x), network.eval()(x))
        other.train()(x)
        torch.save(other.state_dict(), tmp_path / "after.pt")
        plain = type(network)().double()
        plain.load_state_dict(torch.load(tmp_path / "after.pt"), strict=True)
        torch.testing.assert_close(plain.eval()(x), other.eval()(x))
        assert list(other.state_dict()) == list(network.state_dict())
        assert [n for n, _ in other.named_modules()] == [n for n, _ in network.named_modules()]


def test_restore_gives_the_very_classes_back(form):
    for network in networks(form):
        before = [(m, type(m), {**m.__dict__}) for m in network.modules()]
        assert pygen.accelerate(network, verbose=False) is network
        assert [type(m) for m in network.modules()] != [kind for _, kind, _ in before]
        assert pygen.restore(network) is network
        assert [(m, type(m), m.__dict__) for m in network.modules()] == before


def test_a_copy_leaves_the_original(form):
    for network in networks(form):
        kinds = [type(m) for m in network.modules()]
        other = pygen.accelerate(network, copy=True, verbose=False)
        assert other is not network
        assert [type(m) for m in network.modules()] == kinds
        assert accelerated(other).runs
        assert not accelerated(network).runs


def test_twice_is_once(form, capsys):
    network = pygen.accelerate(networks(form)[0])
    first = capsys.readouterr().out
    kinds = [type(m) for m in network.modules()]
    pygen.accelerate(network)
    assert capsys.readouterr().out == first
    assert [type(m) for m in network.modules()] == kinds
    assert str(accelerated(network)) in first


def test_bad_arguments():
    with pytest.raises(TypeError, match=r"needs a torch\.nn\.Module; got function"):
        pygen.accelerate(lambda x: x)


def test_nothing_to_do(capsys):
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert pygen.accelerate(network) is network
    assert "no convolutions, nothing to do" in capsys.readouterr().out
    assert type(network[1]) is nn.ReLU
