"""Which modules of a network form runs: a convolution, its batch norm, its activation.

Forward methods are traced by `torch.fx`; nothing is computed and nothing is changed.
"""

import inspect
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product, takewhile
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_NORM = nn.BatchNorm2d
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid)
_OPTIONAL_ARGUMENTS = 3
_NOT_CALLED = "no forward that can be traced calls it"


@dataclass(frozen=True)
class Run:
    """Modules of which each takes what the one before makes, and nobody else does.

    Attributes
    ----------
    names : tuple of str
        A convolution's name, then a batch norm's or an activation's, or both; none of them where the
        convolution by itself has a faster way.
    kinds : tuple of str
        Names of their classes.
    end : str
        Why the run does not go on.
    heir : str
        Name of the convolution that alone takes its result; empty if there is none.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    end: str
    heir: str = ""

    def __str__(self) -> str:
        members = zip(self.names, self.kinds, strict=True)
        return " + ".join(f"{name} {kind}" for name, kind in members)


@dataclass(frozen=True)
class Report:
    """What `find_runs` found.

    Attributes
    ----------
    runs : list of Run
    left_alone : dict of str to str
        Names of all other convolutions, and why each is in no run.
    untraced : dict of str to str
        Names of modules whose forward method cannot be traced, and why. Of what they hold, runs
        were looked for in every `nn.Sequential` and in every child by itself.
    """

    runs: list[Run]
    left_alone: dict[str, str]
    untraced: dict[str, str]

    def __str__(self) -> str:
        lines = [f"{len(self.runs)} of {len(self.runs) + len(self.left_alone)} convolutions:"]
        lines += [f"  {run}" + (f" ({run.end})" if run.end else "") for run in self.runs]
        lines += [f"  left alone: {name}: {why}" for name, why in self.left_alone.items()]
        lines += [
            f"  forward of {name or 'the network'} not traced, taken by nn.Sequential: {why}"
            for name, why in self.untraced.items()
        ]
        return "\n".join(lines) if len(lines) > 1 else "no convolutions, nothing to do"


def kind(module: nn.Module) -> type[nn.Module]:
    """The class of a module; of one that is accelerated, the class that it had."""
    return type(module).__dict__.get("accelerates", type(module))


def altered(module: nn.Module) -> bool:
    """Whether a call of the module does more than its class says: hooks, or a forward of its own."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def find_runs(module: nn.Module) -> Report:
    """Find the runs of a network.

    Parameters
    ----------
    module : nn.Module
        Left as it is. Its forward methods are run once or a few times, on stand-ins for tensors.

    Returns
    -------
    Report
    """
    names = {id(member): name for name, member in module.named_modules()}
    places = Counter(id(member) for _, member in module.named_modules(remove_duplicate=False))
    untraced: dict[str, str] = {}
    found: dict[int, list[Run]] = {}
    for root, graphs in _graphs(module, names, untraced):
        for graph in graphs:
            for convolution, run in _Calls(root, graph, places).runs(names):
                found.setdefault(id(convolution), []).append(run)
    runs, left_alone = [], {}
    for name, member in module.named_modules():
        if isinstance(member, _CONVOLUTIONS):
            run = _common(
                found.get(id(member), [Run((name,), (kind(member).__name__,), _NOT_CALLED)])
            )
            if len(run.names) > 1 or (has_faster_way(member) and not layer_obstacle(member)):
                runs.append(run)
            else:
                left_alone[name] = run.end
    return Report(runs, left_alone, untraced)


def has_kernel(convolution: Any) -> bool:
    """Whether it is DCGAN's: kernel 4, stride 2, padding 1."""
    return _is_of_four(convolution) and (convolution.stride, convolution.padding) == (
        (2, 2),
        (1, 1),
    )


def may_be_product(convolution: Any) -> bool:
    """Whether it is one of DCGAN's ends: one matrix product where the map is 4x4, or one pixel."""
    return _is_of_four(convolution) and convolution.padding == (0, 0)


def _is_of_four(convolution: Any) -> bool:
    return bool(
        (convolution.kernel_size, convolution.dilation) == ((4, 4), (1, 1))
        and (convolution.groups, convolution.output_padding) == (1, (0, 0))
    )


def has_faster_way(convolution: nn.Module) -> bool:
    """Whether there is one for a convolution alone, with no layer after it."""
    return has_kernel(convolution) or may_be_product(convolution)


def _common(runs: list[Run]) -> Run:
    """What a convolution's runs in several graphs start with."""
    if len({run.names for run in runs}) == 1:
        return runs[0] if len({run.heir for run in runs}) == 1 else replace(runs[0], heir="")
    columns = zip(*(run.names for run in runs), strict=False)
    n_equal = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    end = "what follows differs between training, evaluation and optional arguments"
    return Run(runs[0].names[:n_equal], runs[0].kinds[:n_equal], end)


