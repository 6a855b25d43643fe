"""`accelerate` makes the layers of a network compute in runs, `restore` undoes it."""

import copy as copying
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pygen.nn.accelerated_layers import LINK, AcceleratedBatchNorm2d, join
from pygen.nn.runs import Report, Run, find_runs, has_faster_way, kind

M = TypeVar("M", bound=nn.Module)


def accelerate(module: M, *, copy: bool = False, verbose: bool = True) -> M:
    """Make a network's convolutions compute the batch norms and activations after them, too.

    Found are runs of `nn.Conv2d` or `nn.ConvTranspose2d`, then `nn.BatchNorm2d`, an activation
    (`nn.ReLU`, `nn.LeakyReLU`, `nn.Tanh`, `nn.Sigmoid`) or both, in `nn.Sequential` and, by tracing
    (`torch.fx`), in any forward method. A convolution that neither follows is a run by itself if on
    the CPU there is a faster way for it: kernel 4 with stride 2 and padding 1, or spanning the whole
    map. The network goes on as it was: each layer keeps its place,
    name, parameters, buffers and mode, so that optimizers, checkpoints in either direction,
    ``train()`` and ``eval()``, ``to()``, copies and distributed training know no difference. Only
    the layers' classes change, to subclasses of their own.

    Layers compute by themselves, as before, where that is asked for: if one of a run has hooks, in
    copies that `nn.DataParallel` makes, under `torch.func`'s transforms, in exported and compiled
    programs.

    Parameters
    ----------
    module : nn.Module
        A network, or a part of one.
    copy : bool
        Leave ``module`` as it is and return an accelerated copy.
    verbose : bool
        Print which layers form runs, and why the other convolutions do not.

    Returns
    -------
    nn.Module
        ``module``, or its copy.

    Raises
    ------
    TypeError
        If ``module`` is no `nn.Module`.

    See Also
    --------
    restore : Undo it. Needed before layers of a run are called one by one, as to take what is
        between them, and before `torch.jit.script`.

    Notes
    -----
    Where a forward method cannot be traced, because it looks at values or shapes, runs are taken
    from the `nn.Sequential` objects that it uses, in the belief that it calls them whole.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"accelerate needs a torch.nn.Module; got {type(module).__name__}.")
    if copy:
        module = copying.deepcopy(module)
    report = find_runs(module)
    restore(module)
    starts = {run.names[0] for run in report.runs}
    for run in report.runs:
        # The result of a convolution alone may be taken elsewhere, too.
        is_between = (
            len(run.names) > 1
            and run.heir in starts
            and all(has_faster_way(module.get_submodule(name)) for name in (run.names[0], run.heir))
        )
        members = tuple(module.get_submodule(name) for name in run.names)
        join(members, module.get_submodule(run.heir) if is_between else None)
    if verbose:
        print(f"pygen.accelerate({type(module).__name__}): {report}")
    return module


def restore(module: M) -> M:
    """Undo `accelerate`: give layers their own classes again.

    Parameters
    ----------
    module : nn.Module
        A network, or a part of one; it need not have been accelerated.

    Returns
    -------
    nn.Module
        ``module``.
    """
    for member in module.modules():
        member.__dict__.pop(LINK, None)
        if kind(member) is not type(member):
            member.__class__ = kind(member)
    return module


def accelerated(module: nn.Module) -> Report:
    """What `accelerate` has done to a network, and what it leaves alone.

    Parameters
    ----------
    module : nn.Module

    Returns
    -------
    Report
        ``runs``: those that are computed together now. ``left_alone``: every other convolution's
        name, with the reason. ``untraced``: modules whose forward methods could not be traced. As
        text it is what `accelerate` prints.
    """
    report = find_runs(module)
    names = {id(member): name for name, member in module.named_modules()}
    runs: list[Run] = []
    left_alone = dict(report.left_alone)
    for run in report.runs:
        link = module.get_submodule(run.names[0]).__dict__.get(LINK)
        members = () if link is None else link.modules()
        together = all(kind(member) is not type(member) for member in members)
        if together and tuple(names.get(id(member)) for member in members) == run.names:
            runs.append(run)
        else:
            left_alone[run.names[0]] = "pygen.accelerate has not been called since it came"
    return Report(runs, left_alone, report.untraced)


def _keeps_apart(norm: nn.Module) -> bool:
    return isinstance(norm, AcceleratedBatchNorm2d) and norm.momentum is not None


def keeps_batches_apart(module: nn.Module) -> bool:
    """Whether `batches_apart` takes a network."""
    return all(_keeps_apart(m) for m in module.modules() if isinstance(m, _BatchNorm))


@contextmanager
def batches_apart(module: nn.Module, n_batches: int) -> Iterator[None]:
    """Give several batches as one, and let batch norms see each by itself.

    A discriminator looks so at real and at made pictures in one call, with the results and the
    running statistics of one call after the other.

    Parameters
    ----------
    module : nn.Module
        An accelerated network, in training mode: of a network in evaluation mode, batch norms see
        no batch.
    n_batches : int
        Equal consecutive parts of what is given.

    Raises
    ------
    ValueError
        If a batch norm is not accelerated, or has ``momentum=None``.
    """
    norms = [member for member in module.modules() if isinstance(member, _BatchNorm)]
    for norm in norms:
        if not _keeps_apart(norm):
            raise ValueError(
                "batches_apart: expected batch norms that pygen.accelerate has joined to the"
                f" convolutions before them, with a momentum; found {norm}."
            )
    for norm in norms:
        norm.__dict__["n_batches"] = n_batches
    try:
        yield
    finally:
        for norm in norms:
            norm.__dict__.pop("n_batches")
