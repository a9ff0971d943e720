"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from resnetlab.errors import UserError, check_choice


def _whole_number(_: Any, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise UserError(f"{tokens[0].value!r} must be a whole number.") from error


WholeNumber = Parameter(converter=_whole_number)  # cyclopts by itself reads 1.5 as 2
WHICH = ("last", "best", "ema")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]
Runs = Annotated[Path, Parameter(help="The folder in which runs are kept.")]
Device = Annotated[str, Parameter(help="cpu, cuda or cuda:N; auto uses a GPU if there is one.")]
Workers = Annotated[
    int | None, WholeNumber, Parameter(help="Number of processes that decode image files; does not affect results.")
]
Source = Annotated[str, Parameter(help="A run folder or a weight file.")]
SourceOrExported = Annotated[str, Parameter(help="A run folder, a weight file, or an exported .onnx or .xml.")]
Images = Annotated[
    tuple[str, ...], Parameter(help="Files, folders, patterns; none: a list of them, read from the input.")
]
Net = Annotated[str | None, Parameter(help="The network, where the file does not tell it.")]
Which = Annotated[str, Parameter(help="A run's last or best weights; ema: the averaged ones of a file that has both.")]
ImageSize = Annotated[
    int | None, WholeNumber, Parameter(help="Side of the images in pixels, where the file does not tell it.")
]
BatchSize = Annotated[int, WholeNumber, Parameter(help="Images at a time.")]
Engine = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"] | None,
    Parameter(help="What runs it; auto: the fastest here that answers alike; default: torch, or what runs the file."),
]
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
UNREADABLE = 1  # exit code if some image could not be read


def check(which: str = "last", **counts: int | None) -> None:
    """Raise UserError for weights that a run doesn't keep, and for counts below 1; None is one that isn't given."""
    check_choice("which", which, WHICH)
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be 1 or more.")
