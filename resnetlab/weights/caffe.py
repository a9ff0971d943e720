"""The layer names and blobs of the paper's release in Caffe <-> our parameter names.

The blobs are tensors named LAYER.INDEX, e.g. res2a_branch2b.0, a weight. Caffe splits batch norm into two layers: "bn"
holds the mean, the variance and a factor that divides both, "scale" holds γ and β. Its networks read B, G, R, so the
input channels of conv1 are reversed, both ways. It does not count batches.
Source: github.com/KaimingHe/deep-residual-networks, prototxt/.
"""

from __future__ import annotations

import re
from collections import Counter

import torch
from torch import Tensor

from resnetlab.errors import UserError

# e.g. bn3b7_branch2c: batch norm, the third size of maps, unit b7, the branch's third convolution
LAYER = re.compile(r"(res|bn|scale)([2-9])([a-z])(\d{0,3})_branch(1|2[abc])")
STEM = {"conv1": "conv", "bn_conv1": "bn", "scale_conv1": "scale"}
TENSORS = {
    "conv": ("weight", "bias"),  # ResNet-50's conv1 has a bias, no other convolution does
    "bn": ("running_mean", "running_var"),
    "scale": ("weight", "bias"),
    "fc": ("weight", "bias"),
}
MOST_LETTERS = 6  # a longest stage of 6 units has a to f; in deeper nets, units are a, b1, b2, ...


def from_caffe(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names; those without Caffe's names, or with a blob missing, stay as they are.

    Raises UserError for a batch norm whose factor is 0, i.e. that has seen no images, and for an fc that is no matrix.
    """
    made = dict(state)
    for layer in dict.fromkeys(key.rpartition(".")[0] for key in state):
        kind, name = _ours(layer)
        blobs = [state[f"{layer}.{i}"] for i in range(3) if f"{layer}.{i}" in state]
        if not kind or len(blobs) != {"conv": min(len(blobs), 2), "bn": 3}.get(kind, 2):
            continue
        for i in range(len(blobs)):
            del made[f"{layer}.{i}"]
        if kind == "bn":
            factor = blobs.pop()
            if factor.numel() != 1 or not factor.item():
                raise UserError(f"the third blob of {layer} should be a single nonzero number")
            blobs = [blob / factor.flatten() for blob in blobs]
        for tensor, blob in zip(TENSORS[kind], blobs, strict=False):
            if kind != "conv":  # early Caffe's blobs have four dimensions, whatever they hold
                matrix = (kind, tensor) == ("fc", "weight")
                if matrix and (blob.ndim < 2 or blob.numel() != blob.shape[-2:].numel()):
                    raise UserError(f"the first blob of {layer} should be a matrix; its shape is {tuple(blob.shape)}")
                blob = blob.reshape(blob.shape[-2:]) if matrix else blob.flatten()
            made[f"{name}.{tensor}"] = blob
    return _channels_turned(made)


def to_caffe(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_caffe`, with 1 for every factor; num_batches_tracked has no place."""
    units = Counter(key.split(".")[0] for key in state if re.fullmatch(r"layer\d\.\d+\.conv1\.weight", key))
    made: dict[str, Tensor] = {}
    for key, tensor in _channels_turned(state).items():
        name, _, what = key.rpartition(".")
        layer = _place(name, units)
        if name == "fc":
            made[f"fc{len(tensor)}.{0 if what == 'weight' else 1}"] = tensor
        elif what.startswith("running"):
            made[f"bn{layer}.{0 if what == 'running_mean' else 1}"] = tensor
            made[f"bn{layer}.2"] = torch.ones(1)
        elif re.search(r"(bn|downsample\.1)\d*$", name) and what in TENSORS["scale"]:
            made[f"scale{layer}.{0 if what == 'weight' else 1}"] = tensor
        elif what == "weight":
            made["conv1.0" if name == "conv1" else f"res{layer}.0"] = tensor
    return made


def _ours(layer: str) -> tuple[str, str]:
    """The kind of a Caffe layer (conv, bn, scale, fc) and our name for it; ("", "") for other layers."""
    if layer in STEM:
        return STEM[layer], "conv1" if layer == "conv1" else "bn1"
    if re.fullmatch(r"fc\d*", layer):
        return "fc", "fc"
    if not (found := LAYER.fullmatch(layer)):
        return "", ""
    kind = "conv" if found[1] == "res" else found[1]
    unit = int(found[4]) if found[4] else ord(found[3]) - ord("a")
    if found[5] == "1":
        name = "downsample.0" if kind == "conv" else "downsample.1"
    else:
        name = f"{'conv' if kind == 'conv' else 'bn'}{'abc'.index(found[5][1]) + 1}"
    return kind, f"layer{int(found[2]) - 1}.{unit}.{name}"


def _place(name: str, units: Counter[str]) -> str:
    """What follows res, bn or scale in the name of a Caffe layer, from our name of the module."""
    found = re.fullmatch(r"(layer(\d))\.(\d+)\.(conv|bn|downsample\.)(\d)", name)
    if not found:
        return "_conv1"
    stage, number, unit, kind, index = found.groups()
    numbered = max(units.values()) > MOST_LETTERS and units[stage] > 3
    letter = f"b{unit}" if numbered and unit != "0" else chr(ord("a") + int(unit))
    branch = "1" if kind == "downsample." else "2" + "abc"[int(index) - 1]
    return f"{int(number) + 1}{letter}_branch{branch}"


def _channels_turned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """R G B <-> B G R, in the weight of conv1."""
    conv1 = state.get("conv1.weight")
    if conv1 is None or conv1.ndim != 4 or conv1.shape[1] != 3:
        return state
    return state | {"conv1.weight": conv1.flip(1)}
