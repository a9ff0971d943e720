"""Lines over seeds: mean, lowest, highest, and nothing where a seed has no value."""

from __future__ import annotations

from statistics import geometric_mean

from resnetlab.studies.figures.series import along, error_lines, over_seeds
from resnetlab.studies.frame.evidence import RunResult
from resnetlab.training.recipes import recipe


def test_a_line_has_the_mean_and_the_range_of_the_seeds() -> None:
    line = over_seeds("a", 2, [1, 2], [[1.0, 4.0], [3.0, 5.0]], dashed=True)
    assert (line.label, line.colour, line.dashed, line.marks) == ("a", 2, True, False)
    assert (line.x, line.mean, line.low, line.high) == ([1.0, 2.0], [2.0, 4.5], [1.0, 4.0], [3.0, 5.0])


def test_what_a_seed_lacks_is_left_out() -> None:
    assert over_seeds("a", 0, [1, 2, 3], [[1.0, None, 2.0], [1.0, 2.0, 2.0]]).x == [1.0, 3.0]


def test_a_line_along_x_has_the_seeds_that_there_are() -> None:
    line = along("a", 1, [(8, [1.0, None, 4.0]), (20, [None]), (56, [2.0])], marks=True, mean=geometric_mean)
    assert (line.label, line.colour, line.dashed, line.marks) == ("a", 1, False, True)
    assert (line.x, line.mean, line.low, line.high) == ([8.0, 56.0], [2.0, 2.0], [1.0, 2.0], [4.0, 2.0])


def test_errors_are_drawn_by_epoch_training_dashed() -> None:
    lines = [{"epoch": e, "train_error": 10.0 / e, "test_error": 20.0 / e} for e in (1, 2)]
    training, test = error_lines("net", 0, [RunResult(recipe("digits"), {}, lines, {})])
    assert (training.label, training.dashed, training.mean) == ("net training", True, [10.0, 5.0])
    assert (test.label, test.dashed, test.mean) == ("net test", False, [20.0, 10.0])
    assert error_lines("net", 0, []) == []
