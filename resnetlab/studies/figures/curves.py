"""Curves of runs: the papers' error curves, training error thin and dashed, and that of the learning-rate finder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetlab.errors import UserError, printable
from resnetlab.run_files import data_title, read_epochs, read_settings
from resnetlab.storage import Damaged, content_of, disk_errors, write_atomically
from resnetlab.studies.figures.draw import draw, draw_file
from resnetlab.studies.figures.figure import Figure, Panel, Series

if TYPE_CHECKING:
    from resnetlab.training.find_lr import LrTest

SUFFIXES = (".svg", ".png", ".pdf")
MOST_RUNS = 6  # colours that can be told apart
CHOOSE = "choose another --out"
HEADROOM = 1.5  # the highest loss that is shown, times that of the first steps: what diverges leaves the picture
_MARK = "resnetlab runs plot"  # written into every picture, so that only such pictures are replaced
_WORDS = {"train_error": "training", "test_error": "test"}


def error_curves(folders: list[Path]) -> Figure:
    """The error curves of runs (as He 2015, Fig. 6), in %, by iteration.

    Raises UserError for a damaged run, a run without a complete epoch or given twice, and more than MOST_RUNS runs.
    """
    if len(folders) > MOST_RUNS:
        raise UserError(f"{len(folders)} runs: no more than {MOST_RUNS} can be told apart in one plot; leave some out.")
    runs: list[tuple[Path, dict[str, Any], list[dict[str, Any]]]] = []
    for folder in folders:
        if folder.resolve() in [other.resolve() for other, *_ in runs]:
            raise UserError(f"{folder}: is given twice.")
        try:
            settings, epochs = read_settings(folder), read_epochs(folder)
        except Damaged as error:
            raise Damaged(error.path, error.what, "leave it out") from error
        if not epochs:
            raise UserError(f"{folder}: has no whole epoch yet; leave it out, or wait.")
        runs.append((folder, settings, epochs))
    names = [printable(name) for name in _labels([settings for _, settings, _ in runs])]
    longest = max(line["step"] for _, _, epochs in runs for line in epochs)
    unit = 1000 if longest >= 20_000 else 1
    series = [
        _curve(f"{name} {words}", key, colour, epochs, unit)
        for colour, (name, (_, _, epochs)) in enumerate(zip(names, runs, strict=True))
        for key, words in _WORDS.items()
    ]
    x_label = "iterations" if unit == 1 else "iterations (thousands)"
    data = {str(data_title(settings)) for _, settings, _ in runs}
    panel = Panel(printable(data.pop()) if len(data) == 1 else "errors", x_label, "error (%)", series, _limits(series))
    return Figure("curves", "Training error (dashed) and test error (solid) by iteration.", [panel])


def save_curves(figure: Figure, path: Path, advice: str = CHOOSE) -> None:
    """Write the figure as SVG, PNG or PDF, by the path's suffix; an earlier plot of ours is replaced.

    Raises UserError, with the advice, for another suffix, for an existing file that is not such a plot, and if the file
    can't be written.
    """
    check_out(path, advice)
    suffix = path.suffix.lower()
    if suffix == ".svg":
        content = f"<!-- {_MARK} -->\n{draw(figure, 'curves')}".encode()
    else:
        content = draw_file(figure, suffix[1:], {"Software" if suffix == ".png" else "Creator": _MARK})
    with disk_errors(path):
        write_atomically(path, content)


def check_out(path: Path, advice: str = CHOOSE) -> None:
    """Raise UserError unless a plot may be written there."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{str(path)[:80]}: the suffix decides the format; give one of {', '.join(SUFFIXES)}.")
    try:
        ours = not path.exists() or _MARK.encode() in content_of(path)
    except OSError as error:
        raise UserError(f"{str(path)[:80]}: can't be written ({error.strerror}); {advice}.") from error
    if not ours:
        raise UserError(f"{path}: already exists and is not a plot of this command; {advice}.")


def _curve(label: str, key: str, colour: int, epochs: list[dict[str, Any]], unit: int) -> Series:
    errors = [float(line[key]) for line in epochs]
    steps = [line["step"] / unit for line in epochs]
    return Series(label, key == "train_error", colour, steps, errors, errors, errors)


def _labels(all_settings: list[dict[str, Any]]) -> list[str]:
    """A name for each run: its network, its data where they differ, and as much of its recipe as tells it apart."""
    described = [_described(settings) for settings in all_settings]
    names = [str(d["net"]) for d in described]
    for key in dict.fromkeys(key for d in described for key in d):
        longer = [f"{name}, {_words(key, d.get(key))}" for name, d in zip(names, described, strict=True)]
        differs = key == "data" and len({d["data"] for d in described}) > 1
        if differs or len(set(longer)) > len(set(names)):
            names = longer
    ids = [str(settings.get("id")) for settings in all_settings]
    return [n if names.count(n) == 1 else f"{n}, {i}" for n, i in zip(names, ids, strict=True)]


def _words(key: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if key == "data" else f"{key} {text}".replace("_", " ")


def _described(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that can distinguish runs, the most important first."""
    recipe = {k: v for k, v in settings["recipe"].items() if k not in ("net", "data")}
    net, data = settings["spec"].get("name") or "net", str(data_title(settings))
    return {"net": net, "data": data, "seed": None} | recipe


def _limits(series: list[Series]) -> tuple[float, float]:
    """From 0 to above the curves after the first tenth of their points, in which a net has learned nothing yet."""
    late = [y for s in series for y in s.mean[len(s.mean) // 10 :] if math.isfinite(y)]
    highest = 1.05 * max(late, default=100.0)
    step = 5 if highest <= 50 else 10
    return 0.0, float(min(100, max(step, step * math.ceil(highest / step))))


def lr_test_figure(found: LrTest, network: str) -> Figure:
    """The loss by the rate: of each batch a dot, means over neighbours as a line, and a mark at the suggestion."""
    rates, losses = list(found.rates), [loss for loss in found.losses if math.isfinite(loss)]
    smoothed = list(found.smoothed)
    series = [
        _series("loss of a batch", 2, rates[: len(losses)], losses, marks=True),
        _series("mean of neighbours", 0, rates[: len(smoothed)], smoothed),
    ]
    if (rate := found.suggestion) is not None:
        nearest = min(range(len(smoothed)), key=lambda i: abs(math.log(rates[i] / rate)))
        series.append(_series(f"suggested: {rate:g}", 1, [rate], [smoothed[nearest]], marks=True))
    high = HEADROOM * smoothed[0] if smoothed else 1.0
    low = 0.9 * min(smoothed, default=0.0)
    panel = Panel(network or "network", "learning rate", "loss", series, (low, max(high, low + 1e-6)), x_log=True)
    return Figure("find-lr", "Loss of a training batch while the learning rate grows from step to step.", [panel])


def _series(label: str, colour: int, x: list[float], y: list[float], *, marks: bool = False) -> Series:
    return Series(label, False, colour, x, y, y, y, marks)
