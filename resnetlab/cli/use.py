"""`resnetlab predict` and `resnetlab explain`."""

from __future__ import annotations

import csv
import io
import json as json_module
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.cli.streams import lines_of_input
from resnetlab.cli.train import Device, WholeNumber, find_device
from resnetlab.errors import UserError, check_choice, printable
from resnetlab.paths import one_form

if TYPE_CHECKING:
    from resnetlab.use.classifier import Classifier
    from resnetlab.use.predict import Prediction

Source = Annotated[str, Parameter(help="A run folder or a weight file.")]
SourceOrExported = Annotated[str, Parameter(help="A run folder, a weight file, or an exported .onnx or .xml.")]
Engine = Annotated[
    Literal["auto", "torch", "onnxruntime", "openvino"] | None,
    Parameter(help="What runs it; auto: the fastest here that answers alike; default: torch, or what runs the file."),
]
Images = Annotated[
    tuple[str, ...], Parameter(help="Files, folders, patterns; none: a list of them, read from the input.")
]
Net = Annotated[str | None, Parameter(help="The network, where the file does not tell it.")]
WHICH = ("last", "best", "ema")
Which = Annotated[str, Parameter(help="A run's last or best weights; ema: the averaged ones of a file that has both.")]
ImageSize = Annotated[
    int | None, WholeNumber, Parameter(help="Side of the images in pixels, where the file does not tell it.")
]
UNREADABLE = 1  # exit code if some image could not be read


def predict(
    source: SourceOrExported,
    images: Images = (),
    /,
    *,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    top: Annotated[int, WholeNumber, Parameter(help="Classes to show of each image.")] = 5,
    batch_size: Annotated[int, WholeNumber, Parameter(help="Images at a time.")] = 32,
    engine: Engine = None,
    device: Device = "auto",
    json: Json = False,
    csv: Annotated[bool, Parameter(negative="", help="Print lines of file, rank, class, probability, error.")] = False,
) -> int:
    """Print the likeliest classes of images. A file that can't be read is named; the exit code is then 1."""
    from resnetlab.use.predict import find_images
    from resnetlab.use.predict import predict as predictions

    check(which, top=top, batch_size=batch_size)
    if json and csv:
        raise UserError("give --json or --csv, not both.")
    classifier = opened(
        source, net=net, which=which, image_size=image_size, device=engine_device(source, device, engine)
    )
    files = find_images(listed(images))
    classifier = run_by(classifier, engine, min(batch_size, len(files)))
    found = predictions(classifier, files, top=top, batch=batch_size)
    failed = _as_json(found, classifier.assumed) if json else (_as_csv if csv else _as_text)(found)
    return UNREADABLE if failed else 0


