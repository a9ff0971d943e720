"""The report of an evaluation: its numbers as JSON, the answer for each image as CSV, and a page."""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.thumbnail import thumbnail
from resnetlab.data.tta import TEST_SCALES
from resnetlab.data.understood import Understood
from resnetlab.errors import in_whole_texts, printable, whole_text
from resnetlab.machine import machine
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.measuring.calibration import calibration_error, reliability
from resnetlab.measuring.confusion import ClassResult, Confusion, class_results, confusions
from resnetlab.measuring.intervals import wilson
from resnetlab.measuring.predictions import Predictions
from resnetlab.report.page import render
from resnetlab.storage import check_absent, disk_errors, write_atomically
from resnetlab.training.evaluate import Evaluation

PAGE, NUMBERS, PREDICTIONS = FILES = ("evaluation.html", "evaluation.json", "predictions.csv")
CLASSES_SHOWN = 50
MATRIX = 20  # maximum number of classes for which the confusion matrix is shown
CONFUSIONS_SHOWN = 30
MISTAKES_SHOWN = 24
SHADES = (0.005, 0.05, 0.2, 0.5)  # shares of a row from which a cell of the matrix is darker
VIEWS_IN_WORDS = {
    "1-crop": "the centre of each image",
    "10-crop": "ten crops of each image, the corners, the centre and their mirror images, whose softmax is averaged",
    "multi-scale": f"each image whole, its short side at {len(TEST_SCALES)} scales ({', '.join(map(str, TEST_SCALES))} "
    "for networks of 224 pixels), whose softmax is averaged; the network is applied at every place",
}


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
    described = numbers(found, data, text=text, which=which, device=device)
    contents = {
        PREDICTIONS: predictions(found),
        NUMBERS: json.dumps(in_whole_texts(described), indent=1) + "\n",
        PAGE: html(found, data, text),
    }
    written: list[Path] = []
    try:
        with disk_errors(folder):
            for name, content in contents.items():
                write_atomically(folder / name, whole_text(content).encode(errors="backslashreplace"), new=True)
                written.append(folder / name)
    except BaseException:  # Ctrl-C, too
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


@dataclass(frozen=True)
class Mistake:
    """A wrong answer as the page shows it."""

    image: str
    label: str
    predicted: str
    confidence: float
    picture: str  # a data URI; "" if there is none


def html(found: Evaluation, data: Data, text: str) -> str:
    """The evaluation as one page; the images that it shows are read once more. text: the data as the user named it."""
    answers, names = found.answers, [printable(name) for name in found.classes]
    results = class_results(answers.labels, answers.predicted, len(names))
    cells = confusions(answers.labels, answers.predicted)
    bins = reliability(answers.confidence, answers.right)
    whole = "each image as it is" if isinstance(data.test, Images) else VIEWS_IN_WORDS[found.views]
    return render(
        "evaluation",
        heading=_title(found, data),
        found=found,
        text=text,
        accuracy=found.accuracy,
        members=list(zip(found.members, found.accuracies, strict=True)),
        views=whole + (", and its mirror image" if found.flip else ""),
        wilson=wilson,
        names=names,
        classes=_classes_shown(names, results),
        tested=sum(r.images > 0 for r in results),
        matrix=_matrix(cells, results) if len(names) <= MATRIX else [],
        confused=_most_frequent(cells, results),
        confusions=sum(cell.label != cell.predicted >= 0 for cell in cells),
        bins=bins,
        ece=calibration_error(bins),
        mistakes=_mistakes(answers, found.images, names),
        wrong=found.accuracy.images - found.accuracy.top1_correct,
        small=isinstance(data.test, Images),
    )


def image_name(images: Images | Files, i: int) -> str:
    """The name of the i-th image: "CLASS/FILE", or its number from 0."""
    return printable(images.name(i)) if isinstance(images, Files) else str(i)


def _title(found: Evaluation, data: Data) -> str:
    if len(found.members) > 1:
        return f"An ensemble of {len(found.members)} networks on {data.title}"
    return f"{found.members[0].net.spec.name or 'A network'} on {data.title}"


def _classes_shown(names: list[str], results: list[ClassResult]) -> list[tuple[str, ClassResult]]:
    """All classes, or, if there are many, those that have images; of many of these, the lowest and highest recalls."""
    rows = list(zip(names, results, strict=True))
    if len(rows) <= CLASSES_SHOWN:
        return rows
    rows = sorted((row for row in rows if row[1].images), key=lambda row: (row[1].recall or 0, row[0]))
    half = CLASSES_SHOWN // 2
    return rows if len(rows) <= CLASSES_SHOWN else [*rows[:half], *rows[-half:]]


def _matrix(cells: list[Confusion], results: list[ClassResult]) -> list[list[tuple[int, int]]]:
    """The confusion matrix by label: for each prediction, the number of images, and the shade of the cell, 0 to 4."""
    count = {(cell.label, cell.predicted): cell.images for cell in cells}
    rows = []
    for label, result in enumerate(results):
        row = [count.get((label, predicted), 0) for predicted in range(len(results))]
        rows.append([(n, sum(n >= shade * result.images for shade in SHADES) if n else 0) for n in row])
    return rows


def _most_frequent(cells: list[Confusion], results: list[ClassResult]) -> list[tuple[Confusion, float]]:
    """The most frequent confusions, with their share of the label's images."""
    wrong = sorted((cell for cell in cells if cell.label != cell.predicted >= 0), key=lambda cell: -cell.images)
    return [(cell, cell.images / results[cell.label].images) for cell in wrong[:CONFUSIONS_SHOWN]]


def _mistakes(answers: Predictions, images: Images | Files, names: list[str]) -> list[Mistake]:
    """The wrong answers with the highest confidence, highest first."""
    wrong = (~answers.right & (answers.predicted >= 0)).nonzero()[:, 0]
    surest = wrong[answers.confidence[wrong].argsort(descending=True, stable=True)][:MISTAKES_SHOWN]
    return [
        Mistake(
            image_name(images, i),
            names[int(answers.labels[i])],
            names[int(answers.predicted[i])],
            float(answers.confidence[i]),
            thumbnail(images, i),
        )
        for i in surest.tolist()
    ]
