"""What a training says before it begins and when it has ended."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.training.distributed import Distributed
from resnetlab.training.launch import launch
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run, open_folder


def test_another_name_for_a_run_that_exists_has_no_effect(tmp_path: Path) -> None:
    asked = recipe("digits", net="cifar_resnet8")
    first = launch(asked, tmp_path, Distributed(), name="first")
    assert not any("no effect" in line for line in first.introduction(warn_of_scratch=False))
    open_folder(first.run, 1, "cpu", 1)
    second = launch(asked, tmp_path, Distributed(), name="second")
    assert second.run.folder == first.run.folder
    assert second.introduction(warn_of_scratch=False)[-1] == (
        f"--name second has no effect: the run exists already, under the name first-{first.run.id}"
    )


@pytest.mark.parametrize("warmup", ["constant", "train_error"])
def test_a_warm_up_at_a_rate_of_zero_is_refused(tmp_path: Path, warmup: str) -> None:
    asked = recipe("digits", net="cifar_resnet8", warmup=warmup, warmup_steps=9, warmup_lr=0.0)
    with pytest.raises(UserError, match=f"warmup='{warmup}' at a rate of 0 learns nothing: give a warmup_lr, such as"):
        launch(asked, tmp_path, Distributed())
    assert launch(asked.override(warmup_lr=0.01), tmp_path, Distributed()).run.recipe.warmup == warmup


def test_a_run_that_another_process_begins_meanwhile_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings are those of the process that trains."""
    run = make_run(recipe("digits", net="cifar_resnet8"), tmp_path)
    made = Run.settings

    def slowly(*asked: Any) -> dict[str, Any]:
        monkeypatch.setattr(Run, "settings", made)
        open_folder(run, 2, "cpu")
        return made(*asked)

    monkeypatch.setattr(Run, "settings", slowly)
    assert open_folder(run, 1, "cpu")["threads"] == 2
    assert json.loads((run.folder / "run.json").read_text())["threads"] == 2


def test_classes_without_training_images_are_told(tmp_path: Path) -> None:
    asked = recipe("digits", net="cifar_resnet8")
    made = launch(asked, tmp_path, Distributed())
    assert made.warnings() == []
    data = made.run.data
    for left, words in (
        (8, "2 of 10 classes have no training images, so they can't be learned: '8', '9'"),
        (9, "1 of 10 classes has no training images, so it can't be learned: '9'"),
    ):
        few = replace(data, train=data.train[torch.nonzero(data.train.labels < left).flatten()])
        assert replace(made, run=replace(made.run, data=few)).warnings() == [words]


def test_files_that_the_last_epoch_lacked_are_told(tmp_path: Path) -> None:
    asked = recipe("digits", net="cifar_resnet8")
    run = make_run(asked, tmp_path)
    open_folder(run, 1, "cpu", 1)
    errors = {"train_error": 9.0, "test_error": 9.0}
    result = {**errors, "best_error": 9.0, "epochs": 2, "steps": 46, "seconds": 1.0}
    (run.folder / "result.json").write_text(json.dumps(result))
    for last, said in (
        (0, []),
        (1, ["the last epoch lacked 1 unreadable file; 'resnetlab data audit' names it"]),
        (3, ["the last epoch lacked 3 unreadable files; 'resnetlab data audit' names them"]),
    ):
        lines = [{"epoch": i, "step": 23 * i, "unreadable": count} | errors for i, count in ((1, 7), (2, last))]
        (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert launch(asked, tmp_path, Distributed()).conclusion(early=False) == said
