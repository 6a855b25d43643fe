"""Global random generators, seeded for a while and then put back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(*key: int) -> int:
    """A seed in [0, 2**63) for a key of whole numbers.

    Different keys, also of different length, give unrelated seeds.
    """
    # Not numpy.random.SeedSequence, to which (3,) and (3, 0) are one key.
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(*key: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python; afterwards they are as they were.

    For what draws from them: weight initialisation, dropout, the augmentation of a user's data set.

    Parameters
    ----------
    *key : int
        As :func:`derived_seed` takes it.
    device : torch.device or str
        Besides the CPU's, the generator of this CUDA device is seeded.
    """
    seed = derived_seed(*key)
    device = torch.device(device)
    cuda = [device] if device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=cuda):
        # Not torch.manual_seed, which seeds every device.
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
