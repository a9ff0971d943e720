"""`resnetlab runs`, `runs plot` and `train --dry-run`: the answers, and one line for bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from resnetlab.cli.main import main
from resnetlab.training import dry_run as dry_run_module
from resnetlab.training.recipe import FIELDS, RETIRED

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch, a damaged one and one that has not begun."""
    root = tmp_path_factory.mktemp("cli") / "runs"
    options = ["--net", "cifar_resnet8", "--epochs", "1", "--threads", "1", "--json"]
    assert main(["train", "digits", *options, "--runs", str(root)]) == 0
    (folder,) = root.iterdir()
    (root / "damaged").mkdir()
    (root / "damaged" / "run.json").write_text("{")
    (root / "new").mkdir()
    (root / "new" / "run.json").write_text((folder / "run.json").read_text())
    (root / "photos").mkdir()
    return root


def trained(runs: Path) -> Path:
    (folder,) = runs.glob("cifar_resnet8_digits-*")
    return folder


def test_the_list(runs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["runs", "--runs", str(runs), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = {Path(row["folder"]).name: row for row in answer["runs"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        trained(runs).name: "finished",
        "damaged": "damaged",
        "new": "unfinished",
    }
    assert rows[trained(runs).name]["epochs"] == 1
    assert answer["others"] == [str(runs / "photos")]
    for width in (140, 60):
        monkeypatch.setattr("resnetlab.api.screen.console", lambda width=width: Console(width=width))
        assert main(["runs", "--runs", str(runs)]) == 0
        shown = capsys.readouterr().out
        for words in (trained(runs).name, "finished", "damaged: run.json", "1 folder that is not a run: photos"):
            assert words in shown
    assert "damaged: run.json, not JSON (" in shown
    assert "unfinished: epoch 0 of 1, step 0" in shown
    assert main(["runs", "--runs", str(runs / "photos")]) == 0
    assert "no runs yet" in capsys.readouterr().out


def test_a_long_name_takes_no_column_away(
    runs: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained(runs), tmp_path / f"{'n' * 60}-{trained(runs).name[-12:]}")
    monkeypatch.setattr("resnetlab.api.screen.console", lambda: Console(width=140))
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("n" * 60, "cifar_resnet8", "digits", "finished"):
        assert words in shown


def test_a_plot(runs: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = trained(runs).name
    assert main(["runs", "plot", name.rpartition("-")[2], "--runs", str(runs)]) == 0
    assert capsys.readouterr().out == "curves.svg: errors of 1 run\n"
    assert main(["runs", "plot", str(trained(runs)), "--out", "x.pdf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"written": "x.pdf", "runs": [str(trained(runs))]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.svg", "x.pdf"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["runs", "--runs", "nowhere"], "nowhere: can't be read (No such file or directory); choose the folder"),
        (["runs", "--runs", "file"], "file: can't be read (Not a directory); choose the folder"),
        (["runs", "plot"], "runs plot needs RUN. A run: its folder"),
        (["runs", "plot", "nothing"], "'nothing': no such run folder, here or in"),
        (["runs", "plot", "photos"], "photos: not a run folder, it has no run.json"),
        (["runs", "plot", "damaged"], "damaged/run.json: damaged, not JSON ("),
        (["runs", "plot", "RUN", "new"], "new: has no whole epoch yet; leave it out, or wait"),
        (["runs", "plot", "RUN", "RUN"], "is given twice"),
        (["runs", "plot", "RUN", "--out", "x.gif"], "x.gif: the suffix decides the format; give one of .svg"),
        (["runs", "plot", "RUN", "--out", "file"], "file: the suffix decides the format"),
        (["runs", "plot", "RUN", "--out", "no/x.svg"], "no/x.svg: can't write (No such file or directory)"),
        (["runs", "plot", "RUN", "--out", "file/x.svg"], "can't"),
        (["runs", "plot", "RUN", "--out", "mine.svg"], "mine.svg: already exists and is not a plot"),
        (["train", "digits", "--log", "tensorbord"], "tensorbord"),
        (["train", "digits", "--dry-run", "--net", "cifar_resnet57"], "the nearest are 56 and 62"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    runs: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "mine.svg").write_text("<svg/>")
    arguments = [str(trained(runs)) if a == "RUN" else a for a in arguments]
    assert main([*arguments, *(["--runs", str(runs)] if "--runs" not in arguments else [])]) == 2
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)
    assert words in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine.svg"]


@pytest.mark.parametrize("command", [["describe"], ["compare", "resnet18"]])
def test_a_run_is_not_the_name_of_a_network(
    command: list[str], tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("flowers-0a1b2c3d4e5f", "resnet18"):  # a run may be called as a network is
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert main([*command, "flowers"]) == 2
    assert "'resnetlab runs show flowers' shows it" in " ".join(capsys.readouterr().err.split())
    assert main([*command, "resnet18"]) == 0


def test_a_dry_run(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run_module, "other_work", lambda: 1.84)
    options = ["--net", "cifar_resnet8", "--threads", "1", "--runs", str(tmp_path / "runs"), "--dry-run"]
    assert main(["train", "digits", *options]) == 0
    shown = capsys.readouterr().out
    for field in set(FIELDS) - set(RETIRED):
        assert field in shown
    for words in (
        "* net                cifar_resnet8   (default cifar_resnet20)\n",
        "  seed               0\n",
        "23 per epoch, 345 in total: 15 epochs",
        "0.05 at step 46, 0.005 at step 172",
        "1,437 for training, 360 for testing; 1 x 8 x 8 each",
        "images/s (cpu, 1 thread; a few steps of 64 images); other work kept 1.8 cores busy meanwhile",
        "nothing known to torch",
        "(new)",
    ):
        assert words in shown
    assert main(["train", "digits", *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["steps"], answer["network"], answer["state"]) == (345, "cifar_resnet8", "new")
    assert set(answer["recipe"]) == set(FIELDS) - set(RETIRED)
    assert "net" in answer["changed"]
    assert "seed" not in answer["changed"]
    assert not (tmp_path / "runs").exists()
