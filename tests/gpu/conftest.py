"""What every test on a GPU needs: the device, and random inputs that are fresh at each run."""

import secrets

import pytest
import torch

from pygen import ops


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def kernels() -> None:
    """Skips where plain PyTorch serves the GPU."""
    if ops.native is None or not ops.native.cuda_compiler:
        pytest.skip("built without CUDA kernels")


@pytest.fixture
def seed() -> int:
    """Another one at each run; pytest prints it where the test fails."""
    value = secrets.randbits(32) if torch.cuda.is_available() else 0
    print(f"seed {value}")
    return value


@pytest.fixture
def poisoned() -> None:
    """Fill the memory that the next tensors get with NaN: an element that is not written then shows."""
    if torch.cuda.is_available():
        # Of torch's pool for tensors below 1 MB, and of that for larger ones.
        small = [torch.full((2**17,), torch.nan, device="cuda") for _ in range(32)]
        large = torch.full((2**24,), torch.nan, device="cuda")
        del small, large
