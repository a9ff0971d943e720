"""A run with AdamW, weighed or balanced classes, or a name resumes to the last bit of an unbroken one."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetlab.data.images import Data, Images
from resnetlab.errors import UserError
from resnetlab.training.checkpoint import load_checkpoint
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.setup import first_network
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.step import Stepper, make_stepper

SHORT = Recipe(net="cifar_resnet8", epochs=2.0, batch_size=12, lr=0.01, schedule="cosine", augment="crop_flip")
WAYS: dict[str, dict[str, Any]] = {
    "adamw": {"optimiser": "adamw", "weight_decay": 0.05, "decay": "weights", "ema": 0.9},
    "sampling": {"balance": "sampling", "validation_images": 6},
    "class_weights": {"balance": "class_weights", "label_smoothing": 0.1, "optimiser": "adamw"},
}
FILES = ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl")


def uneven() -> Data:
    """48 images of noise, of three classes."""
    pixels = torch.randint(0, 256, (48, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0] * 30 + [1] * 12 + [2] * 6))
    return Data("uneven", images, images[:6], ("a", "b", "c"))


def outcome(run: Run) -> list[bytes]:
    return [(run.folder / name).read_bytes() for name in FILES]


def stopped_and_resumed(run: Run, steps: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Train, stopped after each so many steps; how often that was."""
    taken, stops = Stepper.__call__, 0
    while run.result() is None:
        stop, count = Stop(), 0

        def asking(self: Stepper, *arguments: Any, stop: Stop = stop) -> Any:
            nonlocal count
            count += 1
            if count == steps:
                stop.receive(signal.SIGTERM)
            return taken(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(Stepper, "__call__", asking)
            try:
                for _ in train(run, threads=1, stop=stop):
                    pass
            except Stopped:
                stops += 1
    return stops


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_ends_as_an_unbroken_one(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = SHORT.override(**WAYS[way])
    unbroken, broken = (make_run(recipe, tmp_path / name, uneven(), name="flowers") for name in ("unbroken", "broken"))
    for _ in train(unbroken, threads=1):
        pass
    assert stopped_and_resumed(broken, 3, monkeypatch) >= 2
    assert outcome(broken) == outcome(unbroken)
    assert broken.folder.name == f"flowers-{broken.id}"


def test_a_checkpoint_of_adamw_is_not_taken_for_one_of_sgd(tmp_path: Path) -> None:
    run = make_run(SHORT.override(optimiser="adamw", epochs=1.0), tmp_path, uneven())
    for _ in train(run, threads=1):
        pass

    with pytest.raises(UserError, match=r"does not fit the run's network: it has the extra (exp_avg|step)"):
        load_checkpoint(run.folder, make_stepper(first_network(run, SHORT, "cpu"), SHORT, "cpu"))


def test_ids_are_those_of_the_version_before() -> None:
    """A field at its default is no part of a run's id: these were made before there were AdamW, balance and names."""
    digits = make_run(Recipe(net="cifar_resnet8"), Path("nowhere"))
    assert digits.id == "8875408436d1"
