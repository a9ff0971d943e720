"""The trained networks that come with the package: the files of weights/pretrained/, with their metadata."""

from __future__ import annotations

import re
from pathlib import Path

from resnetlab.errors import UserError, did_you_mean, shown
from resnetlab.weights.files import read_header
from resnetlab.weights.metadata import ModelMetadata, described
from resnetlab.weights.published import TORCHVISION

FOLDER = Path(__file__).parent / "pretrained"
SUFFIX = ".safetensors"


def names() -> list[str]:
    """The networks with weights in the package, shallow ones first."""
    found = [path.stem for path in FOLDER.glob(f"*{SUFFIX}")]
    return sorted(found, key=lambda name: (re.sub(r"\d+", "", name), [int(n) for n in re.findall(r"\d+", name)]))


def path_of(name: str) -> Path:
    """The file with a network's weights. Raises UserError, with the names that there are, for any other name."""
    there = names()
    if name not in there:
        known = f"it has those of {', '.join(there)}" if there else "it has none yet"
        elsewhere = f" torchvision's are called torchvision:{name}." if name in TORCHVISION else ""
        raise UserError(
            f"pretrained:{shown(name)[1:-1]}: the package has no such weights, {known}."
            f"{elsewhere or did_you_mean(name, there)}"
        )
    return FOLDER / f"{name}{SUFFIX}"


def stated(name: str) -> ModelMetadata:
    """The metadata of a network's file; its weights are not read. Raises UserError for a damaged file."""
    path = path_of(name)
    try:
        metadata = described(read_header(path))[1]
    except (ValueError, KeyError, RecursionError) as error:
        raise UserError(f"{path}: its description is damaged ({error}); install resnetlab again.") from error
    assert metadata is not None, f"{path} says only which network it is"
    return metadata
