"""Drawing: normals beside torch's and NumPy's, samples of a mixture beside scikit-learn's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pygen.ops import normal
from pygen.random import new_state

SAMPLES = 100_000


@pytest.mark.parametrize("library", ["torch", "numpy"])
@pytest.mark.parametrize("draws", [2**20, 2**24])
def test_normal(versus: Callable[..., None], draws: int, library: str) -> None:
    """The larger result is new memory at every call: its first touch is half of the time."""
    state = new_state(0)
    generator = np.random.default_rng(0)
    peers: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch.randn(draws),
        "numpy": lambda: generator.standard_normal(draws, dtype=np.float32),
    }

    def agree(mine: torch.Tensor, other: Any) -> None:
        for found in (mine, torch.as_tensor(other)):
            moments = found.double().mean(), found.double().square().mean()
            # Five standard deviations of each moment.
            assert abs(moments[0]) < 5 / draws**0.5
            assert abs(moments[1] - 1) < 5 * (2 / draws) ** 0.5

    versus(
        f"normal, {draws:,} draws float32, beside {library}",
        lambda: normal(state, [draws]),
        peers[library],
        agree,
        peer_name=library,
        # torch draws on one thread however many there are.
        target=2.0 * min(2, torch.get_num_threads()) if library == "torch" else None,
    )


@pytest.mark.parametrize(
    ("kind", "n", "dtype", "target"),
    [
        ("diag", 20_000, "float32", 4.0),
        ("full", 8_000, "float32", 7.0),
        ("diag", 20_000, "float64", None),
        ("full", 8_000, "float64", None),
    ],
)
def test_sample(
    mixtures: Callable[..., tuple[Any, Any]],
    versus: Callable[..., None],
    kind: str,
    n: int,
    dtype: str,
    target: float | None,
) -> None:
    """scikit-learn always draws float64, so it has float64 parameters; pygen draws in the dtype of the fit."""
    model, _ = mixtures(kind, 10, n, dtype)
    _, peer = mixtures(kind, 10, n, "float64")

    def agree(mine: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
        (x, index), (expected, labels) = mine, other
        assert x.shape == expected.shape
        assert x.dtype == dtype
        assert np.abs(np.bincount(index) - np.bincount(labels)).max() < 5 * (SAMPLES / 2) ** 0.5
        error = np.abs(x.mean(0, dtype=np.float64) - expected.mean(0))
        # Five standard deviations of the difference of two means.
        assert (error <= 5 * expected.std(0) * (2 / SAMPLES) ** 0.5).all()
        np.testing.assert_allclose(
            x.std(0, dtype=np.float64).mean(), expected.std(0).mean(), rtol=5e-3
        )

    case = f"sample, {kind} K=10, {SAMPLES // 1000}k x 784 {dtype}"
    versus(case, lambda: model.sample(SAMPLES), lambda: peer.sample(SAMPLES), agree, target=target)
