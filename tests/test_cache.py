"""Files that can be made again: kept under the hash of their content, and removed where they are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnetlab.cache import keep, kept


def test_what_is_kept_is_found_until_it_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept("graph", ".onnx") is None
    path, there = keep("graph", ".onnx", b"content")
    assert there
    assert kept("graph", ".so") is None
    assert kept("graph", ".onnx") == (path, b"content"), "a file of another kind is left alone"
    path.write_bytes(b"damaged")
    assert kept("graph", ".onnx") is None
    assert not path.exists()


def test_all_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    path, there = keep("graph", ".onnx", b"content")
    assert not there
    assert not path.exists()
    assert kept("graph", ".onnx") is None
