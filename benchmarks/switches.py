"""Switches of a training on real CIFAR-10: images/s, memory, test error, and whether the weights repeat bit by bit.

python -m benchmarks.switches --data DIR [--images N] [--epochs E] [--json] [--record FILE] [--runs N]

Each switch is one field of the recipe `cifar_paper` on cifar_resnet20, changed alone. Every training is a process of
its own with all cores, so that its memory is its own; the rounds go through all switches, so that a busy moment of
the machine meets different ones. What is compared is the fastest epoch.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.timing import Row, in_a_process, options, positive, run, show
from resnetlab.data.images import Data, Images
from resnetlab.data.open import open_data
from resnetlab.machine import available_cores, machine, most_bytes
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.weights.load import load

BASELINE = "none"
SWITCHES: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "channels_last": {"channels_last": True},
    "precision bf16": {"precision": "bf16"},
    "precision fp16": {"precision": "fp16"},
    "compile": {"compile": True},
    "accumulate 4": {"accumulate": 4},
    "checkpoint_activations": {"checkpoint_activations": True},
    "clip_gradient 1": {"clip_gradient": 1.0},
    "ema 0.99": {"ema": 0.99},
    "label_smoothing 0.1": {"label_smoothing": 0.1},
    "mixup 0.2": {"mixup": 0.2},
    "cutmix 1": {"cutmix": 1.0},
    "bn_reestimate 40": {"bn_reestimate": 40},
    "channels_last, compile": {"channels_last": True, "compile": True},
}
SHARES = {"precision fp16": 20}  # a twentieth of the images: CPUs have no fast half-precision products


@dataclass(frozen=True)
class Trained:
    """What one training of a switch came to."""

    images_per_second: float  # of its best epoch: the first has compiling and warming up in it
    seconds: float  # of the whole
    memory: int  # bytes: the most that the process held
    weights: str  # a hash of them
    test_error: float


def trained(chosen: Recipe, where: str, images: int) -> Trained:
    """Train in this process, from nothing, in a folder that is thrown away."""
    data = some(where, images)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(chosen, Path(folder), data)
        ends = [time.perf_counter()]
        done = 0
        for status in train(run, threads=available_cores()):
            if status.epochs_done > done:
                done = status.epochs_done
                ends.append(time.perf_counter())
        state = load(run.folder).state_dict()
        hashed = hashlib.sha256(b"".join(v.contiguous().numpy().tobytes() for v in state.values())).hexdigest()
        result = run.result()
    assert result is not None
    fastest = min(b - a for a, b in zip(ends, ends[1:], strict=False))
    memory = most_bytes()
    return Trained(
        len(data.train) / fastest, time.perf_counter() - started, memory, hashed, float(result["test_error"])
    )


def some(where: str, images: int) -> Data:
    """The first images of the training set, and a fifth as many of the test set."""
    data = open_data(f"cifar10:{where}")
    assert isinstance(data.train, Images)
    assert isinstance(data.test, Images)
    return replace(data, train=data.train[:images], test=data.test[: images // 5])


def measured(where: str, images: int, epochs: float, runs: int) -> dict[str, list[Trained]]:
    """Every switch, `runs` times."""
    found: dict[str, list[Trained]] = {name: [] for name in SWITCHES}
    for _ in range(runs):
        for name, changes in SWITCHES.items():
            chosen = recipe("cifar_paper", epochs=epochs, **changes)
            found[name].append(in_a_process(trained, chosen, where, images // SHARES.get(name, 1)))
    return found


def main() -> None:
    """Measure, and print."""
    parser = options("Switches of a training.", runs=2)
    parser.add_argument("--data", required=True, help="folder of CIFAR-10's batches")
    parser.add_argument("--images", type=positive, default=10_000, help="training images an epoch")
    parser.add_argument("--epochs", type=float, default=3.0)
    given = parser.parse_args()
    if given.images < (fewest := 2 * max(SHARES.values())):
        parser.error(f"--images must be {fewest} or more, since fp16 has a twentieth of them")
    found = measured(given.data, given.images, given.epochs, given.runs)
    speeds = {name: max(t.images_per_second for t in every) for name, every in found.items()}
    base = speeds[BASELINE]
    rows = [Row(n, "images/s", s, base, "no switch", s / base, None, given.runs) for n, s in speeds.items()]
    if given.record:
        switches = {
            name: {
                "images_per_second": round(speeds[name], 1),
                "ratio": round(speeds[name] / base, 3),
                "first_seconds": round(every[0].seconds, 1),
                "memory_mib": round(max(t.memory for t in every) / 2**20),
                "bitwise_repeatable": len({t.weights for t in every}) == 1,
                "same_weights_as_none": {t.weights for t in every} == {t.weights for t in found[BASELINE]},
                "images": given.images // SHARES.get(name, 1),
                "test_error": every[0].test_error,
            }
            for name, every in found.items()
        }
        budget = {"net": "cifar_resnet20", "recipe": "cifar_paper", "images": given.images, "epochs": given.epochs}
        record = {"machine": machine(), "runs": given.runs, "budget": budget, "switches": switches}
        given.record.write_text(json.dumps(record, indent=1) + "\n")
    show(rows, as_json=given.json, taken="fastest")


if __name__ == "__main__":
    run(main)
