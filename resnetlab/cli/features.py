"""`resnetlab features`."""

from __future__ import annotations

import json as json_module
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.cli.train import Device, WholeNumber
from resnetlab.cli.use import (
    UNREADABLE,
    Engine,
    Images,
    ImageSize,
    Net,
    Source,
    Which,
    check,
    engine_device,
    listed,
    opened,
)
from resnetlab.errors import UserError, printable


def features(
    source: Source,
    images: Images = (),
    /,
    *,
    out: Annotated[Path | None, Parameter(help="The file to write: .npz or .parquet.")] = None,
    at: Annotated[str | None, Parameter(help="The unit, e.g. layer3.0; default: what the last layer takes.")] = None,
    nearest: Annotated[int | None, WholeNumber, Parameter(help="Print so many nearest images of each.")] = None,
    among: Annotated[Path | None, Parameter(help="Look for them in this .npz, made before, instead.")] = None,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    batch_size: Annotated[int, WholeNumber, Parameter(help="Images at a time.")] = 32,
    unreadable: Annotated[
        Literal["error", "skip"], Parameter(help="A file that can't be read is left out; error: exit code 1, skip: 0.")
    ] = "error",
    engine: Engine = None,
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Write images' features, a vector each, and find nearest images by them.

    A file that can't be read is named and left out; the exit code is then 1, or 0 with --unreadable skip.
    """
    check(which, batch_size=batch_size, nearest=1 if nearest is None else nearest)
    if out is None and nearest is None:
        raise UserError("give --out FILE, --nearest K, or both.")
    if among is not None and nearest is None:
        raise UserError("--among belongs to --nearest K; give both.")
    from resnetlab.cli.screen import counting, say
    from resnetlab.use import features_file
    from resnetlab.use.features import check_same_network, embedder, network_mark
    from resnetlab.use.features import features as features_of
    from resnetlab.use.features import nearest as nearest_of
    from resnetlab.use.predict import labelled_images

    if out is not None:
        features_file.check_out(out)
    known = features_file.read(among) if among else None
    where = engine_device(source, device, engine)
    classifier = opened(source, net=net, which=which, image_size=image_size, device=where, head=False)
    if known:
        check_same_network(known.network, network_mark(classifier, at))
    found_images = labelled_images(listed(images))
    many = min(batch_size, len(found_images))
    run = embedder(classifier, at, engine or "torch", batch=many, told=lambda line: say(printable(line)))
    with counting("images") as count:
        found, left_out = features_of(classifier, found_images, run, unit=at, batch=batch_size, progress=count)
    for path, reason in left_out:
        print(printable(f"{path}: can't be read ({reason})"), file=sys.stderr)
    if out is not None:
        features_file.save(out, found)
    near = zip(found.files, nearest_of(found, known or found, nearest), strict=True) if nearest else ()
    answer: dict[str, Any] = {
        "written": str(out) if out else None,
        "images": len(found.files),
        "dimensions": found.values.shape[1],
        "unreadable": [{"file": str(path), "error": reason} for path, reason in left_out],
        "nearest": [{"file": file, "nearest": [asdict(other) for other in others]} for file, others in near],
    }
    if json:
        print(json_module.dumps(answer))
    else:
        _show(answer)
    return UNREADABLE if left_out and unreadable == "error" else 0


def _show(answer: dict[str, Any]) -> None:
    for row in answer["nearest"]:
        others = ", ".join(f"{other['file']} {other['cosine']:.3f}" for other in row["nearest"])
        print(printable(f"{row['file']}: {others}"))
    if answer["written"]:
        print(printable(f"{answer['written']}: {answer['images']} images, {answer['dimensions']} features each"))
