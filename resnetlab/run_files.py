"""The files of a run folder: the contents of each JSON file, and the one function that reads it.

    run.json        what the run is: Settings
    metrics.jsonl   one line for each evaluation and each logged step: Line, EpochLine
    result.json     what it ended with: Result
    tracking.json   the number of lines that each tracker has received: counts by name
    last/, best/    checkpoints, with weights.safetensors in each

For other contents, readers raise `storage.Damaged`: the path, what is wrong, and what to do. The files of a checkpoint
are read in `training.checkpoint`, by the same rules.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from resnetlab.errors import counted, shown
from resnetlab.paths import expanded
from resnetlab.schema import MOST_WHOLE, Between, Loss, Positive, Scalar, Seconds, Text, Whole, trouble
from resnetlab.storage import MOST_JSON, Damaged, is_there, parsed_json, read_json, read_regular

FORMAT = 3  # of the run folder
# Format 1 had checkpoints only at the end of epochs; in format 2, those within an epoch had only one process.
READABLE = (1, 2, FORMAT)
WEIGHTS = "weights.safetensors"  # of the folders `last` and `best`
SETTINGS, METRICS, RESULT, TRACKING = "run.json", "metrics.jsonl", "result.json", "tracking.json"
MOST_METRICS = 2**28  # bytes: a line for each 100 of 200 million steps
START_ANEW = "move the folder away to restart the run"
RUNS = "runs"  # the folder that runs are in, unless --runs names another
HASH = "[0-9a-f]{12}"  # at the end of a run folder's name

Error = Annotated[float, Between(0, 100, nan=True)]  # in %


class OfData(TypedDict):
    """What run.json says of the data."""

    name: str
    title: NotRequired[str]  # what a person calls it, where the name is only its kind
    fingerprint: NotRequired[str]
    shape: NotRequired[tuple[Whole, Whole, Whole] | None]
    train_images: NotRequired[Whole]
    test_images: NotRequired[Whole]


class OfSpec(TypedDict):
    """What run.json says of the network, as far as a list needs it; weight files hold their own."""

    name: NotRequired[str]


class Settings(TypedDict):
    """run.json, as far as lists and plots need it."""

    format: Whole
    spec: OfSpec
    recipe: dict[str, Scalar | list[Scalar]]
    data: OfData
    id: NotRequired[Text]
    classes: NotRequired[list[str]]
    start: NotRequired[dict[str, Any]]
    ranks: NotRequired[Annotated[int, Between(1, 10**6)]]


class Resolved(TypedDict):
    """What the recipe's `auto` came to where the run began."""

    precision: Literal["fp32", "bf16", "fp16"]
    channels_last: bool
    compile: bool


class Start(TypedDict):
    """What a run takes from its source, as far as a resumed training needs it."""

    resizing: NotRequired[dict[str, Scalar]]


class Begun(TypedDict):
    """What run.json has besides, which a resumed training and a study need."""

    id: Text
    resolved: NotRequired[Resolved]
    start: NotRequired[Start]
    threads: Annotated[int, Between(1, 4096)]
    machine: dict[str, Scalar]


class Line(TypedDict):
    """A line of metrics.jsonl."""

    step: Whole
    epoch: NotRequired[Whole]
    lr: NotRequired[Positive]
    train_loss: NotRequired[Loss]
    train_error: NotRequired[Error]
    test_loss: NotRequired[Loss]
    test_error: NotRequired[Error]
    validation_loss: NotRequired[Loss]
    validation_error: NotRequired[Error]
    unreadable: NotRequired[Whole]


class EpochLine(TypedDict):
    """What a line of metrics.jsonl has that ends an epoch."""

    epoch: Annotated[int, Between(1, MOST_WHOLE)]
    train_error: Error
    test_error: Error


class Result(TypedDict):
    """result.json: errors in %, of the last epoch and the lowest."""

    train_error: Error
    test_error: Error
    best_error: Error
    epochs: Annotated[int, Between(1, MOST_WHOLE)]
    steps: Whole
    seconds: Seconds


def source_path(source: str | Path) -> Path:
    """The path of a network: a file, a folder, or a run by its name or hash, which is also searched in RUNS.

    A folder that holds no network, such as one of images, does not stand before a run of its name in RUNS.
    """
    path = expanded(source)
    is_name = path == Path(path.name)
    if os.path.lexists(path) and not (is_name and _holds_no_network(path)):
        return path
    roots = [path.parent, *([Path(RUNS)] if is_name else [])]
    return next(filter(None, (newest_run(root, path.name) for root in roots)), path)


