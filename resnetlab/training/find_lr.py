"""The learning-rate finder: the loss while the rate grows from step to step, and the rate that it suggests."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from resnetlab.data.seeds import seed_of
from resnetlab.errors import UserError
from resnetlab.training.run import Run
from resnetlab.training.setup import normalisation_of
from resnetlab.training.trial import Trial, settings_kept

LOWEST, HIGHEST = 1e-6, 10.0  # the first and the last rate
STEPS = 105  # 15 for each power of ten
SMOOTHED = 7  # steps whose mean loss is one point of the smoothed curve
DIVERGED = 4.0  # times the lowest smoothed loss; above that, and above the first loss, the test ends
FALLEN = 0.95  # of the first smoothed loss; a run that never gets below it has not learned
SHARE = 10.0  # the suggestion is the rate of the lowest loss divided by this


@dataclass(frozen=True)
class LrTest:
    """The rates, the mean loss of the batch before the step at each, and the means of neighbouring losses."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    best: float | None  # the rate with the lowest smoothed loss; None if the loss did not fall
    diverged: float | None  # the last rate, if the loss had grown too far there

    @property
    def suggestion(self) -> float | None:
        """The rate for the recipe's `lr`, in two digits; None if the loss did not fall."""
        return float(f"{self.best / SHARE:.2g}") if self.best else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "suggestion": self.suggestion,
            "best": self.best,
            "diverged": self.diverged,
            "rates": list(self.rates),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
            "smoothed": list(self.smoothed),
        }


def find_lr(
    run: Run,
    *,
    device: str = "cpu",
    threads: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> LrTest:
    """The learning-rate range test (Smith 2017, section 3.3) of a run; its folder is neither made nor touched.

    It starts from the run's first weights and uses its batches. The rate grows by the same factor in each step, until
    the loss is DIVERGED times its lowest and above its first. The recipe's `lr_factor`s apply: Muon's rate grows with
    lr. The suggestion is a tenth of the rate at which the loss was lowest, where the loss still falls steadily (as in
    fastai). The random state and the number of threads stay as they were. progress gets the steps done and in all.

    Raises UserError if the first loss is not finite.
    """
    rates: list[float] = []
    losses: list[float] = []
    normalise = normalisation_of(run, workers=workers)
    with settings_kept(device, threads):
        trial = Trial(run, normalise, device=device, workers=workers)
        torch.manual_seed(seed_of("dropout and the like", run.recipe.seed, 0))
        trial.stepper.train()
        with contextlib.closing(trial.batches(min(run.recipe.batch_size, len(trial.data.train)))) as batches:
            for step in range(STEPS):
                batch = next(batches)
                rates.append(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))
                losses.append(float(trial.stepper(batch, rates[-1]).loss) / len(batch.labels))
                progress(step + 1, STEPS)
                if not math.isfinite(losses[0]):
                    raise UserError(
                        "the loss is not finite in the first step, before anything was learned: images or first "
                        "weights are damaged, or the signals grow from layer to layer (deep without batch norm)."
                    )
                if has_diverged(losses):
                    break
    return judged(rates, losses)


def judged(rates: list[float], losses: list[float]) -> LrTest:
    """The result from the losses at growing rates; a last loss that is not finite only ends the test."""
    smoothed = smooth(losses)
    lowest = min(range(len(smoothed)), key=smoothed.__getitem__, default=None)
    fell = lowest is not None and smoothed[lowest] < FALLEN * smoothed[0]
    return LrTest(
        tuple(rates),
        tuple(losses),
        tuple(smoothed),
        rates[lowest] if fell and lowest is not None else None,
        rates[-1] if has_diverged(losses) else None,
    )


def has_diverged(losses: list[float]) -> bool:
    """Whether the last loss is not finite, or is far above the lowest and above the first."""
    smoothed = smooth(losses)
    return not losses[-1] <= max(DIVERGED * min(smoothed, default=0.0), *smoothed[:1], 0.0)


def smooth(losses: list[float]) -> list[float]:
    """Means of the finite losses over SMOOTHED neighbours, or fewer at the ends."""
    losses = [loss for loss in losses if math.isfinite(loss)]
    reach = SMOOTHED // 2
    windows = [losses[max(0, i - reach) : i + reach + 1] for i in range(len(losses))]
    return [sum(window) / len(window) for window in windows]
