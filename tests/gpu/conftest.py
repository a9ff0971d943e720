"""What the tests of CUDA share: a stand-in for a GPU, since most machines that run them have none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stand_in_gpu import StandIn


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A GPU that is none: within the test, torch finds a device "cuda"."""
    with StandIn(monkeypatch) as stand_in:
        yield stand_in
