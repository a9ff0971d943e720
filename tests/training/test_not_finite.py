"""A loss or weights that are no longer finite: the run stops at that step, and its checkpoint is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import resnetlab as package
from resnetlab.errors import UserError
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.step import Stepper

SMALL: dict[str, Any] = {"net": "cifar_resnet8", "iterations": 9, "batch_size": 300}  # 5 steps an epoch


def finished(root: Path, **options: Any) -> Run:
    run = make_run(recipe("digits", **SMALL), root)
    for _ in train(run, threads=1, **options):
        pass
    return run


def outcome(run: Run) -> dict[str, Any]:
    """All that a run leaves, but its times."""
    names = ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl")
    return {name: (run.folder / name).read_bytes() for name in names} | {
        "result": (run.result() or {}) | {"seconds": 0}
    }


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, taken, count = make_run(recipe("digits", **SMALL), tmp_path / "runs"), Stepper.__call__, 0

    def spoilt(self: Stepper, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        result = taken(self, *arguments)
        return result._replace(loss=result.loss * float("nan")) if count == 8 else result

    monkeypatch.setattr(Stepper, "__call__", spoilt)
    with pytest.raises(UserError) as caught:
        finished(run.root, checkpoint_steps=3)
    line = str(caught.value)
    words = ("loss is no longer finite at step 8 (lr 0.", "the checkpoint of step 6 is kept")
    causes = [
        line.index(w) for w in (*words, "learning rate is too high (lower lr", "layer to layer", "labels are damaged")
    ]
    assert causes == sorted(causes)
    assert "\n" not in line
    assert package.load(run.folder).spec == run.spec
    monkeypatch.undo()
    assert outcome(finished(run.root)) == outcome(finished(tmp_path / "unbroken"))


def test_weights_that_are_not_finite_never_replace_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that spoils them has a finite loss."""
    run, taken, count = make_run(recipe("digits", **SMALL), tmp_path / "runs"), Stepper.__call__, 0

    def spoiling(self: Stepper, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        result = taken(self, *arguments)
        if count == 6:
            with torch.no_grad():
                next(self.net.parameters()).fill_(float("inf"))
        return result

    monkeypatch.setattr(Stepper, "__call__", spoiling)
    with pytest.raises(UserError, match="the weights are no longer finite at step 6 .* of step 5 is kept"):
        finished(run.root, checkpoint_steps=3)
    assert all(t.isfinite().all() for t in load_file(run.folder / "last/weights.safetensors").values())
