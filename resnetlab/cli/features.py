"""`resnetlab features`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli import options
from resnetlab.cli.streams import names_given
from resnetlab.errors import UserError, counted, printable

if TYPE_CHECKING:
    from resnetlab.use.classifier import Classifier
    from resnetlab.use.features import Features

Out = Annotated[Path | None, Parameter(help="The file to write: .npz or .parquet.")]
At = Annotated[str | None, Parameter(help="The unit, e.g. layer3.0; default: the last layer's input.")]
Nearest = Annotated[
    int | None, options.WholeNumber, Parameter(help="Number of nearest images to print for each image.")
]
Among = Annotated[
    Path | None, Parameter(help="Search in this .npz file, which --out wrote earlier, instead of among the images.")
]
Unreadable = Annotated[
    Literal["error", "skip"], Parameter(help="Exit code if unreadable files were left out: error is 1, skip is 0.")
]


def features(
    source: options.RunOrWeights,
    /,
    *images: options.Images,
    out: Out = None,
    at: At = None,
    nearest: Nearest = None,
    among: Among = None,
    net: options.Net = None,
    which: options.Which = "last",
    reading: options.Reading = options.READ,
    batch_size: options.BatchSize = 32,
    unreadable: Unreadable = "error",
    engine: options.Engine = None,
    device: options.Device = "auto",
    json: options.Json = False,
) -> int:
    """Write a feature vector for each image, or find the nearest images by them.

    Unreadable files are named and left out; the exit code is then 1, or 0 with --unreadable skip.
    """
    options.check(which, batch_size=batch_size, nearest=nearest)
    from resnetlab.api.screen import say
    from resnetlab.use.classifier import Classifier
    from resnetlab.use.engines import engine_device

    known = _checked(out, nearest, among)
    fetch_sources(source)
    where = engine_device(source, device, engine)
    classifier = Classifier.open(source, net=net, which=which, **vars(reading), device=where, head=False, told=say)
    found, left_out = _embedded(classifier, images, at, engine or "torch", batch_size, known)
    answer = _answer(found, left_out, out, nearest, known)
    if json:
        options.print_json(answer)
    else:
        _show(answer)
    return options.UNREADABLE if left_out and unreadable == "error" else 0


def _checked(out: Path | None, nearest: int | None, among: Path | None) -> Features | None:
    """The features to look among, if they are of a file. Raises UserError for options that don't fit each other."""
    from resnetlab.use import features_file

    if out is None and nearest is None:
        raise UserError("give --out FILE, --nearest K, or both.")
    if among is not None and nearest is None:
        raise UserError("--among works with --nearest K only; give both.")
    if out is not None:
        features_file.check_out(out)
    return features_file.read(among) if among else None


def _embedded(
    classifier: Classifier, images: tuple[str, ...], at: str | None, engine: str, batch: int, known: Features | None
) -> tuple[Features, list[tuple[Path, str]]]:
    """The features of the images that can be read, and the others, each with the reason, which is said."""
    from resnetlab.api.screen import counting, say
    from resnetlab.use.features import check_same_network, embedder, network_mark
    from resnetlab.use.features import features as features_of
    from resnetlab.use.predict import labelled_images

    if known:
        check_same_network(known.network, network_mark(classifier, at))
    files = labelled_images(names_given(images))
    run = embedder(classifier, at, engine, batch=min(batch, len(files)), told=say)
    with counting("images") as count:
        found, left_out = features_of(classifier, files, run, unit=at, batch=batch, progress=count)
    for path, reason in left_out:
        print(printable(f"{path}: can't be read ({reason})"), file=sys.stderr)
    return found, left_out


def _answer(
    found: Features, left_out: list[tuple[Path, str]], out: Path | None, nearest: int | None, known: Features | None
) -> dict[str, Any]:
    """Write the file, if one is asked for, and find the nearest images: what the command answers, as JSON values."""
    from resnetlab.use import features_file
    from resnetlab.use.features import nearest as nearest_of

    if out is not None:
        features_file.save(out, found)
    near = zip(found.files, nearest_of(found, known or found, nearest), strict=True) if nearest else ()
    return {
        "written": str(out) if out else None,
        "images": len(found.files),
        "dimensions": found.values.shape[1],
        "unreadable": [{"file": str(path), "error": reason} for path, reason in left_out],
        "nearest": [{"file": file, "nearest": [asdict(other) for other in others]} for file, others in near],
    }


def _show(answer: dict[str, Any]) -> None:
    for row in answer["nearest"]:
        others = ", ".join(f"{other['file']} {other['cosine']:.3f}" for other in row["nearest"]) or "no other image"
        print(printable(f"{row['file']}: {others}"))
    if answer["written"]:
        print(
            printable(
                f"{answer['written']}: {counted(answer['images'], 'image')}, {answer['dimensions']} features each"
            )
        )
