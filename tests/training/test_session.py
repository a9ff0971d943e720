"""A session's counts: which errors decide, what a step adds, whose random numbers it draws, and what it advises."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Batch, batch_ends
from resnetlab.errors import UserError
from resnetlab.run_files import read_epochs
from resnetlab.training import loop, session
from resnetlab.training.checkpoint import TrainingProgress
from resnetlab.training.distributed import Distributed, check_same
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run, open_folder
from resnetlab.training.schedule import learning_rate
from resnetlab.training.session import Job, TrainingSession
from resnetlab.training.signals import Stop
from resnetlab.training.step import Stepper

TINY: dict[str, Any] = {"net": "cifar_resnet8(stages=((1, 4), (1, 8, 2)), stem_width=4)", "batch_size": 12, "epochs": 2}


def noise(images: int = 48) -> Data:
    """Images of noise, of three classes."""
    pixels = torch.randint(0, 256, (images, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    made = Images(pixels, torch.arange(images) % 3)
    return Data("noise", made, made[:6], ("a", "b", "c"))


def a_run(root: Path, images: int = 48, **fields: Any) -> Run:
    return make_run(Recipe(**TINY | fields), root, noise(images))


def opened(run: Run, distributed: Distributed | None = None) -> TrainingSession:
    open_folder(run, 1, "cpu", 1)
    return TrainingSession.open(Job(run, run.recipe, "cpu", 0, None, Stop(), distributed or Distributed()))


@pytest.fixture(autouse=True)
def own_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("held_out", [0, 6])
def test_held_out_images_decide_on_the_rate_where_there_are_any(tmp_path: Path, held_out: int) -> None:
    """The test images never do: without held-out images the training error decides."""
    fields: dict[str, Any] = {"schedule": "plateau", "patience": 1, "validation_images": held_out}
    for deciding, others in (("falls", "stays"), ("stays", "falls")):
        errors = {"falls": (50.0, 40.0, 30.0), "stays": (50.0, 50.0, 50.0)}
        s = opened(a_run(tmp_path / deciding, **fields))
        names = ("validation_error", ("train_error", "test_error")) if held_out else ("train_error", ("test_error",))
        with s.metrics.file:
            for i in range(3):
                line = dict.fromkeys(names[1], errors[others][i]) | {names[0]: errors[deciding][i]}
                s.end_epoch({"epoch": i + 1, "step": 0} | line)
        assert s.schedule.drops == (0 if deciding == "falls" else 2)
        chosen = errors[deciding if held_out else others]
        assert (s.progress.best_error, s.progress.waited) == (chosen[-1], 0 if chosen[-1] < 50 else 2)


def test_a_step_counts_images_and_mistakes_and_tells_the_warmup_percents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = opened(a_run(tmp_path, warmup="train_error", warmup_lr=0.01))
    for wrong, mean in ((12, 100), (6, 75), (3, 175 / 3)):  # of 12
        monkeypatch.setattr(Stepper, "__call__", lambda *_, wrong=wrong: (torch.tensor(6.0), torch.tensor(wrong)))
        s.step(Batch(torch.zeros(12, 1, 8, 8), torch.zeros(12).long(), None, stop=12))
        assert s.schedule.running_error == pytest.approx(mean)
    s.metrics.file.__exit__(None, None, None)
    found = s.averages()
    assert found == {"step": 3, "lr": 0.01, "train_loss": 0.5, "train_error": pytest.approx(100 * 21 / 36)}


def test_every_epoch_place_and_process_draws_its_own_dropout(tmp_path: Path) -> None:
    seeds = []
    for epoch, position, rank in ((0, 0, 0), (1, 0, 0), (1, 24, 0), (1, 0, 1)):
        s = opened(a_run(tmp_path), Distributed(rank=rank))
        s.metrics.file.__exit__(None, None, None)
        s.progress.epoch, s.progress.position = epoch, position
        next(s.epochs())
        seeds.append(torch.initial_seed())
    assert len(set(seeds)) == 4


def test_an_epoch_of_which_no_step_is_left_has_the_rate_of_its_last(tmp_path: Path) -> None:
    """As after a stop in its evaluation."""
    s = opened(a_run(tmp_path, schedule="cosine"))
    s.metrics.file.__exit__(None, None, None)
    s.progress.step, s.progress.position = 4, 48
    next(s.epochs())
    assert s.lr == learning_rate(s.job.recipe, 3, 8, s.schedule) != learning_rate(s.job.recipe, 4, 8, s.schedule)


def test_the_time_of_a_run_is_that_of_all_its_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: 0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(session, "time", clock)
    run = a_run(tmp_path)
    for began, saved in ((100.0, (107.0, 110.0)), (1000.0, (1005.0,))):
        s = opened(run)
        s.saved.counted = began
        with s.metrics.file:
            for clock.now in saved:
                s.checkpoint()
    assert s.progress.seconds == 10 + 5


class Told(Distributed):
    """One of two processes, which is told what the first one made, or makes it itself."""

    def broadcast_from_main(self, make: Any) -> Any:
        return make() if self.is_main else "first"


def test_all_processes_train_the_run_of_the_first() -> None:
    check_same(Told(rank=1, world_size=2), "first")
    with pytest.raises(
        UserError, match="process 1 is to train run other, but the first process run first: their recipes or images"
    ):
        check_same(Told(rank=1, world_size=2), "other")


@pytest.mark.parametrize(("images", "steps"), [(48, 3), (49, 4)])
def test_a_last_batch_has_two_images_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: int, steps: int
) -> None:
    """Else it joins the one before it, and the schedule counts as many steps as the loader has batches."""
    monkeypatch.setattr(session, "wrapped", lambda net, *_, **__: net)
    s = opened(a_run(tmp_path, images, batch_size=15, epochs=1), Told(world_size=2))
    s.metrics.file.__exit__(None, None, None)
    own = s.loader.training(s.data.train, 15, 0, 0)
    with contextlib.closing(own):
        assert s.total_steps == len(list(own)) == steps


@pytest.mark.parametrize(
    ("fields", "advice"),
    [
        ({"batch_size": 12, "accumulate": 3}, "--accumulate 6, --checkpoint-activations, a smaller --batch-size, "),
        ({"batch_size": 12, "accumulate": 4}, "--checkpoint-activations, a smaller --batch-size, "),
        ({"batch_size": 2, "checkpoint_activations": True}, ""),
    ],
)
def test_less_memory_is_what_the_recipe_can_still_save(tmp_path: Path, fields: dict[str, Any], advice: str) -> None:
    s = opened(a_run(tmp_path, **fields))
    with s.metrics.file, pytest.raises(UserError, match="To use less memory: ") as caught, s.interruptible():
        raise MemoryError
    assert str(caught.value).endswith(f"To use less memory: {advice}a smaller --net.")


def test_weights_that_are_not_finite_are_neither_evaluated_nor_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of an epoch spoils them, with a finite loss."""
    run, taken = a_run(tmp_path, batch_size=48), Stepper.__call__

    def spoiling(self: Stepper, *arguments: Any) -> Any:
        result = taken(self, *arguments)
        with torch.no_grad():
            next(self.net.parameters()).fill_(float("inf"))
        return result

    monkeypatch.setattr(Stepper, "__call__", spoiling)
    monkeypatch.setattr(Stepper, "evaluated", lambda _: pytest.fail("they were evaluated"))
    with pytest.raises(UserError, match="the weights are no longer finite at step 1 .*there was no checkpoint yet"):
        list(train(run, threads=1))
    assert read_epochs(run.folder) == []
    assert not (run.folder / "best").exists()


