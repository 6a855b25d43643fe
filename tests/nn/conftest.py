"""The folder's tests share the networks of `published_forms`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
