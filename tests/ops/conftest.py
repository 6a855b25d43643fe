"""Makes what tests of this folder share importable, ``from mixtures import reference``, and compiles kernels."""

import ctypes
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from instruction_sets import INSTRUCTION_SETS


@pytest.fixture(params=INSTRUCTION_SETS, ids=[each.name for each in INSTRUCTION_SETS])
def compiled(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., ctypes.CDLL]:
    """``compiled(file, *sources)``: a C++ file of this folder, and others, for one instruction set after another."""
    return partial(request.param.compile, tmp_path)
