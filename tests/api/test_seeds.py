"""Runs over seeds: which belong together, their means, and their distance from the first ones."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from resnetlab.api.seeds import over_seeds, seeds_table
from resnetlab.cli.main import main
from resnetlab.training.run_details import Comparison
from resnetlab.training.runs import RunSummary, State


def compared(*runs: tuple[float, int, float], state: State = "finished") -> Comparison:
    """Runs of (lr, seed, test error); the last of them in that state."""
    summaries = [
        RunSummary(Path(f"run{i}"), "finished", "", seed=seed, train_error=test / 2, test_error=test, best_error=test)
        for i, (_, seed, test) in enumerate(runs)
    ]
    *first, last = summaries
    last = RunSummary(**(vars(last) | {"state": state}))
    fields = {"lr": [lr for lr, _, _ in runs], "seed": [seed for _, seed, _ in runs]}
    return Comparison((*first, last), {k: tuple(v) for k, v in fields.items() if len(set(v)) > 1})


RUNS = ((0.1, 0, 8.0), (0.2, 0, 9.0), (0.1, 1, 9.0), (0.2, 1, 13.0), (0.1, 2, 10.0), (0.2, 2, 11.0))


def test_runs_that_differ_in_their_seed_alone_are_put_together() -> None:
    low, high = over_seeds(compared(*RUNS))
    assert (low.settings, high.settings) == ({"lr": 0.1}, {"lr": 0.2})
    assert [run.seed for run in low.runs] == [0, 1, 2]
    assert low.from_first is None
    assert high.from_first is not None
    # Welch: means 9 and 11, variances 1 and 4; √(5/3) is the standard error, and 50/17 are its degrees of freedom,
    # for which Student's 97.5 % quantile is 3.2212.
    assert high.from_first.mean == 2.0
    assert high.from_first.high - 2.0 == pytest.approx(3.2212 * math.sqrt(5 / 3), rel=1e-3)
    assert seeds_table([low, high]) == (
        ["lr", "seeds", "train %", "test %", "best %", "test, from the first"],
        [
            ["0.1", "3", "4.50 ± 0.50", "9.00 ± 1.00", "9.00 ± 1.00", ""],
            ["0.2", "3", "5.50 ± 1.00", "11.00 ± 2.00", "11.00 ± 2.00", "+2.00 [-2.16, +6.16]"],
        ],
    )


def test_an_unfinished_run_does_not_count() -> None:
    _, high = over_seeds(compared(*RUNS, state="running"))
    assert [run.seed for run in high.runs] == [0, 1]


def test_a_copy_of_a_run_is_no_second_seed() -> None:
    (group,) = over_seeds(compared((0.1, 0, 8.0), (0.1, 0, 8.0), (0.1, 1, 9.0)))
    assert [run.seed for run in group.runs] == [0, 1]
    assert over_seeds(compared((0.1, 0, 8.0), (0.1, 0, 8.0))) == []


def test_one_run_of_each_setting_has_no_mean() -> None:
    assert over_seeds(compared((0.1, 0, 8.0), (0.2, 1, 9.0))) == []


def test_a_single_run_beside_several_has_a_difference_without_an_interval() -> None:
    _, alone = over_seeds(compared((0.1, 0, 8.0), (0.1, 1, 9.0), (0.2, 0, 10.0)))
    assert alone.to_dict()["test_error_from_first"] == {"mean": 1.5, "interval": None}
    assert alone.to_dict()["test_error"] == {"values": [10.0], "mean": 10.0, "deviation": None}
    assert seeds_table([alone])[1] == [["0.2", "1", "5.00", "10.00", "10.00", "+1.50"]]


def test_the_command_shows_seeds_below_the_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: list[Any] = ["--net", "cifar_resnet8", "--iterations", "2", "--threads", "1", "--runs", str(tmp_path)]
    for seed in ("0", "1"):
        assert main(["train", "digits", *options, "--seed", seed]) == 0
    folders = [str(path) for path in sorted(tmp_path.iterdir())]
    capsys.readouterr()
    assert main(["runs", "compare", *folders, "--json"]) == 0
    (group,) = json.loads(capsys.readouterr().out)["over_seeds"]
    assert group["settings"] == {}
    assert sorted(group["seeds"]) == [0, 1]
    assert group["test_error"]["mean"] == pytest.approx(sum(group["test_error"]["values"]) / 2)
    assert group["test_error_from_first"] is None
    assert main(["runs", "compare", *folders]) == 0
    assert "test, from the first" in capsys.readouterr().out
    shutil.rmtree(folders[0])
    assert main(["runs", "compare", *folders]) == 2
