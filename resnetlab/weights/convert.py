"""`convert`: a trained network as a weight file with another project's names."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from resnetlab.errors import UserError, check_choice
from resnetlab.nets.zoo import Spec
from resnetlab.storage import check_absent, write_new
from resnetlab.weights.interop import OURS, write_state
from resnetlab.weights.load import load_with_metadata
from resnetlab.weights.metadata import weights_bytes
from resnetlab.weights.naming import NAMING_SCHEMES

SUFFIXES = (".safetensors", ".pth", ".pt", ".npz")


def convert(source: str | Path, out: Path, naming: str, *, net: str | None = None, which: str = "last") -> Spec:
    """Write the network of a run folder or weight file to `out`, with the names of a naming scheme; return its spec.

    The suffix says how: .safetensors, .pth or .pt (torch), .npz (NumPy). Raises UserError, and writes nothing, where
    `out` exists, for a source that `load` refuses, and for a network that the scheme can't hold.
    """
    check_choice("to", naming, [OURS, *NAMING_SCHEMES])
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: the name must end in one of {', '.join(SUFFIXES)}.")
    check_absent(out)
    network, metadata = load_with_metadata(source, net=net, which=which)
    state = write_state(network.state_dict(), network.spec, naming)
    if naming == OURS and out.suffix == ".safetensors":
        content = weights_bytes(network, metadata or network.spec)
    else:
        content = _bytes(state, out.suffix)
    write_new(out, content)
    return network.spec


def _bytes(state: dict[str, Tensor], suffix: str) -> bytes:
    """A file's content: tensors by name."""
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    if suffix == ".safetensors":
        return save(state, {"format": "pt"})  # what other libraries look for
    buffer = io.BytesIO()
    if suffix == ".npz":
        np.savez(buffer, allow_pickle=False, **{name: tensor.numpy() for name, tensor in state.items()})
    else:
        torch.save(state, buffer)
    return buffer.getvalue()
