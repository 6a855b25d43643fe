"""Makes what tests of this folder share importable: ``from harness import Program``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
