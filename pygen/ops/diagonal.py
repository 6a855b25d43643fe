"""Gaussians with independent features: log-densities, and the sums of one EM pass."""

import torch
from torch import Tensor

from pygen.ops.moments import moments
from pygen.ops.operator import operator
from pygen.ops.posterior import Posterior, posterior

# Elements of x in a block: its shifted rows and their squares stay in cache; so do, with a larger one, those of the
# rows of which sums are taken.
_BLOCK_ELEMENTS, _SUM_ELEMENTS = 2**19, 2**21


def _diagonal_log_joint_fake(
    x: Tensor,
    means: Tensor,
    precisions: Tensor,
    constant: Tensor,
    settle: bool = True,
    fast: bool = False,
) -> tuple[Tensor, Tensor]:
    return x.new_empty(means.shape[0], x.shape[0]), x.new_empty(x.shape[0], dtype=torch.float64)


@operator(fake=_diagonal_log_joint_fake)
def diagonal_log_joint(
    x: Tensor,
    means: Tensor,
    precisions: Tensor,
    constant: Tensor,
    settle: bool = True,
    fast: bool = False,
) -> tuple[Tensor, Tensor]:
    """``constant_k - sum_d precision_kd (x_nd - mean_kd)^2 / 2``, the largest apart from the others' distances to it.

    Float32 leaves an error of 1e-4 nats (at worst 1e-2, measured on MNIST). For most rows that does not matter, since
    one component has them for certain; the few others, 3 or 4 in 100 there, are done again in float64.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    means, precisions : Tensor
        ``[K, D]``, float64.
    constant : Tensor
        ``[K]``, float64, in nats.
    settle : bool
        Whether those few are.
    fast : bool
        Whether one product in TF32 may stand for a float32 product where a device multiplies it so.

    Returns
    -------
    relative : Tensor
        ``[K, N]``, dtype of x: each value less its row's largest, in nats.
    largest : Tensor
        ``[N]``, float64.
    """
    relative = x.new_empty(len(means), len(x))
    largest = x.new_empty(len(x), dtype=torch.float64)
    rows = max(_BLOCK_ELEMENTS // max(x.shape[1], 1), 64)
    for start in range(0, len(x), rows):
        block = x[start : start + rows]
        joint = _expanded(block, means, precisions, constant)
        largest[start : start + rows] = top = joint.amax(0).double()
        joint -= top.to(x.dtype)
        if settle and x.dtype == torch.float32:
            close = ((joint > -20).sum(0) > 1).nonzero().squeeze(1)
            again = _expanded(block[close].double(), means, precisions, constant)
            largest[start + close] = top = again.amax(0)
            joint[:, close] = (again - top).float()
        relative[:, start : start + rows] = joint
    return relative, largest


def _expanded(x: Tensor, means: Tensor, precisions: Tensor, constant: Tensor) -> Tensor:
    """``[K, n]`` by one matrix product, with the square expanded."""
    # About the centre weighted by precision the expanded square stays within 4e-3 nats of the truth in float32 even
    # where a pixel hardly varies in some components; about the global mean it loses a whole nat (measured on MNIST).
    centre = ((precisions * means).sum(0) / precisions.sum(0)).to(x.dtype)
    x = x - centre
    shift = means - centre.double()
    linear = precisions * shift
    constant = constant - 0.5 * (shift * linear).sum(1)
    weights = torch.cat([-0.5 * precisions, linear], 1).to(x.dtype)
    return torch.addmm(constant[:, None].to(x.dtype), weights, torch.cat([x * x, x], 1).T)


def _diagonal_log_density_fake(
    x: Tensor, means: Tensor, precisions: Tensor, constant: Tensor, fast: bool = False
) -> tuple[Tensor, Tensor]:
    return x.new_empty(len(x), dtype=torch.float64), x.new_empty(len(x), dtype=torch.int64)


@operator(fake=_diagonal_log_density_fake)
def diagonal_log_density(
    x: Tensor, means: Tensor, precisions: Tensor, constant: Tensor, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """What :func:`diagonal_log_joint` sums up to, and where it is largest: components that matter little need not be
    known.

    Parameters
    ----------
    x, means, precisions, constant
        See :func:`diagonal_log_joint`.
    fast : bool
        See :func:`diagonal_log_joint`; nothing is then done again in float64.

    Returns
    -------
    log_density : Tensor
        ``[N]``, float64, in nats: log of the sum over components of the exponential.
    component : Tensor
        int64 ``[N]``: the component with the largest.
    """
    relative, largest = diagonal_log_joint(
        x, means, precisions, constant, settle=not fast, fast=fast
    )
    return relative.logsumexp(0).double() + largest, relative.argmax(0)


def diagonal_sums(x: Tensor, resp: Posterior, means: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts ``[K]`` and moments ``[K, D]`` about the means of a block ``[n, D]``, float64."""
    if resp.resp is None:
        return moments(x, resp.groups, means, resp.values, resp.rows)
    # What rows are shifted by, in their own precision, must be known exactly.
    centre = means.mean(0).to(x.dtype).double()
    shift, x = means - centre, x - centre
    counts, about_centre = resp.resp.sum(1), resp.resp @ x
    first = about_centre - counts[:, None] * shift
    return counts, first, (resp.resp @ x.square_() - shift * (about_centre + first)).clamp_min_(0)


def _diagonal_em_fake(
    x: Tensor,
    means: Tensor,
    precisions: Tensor,
    constant: Tensor,
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    counts = torch.empty_like(constant)
    return counts, torch.empty_like(means), torch.empty_like(means), constant.new_empty(())


@operator(fake=_diagonal_em_fake)
def diagonal_em(
    x: Tensor,
    means: Tensor,
    precisions: Tensor,
    constant: Tensor,
    sample_weight: Tensor | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One pass of EM over the rows: :func:`pygen.ops.em_statistics` for independent features.

    Parameters
    ----------
    x, means, precisions, constant
        See :func:`diagonal_log_joint`.
    sample_weight : Tensor, optional
        ``[N]``, float64, non-negative.
    fast : bool
        See :func:`diagonal_log_joint`; nothing is then done again in float64.

    Returns
    -------
    counts, sums, scatter, log_likelihood : Tensor
        ``[K]``, ``[K, D]``, ``[K, D]`` about the means and ``[]``, float64.
    """
    total = _diagonal_em_fake(x, means, precisions, constant)
    for part in total:
        part.zero_()
    size = min(max(_SUM_ELEMENTS // max(x.shape[1], 1), 64), 2**12)
    for start in range(0, len(x), size):
        rows = x[start : start + size]
        weights = None if sample_weight is None else sample_weight[start : start + size]
        relative, largest = diagonal_log_joint(
            rows, means, precisions, constant, settle=not fast, fast=fast
        )
        resp, log_sum = posterior(relative, weights)
        log_prob = log_sum + largest
        log_likelihood = (log_prob if weights is None else log_prob * weights).sum()
        sums = (*diagonal_sums(rows, resp, means), log_likelihood)
        for part, added in zip(total, sums, strict=True):
            part += added
    return total
