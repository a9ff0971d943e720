"""Names of runs, one run in detail, runs side by side, and the removal of runs and of nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.images import Data, Images
from resnetlab.errors import UserError
from resnetlab.run_files import newest_run, source_path
from resnetlab.storage import locked
from resnetlab.training.finetune import read_pretrained
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run, open_folder
from resnetlab.training.run_details import compare_runs, details, remove_run
from resnetlab.training.runs import find_run, summary

Captured = pytest.CaptureFixture[str]
SHORT: dict[str, Any] = {"net": "cifar_resnet8", "iterations": 2, "batch_size": 8}


def small_data() -> Data:
    pixels = torch.randint(0, 256, (16, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels, torch.arange(16) % 10)
    return Data("folder", images, images, tuple("abcdefghij"), own_name="flowers")


def made(root: Path, name: str = "", **changes: Any) -> Run:
    run = make_run(recipe("digits", **(SHORT | changes)), root, small_data(), name=name)
    for _ in train(run, threads=1):
        pass
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: two called flowers, of which the second was written last, and one without a name."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    for i, run in enumerate((made(root, "flowers"), made(root, "flowers", lr=0.01), made(root, seed=1))):
        for path in run.folder.iterdir():
            os.utime(path, (1e9 + i, 1e9 + i))
    return root


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in the working folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "runs")
    return Path("runs")


def by_lr(runs: Path) -> dict[float, Path]:
    return {json.loads((path / "run.json").read_text())["recipe"]["lr"]: path for path in runs.glob("flowers-*")}


def test_what_is_said_of_a_run(runs: Path) -> None:
    facts = dict(details(find_run("flowers", runs)).facts())
    assert re.fullmatch(r"training [\d.]+ %, test [\d.]+ %, lowest test [\d.]+ %", facts["errors"])
    assert f"torch {torch.__version__}" in facts["machine"]
    held_out = made(runs, "held", validation_images=4)
    assert ", lowest validation " in dict(details(held_out.folder).facts())["errors"]
    lines = [json.loads(line) for line in (held_out.folder / "metrics.jsonl").read_text().splitlines()]
    lowest = min(line["validation_error"] for line in lines if "validation_error" in line)
    assert summary(held_out.folder).best_error == lowest


def test_a_name_is_the_folder_and_no_part_of_the_id(tmp_path: Path) -> None:
    plain, named = (make_run(recipe("digits", **SHORT), tmp_path, small_data(), name=n) for n in ("", "flowers"))
    assert plain.id == named.id
    assert named.folder == tmp_path / f"flowers-{named.id}"
    assert plain.folder == tmp_path / f"cifar_resnet8_flowers-{plain.id}"  # what the data is called, not its kind
    assert plain.settings(1, "cpu")["data"]["title"] == "flowers"
    open_folder(plain, 1, "cpu")
    assert named.folder == plain.folder  # it is one run


@pytest.mark.parametrize("name", ["a/b", "..", "-x", "a b", "a\n", "a" * 61, "*"])
def test_names_that_no_folder_should_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="can't be the name of a run"):
        make_run(recipe("digits", **SHORT), tmp_path, small_data(), name=name)


def test_names_of_other_scripts_are_kept(tmp_path: Path) -> None:
    run = make_run(recipe("digits", **SHORT), tmp_path, small_data(), name="花.2")
    assert run.folder.name == f"花.2-{run.id}"


def test_a_name_or_a_hash_stands_for_the_newest_run(runs: Path) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    digest = older.name.rpartition("-")[2]
    for text in ("runs/flowers", "flowers", str(Path("runs/flowers").absolute())):
        assert source_path(text).resolve() == newer.resolve()
        assert find_run(text, runs).resolve() == newer.resolve()
    for text in (digest, f"runs/{digest}", older.name, f"runs/{older.name}"):
        assert source_path(text).resolve() == older.resolve()
        assert find_run(text, runs).resolve() == older.resolve()
    assert newest_run(runs, "flower") is newest_run(runs, "") is newest_run(runs / "none", "flowers") is None
    assert source_path("flower") == Path("flower")
    shutil.copytree(older, runs / "backup-flowers")  # of another name, though it ends like it
    assert find_run("flowers", runs).resolve() == newer.resolve()
    for there in ("daisy", "resnetlab-split.json"):  # the run's data, which are often called alike
        (Path("flowers") / there).mkdir(parents=True)
        assert source_path("flowers").resolve() == newer.resolve()
        assert find_run("flowers", runs).resolve() == newer.resolve()
        assert source_path(str(Path("flowers").absolute())).resolve() == Path("flowers").resolve()
    (Path("flowers") / "model.safetensors").touch()
    assert source_path("flowers") == Path("flowers")  # a network that is there goes first


def test_networks_are_loaded_by_the_name(runs: Path, capsys: Captured) -> None:
    newer = by_lr(runs)[0.01]
    wanted = resnetlab.load(newer).state_dict()
    for text in ("flowers", newer.name.rpartition("-")[2]):
        assert all(torch.equal(t, wanted[k]) for k, t in resnetlab.load(text).state_dict().items())
    assert read_pretrained(Recipe(net="", start="flowers", normalise="source"), small_data()).spec.name
    with pytest.raises(UserError, match="flower: no such run folder"):
        resnetlab.load("flower")


def test_a_run_in_detail(runs: Path, capsys: Captured) -> None:
    found = details(by_lr(runs)[0.01])
    facts = dict(found.facts())
    assert facts["data"].startswith("flowers: 16 training and 16 test images, fingerprint ")
    assert facts["  lr"] == "0.01"
    assert "  momentum" not in facts
    assert main(["runs", "show", "flowers"]) == 0
    assert "cifar_resnet8" in capsys.readouterr().out
    assert main(["runs", "show", "flowers", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"]["recipe"]["lr"] == 0.01
    assert answer["result"]["steps"] == 2
    (found.summary.folder / "run.json").write_text("{")
    assert main(["runs", "show", "flowers"]) == 0
    assert "damaged: run.json, not JSON" in capsys.readouterr().out


def test_runs_side_by_side(runs: Path, capsys: Captured) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    found = compare_runs([older, newer])
    assert found.differences == {"lr": (0.05, 0.01)}
    assert found.table()[0][:3] == ["run", "lr", "state"]
    assert main(["runs", "compare", str(older), "flowers", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == {"lr": [0.05, 0.01]}
    assert main(["runs", "compare", str(older), "flowers"]) == 0
    shown = capsys.readouterr().out
    assert older.name in shown
    assert "0.05" in shown
    settings = json.loads((older / "run.json").read_text())
    del settings["recipe"]["balance"]  # as an older version wrote it
    settings["recipe"] |= {"lr": 0.01, "of_old": 1, "fused": False}
    (older / "run.json").write_text(json.dumps(settings))
    assert compare_runs([older, newer]).differences == {"of_old": (1, None)}
    assert main(["runs", "compare", str(newer), newer.name]) == 2
    assert "two or more different runs" in capsys.readouterr().err


def test_a_damaged_run_is_not_compared(runs: Path, capsys: Captured) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    (older / "result.json").write_text("{")
    assert main(["runs", "compare", str(newer), str(older)]) == 2
    assert f"{older}: damaged: result.json, not JSON" in capsys.readouterr().err


def test_runs_without_their_weights_are_compared_by_their_errors(runs: Path, capsys: Captured) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    error = summary(older).test_error
    shutil.rmtree(older / "last")
    assert main(["runs", "compare", str(newer), str(older)]) == 0
    assert f"{error:.2f}" in capsys.readouterr().out


def test_runs_on_images_of_other_sizes_differ(runs: Path) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    settings = json.loads((older / "run.json").read_text())
    settings["spec"]["input_size"] = 16
    (older / "run.json").write_text(json.dumps(settings))
    assert compare_runs([older, newer]).differences == {"input_size": (16, 8), "lr": (0.05, 0.01)}


def test_removal(runs: Path, capsys: Captured) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    assert main(["runs", "remove", "flowers"]) == 2
    assert "give --yes" in capsys.readouterr().err
    assert newer.exists()
    assert main(["runs", "remove", "flowers", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": [str(newer)]}
    assert not newer.exists()
    assert older.exists()


def test_what_trackers_leave_in_a_run_goes_with_it(tmp_path: Path) -> None:
    for name in ("tensorboard", "wandb"):
        (tmp_path / "a" / name).mkdir(parents=True)
    remove_run(tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 1)])
def test_it_is_asked_for(runs: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, answer: str, code: int) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    newer = by_lr(runs)[0.01]
    assert main(["runs", "remove", "flowers"]) == code
    assert newer.exists() == bool(code)
    assert f"{newer}: finished, 1 epoch\n" in capsys.readouterr().err


def test_nothing_but_a_run_is_removed(runs: Path, capsys: Captured) -> None:
    older, newer = by_lr(runs)[0.05], by_lr(runs)[0.01]
    with locked(newer), pytest.raises(UserError, match="is being trained already"):
        remove_run(newer)
    (newer / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds notes\.txt, which no training wrote"):
        remove_run(newer)
    Path("link").symlink_to(older)
    with pytest.raises(UserError, match="a symbolic link"):
        remove_run(Path("link"))
    Path("photos").mkdir()
    for name in ("photos", "runs", "nowhere"):
        assert main(["runs", "remove", name, "--yes"]) == 2
    assert main(["runs", "remove", str(older), "flowers", "--yes"]) == 2  # all or none
    assert "Traceback" not in capsys.readouterr().err
    assert older.exists()
    assert newer.exists()
