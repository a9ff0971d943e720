"""One run in detail, several runs side by side, and the removal of runs."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.errors import UserError, counted, printable, some
from resnetlab.run_files import METRICS, RESULT, SETTINGS, TRACKING, data_title, read_result, read_settings
from resnetlab.storage import LOCK, Damaged, InUse, is_locked, locked
from resnetlab.training.recipe import FIELDS, NOT_IN_ID, RETIRED, Recipe
from resnetlab.training.runs import RunSummary, summary

# Files that a training leaves in its folder, temporarily or for good, and trackers'.
OURS = re.compile(
    rf"({'|'.join(map(re.escape, (SETTINGS, METRICS, RESULT, TRACKING)))})(\.part)?|{LOCK}|tensorboard|wandb"
    r"|(last|best)(\.old|\.new|\.damaged)?"
)

_OF_MACHINE = {"processor": "", "device": "", "torch": "torch "}  # the entries that are shown, and their prefixes


@dataclass(frozen=True)
class RunDetails:
    """A run with everything that is recorded of it; a damaged one may have only its summary."""

    summary: RunSummary
    settings: dict[str, Any]  # run.json
    result: dict[str, Any] | None  # result.json; None while it is unfinished

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return self.summary.to_dict() | {"settings": self.settings, "result": self.result}

    def facts(self) -> list[tuple[str, str]]:
        """Facts about the run, one per line: what they are, and the words."""
        return [(what, printable(words)) for what, words in self._facts() if words]

    def _facts(self) -> list[tuple[str, str]]:
        run, settings, result = self.summary, self.settings, self.result or {}
        data, machine = settings.get("data", {}), settings.get("machine", {})
        images = f"{_count(data.get('train_images'))} training and {_count(data.get('test_images'))} test images"
        judged = "validation" if settings.get("recipe", {}).get("validation_images") else "test"
        errors = (("training", run.train_error), ("test", run.test_error), (f"lowest {judged}", run.best_error))
        when, seconds = run.when(), result.get("seconds")
        done = f"{run.epochs} epoch{'s' * (run.epochs != 1)}, {counted(run.step, 'step')}"
        done += f", {seconds:,.0f} s" if seconds is not None else ""
        return [
            ("run", str(run.folder)),
            ("state", f"{run.state}: {run.words}" if run.words else run.state),
            ("network", run.net or ""),
            ("data", f"{run.data}: {images}, fingerprint {data.get('fingerprint', 'unknown')}" if data else ""),
            ("start", str(settings.get("start", {}).get("note", ""))),
            ("errors", ", ".join(f"{what} {error:.2f} %" for what, error in errors if error is not None)),
            ("length", done if settings and (run.step or run.state != "damaged") else ""),
            ("written", f"{when:%Y-%m-%d %H:%M}" if when and run.written else ""),
            ("machine", ", ".join(f"{word}{v}" for k, word in _OF_MACHINE.items() if (v := machine.get(k)))),
            ("threads", str(settings.get("threads", ""))),
            ("recipe", "not at the default:" if settings else ""),
            *((f"  {name}", in_words(value)) for name, value in changed_fields(settings).items()),
        ]


def details(folder: Path) -> RunDetails:
    """All that is known of a run. Never raises for a damaged run, whose summary says what is damaged."""
    settings: dict[str, Any] = {}
    result = None
    try:
        settings = read_settings(folder)
        result = read_result(folder)
    except Damaged:
        pass
    return RunDetails(summary(folder), settings, result)


def changed_fields(settings: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run's recipe that are not at their default, in order; fields of old versions come last."""
    default, recipe = RETIRED | Recipe().to_dict(), settings.get("recipe", {})
    names = [*FIELDS, *(name for name in recipe if name not in default)]
    return {name: recipe[name] for name in names if name in recipe and recipe[name] != default.get(name)}


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: the state of each, and the settings in which they differ, with the values of each."""

    runs: tuple[RunSummary, ...]
    differences: dict[str, tuple[Any, ...]]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "runs": [run.to_dict() for run in self.runs],
            "differences": {name: list(values) for name, values in self.differences.items()},
        }

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headers, and a row for each run: its settings that differ, and its errors in %."""
        headers = ["run", *self.differences, "state", "epochs", "train %", "test %", "best %"]
        rows = []
        for i, run in enumerate(self.runs):
            errors = (run.train_error, run.test_error, run.best_error)
            cells = [run.folder.name, *(in_words(values[i]) for values in self.differences.values())]
            cells += [run.state, str(run.epochs or ""), *(f"{e:.2f}" if e is not None else "" for e in errors)]
            rows.append([printable(cell) for cell in cells])
        return headers, rows


def compare_runs(folders: list[Path]) -> Comparison:
    """Compare runs by network, data, start and recipe; a field that a run lacks counts as its default.

    Raises UserError for fewer than two runs, for a run given twice, and for a damaged run.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError("give two or more different runs to compare.")
    described = [_described(read_settings(folder, "leave it out")) for folder in folders]
    names = dict.fromkeys(name for each in described for name in each)
    values = {name: tuple(each.get(name) for each in described) for name in names}
    differing = {name: found for name, found in values.items() if any(v != found[0] for v in found)}
    found = tuple(summary(folder) for folder in folders)
    for run in found:
        if run.state == "damaged" and run.test_error is None:  # else only its weights are damaged
            raise UserError(f"{run.folder}: damaged: {run.words}; leave it out.")
    return Comparison(found, differing)


def in_words(value: Any) -> str:
    """The value of a setting in a table."""
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _described(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that define a run, without the places of data and source."""
    recipe = RETIRED | Recipe().to_dict() | settings["recipe"]
    return {
        "network": settings["spec"].get("name"),
        "input_size": settings["spec"].get("input_size"),
        "data": data_title(settings),
        "fingerprint": settings["data"].get("fingerprint"),
        "start": settings.get("start", {}).get("digest"),
    } | {name: value for name, value in recipe.items() if name not in NOT_IN_ID}


def check_removable(folder: Path) -> None:
    """Raise UserError for a link, a folder that holds anything but a run, and a run in progress."""
    if folder.is_symlink():
        raise UserError(f"{folder}: a symbolic link; remove it by hand, or name the folder that it leads to.")
    others = sorted(path.name for path in folder.iterdir() if not OURS.fullmatch(path.name))
    if others:
        raise UserError(
            f"{folder}: holds {some(others)}, which no training wrote; move it away first, or remove the folder by "
            "hand."
        )
    if is_locked(folder):
        raise InUse(folder)


def remove_run(folder: Path) -> None:
    """Remove a run's folder with everything that a training wrote into it.

    Raises UserError as `check_removable` does, leaving everything as it is, and if the folder can't be removed.
    """
    try:
        check_removable(folder)
        with locked(folder):
            shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"{error.filename or folder}: can't be removed ({error.strerror or error}).") from error


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"
