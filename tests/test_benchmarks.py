"""The benchmarks run by hand, so that nothing else tells when what they import is gone."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted({path.stem for path in (ROOT / "benchmarks").glob("*.py")} - {"__init__", "timing"})


@pytest.mark.parametrize("name", [*BENCHMARKS, "timing"])
def test_every_benchmark_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    assert importlib.import_module(f"benchmarks.{name}").__doc__


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"benchmarks.{name}").main()
    assert end.value.code == 0
    assert "--help" in capsys.readouterr().out