class _Tracer(fx.Tracer):
    """Takes layers, and the modules that it is told to, for leaves."""

    def __init__(self, leaves: list[nn.Module]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        layers = (*_CONVOLUTIONS, _NORM, *_ACTIVATIONS)
        return (
            isinstance(m, layers)
            or any(m is leaf for leaf in self.leaves)
            or super().is_leaf_module(m, module_qualified_name)
        )


def _graphs(
    module: nn.Module, names: dict[int, str], untraced: dict[str, str]
) -> Iterator[tuple[nn.Module, list[fx.Graph]]]:
    """Graphs of a module's forward; where it cannot be traced, those of the modules that it holds."""
    if isinstance(module, (*_CONVOLUTIONS, _NORM, *_ACTIVATIONS)) or not any(module.children()):
        return
    try:
        yield module, _trace(module, [])
        return
    except Exception as error:  # A user's code, given something that it was not written for.
        why = str(error).strip().split("\n")[0] or type(error).__name__
    children = list(module.children())
    if type(module).forward is nn.Sequential.forward and "forward" not in module.__dict__:
        children = list(_links(module))
        yield module, _trace(module, children)
    elif not isinstance(module, nn.ModuleList | nn.ModuleDict):
        untraced[names[id(module)]] = why
    for child in children:
        yield from _graphs(child, names, untraced)


def _links(sequential: nn.Module) -> Iterator[nn.Module]:
    """The members of a chain, of chains in it too."""
    for child in sequential.children():
        if type(child) is nn.Sequential and not altered(child):
            yield from _links(child)
        else:
            yield child


def _trace(module: nn.Module, leaves: list[nn.Module]) -> list[fx.Graph]:
    """The graphs of training and evaluation, with every optional argument given and not."""
    if "forward" in module.__dict__:
        raise ValueError("its forward was replaced")
    choices = []
    for parameter in inspect.signature(type(module).forward).parameters.values():
        name, default = parameter.name, parameter.default
        if isinstance(default, bool):
            choices.append([{name: True}, {name: False}])
        elif default is not parameter.empty:
            choices.append([{name: default}, {}])
    if len(choices) > _OPTIONAL_ARGUMENTS:
        raise ValueError(f"it has more than {_OPTIONAL_ARGUMENTS} optional arguments")
    graphs = []
    members = list(module.modules())
    before = [dict(member.__dict__) for member in members]
    try:
        # A forward may draw numbers, and keep what it computes.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for training, arguments in product([True, False], product(*choices)):
                for member in members:
                    member.__dict__["training"] = training
                fixed: dict[str, Any] = {}
                for argument in arguments:
                    fixed |= argument
                graphs.append(_Tracer(leaves).trace(module, fixed or None))
    finally:
        for member, attributes in zip(members, before, strict=True):
            member.__dict__.clear()
            member.__dict__.update(attributes)
    return graphs


class _Calls:
    """The calls of one graph.

    Parameters
    ----------
    root : nn.Module
        Whose graph it is.
    graph : fx.Graph
    places : Counter of int
        In how many places of the network each module is, by its id.
    """

    def __init__(self, root: nn.Module, graph: fx.Graph, places: Counter[int]) -> None:
        self.root = root
        self.places = places
        self.nodes = [node for node in graph.nodes if node.op == "call_module"]
        self.counts = Counter(node.target for node in self.nodes)

    def module(self, node: fx.Node) -> nn.Module:
        return self.root.get_submodule(str(node.target))

    def obstacle(self, node: fx.Node) -> str:
        """Why a call cannot be part of a run; empty if it can."""
        module = self.module(node)
        # An activation keeps nothing, and sees by what it is given whether it was computed.
        if not isinstance(module, _ACTIVATIONS):
            if self.counts[node.target] > 1:
                return "is called more than once"
            if self.places[id(module)] > 1:
                return "is in more than one place"
        if len(node.args) != 1 or node.kwargs:
            return "is given more than a tensor"
        return layer_obstacle(module)

    def follower(self, node: fx.Node) -> fx.Node | str:
        """The call that continues a run; else why there is none."""
        users = list(node.users)
        if len(users) != 1:
            return f"its result is used {len(users)} times"
        after = users[0]
        if after.op == "output":
            return "its result is returned"
        if after.op != "call_module":
            name = getattr(after.target, "__name__", after.target)
            return f"then {name}, which is no module"
        module = self.module(after)
        is_norm = isinstance(module, _NORM) and isinstance(self.module(node), _CONVOLUTIONS)
        if not is_norm and not isinstance(module, _ACTIVATIONS):
            return f"then {type(module).__name__}"
        obstacle = self.obstacle(after)
        return f"then {type(module).__name__}, which {obstacle}" if obstacle else after

    def runs(self, names: dict[int, str]) -> Iterator[tuple[nn.Module, Run]]:
        """Every convolution that is called, and the run that it starts."""
        for first in self.nodes:
            if not isinstance(self.module(first), _CONVOLUTIONS):
                continue
            modules, node, end = [self.module(first)], first, self.obstacle(first)
            while not end and not isinstance(modules[-1], _ACTIVATIONS):
                after = self.follower(node)
                if isinstance(after, str):
                    end = after
                else:
                    node = after
                    modules.append(self.module(node))
            members = tuple(names[id(module)] for module in modules)
            kinds = tuple(kind(module).__name__ for module in modules)
            yield modules[0], Run(members, kinds, end, self.heir(node, names))

    def heir(self, node: fx.Node, names: dict[int, str]) -> str:
        """The name of the convolution that is the only one to take a call's result, or nothing."""
        users = list(node.users)
        if len(users) != 1 or users[0].op != "call_module":
            return ""
        module = self.module(users[0])
        return names[id(module)] if isinstance(module, _CONVOLUTIONS) else ""


def layer_obstacle(module: nn.Module) -> str:
    """Why a layer must do its own work; empty if it need not."""
    hooks = [*module._forward_pre_hooks.values()]
    named = [type(h).__name__ for h in hooks if type(h).__name__ in ("SpectralNorm", "WeightNorm")]
    if parametrize.is_parametrized(module):
        return "is parametrised (as by spectral_norm or weight_norm)"
    if named:
        return f"has {named[0]}"
    if isinstance(module, LazyModuleMixin):
        return "is lazy: run the network once, then call accelerate"
    if kind(module) not in (*_CONVOLUTIONS, _NORM, *_ACTIVATIONS):
        return "is of a subclass"
    if altered(module):
        return "has hooks, or a forward of its own"
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return f"has padding_mode={module.padding_mode!r}"
    if any(parameter.is_complex() for parameter in module.parameters()):
        return "has complex weights"
    return ""
