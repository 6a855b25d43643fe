"""Fixtures of all tests: where the real data lies, and the devices there are.

And makes what tests of several folders share importable: ``from operator_calls import OperatorCalls``.
"""

import os
import sys
from pathlib import Path

import pytest

# Tests are small: a second thread costs more than it does, and threads that wait by spinning, each library's its own,
# slow each other down threefold on two cores. Tests of threads ask for theirs.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

# Where plain PyTorch serves a GPU, its convolutions would take TF32's short mantissas; our kernels never do.
torch.backends.cudnn.allow_tf32 = False

sys.path.insert(0, str(Path(__file__).parent))
DATA = Path(__file__).parents[2] / "shared" / "data"


def pytest_configure() -> None:
    if "PYGEN_DATA" not in os.environ and DATA.is_dir():
        os.environ["PYGEN_DATA"] = str(DATA)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With --dist loadgroup a file's tests, which share what they build, have one process; long files name parts."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture
def shared_data() -> Path:
    """Folder of the real MNIST and CIFAR-10."""
    folder = Path(os.environ.get("PYGEN_DATA", DATA))
    if not folder.is_dir():
        pytest.skip(f"real data: PYGEN_DATA is not set and {DATA} does not exist")
    return folder


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ),
    ]
)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)
