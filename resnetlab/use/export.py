"""Export: a classifier as a file for other programs, written only when it answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnetlab.data.images import Data
from resnetlab.data.streaming import Unreadables
from resnetlab.errors import UserError
from resnetlab.storage import write_atomically
from resnetlab.training.classes import Matched, match_classes
from resnetlab.use.agreement import TOLERANCE, Agreement, Check, Scores, agreement, compare
from resnetlab.use.classifier import Classifier
from resnetlab.use.deployed import WithNormalisation, deployed, description, noise
from resnetlab.use.onnx_graph import OPSET, onnx_scores, to_onnx
from resnetlab.use.quantise import IMAGES, calibration_images, quantised
from resnetlab.use.torch_program import aoti_scores, to_aoti, to_torch, torch_scores

BATCHES = (1, 2, 7)  # the sizes at which a file is checked


class Format(NamedTuple):
    """A kind of file: how its content is made, how it is run, and how its name ends."""

    content: Callable[[WithNormalisation, Tensor, dict[str, str]], bytes]
    scores: Callable[[bytes], Scores]
    suffix: str


FORMATS = {
    "onnx": Format(to_onnx, onnx_scores, ".onnx"),
    "torch": Format(to_torch, torch_scores, ".pt2"),
    "aoti": Format(to_aoti, aoti_scores, ".pt2"),
}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what was seen when it was checked."""

    written: Path
    format: str
    network: str
    precision: str  # float32 or int8
    bytes: int
    checks: tuple[Check, ...]
    agreement: Agreement | None
    calibration_unreadable: int = 0  # of the images to calibrate with, left out

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        opset = {"opset": OPSET} if self.format == "onnx" else {}
        tolerance = TOLERANCE if self.precision == "float32" else None  # int8 is told, not judged
        checks = {"tolerance": tolerance, "checks": [asdict(check) for check in self.checks]}
        found = {"agreement": self.agreement.to_dict()} if self.agreement else {}
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

    Its scores are compared with PyTorch's at each of BATCHES; with `data`, its predictions on the test images too, and
    progress is called with how many are done, and of how many. With `calibrate`, whose training images are used, ONNX
    is quantised to int8; then the scores are compared before, and the differences told are those after. classes: what
    classes of `data` were called in the training, where it is another name; class_order: as in `match_classes`. skip:
    leave out and count files that can't be read.

    Raises UserError, and writes nothing, where `out` exists, data don't fit, what the format needs is missing, or
    scores differ by more than rounding.
    """
    check_out(out, FORMATS[to].suffix)
    if calibrate:
        _check_images(classifier, calibrate)
    outputs = matched(classifier, data, classes or {}, class_order).outputs if data else ()
    content = FORMATS[to].content(deployed(classifier), noise(classifier, 2), description(classifier))
    pytorch, scores = _pytorch_scores(classifier), FORMATS[to].scores(content)
    checks = tuple(compare(pytorch, scores, noise(classifier, batch)) for batch in BATCHES)
    for check in checks:
        if not check.is_rounding:
            raise UserError(
                f"{out}: not written, since at batch {check.batch} its scores differ from PyTorch's by "
                f"{check.greatest_difference:.3g}, more than {TOLERANCE:g} of the greatest, {check.greatest_score:.3g}."
            )
    unreadables = Unreadables(skip, limit=IMAGES)
    if calibrate:
        content = quantised(content, calibration_images(calibrate, classifier.size, unreadables))
        scores = FORMATS[to].scores(content)
        checks = tuple(compare(pytorch, scores, noise(classifier, batch)) for batch in BATCHES)
    found = None
    if data:
        found = agreement(pytorch, scores, data, classifier.size, outputs=outputs, skip=skip, progress=progress)
    try:
        write_atomically(out, content, new=True)
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror}).") from error
    precision = "int8" if calibrate else "float32"
    name = classifier.net.spec.name
    return Exported(out, to, name, precision, len(content), checks, found, unreadables.count)


def check_out(out: Path, suffix: str) -> None:
    """Raise UserError unless a file of that suffix can be made there; before the work, which may take minutes."""
    if out.suffix != suffix:
        raise UserError(f"{out}: its name should end in {suffix}.")
    if out.exists():
        raise UserError(f"{out}: is there already; remove it, or give another name.")
    if not out.parent.is_dir():
        raise UserError(f"{out}: can't be written, there is no folder {out.parent}.")


def _check_images(classifier: Classifier, data: Data) -> None:
    """Raise UserError unless images are of the size that the network takes; an exported one has one size."""
    spec, size = classifier.net.spec, classifier.size
    wanted, shape = (spec.in_channels, size, size), data.shape or (3, size, size)
    if shape != wanted:
        raise UserError(f"{data.name}: images of {shape}, and the network takes {wanted}.")


def matched(classifier: Classifier, data: Data, classes: Mapping[str, str], class_order: str) -> Matched:
    """Which of the network's outputs the data's classes are. Raises UserError where images or classes don't fit."""
    _check_images(classifier, data)
    count = classifier.net.spec.num_classes
    if not classifier.named and len(data.classes) != count:
        raise UserError(f"{data.name}: {len(data.classes)} classes, and the network has {count}.")
    names = classifier.classes if classifier.named else None
    return match_classes(classifier.source, names, data.name, data.classes, classes, class_order)


def _pytorch_scores(classifier: Classifier) -> Scores:
    """What the classifier's own network answers, as it is."""

    @torch.inference_mode()
    def scores(pixels: Tensor) -> Tensor:
        return classifier.net(classifier.input(pixels))

    return scores
