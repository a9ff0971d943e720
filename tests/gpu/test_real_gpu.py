"""A real GPU, if there is one that the tests may use: CUDA_VISIBLE_DEVICES=0 pytest tests/gpu."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from made_steps import RECIPES, WAYS, batches, losses
from safetensors.torch import load_file
from torch import Tensor

from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.step import Stepper

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that tests may use")

SHAKEN = "cifar_resnet8(mix=DropoutShortcut(0.3), stochastic_depth=0.2)"
AUTO = {"precision": "auto", "channels_last": "auto", "compile": "auto"}
RUNS: dict[str, dict[str, Any]] = {
    "paper": {"net": "cifar_resnet20", "augment": "crop_flip"},
    "fast": {"net": "cifar_resnet20", "augment": "crop_flip", "optimiser": "muon", "ema": 0.9} | AUTO,
    "shaken": {"net": SHAKEN, "mixup": 0.2} | AUTO,
}


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Torch raises an error where the program would wait for the GPU, once it is told to."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def finished(folder: Path, values: dict[str, Any], stop: Stop | None = None) -> Run:
    run = make_run(recipe("digits", **{"batch_size": 200, "epochs": 3} | values), folder)
    for _ in train(run, device="cuda", stop=stop):
        pass
    return run


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.folder / "last/weights.safetensors")


def same(one: Run, other: Run) -> bool:
    found, wanted = weights(one), weights(other)
    return all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("values", RUNS.values(), ids=RUNS)
def test_a_run_ends_with_the_same_bits_again_and_after_a_stop(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = finished(tmp_path / "first", values)
    assert same(first, finished(tmp_path / "again", values))
    stop, take, taken = Stop(), Stepper.__call__, []

    def asking(self: Stepper, *arguments: Any) -> Any:
        taken.append(self)
        if len(taken) == 12:  # of 8 steps an epoch
            stop.receive(signal.SIGTERM)
        return take(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "__call__", asking)
        with pytest.raises(Stopped):
            finished(tmp_path / "stopped", values, stop)
    assert same(first, finished(tmp_path / "stopped", values))


def test_a_run_learns_and_is_the_same_network_on_the_processor(tmp_path: Path) -> None:
    run = finished(tmp_path, {"net": "cifar_resnet8", "epochs": 10} | AUTO)
    settings = json.loads((run.folder / "run.json").read_text())
    assert settings["machine"]["device"] == torch.cuda.get_device_name()
    assert settings["machine"]["cuda"] == torch.version.cuda
    there, here = (evaluate([run.folder], run.data, device=device).accuracy for device in ("cuda", "cpu"))
    assert there.error < 10
    assert abs(there.error - here.error) < 1


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_batches_are_the_processors_but_for_rounding(way: dict[str, Any]) -> None:
    for found, wanted in zip(batches(way, "cuda"), batches(way, "cpu"), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("values", [*RECIPES.values(), {"precision": "bf16", "channels_last": True}], ids=str)
def test_steps_wait_for_nothing(values: dict[str, Any], no_waiting: None) -> None:
    if values.get("precision") == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("needs a GPU that computes bf16")
    found = losses(Recipe(**values), "cuda", lambda: torch.cuda.set_sync_debug_mode("error"))
    torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), losses(Recipe(**values), "cpu"), rtol=0.05, atol=0.05)


def test_convolutions_are_cudnns(tmp_path: Path) -> None:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        finished(tmp_path, RUNS["paper"])
    names = {event.key for event in profile.key_averages()}
    assert "aten::cudnn_convolution" in names
    assert not {name for name in names if "slow_conv" in name}
