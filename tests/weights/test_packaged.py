"""The trained networks in the package: what their files say is so, and how they are made."""

from __future__ import annotations

import importlib
import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.open import open_data
from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.studies.frame.assignment import assignments
from resnetlab.training.evaluate import evaluate
from resnetlab.weights.load import load_described
from resnetlab.weights.packaged import FOLDER, names, path_of, stated

ROOT = Path(__file__).resolve().parents[2]
NAMES = names()
MOST_BYTES = 10 * 2**20  # of all files together


@pytest.fixture
def maker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/pretrained.py."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.pretrained")


def test_there_are_some_and_they_are_small() -> None:
    assert "cifar_resnet20" in NAMES
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(f"{name}.safetensors" for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_it_is(name: str) -> None:
    told = stated(name)
    assert told.spec == resnetlab.spec(name)
    assert told.classes is not None
    assert told.classes[0] == "airplane"
    assert (told.recipe["data"], told.recipe["start"]) == ("cifar10", "")
    assert told.measured["images"] == 10_000
    assert told.measured["top1"] > 80
    assert "/" not in json.dumps(told.recipe), "no path of a machine"


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_the_stated_answers(name: str, maker: Any) -> None:
    """To drawn images, which no licence keeps from being here: the order of classes, the preprocessing, the weights."""
    loaded = load_described(f"pretrained:{name}")
    assert all(t.dtype in (torch.float32, torch.int64) for t in loaded.net.state_dict().values())
    assert loaded.metadata is not None
    found, wanted = maker.answers(loaded.net, loaded.metadata), loaded.metadata.measured["answers"]
    assert [label for label, _ in found] == [label for label, _ in wanted]
    assert [p for _, p in found] == pytest.approx([p for _, p in wanted], abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_stated_accuracy(name: str, cifar10: Path) -> None:
    found = evaluate([f"pretrained:{name}"], open_data(f"cifar10:{cifar10}", "evaluate")).accuracy
    measured = stated(name).measured
    assert found.images == measured["images"]
    # One image of 10,000 may lie so near to a tie that another processor's rounding decides it.
    assert found.top1 == pytest.approx(measured["top1"], abs=0.011)


def test_load_by_name() -> None:
    wanted = resnetlab.load("pretrained:cifar_resnet20").state_dict()
    for found in (
        resnetlab.load("cifar_resnet20", pretrained=True),
        resnetlab.load(path_of("cifar_resnet20")),
        runpy.run_path(str(ROOT / "hubconf.py"))["cifar_resnet20"](pretrained=True),
    ):
        assert all(torch.equal(tensor, found.state_dict()[key]) for key, tensor in wanted.items())
    with pytest.raises(UserError, match=r"cifar_resnet2: the package has no such weights, it has those of cifar_"):
        resnetlab.load("cifar_resnet2", pretrained=True)


def test_the_commands_take_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), (30, 60, 200)).save("x.png")
    source = "pretrained:cifar_resnet20"
    assert main(["predict", source, "x.png", "--json"]) == 0
    told = capsys.readouterr()
    (image,) = json.loads(told.out)["images"]
    assert image["classes"][0]["class"] in (stated("cifar_resnet20").classes or ())
    assert told.err == ""
    assert main(["explain", source, "x.png"]) == 0
    assert main(["features", source, "x.png", "--out", "x.npz"]) == 0
    assert main(["convert", source, "x.safetensors", "--to", "resnetlab"]) == 0
    loaded = load_described("x.safetensors")
    assert loaded.metadata is not None
    assert loaded.metadata.measured == stated("cifar_resnet20").measured
    capsys.readouterr()
    assert main(["predict", "pretrained:cifar_resnet57", "x.png"]) == 2
    assert "Did you mean cifar_resnet56" in capsys.readouterr().err


def test_studies_measure_them() -> None:
    for text in ("pretrained:cifar_resnet20", "cifar_resnet20=pretrained:cifar_resnet20"):
        (task,) = assignments("responses", "quick", data="cifar10:x", weights=[text])
        assert task.command.endswith("--weights pretrained:cifar_resnet20")
        assert {m.weights.file for m in task.plan.measurements if m.weights} == {path_of("cifar_resnet20")}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits."""
    root = tmp_path_factory.mktemp("runs")
    fields = ["--net", "cifar_resnet8", "--epochs", "1", "--warmup-steps", "4"]
    assert main(["train", "digits", *fields, "--runs", str(root), "--device", "cpu"]) == 0
    (folder,) = root.iterdir()
    return folder


def test_the_maker(run: Path, maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data("digits")
    with pytest.raises(UserError, match=r"cifar_resnet8 is none of the zoo's, for its own images"):
        maker.make(run, data, tmp_path)
    fitted = load_described(run).net.spec
    monkeypatch.setattr(maker, "spec", lambda name: fitted)
    monkeypatch.setattr(maker, "answers", lambda *_: [["0", 1.0]])  # the drawn images have colours, digits none
    with pytest.raises(UserError, match=r"was not trained on other as it is here"):
        maker.make(run, replace(data, name="other"), tmp_path)
    path, measured = maker.make(run, data, tmp_path)
    assert path == tmp_path / "cifar_resnet8.safetensors"
    assert path.stat().st_size < 0.6 * (run / "last/weights.safetensors").stat().st_size
    loaded = load_described(path)
    assert loaded.metadata is not None
    assert loaded.metadata.measured == measured
    assert (measured["top1"], measured["images"]) == (evaluate([path], data).accuracy.top1, 360)
    assert measured["top1_of_float32"] == evaluate([run], data).accuracy.top1
    with pytest.raises(UserError, match=r"already exists; give --replace"):
        maker.make(run, data, tmp_path)


@pytest.mark.parametrize(("changed", "message"), [(1e6, "numbers that float16 can't"), (0.0, "float16 takes top-1")])
def test_weights_that_float16_does_not_hold_are_not_written(
    run: Path, maker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: float, message: str
) -> None:
    loaded = load_described(run)
    monkeypatch.setattr(maker, "spec", lambda name: loaded.net.spec)
    monkeypatch.setattr(maker, "load_described", lambda _: loaded)
    if changed:
        loaded.net.state_dict()["bn1.running_var"].fill_(changed)
    else:
        of = (SimpleNamespace(accuracy=Accuracy(10_000, right, 9_900, 0.3)) for right in (9000, 8990))
        monkeypatch.setattr(maker, "evaluate", lambda *_: next(of))
    with pytest.raises(UserError, match=message):
        maker.make(run, open_data("digits"), tmp_path)
    assert list(tmp_path.iterdir()) == []
