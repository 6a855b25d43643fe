"""Gaussians with dense covariances: norms of whitened rows, posteriors where only means differ, scatter matrices."""

from functools import partial

import torch
from torch import Tensor
from torch.library import register_kernel
from torch.nn.functional import threshold

from pygen.ops.operator import operator
from pygen.ops.posterior import NEGLIGIBLE

# Columns of a triangular factor, or rows of a symmetric product, that are done at once: narrow enough to skip most
# of the empty or mirrored half, wide enough for the matrix product to run at full speed.
_STRIP = 112
# Elements of x in a block, so that its float64 temporaries are bounded.
_BLOCK_ELEMENTS = 2**21
# Elements of x, or of the posterior, in a block of linear_em: on the CPU they stay in cache, and a GPU's block lasts
# longer than its launches.
_LINEAR_ELEMENTS, _LINEAR_ELEMENTS_CUDA = 2**18, 2**23


def _strips(size: int) -> list[tuple[int, int]]:
    return [(start, min(start + _STRIP, size)) for start in range(0, size, _STRIP)]


def _whitened_norms_fake(
    x: Tensor,
    centre: Tensor,
    factor: Tensor,
    features: Tensor | None = None,
    rows: Tensor | None = None,
    fast: bool = False,
) -> Tensor:
    return x.new_empty(x.shape[0] if rows is None else rows.shape[0])


@operator(fake=_whitened_norms_fake)
def whitened_norms(
    x: Tensor,
    centre: Tensor,
    factor: Tensor,
    features: Tensor | None = None,
    rows: Tensor | None = None,
    fast: bool = False,
) -> Tensor:
    """``|(x_n - centre) U|^2`` for rows of x.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    centre : Tensor
        ``[C]``, dtype of x.
    factor : Tensor
        ``[C, P]``, dtype of x: the columns U. Fastest where each is zero from somewhere on, as those of an upper
        triangular matrix are.
    features : Tensor, optional
        int64 ``[C]``: the features of x that are meant. Default: all.
    rows : Tensor, optional
        int64 ``[M]``. Default: all.
    fast : bool
        Whether one product in TF32 may stand for a float32 product where a device multiplies it so.

    Returns
    -------
    Tensor
        ``[M]``, dtype of x.
    """
    if rows is not None:
        x = x.index_select(0, rows)
    if features is not None:
        x = x.index_select(1, features)
    difference = x - centre
    norms = x.new_zeros(len(x))
    ends = (factor != 0).int().mul(torch.arange(1, len(factor) + 1, device=x.device)[:, None])
    for start, stop in _strips(factor.shape[1]):
        height = int(ends[:, start:stop].max()) if ends.numel() else 0
        norms += (difference[:, :height] @ factor[:height, start:stop]).square_().sum(1)
    return norms


def _linear_em_fake(
    x: Tensor,
    centre: Tensor,
    linear: Tensor,
    constant: Tensor,
    common: Tensor,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(constant), torch.empty_like(linear), constant.new_empty(())


@operator(fake=_linear_em_fake)
def linear_em(
    x: Tensor,
    centre: Tensor,
    linear: Tensor,
    constant: Tensor,
    common: Tensor,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """EM's posterior, and its sums, where log joint densities are linear in x but for what all components share.

    Everything is float64, and nothing waits for a GPU.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    centre : Tensor
        ``[D]``, float64.
    linear, constant, common : Tensor
        ``[K, D]``, ``[K]`` and ``[N]``, float64: the log joint density of row n and component k is ``constant_k +
        linear_k (x_n - centre) + common_n``, in nats.
    sample_weight : Tensor, optional
        ``[N]``, float64, non-negative.

    Returns
    -------
    counts, sums, log_likelihood : Tensor
        ``[K]``, ``[K, D]`` about the centre and ``[]``, float64.
    """
    return _linear_em(x, centre, linear, constant, common, sample_weight, elements=_LINEAR_ELEMENTS)


def _linear_em(
    x: Tensor,
    centre: Tensor,
    linear: Tensor,
    constant: Tensor,
    common: Tensor,
    sample_weight: Tensor | None = None,
    *,
    elements: int,
) -> tuple[Tensor, Tensor, Tensor]:
    counts, sums = torch.zeros_like(constant), torch.zeros_like(linear)
    log_likelihood = constant.new_zeros(())
    size = max(elements // max(*linear.shape, 1), 64)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        difference = x[rows] - centre
        joint = torch.addmm(constant[:, None], linear, difference.T)
        log_sum = joint.logsumexp(0)
        resp = threshold(joint.sub_(log_sum).exp_(), NEGLIGIBLE, 0.0, inplace=True)
        log_prob = log_sum + common[rows]
        if sample_weight is not None:
            resp *= sample_weight[rows]
            log_prob *= sample_weight[rows]
        counts += resp.sum(1)
        sums.addmm_(resp, difference)
        log_likelihood += log_prob.sum()
    return counts, sums, log_likelihood


register_kernel("pygen::linear_em", "cuda", partial(_linear_em, elements=_LINEAR_ELEMENTS_CUDA))


def _add_scatter_fake(
    x: Tensor,
    mean: Tensor,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    rows: Tensor | None = None,
) -> None:
    return None


@operator(fake=_add_scatter_fake, mutates=("first", "second"))
def add_scatter(
    x: Tensor,
    mean: Tensor,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    rows: Tensor | None = None,
) -> None:
    """Add weighted sums of differences from a centre, and of their outer products, in place.

    Differences, products and sums are float64: small variances are what is left of large squares.

    Parameters
    ----------
    x : Tensor
        ``[N, D]``, float32 or float64.
    mean : Tensor
        ``[D]``, float64.
    weights : Tensor
        ``[M]``, float64, non-negative.
    first, second : Tensor
        ``[D]`` and ``[D, D]``, float64: added to them are the sums over rows of ``w (x_n - mean)`` and
        ``w (x_n - mean) (x_n - mean)^T``. ``second`` is symmetric, before and after.
    rows : Tensor, optional
        int64 ``[M]``. Default: all.
    """
    size = max(_BLOCK_ELEMENTS // max(x.shape[1], 1), 64)
    for start in range(0, len(weights), size):
        part = slice(start, start + size)
        chosen = x[part] if rows is None else x.index_select(0, rows[part])
        roots = weights[part].sqrt()
        scaled = (chosen - mean).mul_(roots[:, None])
        first += roots @ scaled
        for begin, end in _strips(len(second)):
            second[begin:end, begin:].addmm_(scaled[:, begin:end].T, scaled[:, begin:])
    second.copy_(second.triu() + second.triu(1).T)
