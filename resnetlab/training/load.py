"""`load`: a trained network from a run folder or a weight file, and what it was trained for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError
from resnetlab.nets.interop import OURS, Found, normalisation, read_state
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build, on_meta
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.storage import is_there
from resnetlab.training.checkpoint import WEIGHTS, Card, described, whole_folder
from resnetlab.training.fit import check_fit
from resnetlab.training.run_files import SETTINGS, read_settings
from resnetlab.training.weights import read_file

MODEL = "model.safetensors"  # the weights in a folder of the Hugging Face hub


def load(source: str | Path, *, net: str | None = None, which: str = "last") -> ResNet | VGG:
    """Return the network of a run folder (its "last" or "best" weights) or of a weight file, ours or a peer's.

    A file that resnetlab wrote says what network it holds, and so do the names in most others (docs/weights.md);
    where they don't, `net` names it. The network comes in evaluation mode. Raises UserError if the weights don't
    fit it, naming the first that differ: none is loaded then.
    """
    return load_with_card(source, net=net, which=which)[0]


def load_with_card(
    source: str | Path, *, net: str | None = None, which: str = "last"
) -> tuple[ResNet | VGG, Card | None]:
    """As `load`; also what is known of it: classes, preprocessing, recipe.

    Of a peer's file that is the preprocessing its project trained with, and numbers for classes; None where that
    is not known.
    """
    loaded = load_described(source, net=net, which=which)
    return loaded.net, loaded.card


@dataclass(frozen=True)
class Loaded:
    """A network, what is known of it, and where that is from."""

    net: ResNet | VGG
    card: Card | None  # as `load_with_card` gives it
    layout: str  # whose parameter names the file has, as nets.layouts calls them; "resnetlab" for ours
    file: Path  # of the weights


def load_described(source: str | Path, *, net: str | None = None, which: str = "last") -> Loaded:
    """As `load_with_card`; also the file, and the layout of its names."""
    path = _weight_file(Path(source), which)
    tensors, metadata = read_file(path)
    layout = OURS
    if "resnetlab" in metadata:
        try:
            spec, card = described(metadata)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: its description is damaged ({error}).") from error
        spec = named_spec(net) if net else spec
    else:
        try:
            found = read_state(tensors, net)
        except UserError as error:
            raise UserError(f"{path}: {str(error).rstrip('.')}.") from error
        layout, tensors, spec = found.layout, found.state, found.spec
        card = _card(found)
    check_fit(path, spec.name, on_meta(spec).state_dict(), tensors)
    made = build(spec)
    made.load_state_dict(tensors)
    return Loaded(made.eval(), card, layout, path)


def _card(found: Found) -> Card | None:
    """What the layout of a peer's file tells beside the network."""
    known = normalisation(found.layout, found.spec)
    if known is None:
        return None
    mean, std = (torch.tensor(values)[:, None, None] for values in known)  # C 1 1
    return Card(found.spec, tuple(map(str, range(found.spec.num_classes))), Normalisation(mean, std), recipe={})


def _weight_file(path: Path, which: str) -> Path:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if is_folder:
        if (path / MODEL).exists():
            return path / MODEL
        if not is_there(path / SETTINGS):
            raise UserError(f"{path}: not a run folder, it has no {SETTINGS}, nor does it hold a {MODEL}.")
        weights = whole_folder(path / which) / WEIGHTS
        read_settings(path, f"its weights may be whole: give {weights} in place of the folder")
        return weights
    if not exists:
        raise UserError(f"{path}: no such run folder or weight file.")
    return path
