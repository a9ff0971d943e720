"""Export: a classifier as a file for other programs, written only if its answers agree with PyTorch's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.resizing import USUAL
from resnetlab.data.streaming import BadImages
from resnetlab.data.understood import Understood
from resnetlab.errors import UserError
from resnetlab.storage import check_absent, write_new
from resnetlab.training.classes import Matched, match_classes
from resnetlab.training.evaluate import classes_told, trained_on
from resnetlab.use.checksum import sealed
from resnetlab.use.classifier import Classifier
from resnetlab.use.exported_module import WithNormalisation, exported_module, noise
from resnetlab.use.onnx_graph import OPSET, onnx_scores, to_onnx
from resnetlab.use.openvino_graph import check_installed, openvino_scores, to_openvino
from resnetlab.use.openvino_graph import quantised as openvino_quantised
from resnetlab.use.parity import TOLERANCE, Check, Parity, Scores, compare, measure_parity
from resnetlab.use.quantise import FEW, IMAGES, calibration_images, quantised
from resnetlab.use.torch_program import aoti_scores, to_aoti, to_torch, torch_scores
from resnetlab.weights.sources import short_name

BATCHES = (1, 2, 7)  # the batch sizes at which a file is checked

Content = tuple[bytes, ...]  # the content of each file of a format


class Format(NamedTuple):
    """A format of one or several files: how their content is made and run, and the suffixes of their names."""

    content: Callable[[WithNormalisation, Tensor, dict[str, str]], Content]
    scores: Callable[[Content], Scores]
    suffixes: tuple[str, ...]  # the first is that of the file to open
    quantised: Callable[[Content, Iterator[Tensor]], Content] | None = None  # to int8

    @property
    def suffix(self) -> str:
        """The suffix of the file to open."""
        return self.suffixes[0]


FORMATS = {
    "onnx": Format(
        lambda *network: (to_onnx(*network),),
        lambda content: onnx_scores(content[0]),
        (".onnx",),
        lambda content, batches: (quantised(content[0], batches),),
    ),
    "openvino": Format(to_openvino, openvino_scores, (".xml", ".bin"), openvino_quantised),
    "torch": Format(
        lambda *network: (to_torch(*network),),
        lambda content: torch_scores(content[0]),
        (".pt2",),
    ),
    "aoti": Format(
        lambda *network: (to_aoti(*network),),
        lambda content: aoti_scores(content[0]),
        (".pt2",),
    ),
}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the results of its checks."""

    written: Path  # the file to open; OpenVINO's weights are beside it, in .bin
    format: str
    network: str
    precision: str  # float32 or int8
    bytes: int  # of all files
    checks: tuple[Check, ...]
    parity: Parity | None
    calibration_unreadable: int = 0  # number of calibration images left out

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        opset = {"opset": OPSET} if self.format == "onnx" else {}
        tolerance = TOLERANCE if self.precision == "float32" else None  # int8's differences are reported, not judged
        checks = {"tolerance": tolerance, "checks": [asdict(check) for check in self.checks]}
        found = {"agreement": self.parity.to_dict()} if self.parity else {}
        head = {
            "written": str(self.written),
            "format": self.format,
            "network": self.network,
            "precision": self.precision,
        }
        calibration = {"calibration_unreadable": self.calibration_unreadable} if self.precision == "int8" else {}
        return head | opset | {"bytes": self.bytes} | checks | found | calibration


