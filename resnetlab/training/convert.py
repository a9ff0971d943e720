"""`convert`: a trained network as a weight file with another project's names."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from resnetlab.errors import UserError, check_choice
from resnetlab.nets.interop import OURS, write_state
from resnetlab.nets.layouts import LAYOUTS
from resnetlab.nets.zoo import Spec
from resnetlab.storage import write_atomically
from resnetlab.training.checkpoint import weights_bytes
from resnetlab.training.load import load_with_card

SUFFIXES = (".safetensors", ".pth", ".pt", ".npz")


def convert(source: str | Path, out: Path, layout: str, *, net: str | None = None, which: str = "last") -> Spec:
    """Write the network of a run folder or weight file to `out`, with the names of `layout`; return its spec.

    The suffix says how: .safetensors, .pth or .pt (torch), .npz (NumPy). Raises UserError, and writes nothing, where
    `out` exists, for a source that `load` refuses, and for a network that the layout can't hold.
    """
    check_choice("to", layout, [OURS, *LAYOUTS])
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: the name must end in one of {', '.join(SUFFIXES)}.")
    if out.exists():
        raise UserError(f"{out}: already exists; remove it, or choose another name.")
    network, card = load_with_card(source, net=net, which=which)
    state = write_state(network.state_dict(), network.spec, layout)
    if layout == OURS and out.suffix == ".safetensors":
        content = weights_bytes(network, card or network.spec)
    else:
        content = _bytes(state, out.suffix)
    try:
        write_atomically(out, content, new=True)
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror}).") from error
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