def _holds_no_network(path: Path) -> bool:
    """Whether a folder has no file of a run, and none of weights; False for a file, and for what can't be read."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return not any(
        n in (SETTINGS, METRICS, RESULT) or n.endswith((".safetensors", ".bin", ".index.json")) for n in names
    )


def newest_run(root: Path, name: str) -> Path | None:
    """The run in a folder that is called NAME or NAME-HASH or, if the name is a hash, ends with it; of several, the one
    written last. None if there is none.
    """
    ways = f"{re.escape(name)}(-{HASH})?" + (f"|.*-{name}" if re.fullmatch(HASH, name) else "")
    whole = re.compile(ways, re.DOTALL)
    try:
        there = [path for path in root.iterdir() if whole.fullmatch(path.name) and is_there(path / SETTINGS)]
    except (OSError, ValueError):
        return None
    return max(there, key=lambda path: (last_written(path), path), default=None) if name else None


def last_written(folder: Path) -> float:
    """When a run's metrics, result or settings were last written, in seconds since 1970; 0 if there are none."""
    times = [0.0]
    for name in (SETTINGS, METRICS, RESULT):
        with contextlib.suppress(OSError):
            times.append((folder / name).stat().st_mtime)
    return max(times)


def data_title(settings: dict[str, Any]) -> str | None:
    """The title of a run's data in its run.json."""
    data = settings.get("data", {})
    return data.get("title") or data.get("name")


def read_settings(folder: Path, advice: str = START_ANEW) -> dict[str, Any]:
    """The contents of run.json. Raises Damaged, with the advice, also for a run of another version."""
    if not folder.exists():
        raise Damaged(folder, "no such run folder")
    path = folder / SETTINGS
    content = read_regular(path, MOST_JSON, advice)
    version = parsed_json(path, content, advice=advice).get("format")
    if isinstance(version, int) and version not in READABLE:
        what = f"a run of format {shown(version)}, but this version reads formats 1 to {FORMAT}"
        raise Damaged(path, what, "move the folder away or use the version that wrote it")
    return parsed_json(path, content, Settings, advice)


def read_begun(folder: Path) -> dict[str, Any]:
    """The same, checked for all that a training needs. Raises Damaged."""
    found = read_settings(folder)
    if wrong := trouble(found, Begun):
        raise Damaged(folder / SETTINGS, f"damaged, {wrong}", START_ANEW)
    return found


def read_result(folder: Path) -> dict[str, Any] | None:
    """The contents of result.json, or None if it is missing, i.e. the run is unfinished. Raises Damaged."""
    path = folder / RESULT
    return read_json(path, Result, "remove it to finish the run again") if is_there(path) else None


def read_metrics(folder: Path, length: int | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, or of its first `length` bytes; none if there is no such file. Raises Damaged.

    An incomplete last line is left out: it is being written, or its writer was killed.
    """
    path = folder / METRICS
    content = read_regular(path, MOST_METRICS, START_ANEW) if is_there(path) else b""
    if length and content[length - 1 : length] != b"\n":
        raise Damaged(path, "damaged, shorter than its checkpoint says, or with different lines", START_ANEW)
    lines = []
    for number, text in enumerate(content[:length].split(b"\n")[:-1], 1):
        line = parsed_json(path, text, Line, START_ANEW, where := f"line {number}: ")
        lines.append(parsed_json(path, text, EpochLine, START_ANEW, where) if "epoch" in line else line)
    return lines


def read_epochs(folder: Path, length: int | None = None) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that end an epoch, as `read_metrics` reads them.

    Raises Damaged also for the whole file of a finished run, if it does not end where the run did.
    """
    epochs = [line for line in read_metrics(folder, length) if "epoch" in line]
    if length is None:
        try:
            result = read_result(folder)
        except Damaged:  # another reader's matter: the lines are good without it
            result = None
        check_finished(folder, epochs, result)
    return epochs


def check_finished(folder: Path, epochs: list[dict[str, Any]], result: dict[str, Any] | None) -> None:
    """Raise Damaged if a run is finished, by its result, but its metrics lack an epoch."""
    if result and (len(epochs) != result["epochs"] or epochs[-1]["epoch"] != result["epochs"]):
        what = f"damaged, it holds {len(epochs)} of the {counted(result['epochs'], 'epoch')} that {RESULT} counts"
        raise Damaged(folder / METRICS, what, START_ANEW)


def last_epoch(folder: Path) -> dict[str, Any]:
    """The line of the last complete epoch. Raises Damaged if there is none."""
    epochs = read_epochs(folder)
    if not epochs:
        raise Damaged(folder / METRICS, "damaged, it holds no complete epoch", START_ANEW)
    return epochs[-1]


def read_sent(folder: Path) -> dict[str, int]:
    """The number of lines of metrics.jsonl that each tracker has received. Raises Damaged."""
    path = folder / TRACKING
    return read_json(path, dict[str, Whole], "remove it to send all metrics again") if is_there(path) else {}
