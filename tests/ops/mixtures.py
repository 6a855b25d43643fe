"""Mixtures to test with, and what the operators should give for them, from the definition."""

import math

import torch

TYPES = ["spherical", "diag", "tied", "full"]


def mixture(covariance_type, k=4, d=5, seed=0):
    """Random weights, means and precisions_cholesky."""
    g = torch.Generator().manual_seed(seed)
    rand = lambda *size: torch.randn(*size, generator=g, dtype=torch.float64)  # noqa: E731
    log_weights = rand(k).log_softmax(0)
    means = 2 * rand(k, d)
    if covariance_type == "spherical":
        return log_weights, means, rand(k).exp()
    if covariance_type == "diag":
        return log_weights, means, (0.5 * rand(k, d)).exp()
    shape = (d, d) if covariance_type == "tied" else (k, d, d)
    factors = rand(*shape).triu(1) / (3 * d) ** 0.5 + torch.diag_embed(
        (0.3 * rand(*shape[:-1])).exp()
    )
    return log_weights, means, factors


def precision(factors, covariance_type, k, d):
    if covariance_type == "spherical":
        return factors[k] ** 2 * torch.eye(d, dtype=torch.float64)
    if covariance_type == "diag":
        return torch.diag(factors[k] ** 2)
    factor = factors if covariance_type == "tied" else factors[k]
    return factor @ factor.T


def reference(x, log_weights, means, factors, covariance_type, weights=None):
    """Everything from log w_k + log N(x; mean_k, precision_k^-1), with [N, K, D, D] in memory."""
    x = x.double()
    n, d = x.shape
    k = len(means)
    joint = torch.empty(n, k, dtype=torch.float64)
    for c in range(k):
        p = precision(factors, covariance_type, c, d)
        diff = x - means[c]
        joint[:, c] = (
            log_weights[c]
            - 0.5 * d * math.log(2 * math.pi)
            + 0.5 * torch.logdet(p)
            - 0.5 * torch.einsum("nd,de,ne->n", diff, p, diff)
        )
    norm = joint.logsumexp(1)
    log_resp = joint - norm[:, None]
    resp = log_resp.exp() * (1 if weights is None else weights[:, None])
    diff = x[:, None] - means
    outer = torch.einsum("nk,nkd,nke->kde", resp, diff, diff)
    scatter = {
        "full": outer,
        "tied": outer.sum(0),
        "diag": outer.diagonal(dim1=1, dim2=2),
        "spherical": outer.diagonal(dim1=1, dim2=2).sum(1),
    }[covariance_type]
    total = (norm * (1 if weights is None else weights)).sum()
    return log_resp, norm, resp.sum(0), torch.einsum("nk,nkd->kd", resp, diff), scatter, total
