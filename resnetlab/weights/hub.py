"""Networks in folders with the layout of the Hugging Face hub: `save_pretrained` and `from_pretrained`.

FOLDER/model.safetensors holds the weights, with the network and the preprocessing as metadata; FOLDER/config.json
states the same as readable text: network, classes, mean, deviation, recipe.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from resnetlab.errors import UserError, shown
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import Spec, on_meta
from resnetlab.paths import expanded
from resnetlab.storage import check_absent, write_atomically
from resnetlab.weights.files import misfit
from resnetlab.weights.hub_files import MODEL, REPOSITORY
from resnetlab.weights.load import load, load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes


def save_pretrained(
    source: ResNet | VGG | str | os.PathLike[str], folder: str | Path, *, card: ModelMetadata | None = None
) -> None:
    """Write a network into a folder that can be uploaded to the hub as it is: `hf upload OWNER/NAME FOLDER`.

    `source` is a run folder or a weight file, with its metadata, or a network in memory, whose metadata is `card`, if
    there is any, without the accuracy in it, as the weights may have changed; its fully connected layer may have been
    replaced by one for other classes. Raises UserError if the folder holds such files already, for a network that was
    changed in other ways, and as `load` does.
    """
    folder = expanded(folder)
    if card is not None:
        _check_card(card)
    for name in (MODEL, "config.json"):
        check_absent(folder / name, "choose another folder")
    if isinstance(source, ResNet | VGG):
        net = source
        card = card and replace(card, measured={})  # it is of exactly the weights of a file
        spec = card.spec if card else _present_spec(net)
        as_built = on_meta(spec)
        if words := misfit(as_built.state_dict(), net.state_dict()) or _changed(as_built, net):
            raise UserError(
                f"the network is no longer {spec.name or 'that of its spec'}: {words}. Nothing was written."
            )
    elif isinstance(source, str | os.PathLike):  # also what `train` returns
        net, found = load_with_metadata(os.fspath(source))
        card, spec = card or found, net.spec
    else:
        inside = "; of a wrapped network, give the one inside" if isinstance(source, nn.Module) else ""
        raise UserError(f"{shown(source)} is not a network, run folder or weight file of resnetlab's{inside}.")
    values: dict[str, Any] = card.to_dict() if card else {"spec": spec.to_dict()}
    config = {"library_name": "resnetlab", "architecture": spec.name, "num_classes": spec.num_classes, **values}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / MODEL, weights_bytes(net, card or spec))
        write_atomically(folder / "config.json", json.dumps(config, indent=1).encode())
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror}).") from error


def _check_card(card: object) -> None:
    """Raise UserError for metadata that `load` would refuse, or that JSON can't hold."""
    if not isinstance(card, ModelMetadata):
        raise UserError(f"card={shown(card)} must be the metadata of a network: a ModelMetadata, or None.")
    try:
        ModelMetadata.from_dict(json.loads(json.dumps(card.to_dict())))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"card can't be used: {error}. Nothing was written.") from error


def _changed(wanted: nn.Module, found: nn.Module) -> str:
    """The first layer whose kind or settings are not those wanted, in words; "" if none is."""
    layers, present = _layers(wanted), _layers(found)
    for name in layers | present:
        if layers.get(name) != present.get(name):
            what = f"layer {name}" if name else "it"
            return f"{what} is {present.get(name, 'missing')}, not {layers.get(name, 'one of its layers')}"
    return ""


def _layers(net: nn.Module) -> dict[str, str]:
    """Each module's kind and settings, by its name, as far as they change an answer."""
    found = {}
    for name, module in net.named_modules(remove_duplicate=False):
        kind = nn.BatchNorm2d if isinstance(module, nn.SyncBatchNorm) else type(module)  # they differ in training only
        settings = re.sub(r"(, )?(momentum=[^,]*|inplace=True)", "", module.extra_repr())
        found[name] = f"{kind.__qualname__}({settings})"
    return found


def _present_spec(net: ResNet | VGG) -> Spec:
    """The network's spec, with as many classes as its fully connected layer has now."""
    return replace(net.spec, num_classes=net.fc.out_features) if isinstance(net.fc, nn.Linear) else net.spec


def from_pretrained(source: str | Path, *, net: str | Spec | None = None, revision: str | None = None) -> ResNet | VGG:
    """The network of a folder that `save_pretrained` wrote, or of a repository of the hub, "owner/name".

    A folder is read without network access. A repository is fetched once and then read from the cache; repositories
    with torchvision's names (timm's) can be read too. `net` names the network if the file doesn't determine it;
    `revision` is a branch, tag or commit. Raises UserError for any other source, and if it can't be fetched or used.
    """
    if os.path.exists(expanded(source)):  # unlike pathlib, of any text, however long
        return load(source, net=net)
    if not REPOSITORY.fullmatch(str(source)):
        raise UserError(f"{source}: neither a folder nor a repository name (owner/name).")
    return load(f"hf:{source}@{revision}" if revision else f"hf:{source}", net=net)
