"""A dry run whose data is not there: what can be counted is, and what can't be is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resnetlab.cli.main import main
from resnetlab.data.open import READERS, Counts, is_absent, open_data
from resnetlab.training import dry_run as module
from resnetlab.training.dry_run import Timing

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nothing_is_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps of any size take a second for an image."""
    monkeypatch.chdir(tmp_path)

    def timing(trial: object, batch: int, memory: object, size: module._Size, ranks: int) -> Timing:
        return Timing(batch, float(batch), 1.0, size.steps and float(size.steps * batch), None)

    monkeypatch.setattr(module, "_timing", timing)


def tried(capsys: Captured, *arguments: str) -> dict[str, object]:
    assert main(["train", *arguments, "--dry-run", "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_published_data_is_counted(capsys: Captured, tmp_path: Path) -> None:
    found = tried(capsys, "cifar_paper", "--data", "cifar10:nowhere", "--net", "cifar_resnet8")
    assert (found["train_images"], found["validation_images"], found["test_images"]) == (50_000, 0, 10_000)
    assert (found["steps_per_epoch"], found["steps"], found["image"]) == (391, 64_000, [3, 32, 32])
    assert found["unknown"] == ["the run's folder"]
    assert str(found["missing"]).startswith("nowhere: ")
    assert list(tmp_path.iterdir()) == []
    held_out = tried(capsys, "cifar_paper", "--data", "cifar100:nowhere", "--validation-share", "0.1", "--epochs", "2")
    assert (held_out["train_images"], held_out["validation_images"], held_out["steps"]) == (45_000, 5_000, 704)


def test_the_error_that_plateau_waits_for_is_named(capsys: Captured) -> None:
    options = ["--data", "cifar10:nowhere", "--net", "cifar_resnet8", "--schedule", "plateau"]
    for share, said in (("0.1", "validation"), ("0", "training")):
        found = tried(capsys, "cifar_paper", *options, "--validation-share", share)
        assert f"evaluations without a lower {said} error" in json.dumps(found)


def test_of_data_that_is_absent_no_warm_up_is_too_long(capsys: Captured) -> None:
    assert main(["train", "cifar_fast", "--data", "cifar10:nowhere", "--net", "cifar_resnet8", "--dry-run"]) == 0
    assert "warm-up" not in capsys.readouterr().err


def test_of_a_folder_only_what_does_not_depend_on_it(capsys: Captured, tmp_path: Path) -> None:
    arguments = ["finetune", "--net", "resnet18", "--image-size", "32", "--batch-size", "4", "--data", "folder:flowers"]
    found = tried(capsys, *arguments)
    for name in ("train_images", "test_images", "steps_per_epoch", "steps", "epochs", "validation_images"):
        assert found[name] is None
    assert found["learning_rates"] == []
    assert found["unknown"] == [
        "the run's folder",
        "the number of images",
        "the length of the run",
        "the number of classes (1000 are assumed)",
    ]
    assert main(["train", *arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "not there: flowers: no such folder" in said
    assert "an unknown number for training" in said
    assert "an unknown number; 20 epochs" in said
    steps = tried(capsys, *arguments, "--iterations", "70")
    assert (steps["steps"], steps["epochs"]) == (70, None)
    assert steps["learning_rates"]
    assert main(["train", *arguments, "--freeze", "9", "--dry-run"]) == 2  # which no data could mend
    assert "freeze=9" in capsys.readouterr().err
    assert main(["train", *arguments]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_there_but_damaged_stays_an_error(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    assert main(["train", "cifar_paper", "--data", "cifar10:there", "--dry-run"]) == 2
    assert main(["train", "digits", "--data", "nowhere", "--dry-run"]) == 2  # perhaps a typing error
    assert "Traceback" not in capsys.readouterr().err
    assert not is_absent("digits")
    assert not is_absent(str(tmp_path))


def test_the_counts_are_those_of_the_data(cifar10: Path) -> None:
    data = open_data(f"cifar10:{cifar10}", "read")
    assert READERS["cifar10"].counts == Counts(len(data.train), len(data.test), len(data.classes), data.shape)
    digits = open_data("digits")
    assert READERS["digits"].counts == Counts(len(digits.train), len(digits.test), len(digits.classes), digits.shape)
