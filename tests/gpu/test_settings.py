"""Torch's settings while a run trains on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stand_in_gpu import StandIn

from resnetlab.training.dry_run import dry_run
from resnetlab.training.loop import train
from resnetlab.training.precision import repeatable
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.step import Stepper

SMALL: dict[str, Any] = {"net": "cifar_resnet8", "iterations": 2, "batch_size": 64}


def small(folder: Path) -> Run:
    return make_run(recipe("digits", **SMALL), folder)


def cudnn() -> tuple[bool, bool, bool]:
    flags = torch.backends.cudnn
    return flags.enabled, flags.deterministic, flags.benchmark


def test_cudnn_computes_the_steps_with_deterministic_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step = Stepper.__call__
    monkeypatch.setattr(Stepper, "__call__", lambda *arguments: seen.append(cudnn()) or step(*arguments))
    before = cudnn()
    for _ in train(small(tmp_path)):
        assert cudnn() == before  # the caller's, between two statuses
    dry_run(small(tmp_path / "other"))
    assert set(seen) == {(True, True, False)}
    assert len(seen) > 2
    assert cudnn() == before


def test_a_caller_that_switched_cudnn_off_finds_it_so() -> None:
    with torch.backends.cudnn.flags(enabled=False), repeatable("cpu"):
        assert cudnn() == (True, True, False)
    with torch.backends.cudnn.flags(enabled=False):
        with repeatable("cpu"):
            pass
        assert not torch.backends.cudnn.enabled


def test_a_caller_may_have_set_convolutions_in_torchs_newer_way() -> None:
    """After which torch's own context for cuDNN raises an error."""
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = convolutions.fp32_precision
    convolutions.fp32_precision = "ieee"
    try:
        with repeatable("cpu"):
            assert convolutions.fp32_precision == "tf32"
        assert convolutions.fp32_precision == "ieee"
    finally:
        convolutions.fp32_precision = before


def test_the_gpu_of_a_run_is_torchs_current_one(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []
    device = torch.cuda.device
    monkeypatch.setattr(torch.cuda, "device", lambda which: entered.append(str(which)) or device(which))
    with repeatable("cuda:1"):
        pass
    assert entered == ["cuda:1"]
