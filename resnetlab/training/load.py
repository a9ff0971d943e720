"""`load`: a trained network from a run folder or a weight file, and what it was trained for."""

from __future__ import annotations

from pathlib import Path

from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build, on_meta
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.training.checkpoint import WEIGHTS, Card, read_weights, whole_folder
from resnetlab.training.fit import check_fit
from resnetlab.training.run import check_format, read_json


def load(source: str | Path, *, net: str | None = None, which: str = "last") -> ResNet | VGG:
    """Return the network of a run folder (its "last" or "best" weights) or of a safetensors file.

    A file that resnetlab wrote says what network it holds; for others, `net` names it. The network comes
    in evaluation mode. Raises UserError if the weights don't fit it, naming the first that differ.
    """
    return load_with_card(source, net=net, which=which)[0]


def load_with_card(
    source: str | Path, *, net: str | None = None, which: str = "last"
) -> tuple[ResNet | VGG, Card | None]:
    """As `load`; also what the file says of itself: classes, preprocessing, recipe (None in foreign files)."""
    path = _weight_file(Path(source), which)
    tensors, metadata = read_weights(path)
    card = None
    if "resnetlab" in metadata:
        try:
            card = Card.from_metadata(metadata)
        except ValueError as error:
            raise UserError(f"{path}: its description is damaged ({error}).") from error
    if net is None and card is None:
        raise UserError(f"{path}: doesn't say what network it holds; name it with --net.")
    spec = named_spec(net) if net else card.spec  # type: ignore[union-attr]  # one of them is there
    check_fit(path, spec.name, on_meta(spec).state_dict(), tensors)
    made = build(spec)
    made.load_state_dict(tensors)
    return made.eval(), card


def _weight_file(path: Path, which: str) -> Path:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if is_folder:
        if not (path / "run.json").exists():
            raise UserError(f"{path}: not a run folder, it has no run.json.")
        check_format(path / "run.json", read_json(path / "run.json"))
        return whole_folder(path / which) / WEIGHTS
    if not exists:
        raise UserError(f"{path}: no such run folder or weight file.")
    return path
