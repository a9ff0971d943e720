"""`resnetlab.evaluate`: the accuracy of trained networks on a data set, alone or together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetlab.api import screen
from resnetlab.api.arguments import PathLike, called_from_python, check_kind, text_of, texts_of
from resnetlab.api.errors import as_user_errors
from resnetlab.api.fetching import NAMES, fetch_sources
from resnetlab.api.tables import Row, Tabular
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.understood import Understood
from resnetlab.data.workers import decoding_workers
from resnetlab.errors import UserError, in_whole_texts, printable, shown
from resnetlab.paths import expanded
from resnetlab.report.evaluation_report import check_report, summary, write_report
from resnetlab.training.classes import read_given
from resnetlab.training.evaluate import Evaluation, trained_on
from resnetlab.training.evaluate import evaluate as evaluate_on
from resnetlab.use.engines import engine_device, evaluation_engine
from resnetlab.use.exported import check_evaluable
from resnetlab.weights.reading import Reading

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SAME = 1e-9  # relative; probabilities that differ less are those of equal scores


@dataclass(frozen=True)
class NetworkAccuracy:
    """How often one network of an evaluation is right, in %."""

    source: str
    network: str
    top1: float
    top5: float


@dataclass(frozen=True)
class EvaluationResult(Tabular):
    """How often a network, or the average of several, is right on the test images; in %, with 95 % intervals."""

    top1: float
    top1_interval: tuple[float, float]
    top5: float
    top5_interval: tuple[float, float]
    correct: int  # by the likeliest class
    images: int
    networks: tuple[NetworkAccuracy, ...]
    classes: tuple[str, ...]  # names of the numbers in labels and predicted
    labels: np.ndarray = field(repr=False, compare=False)  # int64, one for each image that was read, in order
    predicted: np.ndarray = field(repr=False, compare=False)  # int64; -1 where scores are not finite
    details: dict[str, Any] = field(repr=False, compare=False)  # what the command prints with --json
    report: Path | None = None  # the page, if one was written

    def table(self) -> list[Row]:
        """A row for each network and, if there are several, one for the ensemble."""
        rows = [(n.source, n.network, n.top1, n.top5) for n in self.networks]
        if len(rows) > 1:
            rows.append((f"ensemble of {len(rows)}", "", self.top1, self.top5))
        return [
            {"source": source, "network": network, "top1": top1, "top5": top5, "images": self.images}
            for source, network, top1, top5 in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, as the command prints them."""
        values: dict[str, Any] = in_whole_texts(self.details)
        return values


@called_from_python
def evaluate(
    sources: PathLike | Sequence[PathLike],
    data: PathLike,
    *,
    views: str = "1-crop",
    flip: bool = False,
    net: str | Sequence[str] = (),
    which: str = "last",
    image_size: int | None = None,
    match: str = "names",
    normalise: str | None = None,
    classes: Mapping[str, str] | str | Sequence[str] = (),
    class_order: str = "text",
    unreadable: str | None = None,
    report: PathLike | None = None,
    engine: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    quiet: bool = False,
) -> EvaluationResult:
    """Measure top-1 and top-5 accuracy in % on a data set's test images, as `resnetlab eval` does.

        resnetlab.evaluate("runs/cifar_resnet20_digits-0123456789ab", "digits")
        resnetlab.evaluate(["a.pth", "b.pth"], "flowers", views="10-crop")      # an ensemble

    sources are runs, by their folders, names or hashes, weight files, or published weights such as
    pretrained:cifar_resnet20; the softmax of several is averaged. data is named as on the command line, and the options
    are the command's: views 1-crop, 10-crop or multi-scale; net the network's name if a file does not determine it;
    match "order" for a file with unknown parameter names; normalise the normalisation of the training, e.g. "imagenet";
    classes the names that the data's classes had in training, as a dict or as text "hund=dog"; report a folder for a
    page. quiet shows no progress.

    Raises UserError for what the command would refuse, with the same line.
    """
    with as_user_errors("eval"), screen.silenced(quiet):
        check_kind(int, image_size=image_size, workers=workers)
        check_kind(str, views=views, which=which, class_order=class_order, unreadable=unreadable, engine=engine)
        check_kind(str, device=device, match=match, normalise=normalise)
        check_kind(bool, flip=flip, quiet=quiet)
        given, text = texts_of(sources, "sources"), text_of(data, "data")
        folder = expanded(text_of(report, "report")) if report is not None else None
        _check(given, folder)
        fetch_sources(*given)
        where = engine_device(None, device, engine)
        opened = open_data(text, "evaluate", trained_on=trained_on(given))
        matching = _matching(classes)
        reading: Reading = {"which": which, "image_size": image_size, "match": match, "normalise": normalise}
        looking = {"nets": texts_of(net, "net"), "views": views, "flip": flip, "unreadable": unreadable}
        looking |= {"classes": matching, "class_order": class_order}
        found = _evaluated(given, opened, where, workers, engine, looking, reading)
        result = _result(found, opened, folder)
        if folder:
            try:
                write_report(found, opened, folder, text=text, which=which, device=where)
            except UserError:  # what was measured is worth more than its page
                screen.say(f"top-1 {result.top1:.2f} %, {result.correct} of {result.images} images right")
                raise
        return result