def explain(
    source: Source,
    images: Images = (),
    /,
    *,
    net: Net = None,
    which: Which = "last",
    image_size: ImageSize = None,
    method: Annotated[
        Literal["grad_cam", "occlusion"], Parameter(help="Gradients at a unit, or what hiding a part changes.")
    ] = "grad_cam",
    unit: Annotated[str | None, Parameter(help="grad_cam: the unit, e.g. layer3.0; default: the last.")] = None,
    label: Annotated[str | None, Parameter(help="The class to explain; default: the likeliest.")] = None,
    out: Annotated[Path, Parameter(help="Folder of the pictures.")] = Path("explained"),
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Write for each image a picture of it and, beside it, of where the network found its answer."""
    import torch

    from resnetlab.data.decoding import Unreadable
    from resnetlab.data.own import make_place_for_pictures
    from resnetlab.data.walk import is_image
    from resnetlab.storage import disk_errors, write_atomically
    from resnetlab.use.explain import grad_cam, occlusion, side_by_side
    from resnetlab.use.predict import find_images

    check(which)
    classifier = opened(source, net=net, which=which, image_size=image_size, device=find_device(device))
    _ = classifier.net  # or a line says that an exported file can't be looked into
    if label is not None:
        if label not in classifier.classes:  # its accents may be written otherwise
            label = {one_form(name): name for name in classifier.classes}.get(one_form(label), label)
        check_choice("label", label, classifier.classes)
    if method == "occlusion" and unit is not None:
        raise UserError("--unit belongs to grad_cam; leave it out, or choose --method grad_cam.")
    with disk_errors(out):
        make_place_for_pictures(out, is_image)
    rows: list[dict[str, Any]] = []
    failed, taken = False, set[str]()
    for path in find_images(listed(images)):  # before pictures are written, perhaps among them
        try:
            pixels = classifier.prepare(path.read_bytes())
        except (Unreadable, OSError, ValueError) as error:
            failed = True
            rows.append({"file": str(path), "error": getattr(error, "strerror", None) or str(error)})
            print(printable(f"{path}: can't be read ({rows[-1]['error']})"), file=sys.stderr)
            continue
        probabilities = classifier.probabilities(pixels[None])[0]
        chosen = classifier.classes.index(label) if label else int(probabilities.argmax())
        x, target = classifier.input(pixels[None]), torch.tensor([chosen], device=classifier.device)
        if method == "occlusion":
            patch = max(classifier.size // 7, 2)
            heat = occlusion(classifier.net, x, target, patch, max(patch // 2, 1))
        else:
            heat = grad_cam(classifier.net, x, target, unit)
        picture = out / _free_name(path, taken)
        made = io.BytesIO()
        side_by_side(pixels, heat[0]).save(made, "PNG")
        with disk_errors(out):
            write_atomically(picture, made.getvalue())
        name, probability = classifier.classes[chosen], float(probabilities[chosen])
        rows.append({"file": str(path), "class": name, "probability": probability, "picture": str(picture)})
        if not json:
            print(printable(f"{path}: {name} {100 * probability:.1f} % -> {picture}"))
    if json:
        print(json_module.dumps({"images": rows}))
    return UNREADABLE if failed else 0


def opened(
    source: str, *, net: str | None, which: str, image_size: int | None, device: str = "cpu", head: bool = True
) -> Classifier:
    """The network to use; a line says what its file doesn't tell, and what is taken instead."""
    from resnetlab.cli.screen import say
    from resnetlab.use.classifier import Classifier

    classifier = Classifier.open(source, net=net, which=which, image_size=image_size, device=device, head=head)
    if classifier.assumed:
        say(printable(f"{source}: not in the file: {', '.join(classifier.assumed)}"))
    return classifier


def engine_device(source: str, device: str, engine: str | None) -> str:
    """The device; `auto` is the processor where another engine than torch is wanted, or there is only its file."""
    from resnetlab.use.exported import suffix_of

    if device == "auto" and (engine in ("onnxruntime", "openvino") or suffix_of(source)):
        return "cpu"
    return find_device(device)


def run_by(classifier: Classifier, engine: str | None, batch: int) -> Classifier:
    """The classifier run by an engine, which a line names unless it is torch; None: torch, or what runs the file."""
    from resnetlab.cli.screen import say
    from resnetlab.use.engines import with_engine

    if engine is None and classifier.engine:
        return classifier
    return with_engine(classifier, engine or "torch", batch=batch, told=lambda line: say(printable(line)))


def check(which: str, **counts: int) -> None:
    """Raise UserError for weights that a run doesn't keep, and for counts below 1."""
    check_choice("which", which, WHICH)
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name}={value} must be 1 or more.")


def listed(names: tuple[str, ...]) -> list[str]:
    """The names, or the lines of standard input. Raises UserError where there are none."""
    if not (given := list(names) or lines_of_input()):
        raise UserError("no image was given: name files, folders of images, or patterns.")
    return given


def _free_name(path: Path, taken: set[str]) -> str:
    """A picture's name: the image's, with a number where another image has it."""
    name, count = path.stem, 1
    while name in taken:
        count += 1
        name = f"{path.stem}-{count}"
    taken.add(name)
    return f"{name}.png"


def _as_json(found: Iterator[Prediction], assumed: tuple[str, ...]) -> bool:
    rows = [asdict(p) for p in found]
    for row in rows:
        row["classes"] = [{"class": name, "probability": value} for name, value in row["classes"]]
    print(json_module.dumps({"images": rows} | ({"assumed": assumed} if assumed else {})))
    return any(row["error"] for row in rows)


def _as_csv(found: Iterator[Prediction]) -> bool:
    table, failed = csv.writer(sys.stdout, lineterminator="\n"), False
    table.writerow(["file", "rank", "class", "probability", "error"])
    for p in found:
        failed |= bool(p.error)
        for rank, (name, value) in enumerate(p.classes, 1):
            table.writerow([p.file, rank, name, f"{value:.6f}", ""])
        if p.error:
            table.writerow([p.file, "", "", "", p.error])
    return failed


def _as_text(found: Iterator[Prediction]) -> bool:
    failed = False
    for p in found:
        failed |= bool(p.error)
        if p.error:
            print(printable(f"{p.file}: can't be read ({p.error})"), file=sys.stderr)
        else:
            print(printable(f"{p.file}: {', '.join(f'{name} {100 * value:.1f} %' for name, value in p.classes)}"))
    return failed
