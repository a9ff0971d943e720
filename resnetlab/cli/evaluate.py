"""`resnetlab eval`."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.cli.train import Device, Workers, number_of_workers
from resnetlab.cli.use import WHICH, Engine, ImageSize, Which, engine_device
from resnetlab.data.names import DATA_NAMES
from resnetlab.errors import UserError, check_choice, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from resnetlab.data.images import Data
    from resnetlab.data.normalisation import Normalisation
    from resnetlab.nets.net import ResNet
    from resnetlab.nets.vgg import VGG
    from resnetlab.training.evaluate import Evaluation
    from resnetlab.use.agreement import Scores

    Runner = Callable[[ResNet | VGG, Normalisation], Scores]

ClassNames = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        show_default=False,
        help="Names of the data's classes in the training, where they differ: hund=dog,katze=cat.",
    ),
]
ClassOrder = Annotated[
    Literal["text", "natural"],
    Parameter(help="For files without class names: text (10, 2) as torchvision sorts, or natural (2, 10) as timm."),
]
Unreadable = Annotated[
    Literal["error", "skip"] | None,
    Parameter(help="A file that can't be read: stop and name it, or leave it out and count it; default: as trained."),
]


def evaluate(
    sources: Annotated[
        tuple[str, ...], Parameter(show_default=False, help="Run folders or weight files; several are an ensemble.")
    ] = (),
    /,
    *,
    data: Annotated[str, Parameter(help=f"{DATA_NAMES}.")],
    views: Annotated[str, Parameter(help="1-crop, 10-crop, or multi-scale: fully convolutional.")] = "1-crop",
    flip: Annotated[bool, Parameter(negative="", help="Average over the mirror images too.")] = False,
    net: Annotated[
        tuple[str, ...],
        Parameter(
            negative="", show_default=False, help="The network, where the file does not tell it; for all, or for each."
        ),
    ] = (),
    which: Which = "last",
    image_size: ImageSize = None,
    classes: ClassNames = (),
    class_order: ClassOrder = "text",
    unreadable: Unreadable = None,
    report: Annotated[Path | None, Parameter(help="Folder for a page, all numbers as JSON, and all answers.")] = None,
    engine: Engine = None,
    device: Device = "auto",
    workers: Workers = None,
    json: Json = False,
) -> None:
    """Top-1 and top-5 accuracy on the test images of a data set, in %; of several networks their average softmax.

    A folder of classes without train, val or resnetlab-split.json is tested whole; nothing is written into it.
    """
    from resnetlab.cli.screen import counting, say
    from resnetlab.data.images import open_data
    from resnetlab.data.understood import Understood
    from resnetlab.report.evaluation_report import check_report, summary, write_report
    from resnetlab.training.classes import read_given
    from resnetlab.training.evaluate import evaluate as evaluate_on
    from resnetlab.training.evaluate import trained_on

    check_choice("which", which, WHICH)
    if not sources:
        raise UserError("no network was given: name run folders or weight files.")
    if report:
        check_report(report)
    for source in sources:
        check_source(source)
    where = engine_device("", device, engine)
    opened = open_data(data, "evaluate", trained_on=trained_on(sources))
    with counting("evaluating") as count:
        found = evaluate_on(
            sources,
            opened,
            nets=net,
            which=which,
            views=views,
            flip=flip,
            image_size=image_size,
            classes=read_given(classes),
            class_order=class_order,
            unreadable=unreadable,
            device=where,
            workers=number_of_workers(workers, opened, where),
            engine=runner(engine, where, opened),
            told=lambda line: say(printable(line)),
            progress=count,
        )
    if found.unreadable:
        say(left_out(found.unreadable, len(opened.test)))
    if report:
        write_report(found, opened, report, text=data, which=which, device=where)
    if json:
        answer = summary(found) | {"understood": Understood.of(opened).to_dict()}
        print(json_module.dumps(answer | ({"report": str(report)} if report else {})))
    else:
        _show(found)
        if report:
            print(printable(str(report / "evaluation.html")))


def runner(engine: str | None, device: str, data: Data) -> Runner | None:
    """What makes an engine of a network, if one is asked for; None: the network as it stands, on any device."""
    if engine in (None, "torch") or (engine == "auto" and device != "cpu"):
        return None
    if device != "cpu":
        raise UserError(f"engine={engine} runs on the processor: give --device cpu, or --engine torch.")
    from resnetlab.cli.screen import say
    from resnetlab.training.loop import evaluation_batch
    from resnetlab.use.deployed import with_normalisation
    from resnetlab.use.engines import Graph, chosen

    batch = min(evaluation_batch(data.test), len(data.test))

    def run(net: ResNet | VGG, normalise: Normalisation) -> Scores:
        shape = (net.spec.in_channels, net.spec.input_size, net.spec.input_size)
        graph = Graph(shape, with_normalisation(net, normalise), marks=str(net.spec.to_dict()))
        return chosen(graph, str(engine), batch=batch, told=lambda line: say(printable(line))).scores

    return run


def check_source(source: str) -> None:
    """Raise UserError for an exported file."""
    from resnetlab.use.exported import suffix_of

    if suffix_of(source):
        raise UserError(
            f"{source}: an exported file, whose accuracy 'export --data' tells; give a run folder or weight file."
        )


def left_out(places: Sequence[str], total: int) -> str:
    """A line that says how many images can't be read, and which is the first."""
    return printable(
        f"left out {len(places):,} of {total:,} images that can't be read, e.g. {places[0]}; 'resnetlab data audit' "
        "finds all of them"
    )


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
