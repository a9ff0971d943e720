"""Runs on Ray: on a real one where it is installed, and on a stand-in that shows what it is asked for."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.studies.frame import cluster
from resnetlab.studies.frame.cluster import run_on_ray
from resnetlab.studies.frame.run import End, Event
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

SMALL = recipe("digits", net="cifar_plain8", epochs=0.2)
RECIPES = (SMALL, SMALL.override(seed=1), SMALL.override(lr=1e5, warmup="none", net="cifar_resnet8(norm=none)"))


class RayError(Exception):
    """Stands for ray.exceptions.RayError."""


class RayTaskError(RayError):
    """Stands for ray.exceptions.RayTaskError."""


class StandIn(types.ModuleType):
    """The few functions of Ray that are used; a task runs when it is asked for."""

    def __init__(self, run: Callable[..., Any] | None = None, **resources: float) -> None:
        super().__init__("ray")
        self.exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.run, self.resources = run, {"CPU": 4.0} | resources

    def init(self, **settings: Any) -> None:
        self.calls.append(("init", settings))

    def shutdown(self) -> None:
        self.calls.append(("shutdown", {}))

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": self.resources}, {"Alive": False, "Resources": {"CPU": 64.0}}]

    def remote(self, function: Callable[..., Any]) -> Any:
        def options(**asked: Any) -> Any:
            def start(*arguments: Any) -> Callable[[], Any]:
                self.calls.append(("task", asked | {"arguments": arguments}))
                return lambda: (self.run or function)(*arguments)

            return types.SimpleNamespace(remote=start)

        return types.SimpleNamespace(options=options)

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[:num_returns], references[num_returns:]

    def get(self, reference: Callable[[], Any]) -> Any:
        return reference()

    def asked(self, what: str) -> list[dict[str, Any]]:
        return [values for name, values in self.calls if name == what]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StandIn]:
    def put(*arguments: Any, **resources: float) -> StandIn:
        ray = StandIn(*arguments, **resources)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    for name in cluster._QUIET:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, cluster._QUIET[name])
    return put


def failures(events: list[Event]) -> dict[int, str]:
    return {e.index: e.failed for e in events if e.failed}


def test_runs_are_asked_for_with_their_threads_and_retries(
    tmp_path: Path, stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = Path("runs")
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)  # two on the one core of a test crawl
    list(train(make_run(RECIPES[0], runs), threads=1))
    next(iter(train(make_run(RECIPES[1].override(epochs=2, batch_size=360), runs), threads=2)))
    ray = stand_in()
    recipes = (RECIPES[0], RECIPES[1].override(epochs=2, batch_size=360), RECIPES[2])
    events = list(run_on_ray(recipes, runs, address="local"))
    assert sorted(e.index for e in events if e.done) == [0, 1]
    assert "no longer finite" in failures(events)[2]
    assert str(tmp_path) not in failures(events)[2]
    assert [e.status is not None for e in events if e.index == 1] == [True, False], "the last status, then the end"
    tasks = ray.asked("task")
    assert len(tasks) == 2, "what is finished is read"
    assert sorted(t["num_cpus"] for t in tasks) == [1, 2], "a run keeps its number of threads"
    assert {t["max_retries"] for t in tasks} == {3}
    assert {t["num_gpus"] for t in tasks} == {0}
    assert {t["arguments"][1] for t in tasks} == {tmp_path / "runs"}, "found from any working folder"
    assert [name for name, _ in ray.calls][0] == "init"
    assert [name for name, _ in ray.calls][-1] == "shutdown"
    (settings,) = ray.asked("init")
    assert (settings["address"], settings["include_dashboard"]) == ("local", False)


def test_a_lost_machine_and_a_folder_that_is_not_shared_are_failures(
    tmp_path: Path, stand_in: Callable[..., StandIn]
) -> None:
    def lost(*_: object) -> End:
        raise RayError("The node died.\nAnd so on.")

    stand_in(lost)
    assert failures(list(run_on_ray(RECIPES[:1], tmp_path, address="local"))) == {
        0: "Ray can't finish it: RayError: The node died."
    }

    def another_version(*_: object) -> End:
        raise RayTaskError("ray::attempt()\nTraceback\nModuleNotFoundError: No module named 'resnetlab'")

    stand_in(another_version)
    (reason,) = failures(list(run_on_ray(RECIPES[:1], tmp_path, address="local"))).values()
    assert reason.endswith("ModuleNotFoundError: No module named 'resnetlab'")
    stand_in(lambda *_: End())
    assert (
        "do all machines see the folder of the runs?"
        in failures(list(run_on_ray(RECIPES[:1], tmp_path, address="local")))[0]
    )


def test_a_run_of_another_process_is_waited_for(
    tmp_path: Path, stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task ends at once, and is started again until the run is free or finished."""
    monkeypatch.setattr(cluster, "WAITING", 0.0)
    ends = [End("the run is being trained", in_use=True)] * 2

    def busy_at_first(*arguments: Any) -> End:
        return ends.pop() if ends else cluster.attempt(*arguments)

    ray = stand_in(busy_at_first)
    events = list(run_on_ray(RECIPES[:1], tmp_path, address="local"))
    assert [(e.index, e.waits, e.done) for e in events if e.status is None] == [(0, True, False), (0, False, True)]
    assert len(ray.asked("task")) == 3


