"""The compiled module, or why it is missing."""

from pathlib import Path
from types import ModuleType

import torch  # noqa: F401 - loads the libraries that the module is linked to

native: ModuleType | None
native_error: str | None
try:
    import pygen._C as native

    native_error = None
except ImportError as error:
    native = None
    # Written by setup.py when the build fails.
    note = Path(__file__).parents[1] / "native_build.txt"
    native_error = note.read_text().strip() if note.exists() else str(error)
