"""Seeds from keys, and global generators put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from pygen.deep.seeding import derived_seed, seeded


def draws(device: torch.device) -> list[float]:
    return [
        torch.rand(()).item(),
        torch.rand((), device=device).item(),
        np.random.rand(),
        random.random(),
    ]


def test_keys_do_not_collide() -> None:
    keys = [(), (0,), (3,), (3, 0), (3, 0, 0), (0, 3), (3, 5), (2**32 * 5 + 3,), (35,)]
    seeds = [derived_seed(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(3, 5) == seeds[6]


def test_seeded_repeats_and_restores(device: torch.device) -> None:
    def before_and_after(*key: int) -> tuple[Any, Any]:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        with seeded(*key, device=device):
            inside = draws(device)
        return inside, draws(device)

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    undisturbed = draws(device)
    inside, after = before_and_after(7, 1)
    assert after == undisturbed
    assert before_and_after(7, 1) == (inside, undisturbed)
    other, _ = before_and_after(7, 2)
    assert all(a != b for a, b in zip(inside, other, strict=True))


def test_seeded_restores_after_an_error() -> None:
    state = torch.get_rng_state()
    with pytest.raises(KeyError), seeded(3):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), state)
