"""The learning rate: a function of the step and of a small state, so that a run resumes exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from resnetlab.errors import counted
from resnetlab.schema import INFINITY, Between, Percent, Whole
from resnetlab.training.recipe import Recipe

ONECYCLE_RISE = 0.3  # share of the run in which lr rises (Smith & Topin 2018; torch's default)
ERROR_MEMORY = 50  # train_error: the training error is a running mean over about this many steps


@dataclass
class ScheduleState:
    """The part of a schedule that can't be computed from the step. Saved with each checkpoint."""

    warm_since: Whole | None = None  # train_error: the step at which warm-up ended
    running_error: Percent = 100.0  # train_error: running mean of the batches' error, in %
    drops: Whole = 0  # plateau: how often lr has dropped
    best_error: Annotated[float, Between(0, INFINITY)] = math.inf  # plateau: lowest error so far, in %
    waited: Whole = 0  # plateau: evaluations since the lowest error


def total_steps(recipe: Recipe, per_epoch: int) -> int:
    """The number of steps of a run with `per_epoch` steps in an epoch."""
    if recipe.iterations is not None:
        return recipe.iterations
    assert recipe.epochs is not None
    return max(1, recipe.least_iterations, round(recipe.epochs * per_epoch))


def unfinished_warmup(recipe: Recipe, steps: int) -> str:
    """A line about a warm-up that lasts as long as a run of `steps` steps; "" if it ends earlier."""
    if recipe.warmup not in ("linear", "constant") or recipe.warmup_steps < steps:
        return ""
    return f"the warm-up of {counted(recipe.warmup_steps, 'step')} is not shorter than the run"


def learning_rate(recipe: Recipe, step: int, total: int, state: ScheduleState) -> float:
    """The learning rate of step `step` (from 0) of `total`."""
    warm_steps = _warmup_length(recipe, state)
    if warm_steps is None or step < warm_steps:
        if recipe.warmup == "linear":
            return recipe.warmup_lr + (recipe.lr - recipe.warmup_lr) * (step + 1) / recipe.warmup_steps
        return recipe.warmup_lr
    return recipe.lr * _factor(recipe, step, total, warm_steps, state)


def _warmup_length(recipe: Recipe, state: ScheduleState) -> int | None:
    """Steps of warm-up; None while it waits for the training error."""
    if recipe.warmup == "none":
        return 0
    return state.warm_since if recipe.warmup == "train_error" else recipe.warmup_steps


def _factor(recipe: Recipe, step: int, total: int, warm_steps: int, state: ScheduleState) -> float:
    match recipe.schedule:
        case "multistep":
            return recipe.lr_drop ** sum(step >= round(m * total) for m in recipe.milestones)
        case "plateau":
            return recipe.lr_drop**state.drops
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warm_steps) / max(1, total - warm_steps)))
        case "onecycle":
            share = (step - warm_steps) / max(1, total - warm_steps)
            if share < ONECYCLE_RISE:
                return 0.04 + 0.96 * share / ONECYCLE_RISE
            return 0.5 * (1 + math.cos(math.pi * (share - ONECYCLE_RISE) / (1 - ONECYCLE_RISE)))
    return 1.0


def needs_batch_error(recipe: Recipe, state: ScheduleState) -> bool:
    """Whether `after_step` needs the error of each batch, which costs a synchronisation per step."""
    return recipe.warmup == "train_error" and state.warm_since is None


def after_step(recipe: Recipe, step: int, batch_error: float, state: ScheduleState) -> None:
    """The paper's rule for 110 layers: warm up until the training error is below 80 % (He 2015, section 4.2).

    The paper does not say how it measures the training error; here it is a running mean over about 50 batches.
    """
    state.running_error += (batch_error - state.running_error) / min(step + 1, ERROR_MEMORY)
    out_of_steps = 0 < recipe.warmup_steps <= step + 1
    if (step + 1 >= ERROR_MEMORY and state.running_error < recipe.warmup_error) or out_of_steps:
        state.warm_since = step + 1


def after_evaluation(recipe: Recipe, step: int, error: float, state: ScheduleState) -> None:
    """Drop lr when the error (in %) has not improved for `patience` evaluations.

    Those before the warm-up is over do not count. step: the number of steps done.
    """
    warm_steps = _warmup_length(recipe, state)
    if warm_steps is None or step < warm_steps:
        return
    if error < state.best_error:
        state.best_error, state.waited = error, 0
        return
    state.waited += 1
    if state.waited >= recipe.patience:
        state.drops, state.waited = state.drops + 1, 0
