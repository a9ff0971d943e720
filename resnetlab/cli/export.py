"""`resnetlab export`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from resnetlab.cli.evaluate import ClassNames, ClassOrder, Unreadable
from resnetlab.cli.networks import Json
from resnetlab.cli.use import WHICH, ImageSize, Net, Source, Which, opened
from resnetlab.data.names import DATA_NAMES
from resnetlab.errors import UserError, check_choice, printable
from resnetlab.paths import expanded

if TYPE_CHECKING:
    from resnetlab.data.images import Data
    from resnetlab.use.export import Exported


def export(
    source: Source,
    /,
    *,
    to: Annotated[
        Literal["onnx", "openvino", "torch", "aoti"],
        Parameter(help="openvino: .xml and .bin; torch: torch.export's; aoti: AOTInductor's."),
    ] = "onnx",
    out: Annotated[Path | None, Parameter(help="The file to write; default: the source's name, here.")] = None,
    int8: Annotated[bool, Parameter(negative="", help="Quantise ONNX or OpenVINO; needs --calibrate.")] = False,
    calibrate: Annotated[
        str | None,
        Parameter(help="Data for int8's ranges: its training images, or its test images if it has no others."),
    ] = None,
    data: Annotated[str | None, Parameter(help=f"Compare predictions on its test images: {DATA_NAMES}.")] = None,
    classes: ClassNames = (),
    class_order: ClassOrder = "text",
    unreadable: Unreadable = None,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    json: Json = False,
) -> None:
    """Write a network for other programs; it is checked against PyTorch first, and carries classes and preprocessing.

    ONNX needs: pip install 'resnetlab[export]'; OpenVINO: pip install 'resnetlab[openvino]'
    """
    if int8 and (to not in ("onnx", "openvino") or not calibrate):
        raise UserError("--int8 quantises ONNX and OpenVINO, and needs --calibrate DATA, images to measure ranges on.")
    if calibrate and not int8:
        raise UserError("--calibrate belongs to --int8; give both, or neither.")
    check_choice("which", which, WHICH)
    from resnetlab.cli.screen import counting, say
    from resnetlab.data.images import open_data
    from resnetlab.data.understood import Understood
    from resnetlab.training.classes import read_given
    from resnetlab.training.evaluate import classes_told, trained_on
    from resnetlab.use.export import FORMATS, check_out, matched
    from resnetlab.use.export import export as write
    from resnetlab.use.openvino_graph import check_installed

    kind = ("-int8" if int8 else "") + ("-aoti" if to == "aoti" else "") + FORMATS[to].suffix
    named = expanded(source).resolve()
    out = out or Path((named.stem if named.is_file() else named.name) + kind)
    check_out(out, to)
    if to == "openvino":
        check_installed(int8=int8)
    classifier = opened(source, net=net, which=which, image_size=image_size)
    _ = classifier.net  # or a line says that an exported file can't be exported
    before = trained_on([source])
    ranges = open_data(calibrate, "evaluate", trained_on=before) if calibrate else None
    # int8 is never without its accuracy
    tested = open_data(data, "evaluate", trained_on=before) if data and data != calibrate else ranges
    skip = unreadable == "skip" if unreadable else classifier.skips
    given = read_given(classes)
    network: dict[str, Any] = {
        "size": classifier.size,
        "layout": classifier.layout,
        "normalisation": classifier.normalisation,
    }
    if tested:
        understood, match = Understood.of(tested, **network), matched(classifier, tested, given, class_order)
    else:
        understood, match = Understood(classifier.classes, named=classifier.named, **network), None
    for line in (str(understood), *calibration(ranges), *(classes_told(classifier.source, match) if match else ())):
        say(printable(line))
    with counting("comparing predictions") as count:
        made = write(
            classifier,
            out,
            to,
            calibrate=ranges,
            data=tested,
            classes=given,
            class_order=class_order,
            skip=skip,
            progress=count,
        )
    test_unreadable = made.parity.unreadable if made.parity else 0
    for number, what in ((made.calibration_unreadable, "calibrating"), (test_unreadable, "testing")):
        if number:
            say(f"{what}: left out {number:,} that can't be read; 'resnetlab data audit' finds all of them")
    if json:
        taken = {"taken_for": match.taken} if match else {}
        print(json_module.dumps(made.to_dict() | {"understood": understood.to_dict()} | taken))
    else:
        _show(made)


def calibration(data: Data | None) -> list[str]:
    """A line that says which images int8 is calibrated on."""
    from resnetlab.use.quantise import IMAGES

    if not data:
        return []
    side, images = ("training", data.train) if len(data.train) else ("test", data.test)
    return [f"calibrating on {min(IMAGES, len(images)):,} of {len(images):,} {side} images of {data.name}"]


def _show(made: Exported) -> None:
    print(printable(f"{made.written}: {made.network}, {made.precision}, {made.bytes / 1e6:.2f} MB"))
    for check in made.checks:
        print(
            f"batch {check.batch}: scores within {check.greatest_difference:.2g} of PyTorch's, "
            f"of which the greatest is {check.greatest_score:.4g}"
        )
    if found := made.parity:
        print(
            f"{found.data}: top-1 {found.exported_top1:.2f} %, PyTorch {found.pytorch_top1:.2f} %; "
            f"{found.same_predictions} of {found.images} predictions are the same"
        )
