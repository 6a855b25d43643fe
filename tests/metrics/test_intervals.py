"""Half samples, and the intervals that figures of them give."""

import pytest
import torch

from pygen.metrics import Estimate, compare_pairs, estimate, frechet_distance, half_samples


def test_half_samples():
    halves = list(half_samples(11, 200, 0))
    assert len(halves) == 200
    for rows in halves:
        assert len(rows) == 5
        assert (rows.diff() > 0).all()
    counts = torch.cat(halves).bincount(minlength=11)
    assert (abs(counts - 200 * 5 / 11) < 5 * (200 * 5 / 11 * 6 / 11) ** 0.5).all()
    assert [r.tolist() for r in half_samples(11, 200, 0)] == [r.tolist() for r in halves]
    assert [r.tolist() for r in half_samples(11, 200, 1)] != [r.tolist() for r in halves]


def test_interval_of_a_mean_is_the_textbooks():
    x = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = estimate(
        x.mean().item(), [x[rows].mean().item() for rows in half_samples(400, 4000, 0)]
    )
    assert found.value == x.mean().item()
    assert found.high - found.value == pytest.approx(1.96 * x.std().item() / 20, rel=0.05)
    assert found.value - found.low == pytest.approx(found.high - found.value)


def test_interval_is_kept_where_the_figure_lies():
    found = estimate(0.9, [0.5, 0.9], least=0, most=1)
    assert found == (0.9, pytest.approx(0.9 - 1.96 * 0.08**0.5), 1)
    assert estimate(0.1, [0.5, 0.9], least=0, most=1).low == 0
    assert estimate(3.0, []) == Estimate(3.0, None, None)
    assert estimate(3.0, [2.0]) == Estimate(3.0, None, None)


def test_spread_is_that_of_other_draws():
    """Where distributions differ, half samples show how much figures of new samples vary."""
    g = torch.Generator().manual_seed(0)

    def figures(a, b):
        found = compare_pairs(a, b, scaled=False)
        names = ("kernel_distance", "precision", "coverage", "two_sample_accuracy")
        return torch.tensor([frechet_distance(a, b), *(found[name] for name in names)])

    truth, guessed = [], []
    for seed in range(40):
        real = torch.randn(80, 8, generator=g, dtype=torch.float64)
        fake = 1.5 * torch.randn(80, 8, generator=g, dtype=torch.float64) + 0.5
        truth.append(figures(real, fake))
        halves = [
            figures(real[a], fake[b])
            for a, b in zip(
                half_samples(80, 10, seed), half_samples(80, 10, 1000 + seed), strict=True
            )
        ]
        guessed.append(torch.stack(halves).var(0))
    ratio = (torch.stack(guessed).mean(0) / torch.stack(truth).var(0)).sqrt()
    # The truth itself is known to 11% from 40 draws.
    assert (ratio > 0.65).all()
    assert (ratio < 1.6).all()
