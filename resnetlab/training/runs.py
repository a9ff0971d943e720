"""The runs in a folder: how far each is, its errors, and what is wrong with a damaged one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, Literal, TypedDict

from resnetlab.errors import UserError, did_you_mean, printable
from resnetlab.paths import expanded
from resnetlab.run_files import (
    METRICS,
    SETTINGS,
    WEIGHTS,
    check_finished,
    data_title,
    last_written,
    newest_run,
    read_metrics,
    read_result,
    read_settings,
)
from resnetlab.schema import Whole
from resnetlab.storage import Damaged, check_regular, is_locked, is_there, read_json, whole_folder

MEASURED = "measured"  # the folder beside the runs where studies keep their measurements
State = Literal["finished", "unfinished", "running", "damaged"]


class _Steps(TypedDict):
    step: Whole


class _Saved(TypedDict):
    """What a list of runs reads of a checkpoint's state.json."""

    progress: _Steps


@dataclass(frozen=True)
class RunSummary:
    """One run of a list; values that a damaged folder does not tell are None."""

    folder: Path
    state: State
    words: str  # how far it is, or what is damaged
    net: str | None = None
    data: str | None = None
    seed: int | None = None
    epochs: int = 0  # complete ones in its metrics; 0 if these are damaged
    step: int = 0  # of the last line of its metrics, or of its last checkpoint, if that is later
    train_error: float | None = None  # %, of the last complete epoch
    test_error: float | None = None
    best_error: float | None = None  # %, the lowest on the validation images, or on the test images if there are none
    written: float = 0.0  # seconds since 1970, when metrics, result or settings were last written

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; numbers that are not finite, and times outside the calendar, are null."""
        when = self.when(UTC)
        words = when.isoformat(timespec="seconds") if when else None
        values = asdict(self).items()
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values}
        return finite | {"folder": str(self.folder), "written": words}

    def when(self, zone: tzinfo | None = None) -> datetime | None:
        """When it was last written; None if a wrong clock put that before the year 1 or after 9999."""
        try:
            return datetime.fromtimestamp(self.written, zone)
        except (ValueError, OverflowError, OSError):
            return None


def list_runs(root: Path) -> tuple[list[RunSummary], list[Path]]:
    """The runs in a folder, the latest last, and the folders in it that are not runs.

    Raises UserError if there is no such folder; damage to a run is reported in its summary, never raised.
    """
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name != MEASURED]
    except OSError as error:
        raise UserError(
            f"{str(root)[:80]}: can't be read ({error.strerror}); choose the folder with --runs."
        ) from error
    if is_there(root / SETTINGS):
        folders = [root]
    runs = [summary(path) for path in folders if is_there(path / SETTINGS) or is_there(path / METRICS)]
    known = {run.folder for run in runs}
    return sorted(runs, key=lambda r: (r.written, r.folder)), [path for path in folders if path not in known]


def summary(folder: Path) -> RunSummary:
    """The summary of a run. Never raises: a run with unreadable files is reported as damaged."""
    written = last_written(folder)
    settings: dict[str, Any] = {}
    lines: list[dict[str, Any]] = []
    try:
        settings = read_settings(folder)
        there, result, last_folder = read_metrics(folder), read_result(folder), whole_folder(folder / "last")
        check_finished(folder, [line for line in there if "epoch" in line], result)
        lines = there  # they tell how far the run is, even if its weights are damaged
        bare = result is not None and not is_there(last_folder / WEIGHTS)  # its record, kept without its weights
        # A kill or a full disk between the first epoch's line and its checkpoint leaves a run that starts again.
        if not bare and (result or sum("epoch" in line for line in lines) > 1 or is_there(last_folder)):
            check_regular(last_folder / WEIGHTS)
        running = is_locked(folder)
    except Damaged as error:
        words = f"{error.path.relative_to(folder)}, {error.what.removeprefix('damaged, ')}"
        told = _names(settings) | _progress(lines)
        return RunSummary(folder, "damaged", printable(words), **told, written=written)
    state: State = "running" if running else "finished" if result else "unfinished"
    found = _progress(lines)
    if not result:
        found["step"] = max(found["step"], _saved_step(last_folder))
    words = "" if state == "finished" else _where(settings["recipe"], found["epochs"], found["step"])
    words = "without its weights" if bare else words
    return RunSummary(folder, state, words, **_names(settings), **found, written=written)


def find_run(name: str, root: Path) -> Path:
    """The folder of a run by its path, by its name below `root`, with or without the hash, or by the hash alone.

    If several fit, it is the newest. Raises UserError if there is none, or if it is not a run.
    """
    try:
        given = expanded(name)
        places = (given, root / name, newest_run(given.parent, given.name), newest_run(root, name))
        folders = [place for place in places if place and place.is_dir()]
        found = next((place for place in folders if is_there(place / SETTINGS)), folders[0] if folders else None)
        is_run = found is not None and is_there(found / SETTINGS)
        near = "" if found or not root.is_dir() else did_you_mean(name, [path.name for path in root.iterdir()])
    except (OSError, ValueError):  # names that file systems reject, homes of unknown users
        found, is_run, near = None, False, ""
    if found is None:
        raise UserError(f"{name[:80]!r}: no such run folder, here or in {root}.{near}")
    if not is_run:
        raise UserError(f"{found}: not a run folder, it has no run.json.")
    return found


def _names(settings: dict[str, Any]) -> dict[str, Any]:
    """Network, data and seed of a run, as far as its settings state them."""
    seed = settings.get("recipe", {}).get("seed")
    net, data = settings.get("spec", {}).get("name"), data_title(settings)
    return {
        "net": printable(net) if net else None,
        "data": printable(data) if data else None,
        "seed": seed if isinstance(seed, int) else None,
    }


def _progress(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Complete epochs, steps and errors by the lines of a run's metrics."""
    epochs = [line for line in lines if "epoch" in line]
    last = epochs[-1] if epochs else {}
    chosen = [e for line in epochs if math.isfinite(e := line.get("validation_error", line["test_error"]))]
    return {
        "epochs": len(epochs),
        "step": int(lines[-1]["step"]) if lines else 0,
        "train_error": last.get("train_error"),
        "test_error": last.get("test_error"),
        "best_error": min(chosen, default=None),
    }


def _saved_step(last: Path) -> int:
    """The step of a checkpoint; 0 if it can't be read, since what that means is said where the run resumes."""
    try:
        step: int = read_json(last / "state.json", _Saved)["progress"]["step"]
    except Damaged:
        return 0
    return step


def _where(recipe: dict[str, Any], epochs: int, step: int) -> str:
    """How far a run is, in the unit in which its recipe gives its length."""
    if isinstance(recipe.get("epochs"), int | float):
        return f"epoch {epochs} of {recipe['epochs']:g}, step {step:,}"
    if isinstance(recipe.get("iterations"), int):
        return f"step {step:,} of {recipe['iterations']:,}, epoch {epochs}"
    return f"epoch {epochs}, step {step:,}"