def test_a_full_disk_stops_everything(tmp_path: Path, stand_in: Callable[..., StandIn]) -> None:
    ray = stand_in(lambda *_: End("no room", full=True))
    with pytest.raises(UserError, match="no room"):
        list(run_on_ray(RECIPES, tmp_path, address="local"))
    assert ray.calls[-1][0] == "shutdown"


@pytest.mark.parametrize(("device", "gpus", "gets"), [("auto", 2.0, "cuda"), ("auto", 0.0, "cpu"), ("cpu", 2.0, "cpu")])
def test_a_run_gets_a_gpu_where_there_are_some(
    tmp_path: Path, stand_in: Callable[..., StandIn], device: str, gpus: float, gets: str
) -> None:
    ray = stand_in(lambda *_: End(), GPU=gpus)
    list(run_on_ray(RECIPES[:1], tmp_path, address="local", device=device))
    (task,) = ray.asked("task")
    assert (task["num_gpus"], task["arguments"][3]) == (int(gets == "cuda"), gets)


def test_what_can_not_be_is_one_line(
    tmp_path: Path, stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in()
    with pytest.raises(UserError, match="no machine of the Ray cluster has a GPU"):
        list(run_on_ray(RECIPES, tmp_path, address="local", device="cuda"))
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    with pytest.raises(UserError, match=r"not installed: pip install 'resnetlab\[ray\]'"):
        list(run_on_ray(RECIPES, tmp_path, address="local"))


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("import signal; signal.pause()", "doesn't answer as a Ray cluster within 1 s"),
        ("raise ConnectionError('no Ray here.')", "can't be joined .ConnectionError: no Ray here.: see that it runs"),
        ("import os; os.abort()", "can't be joined .no reason given"),
    ],
)
def test_a_cluster_that_does_not_answer_is_given_up(
    tmp_path: Path, stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch, probe: str, words: str
) -> None:
    ray = stand_in()
    monkeypatch.setattr(cluster, "_PROBE", probe)
    monkeypatch.setattr(cluster, "CONNECTING", 1 if "pause" in probe else 3600)
    with pytest.raises(UserError, match=words):
        list(run_on_ray(RECIPES, tmp_path, address="somewhere:6379"))
    assert not ray.calls


@pytest.mark.parametrize(
    ("data", "whole"),
    [("digits", "digits"), ("cifar10:x", "cifar10:{}/x"), ("folder:/y", "folder:/y"), ("a:b/c", "{}/a:b/c")],
)
def test_data_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, whole: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cluster._absolute(data) == whole.format(tmp_path)


@pytest.fixture
def real() -> Iterator[None]:
    """A machine on which Ray is installed. It leaves sockets and files to the interpreter's end."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'resnetlab[ray]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_a_real_ray_trains_and_a_run_that_fails_stops_nothing(tmp_path: Path) -> None:
    events = list(run_on_ray(RECIPES, tmp_path, address="local", device="cpu"))
    assert sorted(e.index for e in events if e.done) == [0, 1]
    assert "no longer finite" in failures(events)[2]
    list(train(make_run(RECIPES[0], tmp_path / "alone"), threads=1))
    weights = [
        (make_run(RECIPES[0], root).folder / "last/weights.safetensors").read_bytes()
        for root in (tmp_path, tmp_path / "alone")
    ]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.usefixtures("real")
def test_no_real_cluster_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(cluster, "CONNECTING", 15)
    with pytest.raises(UserError, match="doesn't answer as a Ray cluster"):
        list(run_on_ray(RECIPES[:1], tmp_path, address="127.0.0.1:9"))
