"""What `pygen.accelerate` makes of layers: subclasses of their classes that compute whole runs.

The convolution of a run computes what the batch norm and the activation after it would, and marks
its result; a layer that is given a result marked for it returns it, and does its own work on
anything else. So a layer that is called by itself, or by several threads, gives what it always did.
"""

import math
import threading
import weakref
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from pygen.nn.runs import altered, has_kernel, kind, may_be_product
from pygen.ops import conv_bn_act, conv_transpose_bn_act
from pygen.ops.convolution import HALF, is_left_to_pytorch
from pygen.ops.strided_conv import is_channels_last

LINK = "_pygen_link"
_MARK = "_pygen_mark"
# On a tensor in the kernels' memory format, channels last, that would not be but for them.
_INNER = "_pygen_inner"

# By the names that operators know.
ACTIVATION_LAYERS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


class Link:
    """What a convolution knows of its run.

    It keeps no member alive: once one was replaced in the network, or if one was not copied with
    it, all do their own work.

    Parameters
    ----------
    modules : tuple of nn.Module
        The convolution, and its followers in order, if there are any.
    heir : nn.Module, optional
        The convolution of another run, if that alone sees the result. As long as it does its run's
        work, the result comes in the kernels' memory format.
    """

    def __init__(self, modules: tuple[nn.Module, ...], heir: nn.Module | None = None) -> None:
        self.references = tuple(weakref.ref(module) for module in modules)
        self.heir = None if heir is None else weakref.ref(heir)
        # The thread whose last result has not gone through the whole run.
        self.unfinished: int | None = None
        # See `_few`; made by the first call.
        self.few: tuple[float, float] | None = None

    def modules(self) -> tuple[nn.Module, ...]:
        """The members; none if one is gone."""
        modules = tuple(reference() for reference in self.references)
        return tuple(m for m in modules if m is not None) if None not in modules else ()

    def is_between(self) -> bool:
        """Whether the result goes to another run alone."""
        heir = None if self.heir is None else self.heir()
        return heir is not None and LINK in heir.__dict__ and not altered(heir)

    # Copies and files hold the modules themselves, which become those of the copied network.
    def __getstate__(self) -> dict[str, Any]:
        heir = None if self.heir is None else self.heir()
        return {"modules": self.modules(), "heir": heir}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["modules"], state["heir"])  # type: ignore[misc]


# Products of numbers below which a run takes longer than its layers do on a CPU: without gradients, and with them.
_LEAST_PRODUCTS = {
    torch.float32: (1 << 25, 1 << 23),
    torch.bfloat16: (1 << 26, 1 << 25),
    torch.float16: (1 << 27, 1 << 27),
}
# Kernels for fewer channels, or smaller sides of the small picture, are others.
_FEW_CHANNELS, _LEAST_SIDE = 8, 3
_LEAST_PRODUCTS_OF_FEW = 1 << 20, 0
# From which on a convolution that is not transposed pays in inference.
_MANY_CHANNELS = 64


