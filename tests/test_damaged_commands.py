"""Every command that reads a run, on damaged ones: exit code 2 and one line, nothing written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from resnetlab.cli.main import main
from resnetlab.training import runs
from resnetlab.weights.files import read_safetensors

TRAIN = ["train", "digits", "--net", "cifar_resnet8", "--epochs", "1", "--threads", "1"]
COMMANDS = {
    "plot": ["runs", "plot", "RUN", "--out", "x.svg"],
    "train": TRAIN,
    "train --from": ["train", "finetune", "--data", "digits", "--from", "RUN", "--augment", "none"],
    "eval": ["eval", "RUN", "--data", "digits", "--json"],
    "predict": ["predict", "RUN", "image.png"],
    "explain": ["explain", "RUN", "image.png"],
    "features": ["features", "RUN", "image.png", "--out", "x.npz"],
    "export": ["export", "RUN", "--to", "torch", "--out", "x.pt2"],
    "convert": ["convert", "RUN", "x.npz", "--to", "resnetlab"],
    "serve": ["serve", "RUN", "--port", "0"],
}
WEIGHTS = "last/weights.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    root = tmp_path_factory.mktemp("trained") / "runs"
    assert main([*TRAIN, "--runs", str(root)]) == 0
    (folder,) = root.iterdir()
    return folder


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def whole_numbers(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe": 7, "steps": "x"}))


def no_lr(path: Path) -> None:
    path.write_text("".join(json.dumps({**json.loads(t), "lr": "x"}) + "\n" for t in path.read_text().splitlines()))


def huge_header(path: Path) -> None:
    path.write_bytes((2**63).to_bytes(8, "little") + path.read_bytes()[8:])


def weights_of(value: float) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        tensors = load_file(path)
        tensors["layer1.0.conv1.weight"] = torch.full_like(tensors["layer1.0.conv1.weight"], value)
        save_file(tensors, path, read_safetensors(path)[1])

    return change


READ_WEIGHTS = ("train --from", "eval", "predict", "explain", "features", "export", "convert", "serve")


DAMAGES: list[tuple[str, Callable[[Path], None], Iterable[str], str]] = [
    ("run.json", fifo, COMMANDS, "run.json: damaged, it is a FIFO, not a regular file"),
    ("run.json", loop, COMMANDS, "run.json: can't be read (Too many levels of symbolic links)"),
    ("run.json", whole_numbers, COMMANDS, "run.json: damaged, recipe is 7, not an object"),
    ("metrics.jsonl", no_lr, ("plot", "train"), "metrics.jsonl: damaged, line 1: lr is 'x', not a number from 0"),
    ("metrics.jsonl", fifo, ("plot", "train"), "metrics.jsonl: damaged, it is a FIFO, not a regular file"),
    ("result.json", whole_numbers, ("train",), "result.json: damaged, steps is 'x', not a whole number from 0"),
    (WEIGHTS, cut, READ_WEIGHTS, "weights.safetensors: not a"),
    (WEIGHTS, fifo, READ_WEIGHTS, "weights.safetensors: "),
    (WEIGHTS, huge_header, READ_WEIGHTS, "weights.safetensors: not a"),
    (WEIGHTS, weights_of(float("nan")), READ_WEIGHTS, "layer1.0.conv1.weight is not finite"),
]


@pytest.mark.parametrize(
    ("command", "file", "damage", "words"),
    [
        pytest.param(command, file, damage, words, id=f"{command}-{file}-{damage.__name__}")
        for file, damage, commands, words in DAMAGES
        for command in commands
    ],
)
def test_one_line_and_exit_code_2(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    file: str,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(trained, tmp_path / "runs" / trained.name)
    Image.new("L", (8, 8), 99).save("image.png")
    damage(folder / file)
    before = sorted(tmp_path.rglob("*"))
    given = [str(folder) if word == "RUN" else word for word in COMMANDS[command]]
    assert main(given) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("error: ")]
    assert lines[-1] == line
    assert words in line
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "lock") == [p for p in before if p.name != "lock"]


def test_the_list_tells_each_and_a_time_of_no_calendar(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damages = {"a": ("run.json", fifo), "b": ("metrics.jsonl", no_lr), "c": ("result.json", whole_numbers)}
    for name, (file, damage) in damages.items():
        damage(shutil.copytree(trained, tmp_path / name) / file)
    shutil.copytree(trained, tmp_path / "late")
    monkeypatch.setattr(runs, "last_written", lambda folder: 3e11 if folder.name == "late" else 0.0)  # the year 11476
    assert main(["runs", "--runs", str(tmp_path), "--json"]) == 0
    rows = {Path(row["folder"]).name: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert {name: row["state"] for name, row in rows.items()} == {
        **dict.fromkeys(damages, "damaged"),
        "late": "finished",
    }
    assert rows["b"]["words"] == "metrics.jsonl, line 1: lr is 'x', not a number from 0"
    assert rows["late"]["written"] is None
    assert main(["runs", "--runs", str(tmp_path)]) == 0
    assert "result.json, steps is 'x', not a whole number from 0" in " ".join(capsys.readouterr().out.split())
