"""`resnetlab.predict`: the likeliest classes of image files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

from resnetlab.api import screen
from resnetlab.api.arguments import PathLike, called_from_python, check_kind, text_of, texts_of
from resnetlab.api.errors import as_user_errors
from resnetlab.api.fetching import fetch_sources
from resnetlab.api.tables import Row, Tabular
from resnetlab.errors import check_counts, in_whole_texts
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import engine_device, with_engine
from resnetlab.use.predict import Prediction, find_images
from resnetlab.use.predict import predict as predictions_of
from resnetlab.weights.reading import Reading


@dataclass(frozen=True)
class PredictionResult(Tabular):
    """The likeliest classes of images, in order; an unreadable image has the reason instead."""

    images: tuple[Prediction, ...]
    assumed: tuple[str, ...] = ()  # what the network's file does not state, and what was assumed instead
    formats: ClassVar[Mapping[str, str]] = {"probability": ".4f"}

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Prediction:
        return self.images[index]

    def table(self) -> list[Row]:
        """A row for each class of each image, the likeliest first, and one for each that could not be read."""
        rows: list[Row] = []
        for image in self.images:
            for rank, (name, probability) in enumerate(image.classes, 1):
                rows.append(_row(image.file, rank, name, probability, ""))
            if image.error:
                rows.append(_row(image.file, None, "", None, image.error))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, as the command prints them."""
        rows = [asdict(image) for image in self.images]
        for row in rows:
            row["classes"] = [{"class": name, "probability": value} for name, value in row["classes"]]
        told = {"assumed": list(self.assumed)} if self.assumed else {}
        values: dict[str, Any] = in_whole_texts({"images": rows} | told)
        return values


@called_from_python
def predict(
    source: PathLike,
    images: PathLike | Sequence[PathLike],
    *,
    net: str | None = None,
    which: str = "last",
    image_size: int | None = None,
    match: str = "names",
    normalise: str | None = None,
    top: int = 5,
    batch_size: int = 32,
    engine: str | None = None,
    device: str = "auto",
    quiet: bool = False,
) -> PredictionResult:
    """Predict the likeliest classes of images, as `resnetlab predict` does.

        resnetlab.predict("runs/my-flowers", "garden/*.jpg", top=3)

    source is a run, by its folder, name or hash, a weight file, an exported file, or published weights such as
    pretrained:cifar_resnet20; images are files, folders and patterns, one or several; the options are those of the
    command. quiet shows no progress.

    Raises UserError for what the command would refuse, with the same line. An image that can't be read is no error:
    its `error` says why.
    """
    with as_user_errors("predict"), screen.silenced(quiet):
        check_kind(str, net=net, which=which, engine=engine, device=device, match=match, normalise=normalise)
        check_kind(int, image_size=image_size)
        check_kind(bool, quiet=quiet)
        check_counts(top=top, batch_size=batch_size)
        reading: Reading = {"net": net, "which": which, "image_size": image_size}
        reading |= {"match": match, "normalise": normalise}
        given, where = texts_of(images, "images"), text_of(source, "source")
        classifier, files = opened(where, given, engine=engine, device=device, batch_size=batch_size, **reading)
        found = []
        with screen.counting("predicting") as count:
            for one in predictions_of(classifier, files, top=top, batch=batch_size):
                found.append(one)
                count(len(found), len(files))
        return PredictionResult(tuple(found), classifier.assumed)


def opened(
    source: str,
    images: Sequence[str],
    *,
    engine: str | None,
    device: str,
    batch_size: int,
    **reading: Unpack[Reading],
) -> tuple[Classifier, list[Path]]:
    """The network, ready to classify, and the files that the names match; reading: as for `Classifier.open`."""
    fetch_sources(source)
    where = engine_device(source, device, engine)
    classifier = Classifier.open(source, device=where, told=screen.say, **reading)
    files = find_images(images)
    return with_engine(classifier, engine, batch=min(batch_size, len(files)), told=screen.say), files


def _row(file: str, rank: int | None, name: str, probability: float | None, error: str) -> Row:
    return {"file": file, "rank": rank, "class": name, "probability": probability, "error": error}
