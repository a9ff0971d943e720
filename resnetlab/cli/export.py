"""`resnetlab export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli import options
from resnetlab.data.open import DATA_NAMES
from resnetlab.errors import printable

if TYPE_CHECKING:
    from resnetlab.use.export import Exported, ExportJob

To = Annotated[
    Literal["onnx", "openvino", "torch", "aoti"],
    Parameter(help="The format: ONNX, OpenVINO (.xml and .bin), torch.export, or AOTInductor."),
]
Out = Annotated[Path | None, Parameter(help="The file to write; default: the source's name, in this folder.")]
Int8 = Annotated[bool, Parameter(negative="", help="Quantise to 8 bits (onnx and openvino only); needs --calibrate.")]
Calibrate = Annotated[
    str | None,
    Parameter(help="Data to calibrate int8 on: its training images, or its test images if it has no others."),
]
Tested = Annotated[
    str | None, Parameter(help=f"Compare predictions with PyTorch's on these test images: {DATA_NAMES}.")
]


def export(
    source: options.RunOrWeights,
    /,
    *,
    to: To = "onnx",
    out: Out = None,
    int8: Int8 = False,
    calibrate: Calibrate = None,
    data: Tested = None,
    classes: options.ClassNames = (),
    class_order: options.ClassOrder = "text",
    unreadable: options.Unreadable = None,
    net: options.Net = None,
    which: options.Which = "last",
    reading: options.Reading = options.READ,
    json: options.Json = False,
) -> None:
    """Export a network for other programs, with its classes and preprocessing, after comparing it with PyTorch.

    ONNX needs: pip install 'resnetlab[export]'; OpenVINO: pip install 'resnetlab[openvino]'
    """
    options.check(which)
    from resnetlab.api.screen import say
    from resnetlab.training.classes import read_given
    from resnetlab.use.classifier import Classifier
    from resnetlab.use.export import Target, export_job

    target = Target(source, to, out, int8, calibrate)
    fetch_sources(source)
    classifier = Classifier.open(source, net=net, which=which, **vars(reading), told=say)
    given = read_given(classes)
    job = export_job(classifier, target, data=data, classes=given, class_order=class_order, unreadable=unreadable)
    made = _run(job)
    if json:
        taken = {"taken_for": job.match.taken} if job.match else {}
        options.print_json(made.to_dict() | {"understood": job.understood.to_dict()} | taken)
    else:
        _show(made)


def _run(job: ExportJob) -> Exported:
    """Write the file, and say what the data are taken for, and what was left out of them."""
    from resnetlab.api.screen import counting, say

    for line in job.introduction():
        say(line)
    with counting("comparing predictions") as count:
        made = job.run(count)
    test_unreadable = made.parity.unreadable if made.parity else 0
    for number, what in ((made.calibration_unreadable, "calibrating"), (test_unreadable, "testing")):
        if number:
            say(f"{what}: left out {number:,} that cannot be read; 'resnetlab data audit' lists all of them")
    return made


def _show(made: Exported) -> None:
    print(printable(f"{made.written}: {made.network}, {made.precision}, {made.bytes / 1e6:.2f} MB"))
    for batch in made.checks:
        print(
            f"batch {batch.batch}: scores differ by at most {batch.greatest_difference:.2g} from PyTorch's, "
            f"where the largest is {batch.greatest_score:.4g}"
        )
    if found := made.parity:
        print(
            f"{printable(found.data)}: top-1 {found.exported_top1:.2f} %, PyTorch {found.pytorch_top1:.2f} %; "
            f"{found.same_predictions} of {found.images} predictions are equal"
        )
