"""An export as a command asks for it: checked, with its data opened and interpreted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.resizing import USUAL
from resnetlab.data.understood import Understood
from resnetlab.errors import UserError
from resnetlab.training.classes import Matched
from resnetlab.training.evaluate import classes_told, trained_on
from resnetlab.use.classifier import Classifier
from resnetlab.use.export import FORMATS, Exported, check_out, export, matched
from resnetlab.use.openvino_graph import check_installed
from resnetlab.use.quantise import FEW, IMAGES
from resnetlab.weights.sources import short_name


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