def _pays(convolution: Any, link: Link, x: Tensor) -> bool:
    """Whether a run is known to be no slower than its layers: what is not is left to PyTorch.

    Of convolutions that have no kernel, and whose products are PyTorch's own, every run is.
    """
    weight = convolution.weight
    is_up = isinstance(convolution, nn.ConvTranspose2d)
    if len(link.references) == 1:
        # A convolution alone saves no passes; what it gains was seen on the CPU.
        if x.device.type != "cpu":
            return False
        if may_be_product(convolution):
            return x.shape[2:] == ((1, 1) if is_up else (4, 4))
    if x.device.type != "cpu" or x.dtype not in _LEAST_PRODUCTS or not has_kernel(convolution):
        return True
    if x.dtype in HALF and not is_left_to_pytorch(x):
        return True
    is_training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    height, width = (side if is_up else side // 2 for side in x.shape[2:])
    products = x.shape[0] * height * width * weight.numel()
    has_few_channels = min(weight.shape[:2]) < _FEW_CHANNELS
    return products >= _least_products(x.dtype, convolution)[is_training] and (
        has_few_channels or min(height, width) >= _LEAST_SIDE
    )


def _least_products(dtype: torch.dtype, convolution: Any) -> tuple[float, float]:
    """Of a convolution with a kernel, on a CPU: without gradients, and with them."""
    channels = min(convolution.weight.shape[:2])
    is_up = isinstance(convolution, nn.ConvTranspose2d)
    inference, training = _LEAST_PRODUCTS[dtype]
    if channels < _FEW_CHANNELS:
        inference, training = _LEAST_PRODUCTS_OF_FEW
    return inference if is_up or channels >= _MANY_CHANNELS else math.inf, training


def _few(convolution: Any) -> tuple[float, float]:
    """How many numbers of x in float32 on a CPU are too few for `_pays`: without gradients, and with them."""
    if not has_kernel(convolution):
        return 0, 0
    weight = convolution.weight
    is_up = isinstance(convolution, nn.ConvTranspose2d)
    products_of_one = weight.numel() / weight.shape[0 if is_up else 1] / (1 if is_up else 4)
    inference, training = _least_products(torch.float32, convolution)
    return inference / products_of_one, training / products_of_one


def _members(convolution: nn.Module, x: Tensor) -> tuple[nn.Module, ...]:
    """What a convolution computes now: its run, or nothing if each must do its own work."""
    link = convolution.__dict__.get(LINK)
    # A parametrised weight is no parameter, and computed anew, with new state, by each look at it.
    if (
        link is None
        or type(x) not in (Tensor, nn.Parameter)
        or "weight" not in convolution._parameters
        # Exported programs consist of PyTorch's operators alone, and sizes would be among them. So does torch.compile's
        # input: it fuses what follows a convolution itself.
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch.compiler.is_compiling()
    ):
        return ()
    # Then what is cheap to see: a small layer takes little more time than the other checks.
    if link.few is None:
        link.few = _few(convolution)
    is_small = x.numel() < link.few[torch.is_grad_enabled()]
    if (is_small and x.dtype == torch.float32 and x.is_cpu) or x.dim() != 4:
        return ()
    if not _pays(convolution, link, x):
        return ()
    modules = link.modules()
    if (
        not modules
        # A shallow copy, as `nn.DataParallel` makes.
        or modules[0] is not convolution
        or any(altered(m) or not hasattr(m, "accelerates") for m in modules)
        or _has_any_global_hook()
        # vmap and derivatives in forward mode know no operators of ours.
        or torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
    ):
        return ()
    return modules


def _start(convolution: nn.Module, followers: list[nn.Module]) -> None:
    link = convolution.__dict__[LINK]
    if link.unfinished == threading.get_ident():
        link.unfinished = None
        kinds = " and ".join(type(follower).__name__ for follower in followers)
        raise RuntimeError(
            f"the last result of this {type(convolution).__name__} did not go through the {kinds}"
            " that it was computed for. If layers were replaced, or are called by themselves, use"
            " pygen.restore(network) first; after an interrupted call, call again."
        )


def _contiguous(x: Tensor) -> Tensor:
    """By its strides, too: a picture of one channel, or one pixel, has more than one format."""
    return x.flatten().view(x.shape)


def _channels_last(x: Tensor) -> Tensor:
    return _contiguous(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _outer(x: Tensor) -> Tensor:
    """As it would be without the kernels' format."""
    return _contiguous(x) if hasattr(x, _INNER) else x


def _is_worth_it(x: Tensor, convolution: Any) -> bool:
    """Whether the kernels' format is another, and the map not small beside the weights.

    The convolution of a single picture would take its weights to that format, too.
    """
    weight = convolution.weight
    is_up = isinstance(convolution, nn.ConvTranspose2d)
    # The map that counts is the one that a pixel is spread to.
    spreads = is_up and may_be_product(convolution) and x.shape[2:] == (1, 1)
    numbers = x.shape[0] * weight.shape[1:].numel() if spreads else x.numel()
    return 4 * numbers >= weight.numel() and not (is_channels_last(x) or is_channels_last(weight))


def _compute(members: tuple[nn.Module, ...], x: Tensor, **geometry: Any) -> Tensor:
    """The result of a run, marked for the first follower."""
    convolution: Any
    convolution, *followers = members
    link = convolution.__dict__[LINK]
    _start(convolution, followers)
    # With weights in that format the result would have it anyway.
    is_inner = hasattr(x, _INNER) and not is_channels_last(convolution.weight)
    is_between = link.is_between()
    if is_between and _is_worth_it(x, convolution):
        x, is_inner = _channels_last(x), True
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    norm = next((m for m in followers if isinstance(m, nn.BatchNorm2d)), None)
    y = (conv_transpose_bn_act if transposed else conv_bn_act)(
        x,
        convolution.weight,
        convolution.bias,
        **({"norm": "none"} if norm is None else _norm_options(norm)),
        **_activation_options(members[-1]),
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        groups=convolution.groups,
        **geometry,
    )
    if norm is not None and _counts(norm):
        norm.num_batches_tracked.add_(norm.n_batches)  # type: ignore[union-attr, arg-type]
    if is_inner and is_between:
        setattr(y, _INNER, True)
    elif is_inner:
        y = _contiguous(y)
    if followers:
        link.unfinished = threading.get_ident()
        setattr(y, _MARK, (link, 1))
    return y


def _counts(norm: nn.BatchNorm2d) -> bool:
    return norm.training and norm.track_running_stats and norm.num_batches_tracked is not None


def _norm_options(norm: nn.BatchNorm2d) -> dict[str, Any]:
    """As `nn.BatchNorm2d.forward` decides."""
    momentum = norm.momentum
    if momentum is None:
        # The mean of all batches so far, and of this one.
        momentum = 1 / (float(norm.num_batches_tracked) + 1) if _counts(norm) else 0.0  # type: ignore[arg-type]
    is_running = not norm.training and norm.running_mean is not None
    keeps = not norm.training or norm.track_running_stats
    return {
        "norm": "running" if is_running else "batch",
        "n_batches": norm.n_batches,
        "norm_weight": norm.weight,
        "norm_bias": norm.bias,
        "running_mean": norm.running_mean if keeps else None,
        "running_var": norm.running_var if keeps else None,
        "momentum": momentum,
        "eps": norm.eps,
    }


def _activation_options(follower: nn.Module) -> dict[str, Any]:
    names = (name for name, layer in ACTIVATION_LAYERS.items() if isinstance(follower, layer))
    options = {"activation": next(names, "none")}
    if isinstance(follower, nn.LeakyReLU):
        return options | {"slope": follower.negative_slope}
    return options


class AcceleratedConv2d(nn.Conv2d):
    """A convolution that computes its run."""

    accelerates: ClassVar[type[nn.Module]] = nn.Conv2d

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        members = _members(self, input)
        return _compute(members, input) if members else super().forward(_outer(input))


class AcceleratedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that computes its run."""

    accelerates: ClassVar[type[nn.Module]] = nn.ConvTranspose2d

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        members = _members(self, input) if output_size is None else ()
        if not members:
            return super().forward(_outer(input), output_size)
        return _compute(members, input, output_padding=self.output_padding)


class _Follower(nn.Module):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        mark = getattr(input, _MARK, None)
        if isinstance(mark, tuple):
            link, position = mark
            if link.references[position]() is self:
                if position + 1 < len(link.references):
                    setattr(input, _MARK, (link, position + 1))
                else:
                    # Compiled by itself, a layer cannot take the mark off.
                    if not torch.compiler.is_compiling():
                        delattr(input, _MARK)
                    link.unfinished = None
                return input
        return self.compute(input)

    def compute(self, x: Tensor) -> Tensor:
        """Its own work."""
        return super().forward(x)


class AcceleratedBatchNorm2d(_Follower, nn.BatchNorm2d):
    """A batch norm whose work the convolution before it does."""

    accelerates: ClassVar[type[nn.Module]] = nn.BatchNorm2d
    # Equal parts of a batch, each with statistics of its own: see `batches_apart`.
    n_batches = 1

    def compute(self, x: Tensor) -> Tensor:
        """Its own work."""
        if self.n_batches == 1 or not self.training:
            return super().compute(x)
        return torch.cat(
            [super(AcceleratedBatchNorm2d, self).compute(part) for part in x.chunk(self.n_batches)]
        )


class AcceleratedReLU(_Follower, nn.ReLU):
    """An activation whose work the convolution before it does."""

    accelerates: ClassVar[type[nn.Module]] = nn.ReLU


class AcceleratedLeakyReLU(_Follower, nn.LeakyReLU):
    """An activation whose work the convolution before it does."""

    accelerates: ClassVar[type[nn.Module]] = nn.LeakyReLU


class AcceleratedTanh(_Follower, nn.Tanh):
    """An activation whose work the convolution before it does."""

    accelerates: ClassVar[type[nn.Module]] = nn.Tanh


class AcceleratedSigmoid(_Follower, nn.Sigmoid):
    """An activation whose work the convolution before it does."""

    accelerates: ClassVar[type[nn.Module]] = nn.Sigmoid


_ACCELERATED: dict[type[nn.Module], type[nn.Module]] = {
    layer.accelerates: layer
    for layer in (
        AcceleratedConv2d,
        AcceleratedConvTranspose2d,
        AcceleratedBatchNorm2d,
        AcceleratedReLU,
        AcceleratedLeakyReLU,
        AcceleratedTanh,
        AcceleratedSigmoid,
    )
}


def join(members: tuple[nn.Module, ...], heir: nn.Module | None = None) -> None:
    """Make layers one run: their classes become the accelerated ones.

    Parameters
    ----------
    members, heir
        As of `Link`.
    """
    for member in members:
        member.__class__ = _ACCELERATED[kind(member)]
    setattr(members[0], LINK, Link(members, heir))
