"""What make refuses: results of a checkout that is changed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean checkout with this Makefile, some code and a record."""
    for name in ("make", "git"):
        if shutil.which(name) is None:
            pytest.skip(f"needs {name}")
    shutil.copy(MAKEFILE, tmp_path)
    (tmp_path / "code.py").write_text("before")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/record.json").write_text("before")
    run(tmp_path, "git", "init")
    run(tmp_path, "git", "add", ".")
    run(tmp_path, "git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-m", "first")
    return tmp_path


@pytest.mark.parametrize("name", ["code.py", "new.py"])
def test_results_are_made_from_a_clean_commit_only(checkout: Path, name: str) -> None:
    assert run(checkout, "make", "clean-commit").returncode == 0
    (checkout / "results/record.json").write_text("after")  # what it writes itself
    assert run(checkout, "make", "clean-commit").returncode == 0
    (checkout / name).write_text("after")
    done = run(checkout, "make", "results")
    assert done.returncode
    assert done.stderr.startswith("results/ is written from a clean commit only")
    assert not (checkout / ".venv").exists(), "it is said before anything is installed"


def test_results_are_not_made_outside_a_checkout(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    assert "results/ is written from a clean commit only" in run(checkout, "make", "results").stderr
