"""What records say of the machine and the code that they are made by."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from resnetlab import machine as machine_module
from resnetlab.machine import machine


def test_changed_code_marks_the_commit_and_new_records_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    code, record = tmp_path / "resnetlab/machine.py", tmp_path / "results/record.json"
    for path in (code, record):
        path.parent.mkdir(parents=True)
        path.write_text("before")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(machine_module, "__file__", str(code))
    clean = machine()["commit"]
    assert clean
    assert not clean.endswith("+")
    record.write_text("after")
    assert machine()["commit"] == clean
    code.write_text("after")
    assert machine()["commit"] == f"{clean}+"
