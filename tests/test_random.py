import numpy as np
import pytest
import torch

from pygen.random import as_seed, new_state


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, np.int32(7), np.uint64(2**62), np.int64(5)])
def test_int_is_the_seed(seed):
    assert as_seed(seed) == int(seed)
    assert type(as_seed(seed)) is int


@pytest.mark.parametrize(
    "make",
    [np.random.RandomState, np.random.default_rng, lambda s: torch.Generator().manual_seed(s)],
    ids=["RandomState", "Generator", "torch.Generator"],
)
def test_generator_is_reproducible_and_advanced(make):
    generator, again, other = make(3), make(3), make(4)
    seeds = [as_seed(generator) for _ in range(4)]
    assert seeds == [as_seed(again) for _ in range(4)]
    assert len(set(seeds)) == 4
    assert as_seed(other) not in seeds
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**56  # all the digits are drawn, not 32 of them


def test_none_is_numpys_global_state():
    before = np.random.get_state()
    try:
        np.random.seed(11)
        first, second = as_seed(None), as_seed()
        np.random.seed(11)
        assert first == as_seed(None)
        assert first != second
        assert first == as_seed(np.random.RandomState(11))
    finally:
        np.random.set_state(before)


@pytest.mark.parametrize("bad", [-1, 2**63, np.int64(-5)])
def test_int_out_of_range(bad):
    with pytest.raises(ValueError, match=r"\[0, 2\*\*63\)"):
        as_seed(bad)


@pytest.mark.parametrize("bad", ["7", 1.5, [3], True, np.random])
def test_something_else(bad):
    with pytest.raises(ValueError, match="cannot seed a generator"):
        as_seed(bad)


def test_new_state(device):
    state = new_state(42, device)
    assert state.dtype == torch.int64
    assert state.device.type == device.type
    assert state.tolist() == [42, 0]
