"""The report of an evaluation: its numbers as JSON, the answer for each image as CSV, and a page."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from resnetlab.data.images import Data
from resnetlab.data.understood import Understood
from resnetlab.errors import UserError
from resnetlab.machine import machine
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.measuring.calibration import calibration_error, reliability
from resnetlab.measuring.confusion import class_results, confusions
from resnetlab.measuring.intervals import wilson
from resnetlab.report.evaluation_page import html, image_name
from resnetlab.storage import check_absent, disk_errors, write_atomically
from resnetlab.training.evaluate import Evaluation

PAGE, NUMBERS, PREDICTIONS = FILES = ("evaluation.html", "evaluation.json", "predictions.csv")


def check_report(folder: Path) -> None:
    """Make the folder. Raises UserError if it holds a report already, or can't be written."""
    for name in FILES:
        check_absent(folder / name, "choose another folder for --report")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def write_report(found: Evaluation, data: Data, folder: Path, *, text: str, which: str, device: str) -> None:
    """Write evaluation.html, evaluation.json and predictions.csv; text: the data as it was named.

    Raises UserError if they can't be written.
    """
    contents = {
        PREDICTIONS: predictions(found),
        NUMBERS: json.dumps(numbers(found, data, text=text, which=which, device=device), indent=1) + "\n",
        PAGE: html(found, data, text),
    }
    written: list[Path] = []
    try:
        with disk_errors(folder):
            for name, content in contents.items():
                write_atomically(folder / name, content.encode(errors="backslashreplace"), new=True)
                written.append(folder / name)
    except UserError:
        for path in written:  # a partial report would block the next attempt
            path.unlink(missing_ok=True)
        raise


def summary(found: Evaluation) -> dict[str, Any]:
    """The overall numbers, as JSON values; in %, but `ece` from 0 to 1; intervals are 95 % intervals."""
    accuracy = found.accuracy
    bins = reliability(found.answers.confidence, found.answers.right)
    return {
        **_counted(accuracy),
        "images": accuracy.images,
        "correct": accuracy.top1_correct,
        "unreadable": len(found.unreadable),
        "loss": accuracy.loss if math.isfinite(accuracy.loss) else None,
        "ece": calibration_error(bins),
        "views": found.views,
        "flip": found.flip,
        "sources": [
            {
                "source": member.source,
                "network": member.net.spec.name,
                "layout": member.layout,
                "normalisation": member.normalisation,
                "image_size": member.net.spec.input_size,
                "image_size_assumed": member.size_assumed,
                **({"resizing": member.resizing.to_dict()} if member.resizing else {}),
                "classes": member.matched.words,
                "taken_for": member.matched.taken,  # names of the data, and what they were in the training
                "weights_sha256": member.weights_sha256,
                **_counted(own),
            }
            for member, own in zip(found.members, found.accuracies, strict=True)
        ],
    }


def numbers(found: Evaluation, data: Data, *, text: str, which: str, device: str) -> dict[str, Any]:
    """All numbers as JSON values: the summary, data and machine, classes, confusions and calibration."""
    answers = found.answers
    results = class_results(answers.labels, answers.predicted, len(found.classes))
    return {
        **summary(found),
        "understood": Understood.of(data).to_dict(),
        "which": which,
        "data": {"name": text, "fingerprint": data.fingerprint, "classes": list(data.classes)},
        "left_out": list(found.unreadable),
        "machine": machine(device),
        "classes": [
            {
                "class": name,
                "images": r.images,
                "predicted": r.predicted,
                "right": r.right,
                "recall": r.recall,
                "recall_interval": r.recall_interval,
                "precision": r.precision,
                "precision_interval": r.precision_interval,
            }
            for name, r in zip(found.classes, results, strict=True)
        ],
        "confusion": [vars(cell) for cell in confusions(answers.labels, answers.predicted)],
        "calibration": [vars(b) for b in reliability(answers.confidence, answers.right)],
    }


def predictions(found: Evaluation) -> str:
    """A line for each test image that was read: its file, or number from 0; its label; the predicted class, its
    probability.
    """
    made = io.StringIO()
    table = csv.writer(made, lineterminator="\n")
    table.writerow(["image", "label", "predicted", "probability"])
    answers = found.answers
    rows = zip(answers.labels.tolist(), answers.predicted.tolist(), answers.confidence.tolist(), strict=True)
    for i, (label, predicted, confidence) in enumerate(rows):
        name = found.classes[predicted] if predicted >= 0 else ""
        table.writerow([image_name(found.images, i), found.classes[label], name, f"{confidence:.6f}"])
    return made.getvalue()


def _counted(accuracy: Accuracy) -> dict[str, Any]:
    """Top-1 and top-5 in %, with intervals."""
    return {
        "top1": accuracy.top1,
        "top1_interval": percent(wilson(accuracy.top1_correct, accuracy.images)),
        "top5": accuracy.top5,
        "top5_interval": percent(wilson(accuracy.top5_correct, accuracy.images)),
    }


def percent(interval: tuple[float, float]) -> tuple[float, float]:
    """The ends of an interval in %."""
    low, high = interval
    return 100 * low, 100 * high
