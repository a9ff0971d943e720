"""`resnetlab eval`."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from resnetlab.cli.options import (
    ClassNames,
    ClassOrder,
    Device,
    Engine,
    ImageSize,
    Json,
    Unreadable,
    Which,
    Workers,
    check,
)
from resnetlab.data.open import DATA_NAMES
from resnetlab.errors import UserError, printable

if TYPE_CHECKING:
    from resnetlab.data.images import Data
    from resnetlab.training.evaluate import Evaluation

Sources = Annotated[
    tuple[str, ...], Parameter(show_default=False, help="Run folders or weight files; several form an ensemble.")
]
Images = Annotated[str, Parameter(help=f"The data set: {DATA_NAMES}.")]
Views = Annotated[
    str, Parameter(help="How to look at each image: 1-crop, 10-crop, or multi-scale (fully convolutional).")
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
Report = Annotated[Path | None, Parameter(help="A folder for a page, all figures as JSON, and all predictions.")]


def evaluate(
    sources: Sources = (),
    /,
    *,
    data: Images,
    views: Views = "1-crop",
    flip: Flip = False,
    net: Nets = (),
    which: Which = "last",
    image_size: ImageSize = None,
    classes: ClassNames = (),
    class_order: ClassOrder = "text",
    unreadable: Unreadable = None,
    report: Report = None,
    engine: Engine = None,
    device: Device = "auto",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Measure top-1 and top-5 accuracy in % on a data set's test images; several networks' softmax is averaged.

    A folder of classes without train, val or resnetlab-split.json is tested as a whole; nothing is written into it.
    """
    from resnetlab.data.open import open_data
    from resnetlab.report.evaluation_report import write_report
    from resnetlab.training.classes import read_given
    from resnetlab.training.evaluate import trained_on
    from resnetlab.use.engines import engine_device

    _check(sources, which, report)
    where = engine_device("", device, engine)
    opened = open_data(data, "evaluate", trained_on=trained_on(sources))
    looking = {"nets": net, "which": which, "views": views, "flip": flip, "image_size": image_size}
    matching = {"classes": read_given(classes), "class_order": class_order, "unreadable": unreadable}
    found = _evaluated(sources, opened, where, workers, engine, looking | matching)
    if report:
        write_report(found, opened, report, text=data, which=which, device=where)
    _answer(found, opened, report, json=json)


def left_out(places: Sequence[str], total: int) -> str:
    """A line that says how many images can't be read, and which is the first."""
    return printable(
        f"left out {len(places):,} of {total:,} images, since they can't be read, e.g. {places[0]}; "
        "'resnetlab data audit' lists all of them"
    )


def _check(sources: tuple[str, ...], which: str, report: Path | None) -> None:
    """Raise UserError where no evaluation is possible; before the work, which may take hours."""
    from resnetlab.report.evaluation_report import check_report
    from resnetlab.use.exported import check_evaluable

    check(which)
    if not sources:
        raise UserError("no network given: name run folders or weight files.")
    if report:
        check_report(report)
    for source in sources:
        check_evaluable(source)


def _evaluated(
    sources: tuple[str, ...], data: Data, device: str, workers: int | None, engine: str | None, options: dict[str, Any]
) -> Evaluation:
    """Evaluate the networks, showing how it goes; options are those of `training.evaluate.evaluate`."""
    from resnetlab.api.screen import counting, say, tell
    from resnetlab.data.workers import decoding_workers
    from resnetlab.training.evaluate import evaluate as evaluate_on
    from resnetlab.use.engines import evaluation_engine

    with counting("evaluating") as count:
        found = evaluate_on(
            sources,
            data,
            device=device,
            workers=decoding_workers(workers, device, in_memory=data.shape is not None),
            engine=evaluation_engine(engine, device, data, tell),
            told=tell,
            progress=count,
            **options,
        )
    if found.unreadable:
        say(left_out(found.unreadable, len(data.test)))
    return found


def _answer(found: Evaluation, data: Data, report: Path | None, *, json: bool) -> None:
    from resnetlab.data.understood import Understood
    from resnetlab.report.evaluation_report import summary

    if json:
        answer = summary(found) | {"understood": Understood.of(data).to_dict()}
        print(json_module.dumps(answer | ({"report": str(report)} if report else {})))
        return
    _show(found)
    if report:
        print(printable(str(report / "evaluation.html")))


def _show(found: Evaluation) -> None:
    from resnetlab.measuring.intervals import wilson

    a = found.accuracy
    if len(found.members) > 1:
        for member, own in zip(found.members, found.accuracies, strict=True):
            print(printable(f"{member.source}: top-1 {own.top1:.2f} %"))
        print(f"ensemble of {len(found.members)}:")
    print(f"top-1 {a.top1:.2f} %, top-5 {a.top5:.2f} %, {a.top1_correct} of {a.images} images right")
    ends = (100 * end for count in (a.top1_correct, a.top5_correct) for end in wilson(count, a.images))
    print("95 % intervals: top-1 {:.2f} to {:.2f} %, top-5 {:.2f} to {:.2f} %".format(*ends))
