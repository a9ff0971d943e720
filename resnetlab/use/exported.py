"""Exported files, read back: the metadata of a .onnx or OpenVINO's .xml, and the engines that run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import torch
from torch import Tensor

from resnetlab.data.normalisation import Normalisation
from resnetlab.data.resizing import LEAST_SHARE, USUAL, Interpolation, Resizing
from resnetlab.errors import UserError, out_of_memory, printable
from resnetlab.paths import expanded
from resnetlab.schema import Between, Text, trouble
from resnetlab.storage import Damaged, read_regular
from resnetlab.use.checksum import KEY, checksum_of
from resnetlab.use.onnx_graph import Signature, import_trouble, last_line, onnx_description, onnx_scores
from resnetlab.use.openvino_graph import openvino_description, openvino_scores
from resnetlab.use.parity import Scores
from resnetlab.use.recorded_accuracy import AccuracyValues, RecordedAccuracy

MOST_BYTES = 2**33  # of a file
PROGRAMS = ".pt2"
NEEDED = ("network", "classes", "preprocessing", "normalisation")  # metadata that every file must have


@dataclass(frozen=True)
class Engine:
    """Runs a network: pixels, uint8 N C H W, -> scores, float32 N K."""

    name: str  # of engines.ENGINES
    precision: str  # float32 or bf16; int8 for a file in int8
    scores: Scores

    def __str__(self) -> str:
        return f"{self.name} in {self.precision}"


class Runner(NamedTuple):
    """A library that runs exported files: its package, the extra that installs it, and how to use it."""

    package: str
    extra: str
    description: Callable[[tuple[bytes, ...]], Signature]
    scores: Callable[[tuple[bytes, ...], str], Scores]  # of a content, in float32 or bf16


RUNNERS = {
    "onnxruntime": Runner(
        "onnxruntime",
        "export",
        lambda content: onnx_description(content[0]),
        lambda content, _: onnx_scores(content[0]),
    ),
    "openvino": Runner("openvino", "openvino", openvino_description, openvino_scores),
}
RUN_BY = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}  # by a file's suffix


@dataclass(frozen=True)
class ExportedFile:
    """An exported network: its file's content, with its classes and preprocessing."""

    path: Path
    content: tuple[bytes, ...]  # of .onnx; of .xml and .bin
    network: str
    classes: tuple[str, ...]
    channels: int
    size: int  # side of its images, in pixels
    whole: bool  # as in Classifier
    normalise: Normalisation  # done by the graph itself
    precision: str
    assumed: tuple[str, ...]
    accuracy: RecordedAccuracy | None = None  # recorded by the network's run
    resizing: Resizing = USUAL  # as in Classifier

    @property
    def engines(self) -> tuple[str, ...]:
        """The names of the engines that run it."""
        return RUN_BY[self.path.suffix.lower()]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of an image: C H W."""
        return self.channels, self.size, self.size


class _Preprocessing(TypedDict):
    mode: Literal["RGB", "L"]
    resize_short_side: Annotated[int, Between(1, 2**15)]
    crop: Annotated[int, Between(1, 2**15)]
    resample: NotRequired[Literal["bilinear, antialiased", "bicubic, antialiased"]]


class _Normalisation(TypedDict):
    mean: list[Any]
    std: list[Any]


class _Told(TypedDict):
    """What the texts of a file say."""

    network: str
    classes: list[str]
    preprocessing: _Preprocessing
    normalisation: _Normalisation
    precision: NotRequired[str]
    assumed: NotRequired[list[str]]
    accuracy: NotRequired[AccuracyValues]
    checksum: NotRequired[Text]  # files of earlier versions have none


def suffix_of(source: str | Path) -> str:
    """The suffix of an exported file, in lower case; "" for other files. Raises UserError for a torch program."""
    path = expanded(source)
    suffix = path.suffix.lower()
    if suffix == PROGRAMS and not path.is_dir():
        raise UserError(
            f"{source}: torch programs can run any code when they are loaded, so they are not read here; give the "
            "run folder or the weight file, or to predict and serve a file written by export --to onnx or openvino."
        )
    return suffix if suffix in RUN_BY and not path.is_dir() else ""


def check_evaluable(source: str) -> None:
    """Raise UserError for an exported file, which `eval` does not accept."""
    if suffix_of(source) and expanded(source).exists():
        raise UserError(
            f"{source}: an exported file, whose accuracy 'export --data' measures; give a run folder or weight file."
        )


def installed(name: str) -> bool:
    """Whether an engine of RUNNERS can be imported."""
    return not import_trouble(RUNNERS[name].package)


def check_runner(name: str) -> None:
    """Raise UserError unless an engine of RUNNERS can be imported."""
    if why := import_trouble(RUNNERS[name].package):
        raise UserError(f"{name} can't be imported{why}: pip install 'resnetlab[{RUNNERS[name].extra}]'.")


def read_exported(path: Path) -> ExportedFile:
    """Read a file that `resnetlab export` wrote: .onnx, or .xml with .bin.

    Raises UserError if it is damaged or was not written by resnetlab, or if no engine that runs it is installed.
    """
    names = RUN_BY[path.suffix.lower()]
    name = next(filter(installed, names), names[0])
    check_runner(name)
    content: tuple[bytes, ...] = (read_regular(path, MOST_BYTES),)
    if path.suffix.lower() == ".xml":
        content += (read_regular(path.with_suffix(".bin"), MOST_BYTES, f"it holds the weights of {path.name}"),)
    try:
        signature = RUNNERS[name].description(content)
    except UserError as error:
        raise Damaged(path, f"damaged, or not a network: {str(error).rstrip('.')}", _how_to(path)) from error
    told = _told(path, signature.told)
    prepared = told["preprocessing"]
    crop, short, channels = prepared["crop"], prepared["resize_short_side"], 3 if prepared["mode"] == "RGB" else 1
    takes = ("pixels", "uint8", [-1, channels, crop, crop])
    gives = ("scores", "float32", [-1, len(told["classes"])])
    if (signature.takes, signature.gives) != (takes, gives):
        raise Damaged(
            path, f"damaged, its input {signature.takes} and output {signature.gives} are not those that it states"
        )
    if not crop <= short <= crop / LEAST_SHARE:
        raise Damaged(path, f"damaged, its images are resized to {short} and cropped to {crop} pixels")
    file = ExportedFile(
        path=path,
        content=content,
        network=told["network"],
        classes=tuple(told["classes"]),
        channels=channels,
        size=crop,
        whole=short == crop,
        normalise=_normalisation(path, told["normalisation"]),
        precision=printable(told.get("precision", "float32")),
        assumed=tuple(told.get("assumed", ())),
        accuracy=RecordedAccuracy.from_dict(told["accuracy"]) if "accuracy" in told else None,
        resizing=_resizing(prepared),
    )
    _check_whole(path, content, told)
    return file


def _check_whole(path: Path, content: tuple[bytes, ...], told: _Told) -> None:
    """Raise Damaged unless the content is what was exported; damaged weights are numbers like others."""
    if KEY in told and checksum_of(content, told["checksum"]) != told["checksum"]:
        weights = f", or {path.with_suffix('.bin').name} is another network's" if len(content) > 1 else ""
        what = f"damaged, or changed since it was exported{weights} (its checksum differs)"
        raise Damaged(path, what, _how_to(path))


def _how_to(path: Path) -> str:
    form = "onnx" if path.suffix.lower() == ".onnx" else "openvino"
    return f"export the run folder or weight file again: resnetlab export SOURCE --to {form}"


def _resizing(prepared: _Preprocessing) -> Resizing:
    """How a file states that images are resized; files of earlier versions don't state the interpolation."""
    interpolation: Interpolation = "bicubic" if prepared.get("resample", "").startswith("bicubic") else "bilinear"
    return Resizing.to_side(prepared["resize_short_side"], prepared["crop"], interpolation)


