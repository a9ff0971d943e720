"""The learning rate of each schedule, against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.schedule import (
    ScheduleState,
    after_evaluation,
    after_step,
    learning_rate,
    needs_batch_error,
    total_steps,
    unfinished_warmup,
)


def rates(r: Recipe, steps: list[int], total: int) -> list[float]:
    return [learning_rate(r, step, total, ScheduleState()) for step in steps]


@pytest.mark.parametrize(
    ("epochs", "least", "steps"),
    [(2, 0, 200), (0.29, 0, 29), (0.006, 0, 1), (0.001, 0, 1), (0.29, 30, 30), (2, 30, 200)],
)
def test_the_length_of_a_run_is_rounded_and_has_a_minimum(epochs: float, least: int, steps: int) -> None:
    """0.29 · 100 is a little less than 29 in floating point."""
    assert total_steps(Recipe(epochs=epochs, least_iterations=least), 100) == steps
    assert total_steps(Recipe(epochs=None, iterations=7), 100) == 7


def test_multistep_drops_where_the_paper_says() -> None:
    found = rates(recipe("cifar_paper"), [0, 31_999, 32_000, 47_999, 48_000, 63_999], 64_000)
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_multistep_drops_at_the_step_nearest_to_the_share() -> None:
    found = rates(Recipe(lr=1.0, milestones=(1 / 3, 2 / 3)), [32, 33, 66, 67], 100)
    assert found == pytest.approx([1, 0.1, 0.1, 0.01])


def test_linear_warmup_rises_to_lr_and_then_the_schedule_runs() -> None:
    r = Recipe(lr=1.0, warmup="linear", warmup_steps=4, warmup_lr=0.2, schedule="constant")
    assert rates(r, [0, 1, 2, 3, 4, 9], 10) == pytest.approx([0.4, 0.6, 0.8, 1.0, 1.0, 1.0])


def test_constant_warmup() -> None:
    """He 2016, appendix: 0.01 for 400 steps."""
    r = recipe("cifar_paper", warmup="constant", warmup_steps=400, warmup_lr=0.01)
    assert rates(r, [0, 399, 400], 64_000) == [0.01, 0.01, 0.1]


def test_a_warmup_as_long_as_the_run_is_reported() -> None:
    r = Recipe(warmup="linear", warmup_steps=50)
    assert unfinished_warmup(r, 51) == unfinished_warmup(Recipe(), 1) == ""
    assert unfinished_warmup(Recipe(warmup="train_error", warmup_steps=50, warmup_lr=0.1), 50) == ""
    assert unfinished_warmup(r, 50) == "the warm-up of 50 steps is not shorter than the run"


def test_cosine_ends_at_zero_and_is_half_way_at_half() -> None:
    r = Recipe(lr=0.4, schedule="cosine")
    assert rates(r, [0, 50, 100], 100) == pytest.approx([0.4, 0.2, 0.0])
    after_warmup = Recipe(lr=0.4, schedule="cosine", warmup="linear", warmup_steps=20)
    assert rates(after_warmup, [19, 20, 60, 100], 100) == pytest.approx([0.4, 0.4, 0.2, 0.0])


def test_onecycle_rises_to_its_peak_at_three_tenths_and_falls_to_zero() -> None:
    r = Recipe(lr=1.0, schedule="onecycle")
    found = rates(r, [0, 30, 65, 100], 100)
    assert found == pytest.approx([0.04, 1.0, 0.5, 0.0])
    curve = rates(r, list(range(101)), 100)
    assert curve.index(max(curve)) == 30
    after_warmup = Recipe(lr=1.0, schedule="onecycle", warmup="constant", warmup_steps=50, warmup_lr=0.5)
    assert rates(after_warmup, [49, 50, 80, 115, 150], 150) == pytest.approx([0.5, 0.04, 1.0, 0.5, 0.0])


def test_plateau_drops_after_patience_without_a_better_error() -> None:
    r = Recipe(lr=1.0, schedule="plateau", patience=2)
    state = ScheduleState()
    found = []
    for error in [50, 51, 40, 41, 40, 39, 39, 39, 39, 39]:
        after_evaluation(r, 1, error, state)
        found.append(learning_rate(r, 0, 1, state))
    # 40 ends the wait that 51 began; 41 and 40 are two evaluations without a better one than 40; after 39, so are each
    # two of the rest.
    assert found == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("warmup", ["constant", "train_error"])
def test_plateau_begins_to_count_after_the_warm_up(warmup: str) -> None:
    r = Recipe(lr=1.0, schedule="plateau", patience=1, warmup=warmup, warmup_steps=20, warmup_lr=0.1)
    state = ScheduleState()
    for step in (5, 10, 15):
        after_evaluation(r, step, 90.0, state)
        after_step(r, step, 90.0, state)
    state.warm_since = 20 if warmup == "train_error" else None
    assert learning_rate(r, 20, 100, state) == 1.0
    for step in (20, 25):
        after_evaluation(r, step, 90.0, state)
    assert learning_rate(r, 25, 100, state) == pytest.approx(0.1)


def test_the_papers_rule_for_110_layers() -> None:
    """0.01 until the training error is below 80 %, then 0.1 (He 2015, section 4.2)."""
    r = recipe("cifar_paper", warmup="train_error", warmup_lr=0.01)
    state = ScheduleState()
    for step in range(200):
        assert needs_batch_error(r, state)
        assert learning_rate(r, step, 64_000, state) == 0.01
        after_step(r, step, 90.0, state)
    step = 200
    while needs_batch_error(r, state):
        after_step(r, step, 70.0, state)
        step += 1
    # The running mean over about 50 steps goes from 90 to 80 in 50·ln 2 steps.
    assert step == pytest.approx(200 + 50 * math.log(2), abs=1)
    assert state.warm_since == step
    assert learning_rate(r, step, 64_000, state) == 0.1
    assert learning_rate(r, 32_000, 64_000, state) == pytest.approx(0.01)


def test_one_lucky_batch_does_not_end_the_warmup() -> None:
    r = recipe("cifar_paper", warmup="train_error", warmup_lr=0.01)
    state = ScheduleState()
    after_step(r, 0, 10.0, state)
    assert state.warm_since is None
    assert state.running_error == 10.0
    after_step(r, 1, 40.0, state)
    assert state.running_error == pytest.approx(25.0), "of the first 50 batches, the plain mean"


def test_an_error_of_exactly_80_percent_is_not_below_it() -> None:
    r = recipe("cifar_paper", warmup="train_error", warmup_lr=0.01)
    state = ScheduleState()
    for step in range(60):
        after_step(r, step, 80.0, state)
    assert state.warm_since is None


def test_warmup_by_training_error_can_be_limited() -> None:
    r = recipe("cifar_paper", warmup="train_error", warmup_lr=0.01, warmup_steps=3)
    state = ScheduleState()
    for step in range(3):
        after_step(r, step, 90.0, state)
    assert state.warm_since == 3
