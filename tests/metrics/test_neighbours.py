"""Precision, recall, density, coverage and the two-sample test, against their definitions point by point."""

import math

import pytest
import torch

from pygen.metrics import neighbours, prdc, two_sample_accuracy


def clouds(n=40, m=30, features=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    real = torch.randn(n, features, generator=g, dtype=torch.float64)
    return real, 0.7 * torch.randn(m, features, generator=g, dtype=torch.float64) + 0.5


def in_balls(centres, points, k):
    """For each centre the points in the ball to its k-th nearest other centre."""

    def ball(i):
        others = [math.dist(centres[i], c) for j, c in enumerate(centres) if j != i]
        radius = sorted(others)[k - 1]
        return {j for j, p in enumerate(points) if math.dist(centres[i], p) <= radius}

    return [ball(i) for i in range(len(centres))]


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("held", [None, 100])
def test_prdc_is_its_definition(k, held, monkeypatch):
    if held:
        monkeypatch.setattr(neighbours, "_HELD", held)  # three rows at a time, the last one alone
    real, fake = clouds()
    around_real = in_balls(real.tolist(), fake.tolist(), k)
    around_fake = in_balls(fake.tolist(), real.tolist(), k)
    found = prdc(real, fake, k)
    assert found.precision == pytest.approx(len(set.union(*around_real)) / len(fake))
    assert found.recall == pytest.approx(len(set.union(*around_fake)) / len(real))
    assert found.density == pytest.approx(sum(map(len, around_real)) / (k * len(fake)))
    assert found.coverage == pytest.approx(sum(map(bool, around_real)) / len(real))


@pytest.mark.parametrize("held", [None, 100])
def test_two_sample_accuracy_is_its_definition(held, monkeypatch):
    if held:
        monkeypatch.setattr(neighbours, "_HELD", held)
    real, fake = clouds(30, 30)
    points = [(p, 0) for p in real.tolist()] + [(p, 1) for p in fake.tolist()]
    right = 0
    for i, (p, kind) in enumerate(points):
        others = points[:i] + points[i + 1 :]
        right += min(others, key=lambda other: math.dist(p, other[0]))[1] == kind
    assert two_sample_accuracy(real, fake) == pytest.approx(right / 60)


def test_known_figures():
    real, _ = clouds(500, 1)
    other, _ = clouds(500, 1, seed=1)
    alike = prdc(real, other)
    # Of two sets of one distribution about 1 - 2^-k = .97 of the balls are covered (Naeem et al., 2020, lemma 2).
    assert alike.coverage == pytest.approx(1 - 2**-5, abs=0.02)
    assert alike.density == pytest.approx(1, abs=0.1)
    assert alike.precision > 0.9
    assert alike.recall > 0.9
    assert two_sample_accuracy(real, other) == pytest.approx(0.5, abs=0.07)
    assert prdc(real, real + 100) == (0, 0, 0, 0)
    assert two_sample_accuracy(real, real + 100) == 1
    assert two_sample_accuracy(real, real.clone()) == 0  # copies


def test_a_single_point_made_again_and_again():
    real, _ = clouds(200, 1)
    fake = real[:1].repeat(200, 1)
    found = prdc(real, fake)
    assert found.precision == 1
    assert found.recall == 1 / 200  # balls of radius 0 hold the very point
    assert found.coverage < 0.1


def test_refused():
    real, fake = clouds()
    with pytest.raises(ValueError, match=r"\[N, F\].*found \[40, 3\] and \[30, 2\]"):
        prdc(real, fake[:, :2])
    with pytest.raises(ValueError, match="at least 6 made rows"):
        prdc(real, fake[:5])
    with pytest.raises(ValueError, match="k: expected at least 1, found 0"):
        prdc(real, fake, k=0)
    with pytest.raises(ValueError, match="finite"):
        prdc(real, fake / 0)
    with pytest.raises(ValueError, match="found 40 and 30"):
        two_sample_accuracy(real, fake)
