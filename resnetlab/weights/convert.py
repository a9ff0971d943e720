"""`convert`: a trained network as a weight file with another project's names."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError, check_choice
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.storage import check_absent, write_new
from resnetlab.weights.interop import OURS, normalisation, write_state
from resnetlab.weights.load import Loaded, load_described
from resnetlab.weights.metadata import weights_bytes
from resnetlab.weights.naming import NAMING_SCHEMES, MeanStd
from resnetlab.weights.reading import Reading

SUFFIXES = (".safetensors", ".pth", ".pt", ".npz")


@dataclass(frozen=True)
class Converted:
    """A file that was written: its network, and what is known about the network but not in the file, in words."""

    spec: Spec
    not_in_file: tuple[str, ...]


def convert(source: str | Path, out: Path, naming: str, **reading: Unpack[Reading]) -> Converted:
    """Write the network of a run folder or weight file to `out`, with the names of a naming scheme.

    The suffix decides the format: .safetensors, .pth or .pt (torch), .npz (NumPy). reading is for
    `load_described`. Raises UserError, and writes nothing, if `out` exists, for a source that `load` refuses, for a
    network that the scheme can't hold, and for a normalisation that the file could not state.
    """
    check_choice("to", naming, [OURS, *NAMING_SCHEMES])
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: the name must end in one of {', '.join(SUFFIXES)}.")
    check_absent(out)
    describes = naming == OURS and out.suffix == ".safetensors"
    if reading.get("normalise") is not None and not describes:
        raise UserError(
            f"{out}: only a .safetensors file with --to {OURS} can state a normalisation; leave --normalise out."
        )
    loaded = load_described(source, **reading)
    network, metadata = loaded.net, loaded.metadata
    state = write_state(network.state_dict(), network.spec, naming)
    write_new(out, weights_bytes(network, metadata or network.spec) if describes else _bytes(state, out.suffix))
    return Converted(network.spec, tuple(_not_in_file(loaded, naming, describes)))


def _not_in_file(loaded: Loaded, naming: str, describes: bool) -> Iterator[str]:
    """What is known about a network but not in a file with these names, or what its readers would assume otherwise.

    describes: whether the file has all metadata.
    """
    spec, metadata = loaded.net.spec, loaded.metadata
    if describes:
        if loaded.classes and not metadata:
            yield "the names of its classes, which go with a normalisation (--normalise)"
        return
    if naming == OURS:
        yield f"which network it is ({spec.name or 'without a name'})"
    if loaded.classes:
        yield "the names of its classes"
    if isinstance(spec, NetSpec) and spec.input_size != (32 if spec.stem == "cifar" else 224):
        yield f"the size of its images ({spec.input_size} pixels)"
    theirs = normalisation(naming, spec)
    if metadata and not (theirs and _is_same(metadata.normalisation, theirs)):
        yield "the normalisation of its images"
    if metadata and metadata.resizing:
        yield f"how its images are resized ({metadata.resizing.words(spec.input_size)})"
    if naming == "caffe":
        yield "how many batches batch norm has seen"


def _is_same(one: Normalisation, other: MeanStd) -> bool:
    """Whether both normalise equally, apart from rounding."""
    pairs = zip((one.mean, one.std), other, strict=True)
    return all(t.shape[1:] == (1, 1) and torch.allclose(t.flatten(), torch.tensor(v), atol=1e-5) for t, v in pairs)


def _bytes(state: dict[str, Tensor], suffix: str) -> bytes:
    """A file's content: tensors by name."""
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    if suffix == ".safetensors":
        return save(state, {"format": "pt"})  # what other libraries look for
    buffer = io.BytesIO()
    if suffix == ".npz":
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        np.savez(buffer, **arrays)  # type: ignore[arg-type]  # allow_pickle would be an array to NumPy 1
    else:
        torch.save(state, buffer)
    return buffer.getvalue()
