"""Export: a classifier as a file for other programs, written only when it answers as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from resnetlab.data.images import Data
from resnetlab.errors import UserError
from resnetlab.storage import write_atomically
from resnetlab.use.agreement import TOLERANCE, Agreement, Check, Scores, agreement, compare
from resnetlab.use.classifier import Classifier
from resnetlab.use.deployed import WithNormalisation, deployed, description, noise
from resnetlab.use.onnx_graph import OPSET, onnx_scores, to_onnx
from resnetlab.use.quantise import calibration_images, quantised
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
        return head | opset | {"bytes": self.bytes} | checks | found


def export(
    classifier: Classifier,
    out: Path,
    to: str,
    *,
    calibrate: Data | None = None,
    data: Data | None = None,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Exported:
    """Write the network of a classifier on the CPU to `out`, in one of FORMATS; it takes pixels, uint8 N C H W, any N.

    Its scores are compared with PyTorch's at each of BATCHES; with `data`, its predictions on the test images too, and
    progress is called with how many are done, and of how many. With `calibrate`, whose training images are used,
    ONNX is quantised to int8; then the scores are compared before, and the differences told are those after.

    Raises UserError, and writes nothing, where `out` exists, data don't fit, what the format needs is missing, or
    scores differ by more than rounding.
    """
    check_out(out, FORMATS[to].suffix)
    for given in (calibrate, data):
        if given:
            _check_data(classifier, given)
    content = FORMATS[to].content(deployed(classifier), noise(classifier, 2), description(classifier))
    pytorch, scores = _pytorch_scores(classifier), FORMATS[to].scores(content)
    checks = tuple(compare(pytorch, scores, noise(classifier, batch)) for batch in BATCHES)
    for check in checks:
        if not check.is_rounding:
            raise UserError(
                f"{out}: not written, since at batch {check.batch} its scores differ from PyTorch's by "
                f"{check.greatest_difference:.3g}, more than {TOLERANCE:g} of the greatest, {check.greatest_score:.3g}."
            )
    if calibrate:
        content = quantised(content, calibration_images(calibrate, classifier.size))
        scores = FORMATS[to].scores(content)
        checks = tuple(compare(pytorch, scores, noise(classifier, batch)) for batch in BATCHES)
    found = agreement(pytorch, scores, data, classifier.size, progress) if data else None
    try:
        write_atomically(out, content, new=True)
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror}).") from error
    precision = "int8" if calibrate else "float32"
    return Exported(out, to, classifier.net.spec.name, precision, len(content), checks, found)


def check_out(out: Path, suffix: str) -> None:
    """Raise UserError unless a file of that suffix can be made there; before the work, which may take minutes."""
    if out.suffix != suffix:
        raise UserError(f"{out}: its name should end in {suffix}.")
    if out.exists():
        raise UserError(f"{out}: is there already; remove it, or give another name.")
    if not out.parent.is_dir():
        raise UserError(f"{out}: can't be written, there is no folder {out.parent}.")


def _check_data(classifier: Classifier, data: Data) -> None:
    """Raise UserError unless images and classes are those that the network takes; an exported one has one size."""
    spec, size = classifier.net.spec, classifier.size
    wanted, shape = (spec.in_channels, size, size), data.shape or (3, size, size)
    if shape != wanted or len(data.classes) != spec.num_classes:
        raise UserError(
            f"{data.name}: images of {shape} and {len(data.classes)} classes, and the network takes {wanted} and has "
            f"{spec.num_classes}."
        )


def _pytorch_scores(classifier: Classifier) -> Scores:
    """What the classifier's own network answers, as it is."""

    @torch.inference_mode()
    def scores(pixels: Tensor) -> Tensor:
        return classifier.net(classifier.input(pixels))

    return scores
