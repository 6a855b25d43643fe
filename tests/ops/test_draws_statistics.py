"""Are the draws normal, uniform, independent? Each check also catches draws that are not."""

import math

import pytest
import torch
from scipy import stats

from pygen import ops

N = 10_000_000
SIGMAS = 5  # false alarm: 6e-7 a check, and the seeds are fixed


@pytest.fixture(scope="module")
def normals():
    return ops.normal(torch.tensor([20, 0]), [N]).double()


@pytest.fixture(scope="module")
def uniforms():
    return ops.uniform(torch.tensor([21, 0]), [N]).double()


def powers(x):
    """Means of x to x^6."""
    square = x * x
    means = [x.mean(), square.mean(), x.dot(square) / len(x), square.dot(square) / len(x)]
    square *= x
    return torch.stack([*means, square.dot(x * x) / len(x), square.dot(square) / len(x)])


def moments(found, n):
    """Deviations of six moments in standard errors, from E n^k = (k-1)!! and E n^2k - (E n^k)^2."""
    expected = [math.prod(range(k - 1, 0, -2)) if k % 2 == 0 else 0 for k in range(13)]
    return [
        (m - expected[k]) / math.sqrt((expected[2 * k] - expected[k] ** 2) / n)
        for k, m in enumerate(found.tolist(), start=1)
    ]


def uniform_moments(u):
    return [
        (u.pow(k).mean().item() - 1 / (k + 1))
        / math.sqrt((1 / (2 * k + 1) - 1 / (k + 1) ** 2) / len(u))
        for k in range(1, 5)
    ]


def beyond(x):
    """Counts beyond 2, 3, 4 and 5 on either side."""
    return torch.stack([(side > bound).sum() for bound in (2, 3, 4, 5) for side in (x, -x)])


def tails(counts, n):
    """Counts beyond 2, 3, 4 and 5 on either side against the normal's, in standard errors."""
    expected = [n * stats.norm.sf(bound) for bound in (2, 3, 4, 5) for _ in range(2)]
    return [(c - e) / math.sqrt(e) for c, e in zip(counts.tolist(), expected, strict=True)]


def correlations(x, y):
    """Of values and of squares, in standard errors."""
    x, y = x - x.mean(), y - y.mean()
    pairs = [(x, y), (x.square() - x.square().mean(), y.square() - y.square().mean())]
    return [((a @ b) / (a.norm() * b.norm())).item() * math.sqrt(len(x)) for a, b in pairs]


def neighbours(x):
    return [c for lag in (1, 2, 3, 4, 5, 8) for c in correlations(x[:-lag], x[lag:])]


def worst(deviations):
    return max(abs(d) for d in deviations)


def test_normal_moments(normals):
    assert worst(moments(powers(normals), N)) < SIGMAS
    assert worst(moments(powers(normals + 0.003), N)) > SIGMAS
    assert worst(moments(powers(normals * 1.002), N)) > SIGMAS


@pytest.mark.skipif(ops.native is None, reason="without compiled kernels it takes minutes")
def test_moments_and_tails_of_a_hundred_million_draws():
    state, parts, n = torch.tensor([23, 0]), 400, 250_000  # in cache
    found, shifted, scaled, counts = 0, 0, 0, 0
    for _ in range(parts):
        part = ops.normal(state, [n])
        # The changes are too small to show in a tenth of the draws.
        found, shifted, scaled = (
            total + powers(changed.double()) / parts
            for total, changed in ((found, part), (shifted, part + 0.0008), (scaled, part * 1.0005))
        )
        counts = counts + beyond(part)
    assert worst(moments(found, parts * n)) < SIGMAS
    assert worst(tails(counts, parts * n)) < SIGMAS
    assert worst(moments(shifted, parts * n)) > SIGMAS
    assert worst(moments(scaled, parts * n)) > SIGMAS


def test_uniform_moments(uniforms):
    assert worst(uniform_moments(uniforms)) < SIGMAS
    assert worst(uniform_moments(uniforms * 0.999)) > SIGMAS


def test_kolmogorov_smirnov(normals, uniforms):
    part = slice(0, 1_000_000)
    assert stats.kstest(normals[part].numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(uniforms[part].numpy(), "uniform").pvalue > 1e-4
    summed = (uniforms[:4_000_000].view(-1, 4).sum(1) - 2) * math.sqrt(
        3
    )  # the old approximation, of four
    assert stats.kstest(summed.numpy(), "norm").pvalue < 1e-4
    coarse = (uniforms[part] * 256).floor() / 256
    assert stats.kstest(coarse.numpy(), "uniform").pvalue < 1e-4


def test_normal_tails(normals):
    assert worst(tails(beyond(normals), N)) < SIGMAS
    assert worst(tails(beyond(normals.clamp(-3.9, 3.9)), N)) > SIGMAS


def test_neighbours_are_uncorrelated(normals):
    assert worst(neighbours(normals)) < SIGMAS
    part = normals[:1_000_000]
    assert worst(neighbours(part + 0.01 * part.roll(3))) > SIGMAS
    # Signs drawn independently of sizes that repeat: only the squares show it.
    repeated = part.abs() * ops.normal(torch.tensor([22, 0]), [len(part)]).sign()
    repeated[1::2] = repeated[1::2].sign() * repeated[::2].abs()
    assert worst(neighbours(repeated)) > SIGMAS


def test_lanes_are_uncorrelated(normals):
    lanes = normals.view(-1, 4).unbind(1)
    pairs = [(a, b) for a in range(4) for b in range(a)]
    assert worst([c for a, b in pairs for c in correlations(lanes[a], lanes[b])]) < SIGMAS
    shared = lanes[2] + 0.01 * lanes[0]
    assert worst(correlations(shared, lanes[0])) > SIGMAS


@pytest.mark.parametrize("other", [(21, 0), (20 + 2**32, 0), (20, 2**32), (20, N), (21, 1)])
def test_other_seeds_and_offsets_are_uncorrelated(normals, other):
    part = normals[:1_000_000]
    assert worst(correlations(part, ops.normal(torch.tensor(other), [len(part)]).double())) < SIGMAS
    assert (
        worst(correlations(part, ops.normal(torch.tensor([20, 0]), [len(part)]).double())) > SIGMAS
    )


def test_normal_and_uniform_of_a_state_are_uncorrelated(normals):
    uniforms = ops.uniform(torch.tensor([20, 0]), [N]).double()
    assert worst(correlations(normals, uniforms)) < SIGMAS
    assert worst(correlations(normals, torch.special.ndtr(normals))) > SIGMAS
