"""Tests of pages share a module of their own, which import-mode importlib does not find by itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
