"""`resnetlab predict` and `resnetlab explain`."""

from __future__ import annotations

import csv as csv_module
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli import options
from resnetlab.cli.streams import names_given
from resnetlab.errors import UserError, printable, whole_text

if TYPE_CHECKING:
    from resnetlab.use.predict import Prediction

CLEAR = 0.01  # a probability of the likeliest class below which more decimals are printed: of thousands of classes

Top = Annotated[int, options.WholeNumber, Parameter(help="Number of classes to show for each image.")]
Engine = Annotated[
    options.EngineName | None,
    Parameter(help=f"{options.ENGINE_HELP}, or for an exported file the first one installed that can run it."),
]
Csv = Annotated[
    bool, Parameter(negative="", help="Print CSV with the columns file, rank, class, probability and error.")
]
Method = Annotated[
    Literal["grad_cam", "occlusion"],
    Parameter(help="grad_cam uses gradients at a unit; occlusion hides parts of the image."),
]
Unit = Annotated[
    str | None,
    Parameter(help="The unit for grad_cam, e.g. layer3.0; default: the last whose map has several positions."),
]
Label = Annotated[str | None, Parameter(help="The class to explain; default: the likeliest one.")]
Pictures = Annotated[Path, Parameter(help="The folder for the pictures.")]


def predict(
    source: options.RunWeightsOrExported,
    /,
    *images: options.Images,
    net: options.Net = None,
    which: options.Which = "last",
    reading: options.Reading = options.READ,
    top: Top = 5,
    batch_size: options.BatchSize = 32,
    engine: Engine = None,
    device: options.Device = "auto",
    json: options.Json = False,
    csv: Csv = False,
) -> int:
    """Predict the likeliest classes of images. If a file cannot be read, its name is printed and the exit code is 1."""
    options.check(which, top=top, batch_size=batch_size)
    if json and csv:
        raise UserError("give --json or --csv, not both.")
    from resnetlab.api.predict import opened
    from resnetlab.use.predict import predict as predictions_of

    opening = {"net": net, "which": which, **vars(reading)}
    names = names_given(images)
    classifier, files = opened(source, names, engine=engine, device=device, batch_size=batch_size, **opening)
    found = predictions_of(classifier, files, top=top, batch=batch_size)  # each is shown as soon as it is there
    failed = _as_json(found, classifier.assumed) if json else (_as_csv if csv else _as_text)(found)
    return options.UNREADABLE if failed else 0


def explain(
    source: options.RunOrWeights,
    /,
    *images: options.Images,
    net: options.Net = None,
    which: options.Which = "last",
    reading: options.Reading = options.READ,
    method: Method = "grad_cam",
    unit: Unit = None,
    label: Label = None,
    out: Pictures = Path("explained"),
    device: options.Device = "auto",
    json: options.Json = False,
) -> int:
    """Write a picture for each image: the image beside a heat map of what the network's answer is based on."""
    from resnetlab.api.screen import say
    from resnetlab.machine import find_device
    from resnetlab.use.classifier import Classifier
    from resnetlab.use.explanations import check_method, explain_images

    options.check(which)
    fetch_sources(source)
    where = find_device(device)
    classifier = Classifier.open(source, net=net, which=which, **vars(reading), device=where, told=say)
    label = check_method(classifier, method, unit, label)
    found = []
    for one in explain_images(classifier, names_given(images), out, method=method, unit=unit, label=label):
        found.append(one)
        if one.error:
            print(printable(f"{one.file}: can't be read ({one.error})"), file=sys.stderr)
        elif not json:
            print(printable(f"{one.file}: {one.name} {100 * one.probability:.1f} % -> {one.picture}"))
    if json:
        options.print_json({"images": [one.to_dict() for one in found]})
    return options.UNREADABLE if any(one.error for one in found) else 0


def _as_json(found: Iterator[Prediction], assumed: tuple[str, ...]) -> bool:
    from resnetlab.api.predict import PredictionResult

    result = PredictionResult(tuple(found), assumed)
    options.print_json(result.to_dict())
    return any(image.error for image in result)


def _as_csv(found: Iterator[Prediction]) -> bool:
    table, failed = csv_module.writer(sys.stdout, lineterminator="\n"), False
    table.writerow(["file", "rank", "class", "probability", "error"])
    for p in found:
        failed |= bool(p.error)
        file = whole_text(p.file)
        for rank, (name, value) in enumerate(p.classes, 1):
            table.writerow([file, rank, name, f"{value:.6f}", ""])
        if p.error:
            table.writerow([file, "", "", "", p.error])
    return failed


def _as_text(found: Iterator[Prediction]) -> bool:
    failed = False
    for p in found:
        failed |= bool(p.error)
        if p.error:
            print(printable(f"{p.file}: can't be read ({p.error})"), file=sys.stderr)
        else:
            digits = 1 if p.classes[0][1] >= CLEAR else 4
            said = ", ".join(f"{name} {100 * value:.{digits}f} %" for name, value in p.classes)
            print(printable(f"{p.file}: {said}"))
    return failed
