"""A dry run: what it says agrees with what training does, and it leaves nothing behind."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from resnetlab.nets.zoo import build
from resnetlab.training import dry_run as module
from resnetlab.training import step
from resnetlab.training.dry_run import DryRun, dry_run
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run


def tried(tmp_path: Path, name: str = "digits", **changes: Any) -> DryRun:
    changes = {"net": "cifar_resnet8", "data": "digits"} | changes
    return dry_run(make_run(recipe(name, **changes), tmp_path / "runs"), threads=1)


def test_it_says_what_training_does(tmp_path: Path) -> None:
    run = make_run(recipe("digits", net="cifar_resnet8", epochs=2, validation_images=100), tmp_path / "runs")
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    found = dry_run(run, threads=1)
    assert not (tmp_path / "runs").exists()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert (found.train_images, found.validation_images, found.test_images) == (1337, 100, 360)
    assert (found.image, found.parameters) == ((1, 8, 8), sum(p.numel() for p in build(run.spec).parameters()))
    assert found.nondeterministic == ()
    assert found.timing
    assert found.timing.timed_images == 64
    assert found.timing.training_seconds == pytest.approx(found.steps * 64 / found.timing.images_per_second)
    assert found.state == "new"
    statuses = list(train(run, threads=1))
    assert (statuses[-1].step, statuses[0].step) == (found.steps, found.steps_per_epoch)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert found.learning_rates[-1] == (lines[-1]["step"] - 1, pytest.approx(lines[-1]["lr"]))
    kept = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    assert dry_run(run, threads=1).state == "finished"
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == kept


def test_memory_is_what_a_real_forward_pass_keeps(tmp_path: Path) -> None:
    found = tried(tmp_path, batch_size=32, channels_last=False)
    net = build(make_run(recipe("digits", net="cifar_resnet8"), tmp_path).spec).train()
    own = {p.untyped_storage().data_ptr() for p in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own and t.ndim > 1:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    with saved_tensors_hooks(keep, lambda t: t):
        net(torch.zeros(32, 1, 8, 8))
    assert found.memory.activations == sum(t.untyped_storage().nbytes() for t in kept.values())
    assert found.memory.parameters == found.memory.gradients == found.memory.momentum == 4 * found.parameters
    assert found.memory.total == found.to_dict()["memory"]["total"] == found.memory.activations + 12 * found.parameters
    assert tried(tmp_path, momentum=0).memory.momentum == 0
    parts = tried(tmp_path, batch_size=32, channels_last=False, accumulate=3, ema=0.9).memory
    assert parts.activations == found.memory.activations * 11 // 32, "the largest of three parts has 11 images"
    assert (parts.average, parts.total) == (parts.parameters, parts.activations + 16 * found.parameters)


def test_several_processes_have_a_share_each(tmp_path: Path) -> None:
    """A last batch without two images for each process joins the one before it."""
    run = make_run(recipe("digits", net="cifar_resnet8", batch_size=143, epochs=30), tmp_path)
    alone, four = dry_run(run, threads=1), dry_run(run, threads=1, ranks=4)
    assert (alone.steps_per_epoch, alone.steps) == (11, 330)
    assert (four.steps_per_epoch, four.steps) == (10, 300)
    assert four.learning_rates[-1][0] < 300
    assert alone.memory.activations * 36 == four.memory.activations * 143


def test_the_papers_rates(tmp_path: Path) -> None:
    """He 2015, section 4.2: 0.1, divided by 10 at 32k and 48k of 64k; He 2016: the first 400 steps at 0.01."""
    rates = [(0, 0.1), (32_000, pytest.approx(0.01)), (48_000, pytest.approx(0.001)), (63_999, pytest.approx(0.001))]
    found = tried(tmp_path, "cifar_paper")
    assert list(found.learning_rates) == rates
    assert (found.steps, found.lr_words) == (64_000, "")
    found = tried(tmp_path, "cifar_paper", warmup="constant", warmup_lr=0.01, warmup_steps=400)
    assert list(found.learning_rates) == [(0, 0.01), (400, 0.1), *rates[1:]]
    found = tried(tmp_path, "cifar_paper", warmup="train_error", warmup_lr=0.01)
    assert list(found.learning_rates) == [(0, 0.01), *rates[1:]]
    assert found.lr_words == "0.01 until the training error is below 80 %"


@pytest.mark.parametrize(
    ("changes", "rates", "words"),
    [
        (
            {"schedule": "plateau"},
            [(0, 1), (99, 1)],
            "multiplied by 0.1 after 5 evaluations without a lower training error",
        ),
        (
            {"schedule": "plateau", "patience": 1},
            [(0, 1), (99, 1)],
            "multiplied by 0.1 after 1 evaluation without a lower training error",
        ),
        ({"schedule": "constant"}, [(0, 1), (99, 1)], ""),
        ({"schedule": "cosine"}, [(0, 1), (25, 0.8536), (50, 0.5), (75, 0.1464), (99, 0.0002)], ""),
        (
            {"schedule": "onecycle"},
            [(0, 0.04), (25, 0.84), (30, 1), (50, 0.8117), (75, 0.2831), (99, 0.0005)],
            "",
        ),
    ],
)
def test_the_other_schedules(tmp_path: Path, changes: dict[str, Any], rates: list[Any], words: str) -> None:
    found = tried(tmp_path, **{"iterations": 100, "lr": 1.0, "warmup": "none", **changes})
    assert [(step, pytest.approx(lr, abs=1e-4)) for step, lr in rates] == list(found.learning_rates)
    assert found.lr_words == words


def test_fewer_images_are_timed_where_a_batch_takes_long_or_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_A_STEP", 0.0)
    found = tried(tmp_path, batch_size=256).timing
    assert found
    assert found.timed_images == 2
    assert found.seconds_a_step == pytest.approx(256 / found.images_per_second)
    monkeypatch.setattr(module, "free_memory", lambda _: 1000)
    assert tried(tmp_path).timing is None


def test_a_batch_larger_than_the_data(tmp_path: Path) -> None:
    found = tried(tmp_path, batch_size=5000, epochs=1)
    assert (found.steps_per_epoch, found.steps) == (1, 1)
    assert found.timing
    assert found.timing.seconds_a_step == pytest.approx(1437 / found.timing.images_per_second)
    assert found.memory == tried(tmp_path, batch_size=1437).memory
    assert found.lr_words == "the warm-up of 46 steps is not shorter than the run"


def test_what_torch_says_is_not_deterministic_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Warned(step.Stepper):
        def __call__(self, batch: Any, lr: float) -> Any:
            if torch.are_deterministic_algorithms_enabled():
                warnings.warn("odd_cuda does not have a deterministic implementation, but you set ...", stacklevel=1)
                warnings.warn("something else", stacklevel=1)
            return super().__call__(batch, lr)

    monkeypatch.setattr(step, "Stepper", Warned)
    assert tried(tmp_path).nondeterministic == ("odd_cuda",)


def test_files(tmp_path: Path) -> None:
    for i in range(12):
        path = tmp_path / "photos" / "train" / f"class {i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 50, 3), 20 * i, np.uint8)).save(path)
        if i < 4:
            target = tmp_path / "photos" / "val" / f"class {i % 2}" / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((40, 50, 3), 5 * i + 1, np.uint8)).save(target)
    changes = {"data": str(tmp_path / "photos"), "image_size": 32, "batch_size": 4, "epochs": 2, "iterations": None}
    found = tried(tmp_path, "imagenet_modern", net="resnet18", warmup_steps=2, **changes)
    assert (found.train_images, found.test_images, found.image) == (12, 4, (3, 32, 32))
    assert (found.steps, found.learning_rates[0]) == (6, (0, 0.4))
    assert found.timing
    assert found.timing.timed_images == 4
