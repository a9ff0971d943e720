"""Parameter names and shapes are torchvision's, so that its weight files load as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resnetlab.nets import zoo

# torchvision's state dicts, name by name: 122, 320 and 32 entries.
TORCHVISION: dict[str, dict[str, list[int]]] = json.loads(
    Path(__file__).with_name("torchvision_names.json").read_text()
)


@pytest.mark.parametrize("name", TORCHVISION)
def test_names_and_shapes(name: str) -> None:
    state = zoo.on_meta(zoo.spec(name)).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == TORCHVISION[name]


@pytest.mark.parametrize("name", TORCHVISION)
def test_order(name: str) -> None:
    """In torchvision's order too: optimizer states and flattened weights are read by position."""
    assert list(zoo.on_meta(zoo.spec(name)).state_dict()) == list(TORCHVISION[name])


@pytest.mark.parametrize("name", ["resnet50_v1", "wide_resnet50_2", "resnext50_32x4d"])
def test_variants_of_resnet50_have_its_names(name: str) -> None:
    assert list(zoo.on_meta(zoo.spec(name)).state_dict()) == list(TORCHVISION["resnet50"])


def test_a_plain_net_has_the_names_without_the_projections() -> None:
    expected = [key for key in TORCHVISION["resnet18"] if "downsample" not in key]
    assert list(zoo.on_meta(zoo.spec("plain18")).state_dict()) == expected


def test_gates_stand_beside_the_branch() -> None:
    """A gate adds names and changes none, so that an ungated net's weights fit."""
    names = set(zoo.on_meta(zoo.spec("resnet18(mix=ShortcutGate(-6))")).state_dict())
    units = [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    gates = {f"{unit}.mix.part.conv.{kind}" for unit in units for kind in ("weight", "bias")}
    assert names == TORCHVISION["resnet18"].keys() | gates
