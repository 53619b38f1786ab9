"""reader.py is a program beside its tests, not a package: make it importable under its own name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
