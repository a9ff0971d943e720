"""What runs there are in a folder: how far each is, its errors, and what is wrong with a damaged one."""

from __future__ import annotations

import fcntl
import json
import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from resnetlab.errors import UserError, did_you_mean
from resnetlab.paths import expanded
from resnetlab.training.checkpoint import WEIGHTS, whole_folder
from resnetlab.training.run import READABLE, RESULT_KEYS

MEASURED = "measured"  # the folder beside the runs where studies keep their measurements
State = Literal["finished", "unfinished", "running", "damaged"]


class Damaged(ValueError):
    """A run folder that can't be read; the words say which file and why, in short."""


@dataclass(frozen=True)
class RunSummary:
    """One run of a list; what a damaged folder does not tell is None."""

    folder: Path
    state: State
    words: str  # where it stands, or what is damaged
    net: str | None = None
    data: str | None = None
    seed: int | None = None
    epochs: int = 0  # whole ones, in its metrics
    step: int = 0  # of the last line of its metrics
    train_error: float | None = None  # %, of the last whole epoch
    test_error: float | None = None
    best_error: float | None = None  # %, lowest of the validation images, or of the test images without those
    written: float = 0.0  # seconds since 1970, when metrics, result or settings were last written

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a number that is not finite is null."""
        values = {k: _finite(v) for k, v in asdict(self).items()}
        when = datetime.fromtimestamp(self.written, UTC).isoformat(timespec="seconds")
        return values | {"folder": str(self.folder), "written": when}


def list_runs(root: Path) -> tuple[list[RunSummary], list[Path]]:
    """The runs in a folder, the latest last, and the folders in it that are no runs.

    Raises UserError if there is no such folder; whatever lies in it is told, never raised.
    """
    try:
        folders = [path for path in sorted(root.iterdir()) if path.is_dir() and path.name != MEASURED]
    except OSError as error:
        raise UserError(f"{str(root)[:80]}: can't be read ({error.strerror}); name the folder with --runs.") from error
    if (root / "run.json").exists():
        folders = [root]
    runs = [summary(path) for path in folders if (path / "run.json").exists() or (path / "metrics.jsonl").exists()]
    known = {run.folder for run in runs}
    return sorted(runs, key=lambda r: (r.written, r.folder)), [path for path in folders if path not in known]


def summary(folder: Path) -> RunSummary:
    """How a run stands. Never raises: what can't be read makes it damaged."""
    written = max((_written(folder / name) for name in ("run.json", "metrics.jsonl", "result.json")), default=0.0)
    settings: dict[str, Any] = {}
    try:
        settings = read_settings(folder)
        lines = metrics_of(folder)
        epochs = [line for line in lines if "epoch" in line]
        if epochs and not (whole_folder(folder / "last") / WEIGHTS).exists():
            raise Damaged(f"last/{WEIGHTS} is missing")
        result = _result(folder)
        running = is_locked(folder)
    except Damaged as error:
        return RunSummary(folder, "damaged", str(error), **_names(settings), written=written)
    last = epochs[-1] if epochs else {}
    chosen = [line.get("validation_error", line["test_error"]) for line in epochs]
    state: State = "running" if running else "finished" if result else "unfinished"
    step = int(lines[-1]["step"]) if lines else 0
    return RunSummary(
        folder,
        state,
        "" if state == "finished" else _where(settings["recipe"], len(epochs), step),
        **_names(settings),
        epochs=len(epochs),
        step=step,
        train_error=last.get("train_error"),
        test_error=last.get("test_error"),
        best_error=min(chosen, default=None),
        written=written,
    )


def find_run(name: str, root: Path) -> Path:
    """The folder of a run by its path, its name below `root`, or the hash that its name ends with.

    Raises UserError if there is none, or if it is not a run.
    """
    try:
        places = (expanded(name), root / name, *sorted(root.glob(f"*-{name}") if name.isalnum() else ()))
        found = next((place for place in places if place.is_dir()), None)
        is_run = found is not None and (found / "run.json").exists()
        near = "" if found or not root.is_dir() else did_you_mean(name, [path.name for path in root.iterdir()])
    except (OSError, ValueError):  # names that no file system takes, homes of nobody
        found, is_run, near = None, False, ""
    if found is None:
        raise UserError(f"{name[:80]!r}: no such run folder, here or in {root}.{near}")
    if not is_run:
        raise UserError(f"{found}: not a run folder, it has no run.json.")
    return found


def read_settings(folder: Path) -> dict[str, Any]:
    """What run.json holds, as far as lists and plots need it. Raises Damaged."""
    found = _json(folder / "run.json")
    if found.get("format") not in READABLE:
        raise Damaged(f"run.json is of format {str(found.get('format'))[:20]}, not {READABLE[-1]}")
    for key in ("spec", "recipe", "data"):
        if not isinstance(found.get(key), dict):
            raise Damaged(f"run.json lacks {key}")
    return found


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none if there is no such file yet. Raises Damaged.

    A last line that is not whole is left out: it is being written, or its writer was killed.
    """
    path = folder / "metrics.jsonl"
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise Damaged(f"metrics.jsonl can't be read ({error.strerror})") from error
    lines = []
    for number, text in enumerate(content.split(b"\n")[:-1], 1):
        try:
            line = json.loads(text)
            keys = ("step", "train_error", "test_error") if "epoch" in line else ("step",)
            if not all(isinstance(line[key], int | float) for key in keys) or not math.isfinite(line["step"]):
                raise ValueError("not numbers")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise Damaged(f"metrics.jsonl, line {number}") from error
        lines.append(line)
    return lines


def is_locked(folder: Path) -> bool:
    """Whether a process trains the run now; where files can't be locked, no.

    The lock is tried for reading, so two who ask do not see each other; one who starts to train within those
    microseconds would.
    """
    try:
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _result(folder: Path) -> dict[str, Any] | None:
    path = folder / "result.json"
    if not path.exists():
        return None
    found = _json(path)
    missing = [key for key in RESULT_KEYS if not isinstance(found.get(key), int | float)]
    if missing:
        raise Damaged(f"result.json lacks {', '.join(missing)}")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise Damaged(f"{path.name} can't be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} is not JSON") from error
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} is no JSON object")
    return value


def _names(settings: dict[str, Any]) -> dict[str, Any]:
    """Network, data and seed of a run, as far as its settings tell them."""
    seed = settings.get("recipe", {}).get("seed")
    net, data = settings.get("spec", {}).get("name"), settings.get("data", {}).get("name")
    return {
        "net": str(net) if net else None,
        "data": str(data) if data else None,
        "seed": seed if isinstance(seed, int) else None,
    }


def _where(recipe: dict[str, Any], epochs: int, step: int) -> str:
    """How far a run is, in the unit in which its recipe gives its length."""
    if isinstance(recipe.get("epochs"), int | float):
        return f"epoch {epochs} of {recipe['epochs']:g}, step {step:,}"
    if isinstance(recipe.get("iterations"), int):
        return f"step {step:,} of {recipe['iterations']:,}, epoch {epochs}"
    return f"epoch {epochs}, step {step:,}"


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
