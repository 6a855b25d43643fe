"""A step without a GPU: it runs as it is. The graphs are tested in tests/gpu."""

import pytest
import torch

from pygen.nn import CapturedStep


def test_without_a_gpu_each_call_runs_the_step() -> None:
    seen = []

    def step(x: torch.Tensor, y: None) -> dict[str, torch.Tensor]:
        assert y is None
        seen.append(float(x.sum()))
        return {"sum": x.sum()}

    captured = CapturedStep(step, warmup=1)
    results = [float(captured(torch.full((n,), 2.0), None)["sum"]) for n in (1, 2, 3, 3, 3)]
    assert results == seen == [2, 4, 6, 6, 6]


def test_a_capture_needs_calls_before_it() -> None:
    with pytest.raises(ValueError, match="warmup: expected at least 1, found 0"):
        CapturedStep(print, warmup=0)
