"""The sampling step of variational autoencoders: a draw from N(mu, exp(logvar)), and its KL.

D. P. Kingma, M. Welling: Auto-encoding variational Bayes (2014), equation 10 and appendix B.
"""

from typing import Any

import torch
from torch import Tensor

from pygen.ops.gaussian import normal
from pygen.ops.operator import operator


def _check(state: Tensor, mu: Tensor, logvar: Tensor) -> None:
    if mu.dim() != 2 or logvar.shape != mu.shape:
        raise ValueError(
            "mu and logvar must be [N, L], equally large; got"
            f" {list(mu.shape)} and {list(logvar.shape)}."
        )
    if not mu.is_floating_point() or logvar.dtype != mu.dtype:
        raise ValueError(
            "mu and logvar must have the same floating-point dtype; got"
            f" {mu.dtype} and {logvar.dtype}."
        )
    if not state.device == mu.device == logvar.device:
        raise ValueError(
            "state, mu and logvar must be on one device; got"
            f" {state.device}, {mu.device} and {logvar.device}."
        )


def _noise(state: Tensor, mu: Tensor) -> Tensor:
    return normal(state.clone(), mu.shape, _dtype(mu))


def _dtype(mu: Tensor) -> torch.dtype:
    """Half precision is computed in float32: a sum of squares needs its digits."""
    return torch.promote_types(mu.dtype, torch.float32)


def _empty(state: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    dtype = _dtype(mu)
    z, kl = mu.new_empty(mu.shape, dtype=dtype), mu.new_empty(mu.shape[:1], dtype=dtype)
    return z, kl, torch.empty_like(state)


def _empty_backward(
    state: Tensor, mu: Tensor, logvar: Tensor, grad_z: Tensor, grad_kl: Tensor
) -> tuple[Tensor, Tensor]:
    return mu.new_empty(mu.shape), mu.new_empty(mu.shape)


@operator(fake=_empty_backward)
def reparameterize_backward(
    state: Tensor, mu: Tensor, logvar: Tensor, grad_z: Tensor, grad_kl: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of ``reparameterize_forward`` with respect to mu and logvar.

    Parameters
    ----------
    state, mu, logvar : Tensor
        What the forward was given: the noise is drawn again from the state.
    grad_z : Tensor
        ``[N, L]``.
    grad_kl : Tensor
        ``[N]``.

    Returns
    -------
    grad_mu, grad_logvar : Tensor
        ``[N, L]``, dtype of ``mu``.
    """
    eps = _noise(state, mu)
    grad_kl = grad_kl[:, None]
    grad_mu = (grad_kl * mu.contiguous()).add_(grad_z)
    # d/dlogvar of exp(logvar / 2) eps is half of it; of the KL it is (exp(logvar) - 1) / 2.
    logvar = logvar.to(eps.dtype)
    noise_part = eps.mul_((logvar / 2).exp()).mul_(grad_z)
    grad_logvar = noise_part.add_(logvar.expm1() * grad_kl).div_(2)
    return grad_mu.to(mu.dtype), grad_logvar.to(mu.dtype)


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    _, mu, logvar = inputs
    ctx.save_for_backward(output[2], mu, logvar)


def _backward(ctx: Any, grad_z: Tensor, grad_kl: Tensor, _: None) -> tuple[None, Tensor, Tensor]:
    state, mu, logvar = ctx.saved_tensors
    return None, *reparameterize_backward(state, mu, logvar, grad_z, grad_kl)


@operator(fake=_empty, backward=_backward, setup_context=_setup_context)
def reparameterize_forward(
    state: Tensor, mu: Tensor, logvar: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`reparameterize`, but the state stays: what has a gradient may not change its inputs.

    Returns
    -------
    z, kl : Tensor
        ``[N, L]`` and ``[N]``.
    used : Tensor
        int64 ``[2]``, a copy of the state for the backward. It is a result because the compiler
        keeps results: a copy made outside it would make anew in the backward, from a state that has
        been advanced since.
    """
    z = _noise(state, mu)
    mu, logvar = mu.to(z.dtype), logvar.to(z.dtype)
    z.mul_((logvar / 2).exp()).add_(mu)
    # expm1 keeps the digits of exp(logvar) - 1 where the variance is near 1.
    kl = (mu.square() + logvar.expm1() - logvar).sum(1) / 2
    return z, kl, state.clone()


def reparameterize(state: Tensor, mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    """Draw z from N(mu, exp(logvar)), differentiably, with its divergence from N(0, I).

    The backward pass draws the noise again from (seed, offset) instead of keeping it.

    Parameters
    ----------
    state : Tensor
        int64 ``[2]``: (seed, offset). The offset is advanced in place by ``ceil(N L / 4)``.
    mu, logvar : Tensor
        ``[N, L]``: means, and logarithms of the variances. float32 or float64; float16 and bfloat16
        are computed in float32.

    Returns
    -------
    z : Tensor
        ``[N, L]``, ``mu + exp(logvar / 2) * eps`` with ``eps = normal(state, [N, L])``; float32 or
        float64.
    kl : Tensor
        ``[N]``, in nats: KL(N(mu, exp(logvar)) || N(0, I)) = -1/2 sum(1 + logvar - mu^2 -
        exp(logvar)); the same dtype.

    Raises
    ------
    ValueError
        If shapes, dtypes or devices do not fit.
    RuntimeError
        If the state is not int64 ``[2]``.
    """
    _check(state, mu, logvar)
    z, kl, _ = reparameterize_forward(state, mu, logvar)
    state[1].add_((mu.numel() + 3) // 4)
    return z, kl
