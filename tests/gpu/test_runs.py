"""Whole runs on a GPU: trained, killed and resumed, there and elsewhere, and what is done with them."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from stand_in_gpu import StandIn
from torch import Tensor

import resnetlab
from resnetlab.training.dry_run import dry_run
from resnetlab.training.find_lr import find_lr
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.step import Stepper
from resnetlab.use.classifier import Classifier
from resnetlab.use.explanations import explain_images
from resnetlab.use.features import embedder, features
from resnetlab.use.predict import labelled_images

SMALL: dict[str, Any] = {"net": "cifar_resnet8", "batch_size": 300, "epochs": 2}  # 5 steps an epoch
SHAKEN: dict[str, Any] = SMALL | {  # what draws random numbers in a step
    "net": "cifar_resnet8(mix=DropoutShortcut(0.3), stochastic_depth=0.2)",
    "augment": "crop_flip",
    "mixup": 0.2,
    "optimiser": "muon",
    "ema": 0.9,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, as files."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for place in (folder / part / name for part in ("train", "val") for name in "ab"):
        place.mkdir(parents=True)
        for i in range(8 if place.parent.name == "train" else 3):
            Image.fromarray(random.integers(0, 256, (40, 44, 3), np.uint8)).save(place / f"{i}.png")
    return folder


def digits(folder: Path, values: dict[str, Any]) -> Run:
    return make_run(recipe("digits", **values), folder)


def weights(run: Run) -> dict[str, Tensor]:
    return load_file(run.folder / "last/weights.safetensors")


def same(one: Run, other: Run) -> bool:
    found, wanted = weights(one), weights(other)
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def finished(run: Run, device: str, stop: Stop | None = None) -> Run:
    for _ in train(run, device=device, stop=stop):
        pass
    return run


def stopped(run: Run, device: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train until a stop is asked for in that step."""
    stop, take, taken = Stop(), Stepper.__call__, []

    def asking(self: Stepper, *arguments: Any) -> Any:
        taken.append(self)
        if len(taken) == step:
            stop.receive(signal.SIGTERM)
        return take(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Stepper, "__call__", asking)
        with pytest.raises(Stopped):
            finished(run, device, stop)
    assert len(taken) == step


def test_a_run_has_one_id_and_one_result_wherever_it_is_trained(tmp_path: Path, gpu: StandIn) -> None:
    there, here = digits(tmp_path / "gpu", SMALL), digits(tmp_path / "cpu", SMALL)
    finished(there, "cuda")
    finished(here, "cpu")
    assert there.id == here.id
    assert same(there, here)  # the stand-in computes what the processor does
    assert json.loads((there.folder / "run.json").read_text())["machine"]["device"] == "stand-in"


def test_an_epoch_waits_as_often_however_many_steps_it_has(tmp_path: Path, gpu: StandIn) -> None:
    waits = []
    for size in (300, 100):
        gpu.waits.clear()
        finished(digits(tmp_path, SMALL | {"batch_size": size, "epochs": 1}), "cuda")
        waits.append(dict(+gpu.waits))
    assert waits[0] == waits[1]
    assert waits[0]["_local_scalar_dense"] > 0


def test_a_run_that_is_stopped_within_an_epoch_ends_as_an_unbroken_one(
    tmp_path: Path, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = finished(digits(tmp_path / "unbroken", SHAKEN), "cuda")
    run = digits(tmp_path / "stopped", SHAKEN)
    stopped(run, "cuda", 7, monkeypatch)
    assert "rng.0.cuda" in load_file(run.folder / "last/state.safetensors")
    torch.cuda.manual_seed_all(99)  # what happens in between must not matter
    torch.manual_seed(99)
    assert same(finished(run, "cuda"), unbroken)


@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_is_continued_on_another_device_and_says_so(
    first: str,
    then: str,
    tmp_path: Path,
    gpu: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = digits(tmp_path, SMALL | {"precision": "fp32", "channels_last": "auto", "compile": "auto"})
    stopped(run, first, 2, monkeypatch)
    assert caplog.messages == []
    with caplog.at_level(logging.WARNING):
        finished(run, then)
    names = {"cuda": "stand-in", "cpu": "cpu"}
    assert caplog.messages[0] == (
        f"the run started on {names[first]} and continues on {names[then]}: its result is not bit-identical to that of "
        "an uninterrupted run."
    )
    settled = json.loads((run.folder / "run.json").read_text())["resolved"]
    assert [line for line in caplog.messages[1:] if "fused batch norm, which is for CPUs" in line] == (
        caplog.messages[1:] if settled["compile"] else []
    )
    assert run.result() is not None


def test_images_from_files_are_trained_on_and_evaluated(pictures: Path, tmp_path: Path, gpu: StandIn) -> None:
    values = {"data": f"folder:{pictures}", "image_size": 32, "batch_size": 8, "epochs": 1, "normalise": "imagenet"}
    values |= {"net": "cifar_resnet8", "augment": "resized_crop_flip", "policy": "trivialaugment"}
    there, here = digits(tmp_path / "gpu", values), digits(tmp_path / "cpu", values)
    assert same(finished(there, "cuda"), finished(here, "cpu"))
    for views in ("1-crop", "10-crop", "multi-scale"):
        found, wanted = (
            resnetlab.evaluate(run.folder, f"folder:{pictures}", views=views, device=device, workers=0, quiet=True)
            for run, device in ((there, "cuda"), (here, "cpu"))
        )
        assert (found.top1, found.images) == (wanted.top1, wanted.images)
    dry = dry_run(digits(tmp_path, values), device="cuda")
    assert dry.timing is not None
    assert dry.memory.measured_peak == 2**24
    _predicted_and_explained(there, pictures, tmp_path)


def _predicted_and_explained(run: Run, pictures: Path, out: Path) -> None:
    there, here = (Classifier.open(run.folder, device=device) for device in ("cuda", "cpu"))
    images = labelled_images([str(pictures / "val")])
    for unit in (None, "layer2.0"):
        found, wanted = (features(c, images, embedder(c, unit, "torch", batch=4), unit=unit)[0] for c in (there, here))
        assert found.network == wanted.network
        assert np.allclose(found.values, wanted.values, atol=1e-5)
    for method in ("grad_cam", "occlusion"):
        first = [str(images[0][0])]
        shown = [list(explain_images(c, first, out / method, method=method)) for c in (there, here)]
        assert shown[0][0].name == shown[1][0].name


def test_images_in_memory_are_tried_before_a_run(tmp_path: Path, gpu: StandIn) -> None:
    run = digits(tmp_path, SMALL | {"batch_size": 32})
    dry = dry_run(run, device="cuda")
    assert dry.timing is not None
    assert dry.timing.evaluation_seconds is not None
    assert dry.resolved["precision"] == "fp32"
    assert len(find_lr(run, device="cuda").rates) > 50
