"""Trackers get each line of metrics.jsonl once, whatever was interrupted in between."""

from __future__ import annotations

import contextlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from resnetlab.errors import UserError
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.tracking import tracking

Call = tuple[Any, ...]


class Fakes:
    """Fake packages that write down what is asked of them."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.broken = False

    def note(self, *call: Any) -> None:
        if self.broken:
            raise ConnectionError("no server\nat all")
        self.calls.append(call)

    def points(self) -> list[tuple[str, int]]:
        """Names and steps of the values that were sent."""
        sent: list[tuple[str, int]] = []
        for kind, *rest in self.calls:
            if kind == "scalar":
                sent.append((rest[0], rest[2]))
            elif kind == "log":
                sent += [(name, rest[1]) for name in rest[0]]
        return sent


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    """tensorboard, wandb and mlflow as fakes."""
    fakes = Fakes()

    class Writer:
        def __init__(self, folder: str):
            fakes.note("open", folder)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            fakes.note("scalar", name, value, step)

        def flush(self) -> None: ...

        def close(self) -> None:
            fakes.note("close")

    @contextlib.contextmanager
    def opened(**how: Any) -> Iterator[Any]:
        fakes.note("open", how)
        yield types.SimpleNamespace(log=lambda values, step: fakes.note("log", values, step))
        fakes.note("close")

    known: list[Any] = []

    @contextlib.contextmanager
    def start_run(**how: Any) -> Iterator[None]:
        fakes.note("open", how)
        known.append(types.SimpleNamespace(info=types.SimpleNamespace(run_id="theirs")))
        yield
        fakes.note("close")

    modules = {
        "tensorboard": {},
        "tensorboard.summary": {"Writer": Writer},
        "wandb": {"init": opened},
        "mlflow": {
            "set_experiment": lambda name: fakes.note("experiment", name),
            "search_runs": lambda **how: known[:1],
            "start_run": start_run,
            "log_params": lambda params: fakes.note("params", params),
            "log_metrics": lambda values, step: fakes.note("log", values, step),
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return fakes


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(recipe("digits", net="cifar_resnet8", epochs=3, batch_size=32), tmp_path)


def expected(run: Run) -> list[tuple[str, int]]:
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    return [(name, line["step"]) for line in lines for name in line if name not in ("step", "epoch")]


@pytest.mark.parametrize("log", ["tensorboard", "wandb", "mlflow"])
def test_every_line_is_sent_once_over_an_interruption(run: Run, fakes: Fakes, log: str) -> None:
    """135 steps: epochs end at 45, 90, 135, and step 100 is logged; it stops after 100, so that it is written twice."""
    with tracking(run, log) as track:
        for status in train(run, threads=1):
            track()
            if status.step == 100:
                break
    assert max(step for _, step in fakes.points()) == 100
    for _ in range(2):  # the second time the run is finished, and there is nothing to send
        with tracking(run, log) as track:
            for _ in train(run, threads=1):
                track()
            track()
    assert {step for _, step in fakes.points()} == {45, 90, 100, 135}
    assert fakes.points() == expected(run)
    assert len(set(fakes.points())) == len(fakes.points())
    opened = [call[1] for call in fakes.calls if call[0] == "open"]
    assert len(opened) == 2
    assert [call[0] for call in fakes.calls].count("close") == 2
    if log == "wandb":
        assert (opened[0]["id"], opened[0]["resume"], opened[0]["project"]) == (run.id, "allow", "resnetlab")
        assert opened[0]["config"] == run.recipe.to_dict()
    if log == "mlflow":
        assert opened == [{"run_name": run.folder.name, "tags": {"resnetlab": run.id}}, {"run_id": "theirs"}]
        assert [call for call in fakes.calls if call[0] == "params"] == [("params", run.recipe.to_dict())]


def test_an_epoch_that_ends_at_a_logged_step_repeats_no_point(run: Run, fakes: Fakes) -> None:
    run.folder.mkdir()
    lines = [{"step": 100, "lr": 0.1, "train_error": 9.0}, {"epoch": 1, "step": 100, "lr": 0.1, "train_error": 9.0}]
    lines[1]["test_error"] = 8.0
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with tracking(run, "tensorboard") as track:
        track()
    assert fakes.points() == [("lr", 100), ("train_error", 100), ("test_error", 100)]


def test_without_a_tracker_nothing_happens(run: Run) -> None:
    with tracking(run, None) as track:
        track()
    assert not run.folder.exists()


def test_what_is_missing_or_fails_is_one_line(run: Run, fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(UserError, match="log='tensorbord' is not known.*Did you mean tensorboard"),
        tracking(run, "tensorbord"),
    ):
        pass
    run.folder.mkdir()
    (run.folder / "metrics.jsonl").write_text('{"step": 100, "lr": 0.1}\n')
    fakes.broken = True
    with (
        tracking(run, "mlflow") as track,
        pytest.raises(UserError, match="log='mlflow' fails .ConnectionError: no serv"),
    ):
        track()
    fakes.broken = False
    (run.folder / "tracking.json").write_text('{"mlflow": "all"}')
    with tracking(run, "mlflow") as track, pytest.raises(UserError, match="tracking.json: damaged, mlflow is 'all'"):
        track()
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(UserError, match=r"can't be imported here .*: pip install 'resnetlab\[wandb\]'"),
        tracking(run, "wandb"),
    ):
        pass


def test_the_real_tensorboard(run: Run) -> None:
    pytest.importorskip("tensorboard.summary", reason="needs tensorboard: pip install 'resnetlab[tensorboard]'")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    with tracking(run, "tensorboard") as track:
        for _ in train(run, threads=1):
            track()
    (events,) = (run.folder / "tensorboard").iterdir()
    found = [(value.tag, event.step) for event in EventFileLoader(str(events)).Load() for value in event.summary.value]
    assert found == expected(run)
