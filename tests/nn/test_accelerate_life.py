"""What people do with a network goes on working once it is accelerated."""

import copy
import gc
import pickle
import threading

import pytest
import torch
import torch.distributed
from published_forms import CHANNELS, FORMS, LATENT, WIDTH, weights_init
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import pygen
from pygen.nn import accelerated


@pytest.fixture
def pair():
    """A small network, and an accelerated copy."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 2, 4, 2, 1),
        nn.BatchNorm2d(2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(2, 3, 3),
        nn.Tanh(),
    ).double()
    return network, pygen.accelerate(network, copy=True, verbose=False)


@pytest.fixture
def x():
    return torch.randn(
        4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    ).requires_grad_()


def agree(network, other, x, **tolerance):
    torch.testing.assert_close(other(x), network(x), **tolerance)
    torch.testing.assert_close(
        dict(other.named_buffers()), dict(network.named_buffers()), **tolerance
    )


def test_copies(pair, x):
    network, other = pair
    for copied in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert [run.names for run in accelerated(copied).runs] == [
            run.names for run in accelerated(other).runs
        ]
        agree(copy.deepcopy(network), copied, x)
        with torch.no_grad():
            copied[1].weight.fill_(3.0)
        assert not (other[1].weight == 3).any()
    agree(network, other, x)


def test_a_copied_layer_does_its_own_work(pair, x):
    network, other = pair
    for copied in (copy.deepcopy(other[0]), pickle.loads(pickle.dumps(other[0]))):
        torch.testing.assert_close(copied(x), network[0](x))
    torch.testing.assert_close(copy.deepcopy(other[:2])(x), copy.deepcopy(network[:2])(x))
    torch.testing.assert_close(copy.copy(other[0])(x), network[0](x))
    agree(network, other, x)


def test_files(pair, x, tmp_path):
    network, other = pair
    torch.save(other, tmp_path / "network.pt")
    loaded = torch.load(tmp_path / "network.pt", weights_only=False)
    assert len(accelerated(loaded).runs) == 3
    agree(network, loaded, x)
    torch.save(other(x), tmp_path / "y.pt")
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), other(x), rtol=1, atol=1)


def test_dtypes_and_devices(pair, x):
    network, other = pair
    for dtype, tolerance in [(torch.float32, 1e-5), (torch.bfloat16, 0.05)]:
        agree(network.to(dtype), other.to(dtype), x.to(dtype), rtol=tolerance, atol=tolerance)
    network.to("meta")
    x = x.to("meta", dtype)
    assert other.to("meta")(x).shape == network(x).shape


def test_autocast(pair, x):
    network, other = (each.float() for each in pair)
    with torch.autocast("cpu", torch.bfloat16):
        expected, y = network(x.float()), other(x.float())
    torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)


def test_memory_formats(pair, x):
    network, other = pair
    for each in (x, x.to(memory_format=torch.channels_last), x.transpose(2, 3), x[:, :, ::2]):
        agree(network, other, each)
        assert other(each).stride() == network(each).stride()
    other[3].register_forward_hook(lambda module, x, y: None)
    assert other[:4](x).stride() == network[:4](x).stride()


def test_what_batch_norm_wants_to_know(pair):
    _, other = pair
    norm = other[1]
    for x in (torch.randn(1, 3, 4, 4), torch.randn(2, 3, 0, 4)):
        before = norm.num_batches_tracked.clone()
        with pytest.raises((ValueError, RuntimeError)):
            other(x)
        assert torch.equal(norm.num_batches_tracked, before)


def test_modes_and_frozen_parts(pair, x):
    network, other = pair
    for each in pair:
        each(x)
        each[1].eval()
        each[3].requires_grad_(False)
        each[4].weight.requires_grad_(False)
    agree(network, other, x)
    other(x).sum().backward()
    network(x).sum().backward()
    for a, b in zip(other.parameters(), network.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None)
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-10)
    agree(network.eval(), other.eval(), x)


def test_optimizers_made_before(pair, x):
    network, _ = pair
    rates = torch.optim.SGD(network.parameters(), lr=0.1)
    before = [p.detach().clone() for p in network.parameters()]
    pygen.accelerate(network, verbose=False)
    network(x).square().sum().backward()
    rates.step()
    same = [
        name
        for (name, p), q in zip(network.named_parameters(), before, strict=True)
        if torch.equal(p, q)
    ]
    assert same == ["3.bias"]  # batch norm takes it away


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_drawn_by_the_names_of_classes(form):
    for kind in FORMS[form]:
        states = []
        for accelerates in (False, True):
            torch.manual_seed(2)
            network = kind()
            if accelerates:
                pygen.accelerate(network, verbose=False)
            torch.manual_seed(3)
            states.append(network.apply(weights_init).state_dict())
        torch.testing.assert_close(*states, rtol=0, atol=0)


def test_a_gradient_penalty():
    torch.manual_seed(0)
    critic = nn.Sequential(
        nn.Conv2d(CHANNELS, WIDTH, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(WIDTH, WIDTH * 2, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(WIDTH * 2, 1, 8),
    ).double()
    other = pygen.accelerate(critic, copy=True, verbose=False)
    assert len(accelerated(other).runs) == 2
    gradients = []
    for each in (critic, other):
        x = torch.randn(3, CHANNELS, 32, 32, generator=torch.Generator().manual_seed(1))
        x = x.double().requires_grad_()
        (dx,) = torch.autograd.grad(each(x).sum(), x, create_graph=True)
        ((dx.flatten(1).norm(dim=1) - 1) ** 2).mean().backward()
        gradients.append([p.grad for p in each.parameters()])
    # The penalty does not know the last bias.
    torch.testing.assert_close(gradients[0][:-1], gradients[1][:-1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("position", range(8))
@pytest.mark.parametrize("kind", ["forward", "pre", "backward"])
def test_hooks_registered_after(pair, x, position, kind):
    network, other = pair
    seen = {network: [], other: []}
    for each, record in seen.items():
        layer = each[position]
        if kind == "forward":
            hook = layer.register_forward_hook(lambda m, x, y, r=record: r.append(y.clone()))
        elif kind == "pre":
            hook = layer.register_forward_pre_hook(lambda m, x, r=record: r.append(x[0].clone()))
        else:
            # PyTorch refuses these before layers that work in place.
            for member in each:
                member.inplace = False
            hook = layer.register_full_backward_hook(
                lambda m, dx, dy, r=record: r.append(dy[0].clone())
            )
        each(x).square().sum().backward()
        hook.remove()
        each(x)
    assert len(seen[network]) == 1
    torch.testing.assert_close(seen[network], seen[other])


def test_global_hooks(pair, x):
    network, other = pair
    seen = []
    hook = nn.modules.module.register_module_forward_hook(lambda m, x, y: seen.append(y.clone()))
    try:
        network(x), other(x)
    finally:
        hook.remove()
    half = len(seen) // 2
    torch.testing.assert_close(seen[half:], seen[:half])


def test_a_parametrisation_registered_after(pair, x):
    network, other = pair
    for each in pair:
        torch.manual_seed(4)
        parametrizations.spectral_norm(each[3])
    agree(network, other, x)
    agree(network, pygen.restore(other), x)
    for each in pair:
        torch.nn.utils.parametrize.remove_parametrizations(each[3], "weight")
    agree(network, other, x)
    pygen.restore(other)
    assert [type(layer) for layer in other] == [type(layer) for layer in network]


@pytest.mark.parametrize("position", [1, 2, 4, 7])
def test_a_replaced_layer(pair, x, position):
    network, other = pair
    gc.disable()
    try:
        for each in pair:
            each[position] = nn.Identity()
        agree(network, other, x)
    finally:
        gc.enable()


def test_batch_norm_converted(pair, x):
    network, other = pair
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(other)
    assert type(converted[1]) is nn.SyncBatchNorm
    agree(network.eval(), converted.eval(), x)
    assert [run.names for run in accelerated(converted).runs] == [("6", "7")]


def test_a_layer_called_by_itself(pair, x):
    network, other = pair
    torch.testing.assert_close(other[1](x[:, [0, 1, 2, 0]]), network[1](x[:, [0, 1, 2, 0]]))
    torch.testing.assert_close(other[2](x - 1), network[2](x - 1))
    y = other(x)
    torch.testing.assert_close(other[7](y), y.tanh())


def test_a_part_of_a_run_is_an_error(pair, x):
    _, other = pair
    other[:2](x)
    with pytest.raises(RuntimeError, match=r"did not go through .* use pygen.restore\(network\)"):
        other(x)
    # As when a call was interrupted.
    expected = other(x)
    torch.testing.assert_close(other(x), expected)


def test_restoring_a_part(pair, x):
    network, other = pair
    for part in (other[0], other[4], other[7]):
        pygen.restore(part)
    agree(network, other, x)
    assert accelerated(other).runs == []


def test_shallow_copies_do_their_own_work(pair, x):
    """What `nn.DataParallel` makes."""
    network, other = pair
    replicas = [layer._replicate_for_data_parallel() for layer in other]
    for replica, layer in zip(replicas, other, strict=True):
        for name, parameter in layer._parameters.items():
            setattr(replica, name, None if parameter is None else parameter * 1)
    y, expected = x, x
    for replica, layer in zip(replicas, network, strict=True):
        y, expected = replica(y), layer(expected)
        torch.testing.assert_close(y, expected)


def test_threads(pair, x):
    network, other = (each.eval() for each in pair)
    inputs = [x.detach() * scale for scale in (1, 2, 3, 4)]
    expected = [network(each) for each in inputs]
    wrong = []

    def work(i):
        try:
            for _ in range(30):
                with torch.no_grad():
                    torch.testing.assert_close(other(inputs[i]), expected[i])
        except (AssertionError, RuntimeError) as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_checkpointed_activations(pair, x):
    network, other = pair
    gradients = []
    for each in pair:
        for _ in range(2):
            each.zero_grad()
            checkpoint(each, x, use_reentrant=False).square().sum().backward()
        gradients.append([p.grad for p in each.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-10)
    agree(network, other, x)


def test_distributed(pair, x, tmp_path):
    network, other = pair
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        wrapped = DistributedDataParallel(other)
        for each in (network, wrapped):
            for _ in range(2):
                each(x).square().sum().backward()
        for a, b in zip(other.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10)
        again = DistributedDataParallel(pygen.restore(other))
        assert len(accelerated(pygen.accelerate(again, verbose=False)).runs) == 3
        agree(network, again.module, x)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("form", FORMS)
def test_compiled(form):
    generator, discriminator = (kind().double() for kind in FORMS[form])
    z = torch.randn(4, LATENT, 1, 1, dtype=torch.float64)
    for network, inputs in [(generator, z), (discriminator, generator(z).detach())]:
        for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
            # A mean of all batches asks for their number, which no graph holds.
            norm.momentum = 0.1
        other = pygen.accelerate(network, copy=True, verbose=False)
        compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
        for training in (True, True, False):
            y, expected = compiled.train(training)(inputs), network.train(training)(inputs)
            torch.testing.assert_close(y, expected)
        compiled.train()(inputs).sum().backward()
        network.train()(inputs).sum().backward()
        for a, b in zip(other.parameters(), network.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-9, atol=1e-10)
        agree(network, other, inputs)
    torch.compiler.reset()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_layer_compiled(pair, x, position):
    network, other = pair
    other[position].compile(fullgraph=True, backend="aot_eager")
    for _ in range(3):
        agree(network, other, x)
    torch.compiler.reset()


def test_transforms(pair, x):
    network, other = (each.eval() for each in pair)

    def gradients(each):
        def loss(parameters, row):
            return torch.func.functional_call(each, parameters, (row[None],)).square().sum()

        return torch.func.vmap(torch.func.grad(loss), (None, 0))(dict(each.named_parameters()), x)

    torch.testing.assert_close(gradients(other), gradients(network))
    parameters = {name: p * 2 for name, p in network.named_parameters()}
    torch.testing.assert_close(
        torch.func.functional_call(other, parameters, (x,)),
        torch.func.functional_call(network, parameters, (x,)),
    )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_programs_hold_pytorchs_operators_alone(pair, x):
    network, other = (each.eval() for each in pair)
    program = torch.export.export(other, (x.detach(),))
    assert not [n for n in program.graph.nodes if "pygen" in str(n.target)]
    torch.testing.assert_close(program.module()(x), network(x))
    traced = torch.jit.trace(other, x)
    assert "pygen::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), network(x))


def test_layers_are_computed_together(pair, x, monkeypatch):
    """Otherwise all of these tests would hold for layers that do nothing new."""
    _, other = pair
    for function in ("batch_norm", "conv_transpose2d", "leaky_relu", "relu"):
        monkeypatch.setattr(nn.functional, function, None)
    other(x)
