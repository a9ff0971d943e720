"""Weights in several files: read through their index, in a folder or by itself, or refused with one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError
from resnetlab.weights.files import MOST_BYTES
from resnetlab.weights.load import load_described

NET = "resnet18(stages=[(1, 8), (1, 8, 2), (1, 8, 2), (1, 8, 2)], stem_width=8, num_classes=2)"
SAFE, OLD = "model-{:05}-of-00002.safetensors", "pytorch_model-{:05}-of-00002.bin"


def write(folder: Path, name: str = SAFE) -> Path:
    """The network in two parts with their index, as Hugging Face's libraries write it; its index."""
    state = resnetlab.build(NET, seed=0).state_dict()
    keys = list(state)
    halves = [{key: state[key] for key in part} for part in (keys[:30], keys[30:])]
    for number, half in enumerate(halves, 1):
        if name == SAFE:
            save_file(half, folder / name.format(number), {"format": "pt"})
        else:
            torch.save(half, folder / name.format(number))
    places = {key: name.format(number) for number, half in enumerate(halves, 1) for key in half}
    index = folder / ("model.safetensors.index.json" if name == SAFE else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


@pytest.mark.parametrize("name", [SAFE, OLD])
def test_a_network_in_parts_is_whole(name: str, tmp_path: Path) -> None:
    wanted = resnetlab.build(NET, seed=0).state_dict()
    index = write(tmp_path, name)
    told = {
        "input_size": [3, 64, 64],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": told}))
    for source in (tmp_path, index):
        loaded = load_described(source)
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in loaded.net.state_dict().items())
        assert loaded.resizing == Resizing(0.95, "bicubic")
        assert loaded.net.spec.input_size == 64
        assert loaded.files == [index, tmp_path / name.format(1), tmp_path / name.format(2)]


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def write_again(index: Path) -> None:
        values = json.loads(index.read_text())
        change(values)
        index.write_text(json.dumps(values))

    return write_again


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a part is gone": (
        lambda i: i.with_name(SAFE.format(2)).unlink(),
        r"00002-of-00002.safetensors: can't be read \(No such file",
    ),
    "no parts": (changed(lambda v: v["weight_map"].clear()), "model.safetensors.index.json: holds no tensors"),
    "a part is cut": (
        lambda i: i.with_name(SAFE.format(1)).write_bytes(i.with_name(SAFE.format(1)).read_bytes()[:-9]),
        "model-00001-of-00002.safetensors: not a complete safetensors file",
    ),
    "no JSON": (lambda i: i.write_text("{"), "model.safetensors.index.json: "),
    "no map": (changed(dict.clear), "model.safetensors.index.json: damaged, .*weight_map"),
    "a number in it": (changed(lambda v: v["weight_map"].update(a=1)), r"damaged, weight_map.a is 1"),
    "elsewhere": (
        changed(lambda v: v["weight_map"].update(a="../model-00001-of-00002.safetensors")),
        r"damaged, '../model-00001-of-00002.safetensors' in it is not the name of a part",
    ),
    "a tensor in none": (
        changed(lambda v: v["weight_map"].update(a=SAFE.format(1))),
        "damaged, 'a' is in none of its parts",
    ),
    "a tensor in both": (
        lambda i: save_file({"fc.bias": torch.zeros(2), "conv1.weight": torch.zeros(1)}, i.with_name(SAFE.format(2))),
        "damaged, 'conv1.weight' is in two of its parts",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_one_line(kind: str, tmp_path: Path) -> None:
    damage, words = DAMAGES[kind]
    damage(write(tmp_path))
    with pytest.raises(UserError, match=words) as caught:
        resnetlab.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_part_is_not_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert main(["predict", str(tmp_path / SAFE.format(1)), "x.png"]) == 2
    said = capsys.readouterr().err
    assert "one of several files of a network; give their folder, or model.safetensors.index.json beside it" in said


def test_parts_that_are_too_large_together_are_not_read(tmp_path: Path) -> None:
    index = write(tmp_path)
    for number in (1, 2):
        with (tmp_path / SAFE.format(number)).open("r+b") as file:
            file.truncate(MOST_BYTES // 2 + 1)
    with pytest.raises(UserError, match="too large for a network's weights, with 16 GiB"):
        resnetlab.load(index)


def test_a_folder_of_other_files_says_which_to_give(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "best.pth")
    with pytest.raises(
        UserError, match=r"neither run.json nor model.safetensors; give a file in it, such as 'best.pth'"
    ):
        resnetlab.load(tmp_path)
