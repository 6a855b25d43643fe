"""What the deep models minimise, as functions of logits: likelihoods of decoders, and the losses of a GAN's players."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

# Below this the series of sinh(a) / a and coth(a) - 1 / a beat the formulas, in float32.
_SMALL = 0.3
# Rows whose kernel with all others is held at a time.
_KERNEL_ROWS = 1024
_LEAST_LOG_VARIANCE = math.log(1e-6)


def log_likelihood(likelihood: str, x: Tensor, logits: Tensor, log_variance: Tensor) -> Tensor:
    """Log-likelihood of each row under a decoder.

    Parameters
    ----------
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli"}
        Gaussian: N(sigmoid(logits), s2 I). Bernoulli: a bit each, whose probability of 1 is sigmoid(logits);
        values between 0 and 1 enter linearly, as a cross-entropy, which is no density then. Continuous Bernoulli:
        the same normalised over [0, 1] (Loaiza-Ganem and Cunningham, 2019).
    x : Tensor
        ``[N, ...]``, in [0, 1].
    logits : Tensor
        ``[N, ...]``.
    log_variance : Tensor
        log s2 of the Gaussian, 0-dimensional; s2 is at least 1e-6, for on data without noise the likelihood has no
        maximum.

    Returns
    -------
    Tensor
        ``[N]``, in nats.
    """
    if likelihood == "gaussian":
        log_variance = log_variance.clamp_min(_LEAST_LOG_VARIANCE)
        squares = (x - logits.sigmoid()).square().flatten(1).sum(1)
        normaliser = 0.5 * x[0].numel() * (math.log(2 * math.pi) + log_variance)
        return -0.5 * squares / log_variance.exp() - normaliser
    if likelihood == "bernoulli":
        values = -functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    else:
        # An exponential family: log p = x t - A(t), A(t) = log((e^t - 1) / t) = t / 2 + log(sinh(t / 2) / (t / 2)).
        values = (x - 0.5) * logits - _log_sinhc(logits / 2)
    return values.flatten(1).sum(1)


def mean(likelihood: str, logits: Tensor) -> Tensor:
    """What a decoder expects to see, ``[N, ...]`` in [0, 1], of logits ``[N, ...]``."""
    if likelihood == "continuous_bernoulli":
        return 0.5 + 0.5 * _langevin(logits / 2)  # A'(t)
    return logits.sigmoid()


def _log_sinhc(a: Tensor) -> Tensor:
    """log(sinh(a) / a), for any a."""
    size = a.abs()
    safe = size.clamp_min(_SMALL)
    formula = safe + torch.log1p(-torch.exp(-2 * safe)) - torch.log(2 * safe)
    square = a.square().clamp_max(_SMALL**2)
    series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
    return torch.where(size < _SMALL, series, formula)


def _langevin(a: Tensor) -> Tensor:
    """coth(a) - 1 / a, for any a; the derivative of log(sinh(a) / a)."""
    size = a.abs()
    safe = size.clamp_min(_SMALL)
    formula = a.sign() * (1 / torch.tanh(safe) - 1 / safe)
    square = a.square().clamp_max(_SMALL**2)
    series = a * (1 / 3 - square * (1 / 45 - square * (2 / 945 - square / 4725)))
    return torch.where(size < _SMALL, series, formula)


class GanLoss(NamedTuple):
    """What the two players minimise, of logits ``[N]`` for real and made images.

    ``discriminator(real, fake, smoothing)`` and ``generator(fake, real)``; ``has_labels`` tells whether real images
    have a target that smoothing can lower from 1 to ``1 - smoothing``; ``needs_real`` whether the generator's loss
    looks at ``real``.
    """

    discriminator: Callable[[Tensor, Tensor, float], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    has_labels: bool = False
    needs_real: bool = False


def _cross_entropies(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    # -t log s(l) - (1 - t) log(1 - s(l)) = softplus(l) - t l, of logits l and targets t: 1 - smoothing, and 0.
    real_part = functional.softplus(real) - (1 - smoothing) * real
    return real_part.mean() + functional.softplus(fake).mean()


def _hinges(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def _squares(real: Tensor, fake: Tensor, smoothing: float) -> Tensor:
    return 0.5 * ((real - (1 - smoothing)).square().mean() + fake.square().mean())


GAN_LOSSES: dict[str, GanLoss] = {
    # Goodfellow et al. (2014), with their non-saturating loss of the generator.
    "non-saturating": GanLoss(
        _cross_entropies, lambda fake, real: functional.softplus(-fake).mean(), has_labels=True
    ),
    # Lim and Ye (2017), Miyato et al. (2018).
    "hinge": GanLoss(_hinges, lambda fake, real: -fake.mean()),
    # Arjovsky et al. (2017); the penalty of Gulrajani et al. (2017) is added by the caller.
    "wgan-gp": GanLoss(
        lambda real, fake, smoothing: fake.mean() - real.mean(), lambda fake, real: -fake.mean()
    ),
    # Mao et al. (2017), targets 0 and 1.
    "lsgan": GanLoss(
        _squares, lambda fake, real: 0.5 * (fake - 1).square().mean(), has_labels=True
    ),
    # Jolicoeur-Martineau (2019), each made image against one real one.
    "relativistic": GanLoss(
        lambda real, fake, smoothing: functional.softplus(fake - real).mean(),
        lambda fake, real: functional.softplus(real - fake).mean(),
        needs_real=True,
    ),
}


def gradient_penalty(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Mean of ``(||grad D(x)|| - 1)^2`` over rows ``[N, ...]`` (Gulrajani et al., 2017), without its weight."""
    return (_gradients(discriminator, x).norm(dim=1) - 1).square().mean()


def r1_penalty(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Mean of ``||grad D(x)||^2 / 2`` over real rows ``[N, ...]`` (Mescheder et al., 2018), without its weight."""
    return 0.5 * _gradients(discriminator, x).square().sum(1).mean()


def _gradients(discriminator: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Gradient ``[N, D]`` of each row's logit with respect to the row, itself differentiable."""
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    return gradient.flatten(1)


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy with the kernel ``(<a, b> / D + 1)^3``.

    The kernel inception distance of Binkowski et al. (2018), on whatever features it is given.

    Parameters
    ----------
    x, y : Tensor
        ``[N, D]`` and ``[M, D]``, at least 2 rows each.

    Returns
    -------
    Tensor
        0-dimensional float64; 0 in expectation if both come from one distribution, and negative by chance.
    """

    def total(a: Tensor, b: Tensor, *, pairs: bool) -> Tensor:
        """Sum over all, or over pairs of different rows of one set."""
        sums = []
        for start in range(0, len(a), _KERNEL_ROWS):
            part = a[start : start + _KERNEL_ROWS]
            values = (part @ b.T / a.shape[1] + 1).double() ** 3
            sums.append(values.sum() - (values.diagonal(start).sum() if pairs else 0))
        return torch.stack(sums).sum()

    within = [total(a, a, pairs=True) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return within[0] + within[1] - 2 * total(x, y, pairs=False) / (len(x) * len(y))
