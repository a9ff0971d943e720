"""Hands a study's runs to Ray, which places them on this machine or a cluster and restarts lost ones."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from resnetlab.data.open import READERS
from resnetlab.errors import UserError, shown
from resnetlab.machine import available_cores
from resnetlab.paths import expanded
from resnetlab.run_files import RESULT, SETTINGS, read_begun
from resnetlab.storage import is_there
from resnetlab.studies.frame.record import one_line
from resnetlab.studies.frame.run import End, Event, attempt, end_of, in_turn, resolve
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run

RETRIES = 3  # of a run whose process or machine is lost; a run that fails for other reasons is not retried
CONNECTING = 60  # seconds within which a cluster has to answer
WAITING = 5.0  # seconds after which a run that another process was training is tried again
INSTALL = "pip install 'resnetlab[ray]'"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning of a future change, which affects no run
    "RAY_task_oom_retries": str(RETRIES),  # else a run that is too large for its machine is retried forever
}
_PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


def check_cluster(address: str, device: str) -> None:
    """Raise UserError for text that is no address of a cluster, and for a device that Ray doesn't assign."""
    if not re.fullmatch(r"local|auto|[^:/\s]+:\d{1,5}|\[[^\]\s]+\]:\d{1,5}", address):
        raise UserError(f"ray={shown(address)} must be local, auto or HOST:PORT.")
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {shown(device)}: with --ray give cpu, cuda or auto; Ray chooses which GPU.")


def run_on_ray(recipes: tuple[Recipe, ...], runs: Path, *, address: str, device: str = "auto") -> Iterator[Event]:
    """Train each recipe that has no finished run below `runs` as a task of Ray; yields an event as each one ends.

    `address` is "local", to start Ray here, "auto" or HOST:PORT. All machines must see the runs and the data under the
    same paths. `device` is "cpu", "cuda" (one GPU per run) or "auto", a GPU if the cluster has one.
    Raises UserError if Ray is missing, can't be reached or has no GPU, and as `run.run_missing` does.
    """
    check_cluster(address, device)
    runs = runs.absolute()
    resolved = resolve(recipes, runs)
    ray = _connected(address)
    gpus = float(ray.cluster_resources().get("GPU", 0))
    if device == "cuda" and gpus < 1:
        ray.shutdown()
        raise UserError("device 'cuda' can't be used: no machine of the Ray cluster has a GPU. Use --device cpu.")
    return _events(ray, recipes, resolved, runs, "cuda" if device != "cpu" and gpus >= 1 else "cpu")


def _events(ray: Any, recipes: tuple[Recipe, ...], resolved: list[Run], runs: Path, device: str) -> Iterator[Event]:
    try:
        # A run that asks for more cores than any machine has would wait forever.
        most = max([1, *(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])])
        pending: dict[Any, int] = {}
        started: dict[int, Callable[[], Any]] = {}
        waits: set[int] = set()  # for what other processes are training
        for i in in_turn(recipes):
            try:
                if resolved[i].result() is not None:
                    yield Event(i, done=True)
                    continue
                threads = _threads(resolved[i])
            except UserError as error:
                yield end_of(error, runs).event(i)
                continue
            task = ray.remote(attempt).options(
                num_cpus=min(threads, most), num_gpus=int(device == "cuda"), max_retries=RETRIES
            )
            recipe = recipes[i].override(data=_absolute(recipes[i].data))
            started[i] = partial(task.remote, recipe, runs, threads, device)
            pending[started[i]()] = i
        while pending:
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            i = pending.pop(reference)
            try:
                end: End = ray.get(reference)
            except ray.exceptions.RayError as error:
                end = End(f"Ray can't finish it: {_said(ray, error)}")
            if end.in_use:
                if i not in waits:
                    waits.add(i)
                    yield Event(i, waits=True)
                time.sleep(WAITING)
                pending[started[i]()] = i
                continue
            if end.last:
                yield Event(i, end.last)
            if not end.failed and not (resolved[i].folder / RESULT).exists():
                end = End("it ended, but its folder is not here: do all machines see the folder of the runs?")
            yield end.event(i)
    finally:
        ray.shutdown()  # ends what still runs


def _said(ray: Any, error: Exception) -> str:
    """Why Ray lost a task or could not begin it; of a traceback, the last line."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0][:200]}"


def _threads(run: Run) -> int:
    """The number of threads that a run was started with, or 1 for a new run."""
    return int(read_begun(run.folder)["threads"]) if is_there(run.folder / SETTINGS) else 1


def _absolute(data: str) -> str:
    """A recipe's data with an absolute path, since another machine's process has another working folder."""
    kind, _, folder = data.partition(":")
    if kind in READERS:
        return f"{kind}:{expanded(folder).absolute()}" if folder else data
    return str(expanded(data).absolute())


def _connected(address: str) -> Any:
    """The module `ray`, connected. Raises UserError."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import ray
    except ImportError as error:
        raise UserError(f"--ray needs Ray, which is not installed: {INSTALL}") from error
    if address != "local":
        _check_reachable(address)
    here: dict[str, Any] = {"num_cpus": available_cores(), "include_dashboard": False} if address == "local" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(f"ray={shown(address)}: Ray can't be started or joined ({one_line(error)}).") from error
    return ray


def _check_reachable(address: str) -> None:
    """Try to join the cluster in a process that can be killed: Ray itself tries for minutes, or ends its process."""
    hint = "see that it runs there ('ray status'), or give --ray local"
    try:
        command = [sys.executable, "-c", _PROBE, address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CONNECTING, errors="replace")
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"ray={shown(address)} doesn't answer as a Ray cluster within {CONNECTING} s: {hint}."
        ) from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise UserError(f"ray={shown(address)} can't be joined ({said[-1][:200].rstrip('.')}): {hint}.")
