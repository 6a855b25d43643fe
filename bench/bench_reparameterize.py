"""The sampling step of a variational autoencoder, forward and backward, beside PyTorch's operators."""

from collections.abc import Callable

import pytest
import torch

from pygen.ops import normal, reparameterize
from pygen.random import new_state

Results = tuple[torch.Tensor, ...]


def eager(mu: torch.Tensor, logvar: torch.Tensor, noise: torch.Tensor | None = None) -> Results:
    """z and the KL as they are usually written."""
    eps = torch.randn_like(mu) if noise is None else noise
    z = mu + torch.exp(logvar / 2) * eps
    return z, -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum(1)


@pytest.mark.parametrize(
    ("n", "columns", "dtype", "target"),
    [
        (4096, 512, torch.float32, 3.0),
        (4096, 512, torch.float64, None),
        (128, 20, torch.float32, None),
    ],
)
def test_reparameterize(
    versus: Callable[..., None], n: int, columns: int, dtype: torch.dtype, target: float | None
) -> None:
    state = new_state(0)
    mu, logvar = (torch.randn(n, columns, dtype=dtype).requires_grad_() for _ in range(2))
    grad_z, grad_kl = torch.randn(n, columns, dtype=dtype), torch.randn(n, dtype=dtype)

    def both(forward: Callable[[], Results]) -> Results:
        results = forward()
        return *results, *torch.autograd.grad(results, [mu, logvar], [grad_z, grad_kl])

    def agree(mine: Results, _: Results) -> None:
        noise = normal(new_state(0), mu.shape, dtype)
        for found, expected in zip(mine, both(lambda: eager(mu, logvar, noise)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)

    versus(
        f"reparameterize, forward and backward, {n} x {columns} {dtype}".replace("torch.", ""),
        lambda: both(lambda: reparameterize(state, mu, logvar)),
        lambda: both(lambda: eager(mu, logvar)),
        agree,
        peer_name="torch",
        target=target,
    )
