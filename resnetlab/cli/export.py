"""`resnetlab export`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.cli.use import WHICH, ImageSize, Net, Source, Which, opened
from resnetlab.data.names import DATA_NAMES
from resnetlab.errors import UserError, check_choice, printable

if TYPE_CHECKING:
    from resnetlab.use.export import Exported


def export(
    source: Source,
    /,
    *,
    to: Annotated[Literal["onnx", "torch", "aoti"], Parameter(help="torch: torch.export's; aoti: AOTInductor's.")] = (
        "onnx"
    ),
    out: Annotated[Path | None, Parameter(help="The file to write; default: the source's name, here.")] = None,
    int8: Annotated[bool, Parameter(negative="", help="Quantise ONNX; needs --calibrate.")] = False,
    calibrate: Annotated[str | None, Parameter(help="Data whose training images int8's ranges come from.")] = None,
    data: Annotated[str | None, Parameter(help=f"Compare predictions on its test images: {DATA_NAMES}.")] = None,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    json: Json = False,
) -> None:
    """Write a network for other programs; it is checked against PyTorch first, and carries classes and preprocessing.

    ONNX needs: pip install 'resnetlab[export]'
    """
    if int8 and (to != "onnx" or not calibrate):
        raise UserError("--int8 quantises ONNX and needs --calibrate DATA, images to measure its ranges on.")
    if calibrate and not int8:
        raise UserError("--calibrate belongs to --int8; give both, or neither.")
    check_choice("which", which, WHICH)
    from resnetlab.cli.screen import counting
    from resnetlab.data.images import open_data
    from resnetlab.use.export import FORMATS, check_out
    from resnetlab.use.export import export as write

    kind = ("-int8" if int8 else "") + ("-aoti" if to == "aoti" else "") + FORMATS[to].suffix
    named = Path(source).expanduser().resolve()
    out = (out or Path((named.stem if named.is_file() else named.name) + kind)).expanduser()
    check_out(out, FORMATS[to].suffix)
    classifier = opened(source, net=net, which=which, image_size=image_size)
    ranges = open_data(calibrate) if calibrate else None
    tested = open_data(data) if data and data != calibrate else ranges  # int8 is never without its accuracy
    with counting("comparing predictions") as count:
        made = write(classifier, out, to, calibrate=ranges, data=tested, progress=count)
    if json:
        print(json_module.dumps(made.to_dict()))
    else:
        _show(made)


def _show(made: Exported) -> None:
    print(printable(f"{made.written}: {made.network}, {made.precision}, {made.bytes / 1e6:.2f} MB"))
    for check in made.checks:
        print(
            f"batch {check.batch}: scores within {check.greatest_difference:.2g} of PyTorch's, "
            f"of which the greatest is {check.greatest_score:.4g}"
        )
    if found := made.agreement:
        print(
            f"{found.data}: top-1 {found.exported_top1:.2f} %, PyTorch {found.pytorch_top1:.2f} %; "
            f"{found.same_predictions} of {found.images} predictions are the same"
        )
