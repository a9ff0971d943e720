"""The runner: trains what is missing, alone or side by side, and keeps a record that reads back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.errors import UserError
from resnetlab.studies.runner import Event, conclude, run_missing
from resnetlab.studies.study import STUDIES, Plan, Record, Study, read_records, study
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe, recipe
from resnetlab.training.run import make_run

RECIPES = tuple(
    recipe("digits", net=f"cifar_{kind}{depth}", epochs=1, seed=seed)
    for kind in ("plain", "resnet")
    for depth in (8, 14)
    for seed in (0, 1)
)


def small_study() -> Study:
    """`degradation` with runs of one epoch."""
    return replace(study("degradation"), plan=lambda scale, data: Plan(RECIPES, "seconds"))


def finished(events: list[Event]) -> list[int]:
    return sorted(e.index for e in events if e.done)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_run_is_trained_once_and_then_read(tmp_path: Path, jobs: int) -> None:
    events = list(run_missing(RECIPES, tmp_path, jobs=jobs))
    assert finished(events) == list(range(len(RECIPES)))
    assert {e.index for e in events if e.status} == set(range(len(RECIPES)))
    again = list(run_missing(RECIPES, tmp_path, jobs=1))
    assert finished(again) == list(range(len(RECIPES)))
    assert not [e for e in again if e.status]
    record = conclude(small_study(), "quick", None, tmp_path, "the command")
    assert record.runs == len(RECIPES)
    record.save(tmp_path / "results")
    (read,) = read_records(tmp_path / "results")
    assert read.to_dict() == json.loads(json.dumps(record.to_dict()))
    assert {"processor", "cores", "torch", "commit"} <= set(read.machine)


def test_a_run_that_fails_says_why_from_another_process(tmp_path: Path) -> None:
    bad = RECIPES[0].override(lr=1e5, warmup="none", net="cifar_resnet8(norm=none)")
    with pytest.raises(UserError, match="no longer finite"):
        list(run_missing((RECIPES[0], bad), tmp_path, jobs=2))


def test_side_by_side_gives_the_same_weights_as_alone(tmp_path: Path) -> None:
    def weights(recipes: tuple[Recipe, ...], root: Path) -> list[bytes]:
        return [(make_run(r, root).folder / "last/weights.safetensors").read_bytes() for r in recipes]

    recipes = RECIPES[:2]
    list(run_missing(recipes, tmp_path / "two", jobs=2))
    for r in recipes:
        list(train(make_run(r, tmp_path / "one"), threads=1))
    assert weights(recipes, tmp_path / "one") == weights(recipes, tmp_path / "two")


def test_records_of_another_version_and_damaged_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results of studies"):
        read_records(tmp_path)
    path = tmp_path / "degradation-quick.json"
    path.write_text('{"format": 99}')
    with pytest.raises(UserError, match="degradation-quick.json: a record of another version"):
        read_records(tmp_path)
    path.write_text('{"format": 1, "study": "degradation"}')
    with pytest.raises(UserError, match="degradation-quick.json: a damaged record"):
        read_records(tmp_path)


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_states_itself(name: str) -> None:
    found = study(name)
    assert found.name == name
    assert all((found.title, found.claim, found.source, found.method, found.rule))


@pytest.mark.slow
def test_the_study_on_the_command_line(
    tmp_path: Path, resnetlab: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The whole of `make demo`, and the effect it must show."""
    done = resnetlab("study", "run", "degradation", "--scale", "quick", "--json", timeout=1500)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["study"], answer["scale"], answer["verdict"]) == ("degradation", "quick", "reproduced")
    assert Path(tmp_path / answer["report"]).read_text().startswith("<!doctype html>")
    (record,) = read_records(tmp_path / "results")
    assert isinstance(record, Record)
    errors = {row[0]: float(row[1].split()[0]) for row in record.tables[0]["rows"]}
    assert errors["plain-56"] > 30
    assert errors["residual-56"] < 3
