"""The options of the training loop, as Python code that follows a run step by step gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.run_files import read_settings
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run


def made(root: Path) -> Run:
    return make_run(recipe("digits", net="cifar_resnet8", iterations=1), root)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"checkpoint_steps": 0}, "checkpoint_steps=0 must be 1 or more"),
        ({"threads": -1}, "threads=-1 must be 1 or more"),
        ({"device": "gpu"}, "device 'gpu' is not known: give cpu, cuda"),
    ],
)
def test_options_that_are_none_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    run = made(tmp_path)
    with pytest.raises(UserError, match=words):
        next(train(run, **options))
    assert not run.folder.exists()


def test_the_device_may_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    run = made(tmp_path)
    next(train(run, device="auto"))
    assert read_settings(run.folder)["machine"]["device"] == "cpu"