def test_a_line_of_metrics_is_written_every_hundred_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 3)
    run = a_run(tmp_path)
    statuses = list(train(run, threads=1))
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line.get("epoch")) for line in lines] == [(3, None), (4, 1), (6, None), (8, 2)]
    first = lines[1]["test_error"]
    assert [s.test_error for s in statuses if s.epochs_done == 1][:2] == [first, first]
    read = opened(run)
    read.metrics.file.__exit__(None, None, None)
    assert statuses[-1].test_error == lines[-1]["test_error"] == read.test_error


def test_the_speed_at_the_end_of_an_epoch_is_that_of_its_steps(tmp_path: Path) -> None:
    statuses = list(train(a_run(tmp_path), threads=1))
    trained = [at for at, status in enumerate(statuses) if status.next == "evaluating"]
    assert len(trained) == 2
    for at in trained:
        assert statuses[at + 1].epochs_done == statuses[at].epochs_done + 1
        assert statuses[at + 1].images_per_second == statuses[at].images_per_second


@pytest.mark.parametrize("count", [2, 100])
def test_statistics_are_estimated_anew_over_the_first_batches_of_the_next_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    run, seen = a_run(tmp_path, augment="crop_flip", bn_reestimate=count), list[Tensor]()
    monkeypatch.setattr(loop, "reestimate", lambda net, batches: seen.extend(batches))
    list(train(run, threads=1))
    s = opened(run)
    s.metrics.file.__exit__(None, None, None)
    wanted = [batch.x for batch in s.loader.training(s.data.train, 12, 0, 2)][:count]
    assert len(seen) == min(count, 4)
    assert all(torch.equal(*each) for each in zip(seen, wanted, strict=True))


