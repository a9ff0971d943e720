"""Networks that their tensors can't tell from others: refused where a file or its folder names them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import resnetlab
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet

SMALL = "resnet18(stages=((1,8,1),(1,8,2),(1,8,2),(1,8,2)), stem_width=8)"


@pytest.fixture(scope="module")
def net() -> ResNet:
    made = resnetlab.build(SMALL, num_classes=3, seed=0)
    assert isinstance(made, ResNet)
    return made


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("resnetblur50-84f4748f.pth", "resnetblur50"),
        ("my_resnetaa50.pt", "resnetaa50"),
        ("seresnextaa101d_32x8d.sw_in12k.pth", "seresnextaa101d_32x8d"),
        ("ResNetBlur18.pth", "ResNetBlur18"),
    ],
)
def test_a_name_of_a_file(net: ResNet, tmp_path: Path, name: str, architecture: str) -> None:
    torch.save(net.state_dict(), tmp_path / name)
    with pytest.raises(UserError, match=f"its name says that it is {architecture}, whose anti-aliasing") as refused:
        resnetlab.load(tmp_path / name)
    assert "--net NAME loads it all the same" in str(refused.value)
    assert resnetlab.load(tmp_path / name, net=SMALL).spec.num_classes == 3


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("resnet50-caffe.pth", "it comes from caffe, whose networks take BGR pixels of 0 to 255"),
        ("resnet50_msra-5891d200.pth", "it comes from msra, whose networks"),
        ("resnet50_dilated_os8.pth", "it is dilated, and resnetlab has no dilation|it is os8, and"),
    ],
)
def test_other_things_that_a_name_says(net: ResNet, tmp_path: Path, name: str, meaning: str) -> None:
    torch.save(net.state_dict(), tmp_path / name)
    with pytest.raises(UserError, match=f"its name says that ({meaning})"):
        resnetlab.load(tmp_path / name)
    assert resnetlab.load(tmp_path / name, net=SMALL).spec.num_classes == 3


@pytest.mark.parametrize(
    "name",
    [
        *("caffeine.pth", "resnet20_msra_init.pth", "latte-caffe-mocha.pth", "r-os800.pth", "resnet50.pth"),
        *("resnetaa.pth", "blur.pth", "resnet18-blurred.pth"),
    ],
)
def test_other_names_are_read(net: ResNet, tmp_path: Path, name: str) -> None:
    torch.save(net.state_dict(), tmp_path / name)
    assert resnetlab.load(tmp_path / name).spec.num_classes == 3


@pytest.mark.parametrize("key", ["arch", "architecture", "model_name"])
def test_what_a_checkpoint_states(net: ResNet, tmp_path: Path, key: str) -> None:
    torch.save({key: "resnetaa50d", "state_dict": net.state_dict()}, tmp_path / "last.pth")
    with pytest.raises(UserError, match="it states that it is resnetaa50d"):
        resnetlab.load(tmp_path / "last.pth")
    save_file(net.state_dict(), tmp_path / "x.safetensors", {key: "resnetblur18"})
    with pytest.raises(UserError, match="it states that it is resnetblur18"):
        resnetlab.load(tmp_path / "x.safetensors")
    for name in ("args", "hyper_parameters"):
        torch.save({name: {key: "resnetaa50d"}, "state_dict": net.state_dict()}, tmp_path / "last.pth")
        with pytest.raises(UserError, match="it states that it is resnetaa50d"):
            resnetlab.load(tmp_path / "last.pth")
    torch.save({key: "ResNet", "state_dict": net.state_dict()}, tmp_path / "other.pth")
    assert resnetlab.load(tmp_path / "other.pth").spec.num_classes == 3


def in_folder(folder: Path, net: ResNet, config: Any) -> Path:
    folder.mkdir()
    save_file(net.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"architecture": "ecaresnet50d", "pretrained_cfg": {}},
            "timm's 'ecaresnet50d', which resnetlab does not have",
        ),
        ({"architecture": "resnetaa50", "pretrained_cfg": {}}, "timm's 'resnetaa50'"),
        ({"architecture": "resnetaa50", "mean": [0.5] * 3, "std": [0.5] * 3}, "timm's 'resnetaa50'"),
        ({"architecture": "resnet18", "pretrained_cfg": {}, "model_args": {"output_stride": 8}}, "output_stride=8"),
        ({"architecture": "resnet18", "pretrained_cfg": {}, "global_pool": "max"}, "global_pool='max'"),
        ({"model_type": "resnet", "downsample_in_bottleneck": True}, "downsample_in_bottleneck=True"),
        ({"problem_type": "multi_label_classification"}, "problem_type='multi_label_classification'"),
        ({"model_type": "resnet", "hidden_act": "gelu"}, "hidden_act='gelu'"),
    ],
)
def test_a_folder_of_the_hub(net: ResNet, tmp_path: Path, config: Any, reason: str) -> None:
    folder = in_folder(tmp_path / "theirs", net, config)
    with pytest.raises(UserError, match=f"config.json beside it says .*{reason}"):
        resnetlab.load(folder)
    assert resnetlab.load(folder, net=SMALL).spec.num_classes == 3


@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "resnet18", "pretrained_cfg": {}, "model_args": {"num_classes": 3}, "global_pool": "avg"},
        {"architecture": "tv_resnet50", "pretrained_cfg": {}},
        {"architecture": "MyNetwork"},
        {"model_type": "resnet", "hidden_act": "relu", "downsample_in_bottleneck": False},
        "not JSON",
        "[1]",
    ],
)
def test_what_config_says_of_networks_that_are_here(net: ResNet, tmp_path: Path, config: Any) -> None:
    assert resnetlab.load(in_folder(tmp_path / "theirs", net, config)).spec.num_classes == 3


def test_a_folder_that_is_named_after_its_network(net: ResNet, tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "resnetaa50.a1h_in1k", net, {})
    with pytest.raises(UserError, match="its name says that it is resnetaa50"):
        resnetlab.load(folder)