def export(
    classifier: Classifier,
    out: Path,
    to: str,
    *,
    calibrate: Data | None = None,
    data: Data | None = None,
    classes: Mapping[str, str] | None = None,
    class_order: str = "text",
    skip: bool = False,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Exported:
    """Write the network of a classifier on the CPU to `out`, in one of FORMATS; it takes pixels, uint8 N C H W, any N.

    Its scores are compared with PyTorch's at each of BATCHES; with `data`, also its predictions on the test images, and
    progress is called with the number done and in all. With `calibrate`, ONNX and OpenVINO are quantised to int8 on its
    training images; scores are then checked before quantisation, and the differences reported are those after it.
    classes: names that the classes of `data` had in training, if they differ; class_order: as in `match_classes`. skip:
    leave out and count unreadable files.

    Raises UserError, and writes nothing, if `out` exists, the data doesn't fit, a package that the format needs is
    missing, or scores differ by more than rounding.
    """
    kind = FORMATS[to]
    check_out(out, to)
    if calibrate:
        _check_images(classifier, calibrate)
    outputs = matched(classifier, data, classes or {}, class_order).outputs if data else ()
    module = exported_module(classifier.net, classifier.normalise)
    content = kind.content(module, noise(classifier.shape, 2), description(classifier, int8=calibrate is not None))
    pytorch, scores = _pytorch_scores(classifier), kind.scores(content)

    def checked(scores: Scores) -> tuple[Check, ...]:
        return tuple(compare(pytorch, scores, noise(classifier.shape, batch)) for batch in BATCHES)

    checks = checked(scores)
    for check in checks:
        if not check.is_rounding:
            raise UserError(
                f"{out}: not written, since at batch {check.batch} its scores differ from PyTorch's by "
                f"{check.greatest_difference:.3g}, more than {TOLERANCE:g} of the largest, {check.greatest_score:.3g}."
            )
    unreadables = BadImages(skip, limit=IMAGES)
    if calibrate and kind.quantised:
        images = calibration_images(calibrate, classifier.size, unreadables, classifier.resizing)
        content = kind.quantised(content, images)
        scores = kind.scores(content)
        checks = checked(scores)
    found = None
    if data:
        size, how = classifier.size, classifier.resizing
        found = measure_parity(pytorch, scores, data, size, resizing=how, outputs=outputs, skip=skip, progress=progress)
    content = sealed(content)
    write_all({out.with_suffix(suffix): part for suffix, part in zip(kind.suffixes, content, strict=True)})
    precision = "int8" if calibrate else "float32"
    return Exported(out, to, classifier.name, precision, sum(map(len, content)), checks, found, unreadables.count)


def write_all(files: dict[Path, bytes]) -> None:
    """Write all of these new files, the first one last, or none. Raises UserError as `write_new` does."""
    written: list[Path] = []
    try:
        for path, content in reversed(files.items()):
            write_new(path, content)
            written.append(path)
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def check_out(out: Path, to: str) -> None:
    """Raise UserError unless the format's files can be made there; called before the work, which may take minutes."""
    suffix, *others = FORMATS[to].suffixes
    if out.suffix != suffix:
        raise UserError(f"{out}: the name must end in {suffix}.")
    for path in (out, *map(out.with_suffix, others)):
        check_absent(path, "choose another name with --out")
    if not out.parent.is_dir():
        raise UserError(f"{out}: can't be written: there is no folder {out.parent}.")


def _check_images(classifier: Classifier, data: Data) -> None:
    """Raise UserError unless the images have the network's size; an exported network takes only one."""
    spec, size = classifier.net.spec, classifier.size
    wanted, shape = (spec.in_channels, size, size), data.shape or (3, size, size)
    if shape != wanted:
        raise UserError(f"{data.title}: images of shape {shape}, but the network takes {wanted}.")


def matched(classifier: Classifier, data: Data, classes: Mapping[str, str], class_order: str) -> Matched:
    """The data's classes matched with the network's outputs. Raises UserError if images or classes don't fit."""
    _check_images(classifier, data)
    count = classifier.net.spec.num_classes
    if not classifier.named and len(data.classes) != count:
        raise UserError(f"{data.title}: {len(data.classes)} classes, but the network has {count}.")
    names = classifier.classes if classifier.named else None
    return match_classes(classifier.source, names, data.title, data.classes, classes, class_order)


def _pytorch_scores(classifier: Classifier) -> Scores:
    """The scores of the classifier's own network, unchanged."""

    @torch.inference_mode()
    def scores(pixels: Tensor) -> Tensor:
        return classifier.net(classifier.input(pixels))

    return scores


def description(classifier: Classifier, *, int8: bool = False) -> dict[str, str]:
    """A file's metadata by key, each value as JSON: network, classes, preprocessing, normalisation.

    If the weights did not state some of it, `assumed` says what was assumed instead, e.g. numbers for classes. If the
    network's run recorded it, `accuracy` is its top-1 accuracy in % and the number of test images; not in int8, where
    it would differ.

    `preprocessing` is up to the program that runs the file: make the image upright and 8-bit RGB (the 16-bit value
    `white_of_16_bits` becomes 255, and transparency is shown on `background`), resize its short side to
    `resize_short_side` by `resample`, crop the middle, `crop` x `crop`, and convert it to `mode`. `normalisation` is
    done by the graph itself.
    """
    size, channels = classifier.size, classifier.channels
    values: dict[str, Any] = {
        "network": classifier.name,
        "classes": classifier.classes,
        "preprocessing": {
            "orientation": "upright, by EXIF",
            "frame": 0,
            "colour_profile": "passed over",
            "white_of_16_bits": 65535,
            "background": [255, 255, 255],
            "mode": "RGB" if channels == 3 else "L",
            "resize_short_side": classifier.short_side,
            "resample": f"{classifier.resizing.interpolation}, antialiased",
            "crop": size,
            "layout": "N C H W",
            "type": "uint8",
            "range": [0, 255],
        },
        "normalisation": {
            "within_the_graph": "(pixels / 255 - mean) / std",
            "mean": classifier.normalise.mean.tolist(),  # C 1 1, or C H W
            "std": classifier.normalise.std.tolist(),
        },
    }
    if classifier.assumed:
        values["assumed"] = classifier.assumed
    if classifier.accuracy and not int8:
        values["accuracy"] = classifier.accuracy.to_dict()
    return {key: json.dumps(value) for key, value in values.items()}


@dataclass(frozen=True)
class Target:
    """The file that an export writes. Raises UserError if it can't be written, or options don't fit each other."""

    source: str
    to: str  # of FORMATS
    out: Path | None = None  # None: the source's name, in the working folder
    int8: bool = False
    calibrate: str | None = None  # the data for int8's ranges

    def __post_init__(self) -> None:
        if self.int8 and (self.to not in ("onnx", "openvino") or not self.calibrate):
            raise UserError(
                "--int8 quantises ONNX and OpenVINO, and needs --calibrate DATA, images to measure value ranges on."
            )
        if self.calibrate and not self.int8:
            raise UserError("--calibrate works with --int8 only; give both, or neither.")
        check_out(self.path, self.to)
        if self.to == "openvino":
            check_installed(int8=self.int8)

    @property
    def path(self) -> Path:
        """The file to write."""
        kind = ("-int8" if self.int8 else "") + ("-aoti" if self.to == "aoti" else "") + FORMATS[self.to].suffix
        return self.out or Path(short_name(self.source) + kind)


@dataclass(frozen=True)
class ExportJob:
    """A classifier to export, its target, and the images for calibration and for the comparison with PyTorch."""

    classifier: Classifier
    target: Target
    ranges: Data | None = None  # calibrates int8
    tested: Data | None = None  # compares predictions with PyTorch's
    classes: Mapping[str, str] = field(default_factory=dict)  # as in `export`
    class_order: str = "text"
    skip: bool = False

    @cached_property
    def match(self) -> Matched | None:
        """The tested classes matched with the network's outputs."""
        return matched(self.classifier, self.tested, self.classes, self.class_order) if self.tested else None

    @property
    def understood(self) -> Understood:
        """How the data and the network's file are interpreted."""
        c = self.classifier
        resizing = None if c.whole or c.resizing == USUAL else c.resizing
        network: dict[str, Any] = {"size": c.size, "layout": c.layout, "normalisation": c.normalisation}
        network |= {"resizing": resizing}
        if self.tested:
            return Understood.of(self.tested, **network)
        return Understood(c.classes, named=c.named, **network)

    def introduction(self) -> list[str]:
        """The same in lines, with the calibration images, and a warning that it takes time."""
        told = classes_told(self.classifier.source, self.match) if self.match else ()
        wait = f"making {self.target.path} and comparing it with PyTorch, which can take a minute"
        return [str(self.understood), *_calibration(self.ranges), *told, wait]

    def run(self, progress: Callable[[int, int], object] = lambda *_: None) -> Exported:
        """Write the file. Raises UserError as `export` does."""
        return export(
            self.classifier,
            self.target.path,
            self.target.to,
            calibrate=self.ranges,
            data=self.tested,
            classes=self.classes,
            class_order=self.class_order,
            skip=self.skip,
            progress=progress,
        )


def export_job(
    classifier: Classifier,
    target: Target,
    *,
    data: str | None = None,
    classes: Mapping[str, str],
    class_order: str = "text",
    unreadable: str | None = None,
) -> ExportJob:
    """The job, with its data opened; unreadable: "skip", "error", or None for as in training."""
    _ = classifier.net  # raises UserError for an exported file
    before, calibrate = trained_on([target.source]), target.calibrate
    ranges = open_data(calibrate, "evaluate", trained_on=before) if calibrate else None
    # int8 is always tested
    tested = open_data(data, "evaluate", trained_on=before) if data and data != calibrate else ranges
    skip = unreadable == "skip" if unreadable else classifier.skips
    return ExportJob(classifier, target, ranges, tested, classes, class_order, skip)


def _calibration(data: Data | None) -> list[str]:
    """A line that says which images int8 is calibrated on."""
    if not data:
        return []
    side, images = ("training", data.train) if len(data.train) else ("test", data.test)
    few = f"; {FEW} or more would show the ranges of values better" if len(images) < FEW else ""
    return [f"calibrating on {min(IMAGES, len(images)):,} of {len(images):,} {side} images of {data.title}{few}"]
