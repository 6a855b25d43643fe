"""From what scikit-learn and PyTorch call a random state to that of pygen's own generator."""

import numpy as np
import torch
from torch import Tensor

RandomState = (
    None | int | np.integer | np.random.RandomState | np.random.Generator | torch.Generator
)

_SEEDS = 2**63


def as_seed(random_state: RandomState = None) -> int:
    """Seed of the counter-based generator for a random state.

    Parameters
    ----------
    random_state : None, int, numpy.random.RandomState, numpy.random.Generator or torch.Generator
        An int is the seed itself. A generator is advanced by one draw, so that the next call gives
        another seed. None means numpy's global ``RandomState``, as in scikit-learn:
        ``np.random.seed`` governs it.

    Returns
    -------
    int
        In ``[0, 2**63)``.

    Raises
    ------
    ValueError
        If an int is negative or not below ``2**63``, or ``random_state`` is something else.
    """
    if random_state is None:
        random_state = np.random.mtrand._rand
    if isinstance(random_state, int | np.integer) and not isinstance(random_state, bool):
        seed = int(random_state)
        if not 0 <= seed < _SEEDS:
            raise ValueError(f"random_state as an int must lie in [0, 2**63), got {seed}.")
        return seed
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, _SEEDS - 1, dtype=np.int64))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(0, _SEEDS - 1, dtype=np.int64, endpoint=True))
    if isinstance(random_state, torch.Generator):
        draw = torch.empty((), dtype=torch.int64, device=random_state.device)
        return int(draw.random_(generator=random_state))
    raise ValueError(
        f"{random_state!r} cannot seed a generator: give None, an int in [0, 2**63), a"
        " numpy.random.RandomState, a numpy.random.Generator or a torch.Generator."
    )


def new_state(random_state: RandomState = None, device: torch.device | str | None = None) -> Tensor:
    """State ``(seed, offset=0)`` of a new stream, for the operators of ``pygen.ops``.

    Parameters
    ----------
    random_state : None, int, numpy.random.RandomState, numpy.random.Generator or torch.Generator
        See :func:`as_seed`.
    device : torch.device or str, optional
        Where the state lives, and with it what is drawn from it.

    Returns
    -------
    Tensor
        int64 ``[2]``.
    """
    return torch.tensor([as_seed(random_state), 0], dtype=torch.int64, device=device)
