"""Readers of networks, recipes and weights: whole files for each, and how it reads them."""

from __future__ import annotations

import functools
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

import resnetlab
from resnetlab.data import normalisation
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.weights.interop import write_state
from resnetlab.weights.load import load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes
from resnetlab.weights.naming import NAMING_SCHEMES

RECIPE = b"""recipe = "cifar_paper"
net = "cifar_resnet20(mix=Scale(0.5, 1), shortcut=B)"
data = "digits"
epochs = 12.5
lr = 1e-1
schedule = "multistep"
milestones = [0.5, 0.75]
batch_size = 128
augment = 'none'
channels_last = true
"""


NETS = (
    "cifar_resnet110(mix=Scale(a=0.5, b=1.0), shortcut=C, num_classes=100)",
    "resnext50_32x4d(order=full_preact, groups=32, stages=((1, 64), (2, 128, 2)))",
    "cifar_wrn28_10(mix=ExclusiveGate(bias=-6), branch_scalar=None, zero_gamma=False)",
    "vgg16_bn(num_classes=10, batch_norm=True)",
)


def nets() -> dict[str, bytes]:
    return {"nets": "\n".join(NETS).encode()}


def read_recipe(folder: Path) -> None:
    try:
        values = recipe(str(folder / "mine.toml"))
        make_run(values, folder / "runs")
    finally:
        assert not (folder / "runs").exists()


def read_nets(folder: Path) -> None:
    for line in (folder / "nets").read_text(errors="surrogateescape").splitlines():
        spec = resnetlab.spec(line)
        assert resnetlab.spec(spec.name).to_dict()["name"] == spec.name


@functools.cache
def net() -> resnetlab.ResNet:
    return resnetlab.build("cifar_resnet8(stages=((1, 4), (1, 8, 2)), stem_width=4)", seed=0)


def card() -> ModelMetadata:
    ones = torch.ones(3, 1, 1)
    classes = tuple(f"class {i}" for i in range(10))
    return ModelMetadata(net().spec, classes, normalisation.Normalisation(ones / 2, ones), recipe("digits").to_dict())


def weights() -> dict[str, bytes]:
    return {"weights": weights_bytes(net(), card())}


@functools.cache
def peers() -> dict[str, dict[str, torch.Tensor]]:
    """Small networks' tensors under each project's names."""
    found = {}
    for naming, about in NAMING_SCHEMES.items():
        cifar = about.stems[0] == "cifar"
        made = resnetlab.build(
            "cifar_resnet8" if cifar else "resnet50",
            stages=((2, 4), (1, 8, 2), (1, 16, 2), (1, 32, 2))[: 3 if cifar else 4],
            stem_width=4,
            shortcut="A" if "A" in about.shortcuts and cifar else "B",
            zero_pad=about.zero_pad,
            **({} if cifar else {"stride_at": about.stride_at}),
            seed=0,
        )
        found[naming] = write_state(made.state_dict(), made.spec, naming)
    return found


def torchs(**how: Any) -> dict[str, bytes]:
    made = io.BytesIO()
    torch.save({"state_dict": peers()["akamaster"], "epoch": 3, "args": {"lr": 0.1}}, made, **how)
    return {"weights": made.getvalue()}


def npz() -> dict[str, bytes]:
    made = io.BytesIO()
    np.savez(made, **{name: tensor.numpy() for name, tensor in peers()["akamaster"].items()})
    return {"weights": made.getvalue()}


def read_weights(folder: Path) -> None:
    load_with_metadata(folder / "weights")


@functools.cache
def peer_files() -> dict[str, bytes]:
    return {name: save({k: t.contiguous() for k, t in state.items()}) for name, state in peers().items()}


def other_tensors(content: bytes, rng: random.Random) -> bytes:
    """The same file with some tensors lost, renamed, or of other shapes and types."""
    from safetensors.torch import load

    state = load(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        name = rng.choice(list(state))
        tensor = state.pop(name)
        kind = rng.randrange(7)
        if kind == 0:
            continue
        if kind == 1:
            name = rng.choice([f"module.{name}", f"{name}.0", name.replace("1", "9"), name.replace("layer", ""), ""])
        elif kind == 2:
            sizes = [
                (),
                (0,),
                (1,),
                (3,),
                (2, 3),
                (0, 4, 3, 3),
                (4, 3, 7, 7),
                (1,) * 8,
                (4, 0, 1, 1),
                (99_999, 1, 1, 1),
            ]
            tensor = torch.zeros(rng.choice(sizes))
        elif kind == 3:
            tensor = tensor.to(rng.choice([torch.int64, torch.bool, torch.uint8, torch.float16, torch.complex64]))
        elif kind == 4:
            tensor = torch.full_like(
                tensor, rng.choice([0, float("nan"), float("inf")]) if tensor.is_floating_point() else 0
            )
        elif kind == 5:
            tensor = tensor[None] if rng.random() < 0.5 else tensor.flatten()
        else:
            state[f"{name}.extra"] = tensor
        state[name] = tensor.contiguous()
    return save({name: tensor.clone() for name, tensor in state.items()})


def read_peers(folder: Path) -> None:
    """Read the one that is damaged, or all."""
    whole = peer_files()
    changed = [path for path in sorted(folder.iterdir()) if path.read_bytes() != whole[path.name]]
    for path in changed or sorted(folder.iterdir()):
        plain_too = "cifar_resnet8(stages=((2, 4), (1, 8, 2), (1, 16, 2)), stem_width=4)"  # with the same names
        load_with_metadata(path, net=plain_too if path.name == "a-martyn" else None)
