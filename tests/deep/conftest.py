"""Makes what tests of this folder share importable: ``from small_task import Regression``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
