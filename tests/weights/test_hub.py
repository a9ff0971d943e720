"""Folders of the Hugging Face hub: written, and read without the network; torch.hub."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import resnetlab
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import on_meta
from resnetlab.weights.load import load_with_metadata
from resnetlab.weights.metadata import ModelMetadata


@pytest.fixture(scope="module")
def net() -> ResNet | VGG:
    return resnetlab.build("cifar_resnet8", seed=0, num_classes=2)


def assert_same(found: ResNet | VGG, wanted: ResNet | VGG) -> None:
    assert found.spec == wanted.spec
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in wanted.state_dict().items())


def test_a_network_with_its_card_there_and_back(net: ResNet | VGG, tmp_path: Path) -> None:
    card = ModelMetadata(net.spec, ("ant", "bee"), imagenet(), {"epochs": 3})
    resnetlab.save_pretrained(net, tmp_path / "a/b", card=card)
    assert sorted(p.name for p in (tmp_path / "a/b").iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "a/b/config.json").read_text())
    assert (config["architecture"], config["num_classes"], config["classes"]) == ("cifar_resnet8", 2, ["ant", "bee"])
    assert_same(resnetlab.from_pretrained(tmp_path / "a/b"), net)
    assert_same(resnetlab.from_pretrained(str(tmp_path / "a/b/model.safetensors")), net)
    found = load_with_metadata(tmp_path / "a/b")[1]
    assert found is not None
    assert (found.classes, found.recipe) == (card.classes, card.recipe)


def test_a_file_of_weights_goes_with_what_is_known_of_it(net: ResNet | VGG, tmp_path: Path) -> None:
    resnetlab.save_pretrained(net, tmp_path / "bare")
    assert load_with_metadata(tmp_path / "bare")[1] is None
    torch.save(resnetlab.build("resnet18", seed=0).state_dict(), tmp_path / "x.pth")
    resnetlab.save_pretrained(tmp_path / "x.pth", tmp_path / "peers")
    card = load_with_metadata(tmp_path / "peers")[1]
    assert card is not None
    assert torch.equal(card.normalisation.mean, imagenet().mean)


def test_a_network_with_a_new_head_is_saved_with_its_number_of_classes(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_resnet8", seed=0)
    net.fc = torch.nn.Linear(64, 4)
    resnetlab.save_pretrained(net, tmp_path / "new")
    found = resnetlab.from_pretrained(tmp_path / "new")
    assert found.spec.num_classes == 4
    assert all(torch.equal(tensor, found.state_dict()[key]) for key, tensor in net.state_dict().items())
    assert json.loads((tmp_path / "new/config.json").read_text())["num_classes"] == 4


def test_the_accuracy_of_a_file_is_not_that_of_a_network_in_memory(tmp_path: Path) -> None:
    """It may have been trained on since it was loaded."""
    source = "pretrained:cifar_resnet20"
    net, card = load_with_metadata(source)
    assert card is not None
    assert card.measured
    resnetlab.save_pretrained(net, tmp_path / "memory", card=card)
    resnetlab.save_pretrained(source, tmp_path / "file")
    for name, measured in (("memory", {}), ("file", card.measured)):
        found = load_with_metadata(tmp_path / name)[1]
        assert found is not None
        assert (found.classes, found.measured) == (card.classes, measured)
        assert json.loads((tmp_path / name / "config.json").read_text()).get("measured", {}) == measured


def test_a_network_that_no_spec_describes_is_not_saved(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_resnet8", seed=0)
    net.fc = torch.nn.Identity()  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"no longer cifar_resnet8: it lacks fc.weight .*Nothing was written"):
        resnetlab.save_pretrained(net, tmp_path / "headless")
    net = resnetlab.build("cifar_resnet8", seed=0)
    net.fc = torch.nn.Linear(64, 4)
    card = ModelMetadata(net.spec, None, imagenet(), {})
    with pytest.raises(UserError, match=r"fc.weight is \(4, 64\), not \(10, 64\)"):
        resnetlab.save_pretrained(net, tmp_path / "card", card=card)
    assert not list(tmp_path.iterdir())


def replaced(net: torch.nn.Module, kind: type[torch.nn.Module], by: torch.nn.Module) -> None:
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, by)


class Louder(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


CHANGES: dict[str, Callable[[ResNet], object]] = {
    r"layer avgpool is AdaptiveMaxPool2d\(output_size=1\), not Adaptive": lambda net: setattr(
        net, "avgpool", torch.nn.AdaptiveMaxPool2d(1)
    ),
    r"relu is LeakyReLU\(.*\), not ReLU\(\)": lambda net: replaced(net, torch.nn.ReLU, torch.nn.LeakyReLU(0.1)),
    r"layer bn1 is BatchNorm2d\(16, eps=0.001": lambda net: setattr(net.bn1, "eps", 1e-3),
    r"layer1.0.conv1 is Conv2d\(.*stride=\(2, 2\)": lambda net: setattr(
        net.get_submodule("layer1.0.conv1"), "stride", (2, 2)
    ),
    r"it is Louder\(\), not ResNet\(\)": lambda net: setattr(net, "__class__", Louder),
}


@pytest.mark.parametrize("words", CHANGES)
def test_layers_with_the_same_weights_that_compute_something_else(words: str, tmp_path: Path) -> None:
    net = resnetlab.build("cifar_resnet8", seed=0)
    assert isinstance(net, ResNet)
    CHANGES[words](net)
    with pytest.raises(UserError, match=rf"no longer cifar_resnet8: .*{words}.*Nothing was written"):
        resnetlab.save_pretrained(net, tmp_path / "changed")
    assert not list(tmp_path.iterdir())


def test_tensors_that_share_memory_are_saved_each(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_resnet8(stages=[(2, 16)])", seed=0)
    net.layer1[0].conv2.weight = net.layer1[0].conv1.weight
    everything = torch.zeros(100)
    net.bn1.weight.data, net.bn1.bias.data = everything[10:26], everything[20:36]
    resnetlab.save_pretrained(net, tmp_path / "tied")
    assert_same(resnetlab.from_pretrained(tmp_path / "tied"), net)


def test_a_network_without_values_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in it conv1.weight has no values.*Nothing was written"):
        resnetlab.save_pretrained(on_meta(resnetlab.spec("cifar_resnet8")), tmp_path / "empty")


def test_changes_that_no_answer_depends_on_are_none(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_resnet8", seed=0)
    replaced(net, torch.nn.ReLU, torch.nn.ReLU(inplace=True))
    net.bn1.momentum = 0.01
    resnetlab.save_pretrained(torch.nn.SyncBatchNorm.convert_sync_batchnorm(net), tmp_path / "same")
    assert_same(resnetlab.from_pretrained(tmp_path / "same"), net)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"classes": ["ant", "bee"]}, "card={'classes': .* must be the metadata of a network"),
        (
            ModelMetadata(resnetlab.spec("cifar_resnet8"), ("ant", "bee"), imagenet(), {}),
            r"card can't be used: its classes should be 10 names\. Nothing was written",
        ),
        (
            ModelMetadata(resnetlab.spec("cifar_resnet8", num_classes=2), None, imagenet(), {"lr": object()}),
            "card can't be used: Object of type object is not JSON serializable",
        ),
    ],
)
def test_a_card_that_could_not_be_read_is_refused(card: Any, words: str, net: ResNet | VGG, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        resnetlab.save_pretrained(net, tmp_path / "new", card=card)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(net: ResNet | VGG, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(UserError, match=r"config.json: already exists"):
        resnetlab.save_pretrained(net, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_place_that_can_not_be_written_is_named(net: ResNet | VGG, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/folder: can't be written"):
        resnetlab.save_pretrained(net, tmp_path / "file/folder")


@pytest.mark.parametrize("source", ["some/where/else", "a" * 300], ids=["path", "longer than file systems take"])
def test_what_is_neither_a_folder_nor_a_repository(source: str) -> None:
    with pytest.raises(UserError, match="neither a folder nor a repository name"):
        resnetlab.from_pretrained(source)


def test_torch_hub_has_the_zoos_networks(tmp_path: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    assert runpy.run_path(f"{root}/hubconf.py").keys() >= set(resnetlab.names())
    wanted = resnetlab.build("cifar_resnet20", seed=0, num_classes=3)
    torch.save(wanted.state_dict(), tmp_path / "x.pth")
    found = torch.hub.load(root, "cifar_resnet20", source="local", weights=str(tmp_path / "x.pth"))
    assert_same(found, wanted)
    assert torch.hub.load(root, "resnet18", source="local", num_classes=5).fc.out_features == 5
    assert torch.hub.load(root, "resnet18", source="local").fc.out_features == 1000


def test_a_wrapped_network_is_refused(net: ResNet | VGG, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file of resnetlab's; of a wrapped network, give the one inside"):
        resnetlab.save_pretrained(torch.nn.DataParallel(net), tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="3 is not a network, run folder or weight file of resnetlab's.$"):
        resnetlab.save_pretrained(3, tmp_path / "a")  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()


def test_torch_hub_is_not_given_two_weights() -> None:
    network = runpy.run_path(str(Path(__file__).parents[2] / "hubconf.py"))["cifar_resnet20"]
    with pytest.raises(UserError, match="takes the package's weights; leave it out to load mine.pth"):
        network("mine.pth", pretrained=True)
