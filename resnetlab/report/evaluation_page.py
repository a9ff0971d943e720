"""The page of an evaluation: one self-contained HTML file."""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.thumbnail import thumbnail
from resnetlab.data.tta import TEST_SCALES
from resnetlab.errors import printable
from resnetlab.measuring.calibration import calibration_error, reliability
from resnetlab.measuring.confusion import ClassResult, Confusion, class_results, confusions
from resnetlab.measuring.intervals import wilson
from resnetlab.measuring.predictions import Predictions
from resnetlab.report.page import render
from resnetlab.training.evaluate import Evaluation

CLASSES_SHOWN = 50
MATRIX = 20  # maximum number of classes for which the confusion matrix is shown
CONFUSIONS_SHOWN = 30
MISTAKES_SHOWN = 24
SHADES = (0.005, 0.05, 0.2, 0.5)  # shares of a row from which a cell of the matrix is darker
VIEWS_IN_WORDS = {
    "1-crop": "the middle of each image",
    "10-crop": "ten crops of each image, the corners, the middle and their mirror images, whose softmax is averaged",
    "multi-scale": f"each image whole, its short side at {len(TEST_SCALES)} scales ({', '.join(map(str, TEST_SCALES))} "
    "for networks of 224 pixels), whose softmax is averaged; the network is applied at every place",
}


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
        matrix=_matrix(cells, results) if len(names) <= MATRIX else [],
        confused=_most_frequent(cells, results),
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
    """All classes, or, if there are many, those with the lowest and the highest recall, in that order."""
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
