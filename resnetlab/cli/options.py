"""Options that several commands share, and the checks of their values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token

from resnetlab.api.fetching import NAMES
from resnetlab.errors import UserError, check_choice, check_counts, in_whole_texts, shown


def _whole_number(_: Any, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise UserError(f"{shown(tokens[0].value)} must be a whole number.") from error


WholeNumber = Parameter(converter=_whole_number)  # cyclopts by itself reads 1.5 as 2
WHICH = ("last", "best", "ema")

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON instead of a table.")]
Runs = Annotated[Path, Parameter(help="The folder in which runs are kept.")]
Device = Annotated[str, Parameter(help="cpu, cuda, cuda:N or mps (Apple); auto uses an NVIDIA GPU if there is one.")]
Workers = Annotated[
    int | None,
    WholeNumber,
    Parameter(
        help="Number of processes that decode image files; default: 1 on a CPU, one per core (at most 16) on a "
        "GPU; does not affect results."
    ),
]
RunOrWeights = Annotated[str, Parameter(help=f"A run, by its folder, name or hash, a weight file, or {NAMES}.")]
RunWeightsOrExported = Annotated[
    str, Parameter(help=f"A run, by its folder, name or hash, a weight file, an exported .onnx or .xml, or {NAMES}.")
]
Images = Annotated[
    str,
    Parameter(show_default=False, help="Files, folders or patterns; without any, a list is read from standard input."),
]
Net = Annotated[str | None, Parameter(help="The network's name, if the file does not determine it.")]
Which = Annotated[
    str, Parameter(help="A run's last or best weights; ema: the averaged weights of a file that has both.")
]
ImageSize = Annotated[
    int | None, WholeNumber, Parameter(help="Side length of the images in pixels, if the file does not state it.")
]
Match = Annotated[
    Literal["names", "order"],
    Parameter(
        help="How a file's tensors are found: names uses their names; order pairs them with those of the network --net "
        "by order and shape, for names that are not known."
    ),
]
Normalise = Annotated[
    str | None,
    Parameter(
        help="The normalisation that the network was trained with, if the file does not state it: imagenet, cifar10, "
        "cifar100, or MEAN/STD of pixels from 0 to 1."
    ),
]


@dataclass(frozen=True)
class _Reading:
    """Options on a weight file that does not state these things itself."""

    image_size: ImageSize = None
    match: Match = "names"
    normalise: Normalise = None


Reading = Annotated[_Reading, Parameter(name="*")]
READ = _Reading()
BatchSize = Annotated[int, WholeNumber, Parameter(help="Number of images per batch.")]
EngineName = Literal["auto", "torch", "onnxruntime", "openvino"]
ENGINE_HELP = "What runs the network; auto: the fastest with the same answers; default: torch"
Engine = Annotated[EngineName | None, Parameter(help=f"{ENGINE_HELP}.")]
ClassNames = Annotated[
    tuple[str, ...],
    Parameter(
        negative="",
        show_default=False,
        help="Names that the data's classes had in training, if they differ: hund=dog,katze=cat.",
    ),
]
ClassOrder = Annotated[
    Literal["text", "natural"],
    Parameter(
        help="For files without class names: text (10, 2), as torchvision sorts, or natural (2, 10), as timm does."
    ),
]
Unreadable = Annotated[
    Literal["error", "skip"] | None,
    Parameter(help="For an unreadable file: error stops and names it, skip leaves it out; default: as in training."),
]
UNREADABLE = 1  # exit code if some image could not be read


def print_json(value: object) -> None:
    """Print the answer that --json asks for, at once."""
    print(json.dumps(in_whole_texts(value)), flush=True)


def check(which: str = "last", **counts: int | None) -> None:
    """Raise UserError for an unknown `which`, and for counts below 1; None is a count that isn't given."""
    check_choice("which", which, WHICH)
    check_counts(**counts)