def _told(path: Path, texts: dict[str, str]) -> _Told:
    """The metadata of a file. Raises UserError if some are missing or damaged."""
    missing = [key for key in NEEDED if key not in texts]
    if missing:
        raise UserError(
            f"{path}: not written by 'resnetlab export': it does not state its {', '.join(missing)}; {_how_to(path)}."
        )
    try:
        told = {key: json.loads(text) for key, text in texts.items() if key in _Told.__annotations__}
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"damaged, its metadata are not JSON ({error})") from error
    if wrong := trouble(told, _Told):
        raise Damaged(path, f"damaged, {wrong}")
    return told  # type: ignore[return-value]


def _normalisation(path: Path, told: _Normalisation) -> Normalisation:
    try:
        return Normalisation(*(torch.tensor(told[key], dtype=torch.float32) for key in ("mean", "std")))
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise Damaged(path, f"damaged, its normalisation is not valid ({error})") from error


def file_engine(file: ExportedFile, name: str, precision: str = "float32") -> Engine:
    """The engine of that name, running the file. Raises UserError if it can't."""
    if name not in file.engines:
        raise UserError(f"{file.path}: runs with {' or '.join(file.engines)}, not with {name}.")
    check_runner(name)
    try:
        scores = RUNNERS[name].scores(file.content, precision)
    except UserError as error:
        raise Damaged(
            file.path, f"damaged, or not supported by this version of {name}: {str(error).rstrip('.')}"
        ) from error
    return Engine(name, precision if file.precision == "float32" else file.precision, checked(file.path, scores))


def checked(path: Path, scores: Scores) -> Scores:
    """The same scores; a library's error about a graph that it can't run becomes a UserError that names the file."""

    def run(pixels: Tensor) -> Tensor:
        try:
            return scores(pixels)
        except (RuntimeError, ValueError) as error:
            if isinstance(error, UserError) or out_of_memory(error):
                raise
            raise Damaged(path, f"can't be run ({last_line(error)})") from error

    return run


def first_engine(file: ExportedFile) -> Engine:
    """The first installed engine among those that run the file."""
    return file_engine(file, next(filter(installed, file.engines), file.engines[0]))
