"""Where an epoch of `resnetlab train` goes: milliseconds a step for data, forward, backward, optimiser and the rest.

python -m benchmarks.loop [--quick] [--threads N] [--json] [--record FILE] [--runs N]

cifar_resnet20 is trained by `cifar_fast` on random images of CIFAR-10's size, a test image for five of training as
there; what is in the pixels changes no time. Every part is timed in the loop itself, and what no other part has is
"status, checks and logging". Beside the evaluation stands the same one computed layer by layer, taken in turn; the last
row is the epoch with its evaluation and checkpoint beside the steps alone (data, forward, backward, optimiser). The
first epoch warms up, and the last one is evaluated as a loaded network is: neither counts.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.timing import Row, keep, options, positive, run, show
from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Loader
from resnetlab.machine import available_cores
from resnetlab.nets.fusing import fused_evaluation
from resnetlab.nets.net import ResNet
from resnetlab.training import loop, session
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.step import Stepper

STEP = ("data", "forward", "backward", "optimiser")
REST = "status, checks and logging"
AROUND = (REST, "evaluation", "checkpoint")
BY_LAYER = "evaluation, layer by layer"  # for comparison: no part of the epoch


class Clock:
    """Seconds of each part; within a part of AROUND there are no others."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._parts, self._since = [REST], time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        self.seconds[self._parts[-1]] += now - self._since
        self._since = now

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens within it as this part."""
        if self._parts[-1] in (*AROUND[1:], BY_LAYER):
            yield
            return
        self._switch()
        self._parts.append(name)
        try:
            yield
        finally:
            self._switch()
            self._parts.pop()

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, counted as this part."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def taken(self) -> dict[str, float]:
        """The seconds so far, which begin anew."""
        self._switch()
        found, self.seconds = dict(self.seconds), defaultdict(float)
        return found


@contextlib.contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Within it the loop's parts are timed."""
    drawn, evaluate = Loader.training, loop._evaluate

    def training(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
        with contextlib.closing(drawn(*args, **kwargs)) as batches:
            while True:
                with clock.part("data"):
                    batch = next(batches, None)
                if batch is None:
                    return
                yield batch

    def both_ways(of: session.TrainingSession) -> Any:
        with clock.part(BY_LAYER), patch.object(loop, "fused_evaluation", lambda _: fused_evaluation(False)):
            evaluate(of)
        with clock.part("evaluation"):
            return evaluate(of)

    with contextlib.ExitStack() as stack:
        for where, name, new in (
            (Loader, "training", training),
            (loop, "_evaluate", both_ways),
            (Stepper, "laid_out", clock.timing("data", Stepper.laid_out)),
            (session.TrainingSession, "checkpoint", clock.timing("checkpoint", session.TrainingSession.checkpoint)),
            (session, "save_best", clock.timing("checkpoint", session.save_best)),
            (Stepper, "__call__", clock.timing("forward", Stepper.__call__)),  # with the loss
            (ResNet, "forward", clock.timing("forward", ResNet.forward)),
            (torch.Tensor, "backward", clock.timing("backward", torch.Tensor.backward)),
            (Stepper, "_update", clock.timing("optimiser", Stepper._update)),
        ):
            stack.enter_context(patch.object(where, name, new))
        yield


def random_images(count: int) -> Data:
    """So many of CIFAR-10's size to train on, and a fifth as many to test on."""
    draws = torch.Generator().manual_seed(0)
    train, test = (
        Images(
            torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=draws),
            torch.randint(0, 10, (n,), generator=draws),
        )
        for n in (count, count // 5)
    )
    return Data("random images", train, test, tuple("abcdefghij"))


def rows_of(batch: int, images: int, threads: int, epochs: int) -> list[Row]:
    """A row for each part, and one for the epoch."""
    chosen = recipe("cifar_fast", batch_size=batch, epochs=epochs + 2)
    clock, found, done = Clock(), [], 0
    with tempfile.TemporaryDirectory() as folder, watched(clock):
        for status in loop.train(make_run(chosen, Path(folder), random_images(images)), threads=threads):
            if status.epochs_done > done:
                done = status.epochs_done
                found.append(clock.taken())
    steps = -(-images // batch)
    parts = {
        name: statistics.median(1000 * epoch.get(name, 0.0) / steps for epoch in found[1:-1])
        for name in (*STEP, *AROUND, BY_LAYER)
    }
    what = f"cifar_fast, batches of {batch}"
    rows = [
        Row(f"{what}: {name}", "ms a step", parts[name], None, None, None, None, epochs)
        for name in (*STEP, REST, "checkpoint")
    ]
    here, plain = parts["evaluation"], parts[BY_LAYER]
    rows.append(Row(f"{what}: evaluation", "ms a step", here, plain, "layer by layer", plain / here, None, epochs))
    alone = sum(parts[name] for name in STEP)
    whole = alone + sum(parts[name] for name in AROUND)
    rows.append(
        Row(f"{what}: the whole epoch", "ms a step", whole, alone, "the steps alone", alone / whole, None, epochs)
    )
    return rows


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=5)
    parser.add_argument(
        "--quick", action="store_true", help="fewer images, one size of batch: half a minute on a quiet machine"
    )
    parser.add_argument("--threads", type=positive, default=available_cores(), help="threads of torch")
    chosen = parser.parse_args()
    images, epochs = (1_280, min(chosen.runs, 3)) if chosen.quick else (10_240, chosen.runs)
    batches = (128,) if chosen.quick else (128, 512)
    rows = [row for batch in batches for row in rows_of(batch, images, chosen.threads, epochs)]
    show(rows, as_json=chosen.json)
    keep(rows, chosen.record)


if __name__ == "__main__":
    run(main)