@pytest.mark.parametrize("batches", [1, 5])
def test_unreadable_files_of_these_batches_do_not_add_to_the_epochs(tmp_path: Path, batches: int) -> None:
    """The limit is one for an epoch: a run would otherwise end after its last step, and whenever it is resumed."""
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 3), np.uint8)
    for i, picture in enumerate(pixels):
        place = tmp_path / "images" / ("train" if i < 20 else "val") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{i}.png")
    for i in (0, 2, 4):
        (tmp_path / "images/train/a" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    fields: dict[str, Any] = {"unreadable": "skip", "unreadable_limit": 3, "image_size": 16}
    fields |= {"batch_size": 5, "data": f"folder:{tmp_path}/images", "bn_reestimate": batches}
    recipe = Recipe(**TINY | fields)
    run = make_run(recipe, tmp_path / "runs")
    list(train(run, threads=1))
    assert [line["unreadable"] for line in read_epochs(run.folder)] == [3, 3]


@pytest.mark.parametrize(("images", "refused"), [(50, True), (52, False), (48, False)])
def test_a_run_keeps_the_length_of_its_epochs(tmp_path: Path, images: int, refused: bool) -> None:
    """Of 50 images in batches of 12, the last two are a batch of their own for one process, but not for two."""
    run = a_run(tmp_path, images, batch_size=12)
    job = Job(run, run.recipe, "cpu", 0, None, Stop(), Distributed(), began=2)
    assert session._steps(job, images, TrainingProgress()) == len(batch_ends(images, 12))
    if not refused:
        assert session._steps(job, images, TrainingProgress(step=3)) == len(batch_ends(images, 12))
        return
    with pytest.raises(UserError, match="began with 2 processes, with which an epoch has 4 steps; with 1 it has 5"):
        session._steps(job, images, TrainingProgress(step=3))


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"precision": "bf16"}, [("bf16", True), ("fp32", False)]),
        ({"precision": "fp16"}, [("fp32", True), ("fp32", False)]),
        ({"precision": "bf16", "stop_after": 5, "validation_images": 6}, [("fp32", False)] * 4),
    ],
)
def test_an_evaluation_that_may_be_the_last_is_in_float32_and_layer_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], wanted: list[tuple[str, bool]]
) -> None:
    """As a loaded network will be evaluated; with fp16 every one is in float32."""
    precisions, fused = list[str](), list[bool]()
    monkeypatch.setattr(loop, "autocast", lambda kind, _: precisions.append(kind) or contextlib.nullcontext())
    monkeypatch.setattr(loop, "fused_evaluation", lambda on: fused.append(bool(on)) or contextlib.nullcontext())
    list(train(a_run(tmp_path, **fields), threads=1))
    assert list(zip(precisions, fused, strict=True)) == wanted


def test_only_a_known_other_device_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Runs of earlier versions don't state theirs."""
    for machine in ({}, {"device": None}, {"device": "cpu"}):
        loop._warn_of_another_device({"machine": machine}, "cpu")
    assert not caplog.messages
    loop._warn_of_another_device({"machine": {"device": "NVIDIA H200"}}, "cpu")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("the run started on NVIDIA H200 and continues on cpu: its")