def left_out(places: Sequence[str], total: int) -> str:
    """A line that says how many images can't be read, with the first one."""
    why = "it can't be read:" if len(places) == 1 else "they can't be read, e.g."
    return printable(
        f"left out {len(places):,} of {total:,} images, since {why} {places[0]}; 'resnetlab data audit' lists all that "
        "can't be read"
    )


def doubts(found: Evaluation) -> Iterator[str]:
    """Lines on answers that are none: scores that are not finite, or equal for several classes."""
    answers, classes = found.answers, len(found.classes)
    equal = ((answers.confidence - 1 / classes).abs() < SAME / classes) & (classes > 1)
    numbers = {
        "are not finite, which counts as wrong: the weights are damaged, or training diverged": answers.predicted < 0,
        "are the same for all classes, which counts as right: the network tells nothing apart": equal,
        "are equally high for the right class and another, which counts as right; predict names the first of them": (
            answers.tied & ~equal
        ),
    }
    for words, which in numbers.items():
        if count := int(which.sum()):
            yield f"the scores of {count:,} of {len(which):,} images {words}"


def _matching(classes: Mapping[str, str] | str | Sequence[str]) -> Mapping[str, str]:
    """The names that the data's classes had in training. Raises UserError for invalid names."""
    if not isinstance(classes, Mapping):
        return read_given(texts_of(classes, "classes"))
    if wrong := [name for pair in classes.items() for name in pair if not isinstance(name, str)]:
        raise UserError(f"classes: {shown(wrong[0])} must be text, the name of a class.")
    return classes


def _check(sources: Sequence[str], report: Path | None) -> None:
    """Raise UserError if no evaluation is possible; called before the work, which may take hours."""
    if not sources:
        raise UserError(f"no network given: give run folders, weight files, or {NAMES}.")
    if report:
        check_report(report)
    for source in sources:
        check_evaluable(source)


def _evaluated(
    sources: Sequence[str],
    data: Data,
    device: str,
    workers: int | None,
    engine: str | None,
    looking: dict[str, Any],
    reading: Reading,
) -> Evaluation:
    """Evaluate the networks, showing how it goes; looking and reading: other options of `training.evaluate`'s."""
    with screen.counting("evaluating") as count:
        found = evaluate_on(
            sources,
            data,
            device=device,
            workers=decoding_workers(workers, device, in_memory=data.shape is not None),
            engine=evaluation_engine(engine, device, data, screen.say),
            told=screen.say,
            progress=count,
            **looking,
            **reading,
        )
    if found.unreadable:
        screen.say(left_out(found.unreadable, len(data.test)))
    for line in doubts(found):
        screen.say(line)
    return found


def _kept(values: Tensor) -> np.ndarray:
    """The values, which can no longer be written."""
    array = values.cpu().numpy().copy()
    array.flags.writeable = False
    return array


def _result(found: Evaluation, data: Data, folder: Path | None) -> EvaluationResult:
    numbers = summary(found)
    details = numbers | {"understood": Understood.of(data).to_dict()} | ({"report": str(folder)} if folder else {})
    names = ("top1", "top1_interval", "top5", "top5_interval", "correct", "images")
    return EvaluationResult(
        **{name: numbers[name] for name in names},
        networks=tuple(
            NetworkAccuracy(one["source"], one["network"], one["top1"], one["top5"]) for one in numbers["sources"]
        ),
        classes=found.classes,
        labels=_kept(found.answers.labels),
        predicted=_kept(found.answers.predicted),
        details=details,
        report=folder / "evaluation.html" if folder else None,
    )
