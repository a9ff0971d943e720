"""`resnetlab eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from resnetlab.api.fetching import NAMES
from resnetlab.cli import options
from resnetlab.data.open import DATA_NAMES
from resnetlab.errors import printable

if TYPE_CHECKING:
    from resnetlab.api.evaluate import EvaluationResult

Sources = Annotated[
    str,
    Parameter(
        show_default=False,
        help=f"Runs, by their folders, names or hashes, weight files, or {NAMES}; several form an ensemble.",
    ),
]
Data = Annotated[str, Parameter(help=f"The data set: {DATA_NAMES}.")]
Views = Annotated[
    str, Parameter(help="The views of each image: 1-crop, 10-crop, or multi-scale (fully convolutional).")
]
Flip = Annotated[bool, Parameter(negative="", help="Also average over mirror images.")]
Nets = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        show_default=False,
        help="The network's name, if the file does not determine it; one for all, or one for each.",
    ),
]
Report = Annotated[
    Path | None, Parameter(help="Write a page, all numbers as JSON and all predictions as CSV to this folder.")
]


def evaluate(
    *sources: Sources,
    data: Data,
    views: Views = "1-crop",
    flip: Flip = False,
    net: Nets = (),
    which: options.Which = "last",
    reading: options.Reading = options.READ,
    classes: options.ClassNames = (),
    class_order: options.ClassOrder = "text",
    unreadable: options.Unreadable = None,
    report: Report = None,
    engine: options.Engine = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
    json: options.Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy in % on a data set's test images; the softmax of several networks is averaged.

    A folder of classes without train, val or resnetlab-split.json is tested as a whole; nothing is written into it.
    """
    options.check(which)
    from resnetlab.api.evaluate import evaluate as evaluate_on

    looking: dict[str, Any] = {"net": net, "which": which, "views": views, "flip": flip, **vars(reading)}
    matching: dict[str, Any] = {"classes": classes, "class_order": class_order, "unreadable": unreadable}
    running: dict[str, Any] = {"engine": engine, "device": device, "workers": workers}
    result = evaluate_on(sources, data, report=report, **looking, **matching, **running)
    if json:
        options.print_json(result.to_dict())
        return
    _show(result)
    if result.report:
        print(printable(str(result.report)))


def _show(result: EvaluationResult) -> None:
    if len(result.networks) > 1:
        for one in result.networks:
            print(printable(f"{one.source}: top-1 {one.top1:.2f} %"))
        print(f"ensemble of {len(result.networks)}:")
    right = f"{result.correct} of {result.images} images right"
    if len(result.classes) <= 5:  # of which five are all
        print(f"top-1 {result.top1:.2f} %, {right}")
        print("95 % interval: {:.2f} to {:.2f} %".format(*result.top1_interval))
        return
    print(f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %, {right}")
    ends = (*result.top1_interval, *result.top5_interval)
    print("95 % intervals: top-1 {:.2f} to {:.2f} %, top-5 {:.2f} to {:.2f} %".format(*ends))
