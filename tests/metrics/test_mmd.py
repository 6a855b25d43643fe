"""The permutation test of the maximum mean discrepancy: its statistic, and how often it is wrong and right."""

import math

import pytest
import torch

from pygen.metrics import mmd_test


def cloud(n, seed, shift=0.0, features=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, features, generator=g, dtype=torch.float64) + shift


def definition(real, fake):
    points = real + fake
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    squares = sorted(math.dist(a, b) ** 2 for a, b in pairs)
    width = squares[(len(squares) - 1) // 2]

    def mean(a, b, same):
        values = [
            math.exp(-(math.dist(x, y) ** 2) / (2 * width))
            for i, x in enumerate(a)
            for j, y in enumerate(b)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    return mean(real, real, True) + mean(fake, fake, True) - 2 * mean(real, fake, False)


def test_statistic_is_its_definition():
    real, fake = cloud(12, 0), cloud(9, 1, 0.5)
    found = mmd_test(real, fake, random_state=0)
    assert found.distance == pytest.approx(definition(real.tolist(), fake.tolist()), rel=1e-10)
    assert mmd_test(real.float(), fake.float()).distance == pytest.approx(found.distance, rel=1e-5)


def test_p_value_counts_deals_as_large():
    # All 3-of-6 deals of points on a line: few are as far apart as this one and its mirror image.
    real, fake = torch.tensor([[0.0], [1], [2]]), torch.tensor([[10.0], [11], [12]])
    found = mmd_test(real, fake, 4000, random_state=0)
    assert found.p_value == pytest.approx(2 / 20, abs=5 * (0.1 * 0.9 / 4000) ** 0.5)


def test_error_rate_is_the_level():
    n = 200
    wrong = sum(
        mmd_test(cloud(20, i), cloud(15, 10_000 + i), 99, i).p_value <= 0.1 for i in range(n)
    )
    assert abs(wrong / n - 0.1) < 4 * (0.1 * 0.9 / n) ** 0.5


def test_power_seed_and_copies():
    assert mmd_test(cloud(60, 0), cloud(60, 1, 1.0), random_state=0).p_value == 1 / 201
    a, b = cloud(30, 0), cloud(30, 1, 0.2)
    assert mmd_test(a, b, random_state=3) == mmd_test(a, b, random_state=3)
    one = torch.ones(10, 2)
    assert mmd_test(one, one) == (0, 1)
    assert mmd_test(a, a[:1].repeat(30, 1), random_state=0).p_value == 1 / 201


def test_refused():
    with pytest.raises(ValueError, match="at least 2 made rows"):
        mmd_test(cloud(5, 0), cloud(1, 1))
    with pytest.raises(ValueError, match="n_permutations: expected at least 1, found 0"):
        mmd_test(cloud(5, 0), cloud(5, 1), 0)
