"""Batch norm folded into convolutions, for networks that are only evaluated from now on."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from pygen.nn.acceleration import restore
from pygen.nn.runs import find_runs

M = TypeVar("M", bound=nn.Module)


def fold(module: M) -> M:
    """Copy a network for inference, with batch norms folded into the convolutions before them.

    What is left are PyTorch's own layers, so that `torch.export` and ONNX can take it anywhere.

    Parameters
    ----------
    module : nn.Module
        Left as it is. It may be accelerated.

    Returns
    -------
    nn.Module
        A copy in evaluation mode, not accelerated. In the place of a folded batch norm stands
        `nn.Identity`; a convolution that had no bias has one. Batch norms without running
        statistics, and those that do not follow a convolution alone, stay.
    """
    module = restore(copy.deepcopy(module)).eval()
    for run in find_runs(module).runs:
        convolution, *followers = (module.get_submodule(name) for name in run.names)
        norm = followers[0] if followers else None
        if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None:
            _fold(convolution, norm)  # type: ignore[arg-type]
            parent, _, name = run.names[1].rpartition(".")
            setattr(module.get_submodule(parent), name, nn.Identity())
    return module


@torch.no_grad()
def _fold(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight = convolution.weight
    dtype = torch.promote_types(weight.dtype, torch.float32)
    scale = (norm.running_var.to(dtype) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    bias = -norm.running_mean.to(dtype)
    if convolution.bias is not None:
        bias = bias + convolution.bias
    bias = bias * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    if isinstance(convolution, nn.ConvTranspose2d):
        # [in, out / groups, ...], the groups one after the other among the inputs.
        groups = convolution.groups
        by_group = weight.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, 1, 1)
        folded: Tensor = by_group.flatten(0, 1)
    else:
        folded = weight * scale.view(-1, 1, 1, 1)
    convolution.weight = nn.Parameter(folded.to(weight.dtype), weight.requires_grad)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), weight.requires_grad)
