"""`load` and evaluation: from run folders and weight files, whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import resnetlab
from resnetlab.data.open import open_data
from resnetlab.errors import UserError
from resnetlab.run_files import RESULT
from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run, open_folder
from resnetlab.weights.convert import convert
from resnetlab.weights.files import read_safetensors
from resnetlab.weights.interop import OURS
from resnetlab.weights.load import load_described, load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = make_run(recipe("digits", net="cifar_resnet8", epochs=3), tmp_path_factory.mktemp("runs"))
    for _ in train(made, threads=1):
        pass
    return made


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_run_folder_gives_its_network(run: Run, which: str) -> None:
    net = resnetlab.load(run.folder, which=which)
    assert not net.training
    assert net.spec == run.spec
    stored = load_file(run.folder / which / "weights.safetensors")
    assert all(torch.equal(v, stored[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("suffix", ["", "last/weights.safetensors"])
def test_evaluation_gives_the_error_that_training_logged(run: Run, suffix: str) -> None:
    found = evaluate([run.folder / suffix], open_data("digits")).accuracy
    result = run.result()
    assert result is not None
    assert found.images == 360
    assert found.error == pytest.approx(result["test_error"])


def test_a_foreign_file_with_torchvisions_names_loads(tmp_path: Path) -> None:
    wanted = resnetlab.build("resnet18", seed=3).state_dict()
    save_file(wanted, tmp_path / "theirs.safetensors")
    net = resnetlab.load(tmp_path / "theirs.safetensors", net="resnet18")
    assert all(torch.equal(v, wanted[k]) for k, v in net.state_dict().items())
    assert resnetlab.load(tmp_path / "theirs.safetensors").spec == net.spec
    save_file(resnetlab.build("plain18").state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="does not say which network it holds; name it with --net"):
        resnetlab.load(tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("cifar_resnet14", "it lacks layer1.1.conv1.weight.* and .* more"),
        ("cifar_resnet8(shortcut=B)", "it lacks layer2.0.downsample.0.weight"),
        ("cifar_resnet8(in_channels=3)", r"in it conv1.weight is \(16, 1, 3, 3\), not \(16, 3, 3, 3\)"),
        ("cifar_plain8(branch=single)", "it has the extra layer1.0.bn2.bias"),
    ],
)
def test_weights_that_do_not_fit_are_listed_and_not_loaded(run: Run, net: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resnetlab.load(run.folder, net=net)
    assert str(caught.value).endswith("Nothing was loaded.")


def test_a_named_network_has_the_files_classes_channels_and_size(run: Run) -> None:
    assert resnetlab.load(run.folder, net="cifar_resnet8").spec == run.spec
    other, metadata = load_with_metadata(run.folder, net="cifar_resnet8(zero_pad=around)")
    assert other.spec == replace(run.spec, zero_pad="around")
    assert metadata is not None
    assert metadata.spec == other.spec, "what is written to a file states the network that it is"
    with pytest.raises(UserError, match=r"fc.weight is \(10, 64\), not \(7, 64\)"):
        resnetlab.load(run.folder, net="cifar_resnet8(num_classes=7)")
    with pytest.raises(UserError, match="its mean image has 8 pixels per side"):
        resnetlab.load(run.folder, net="cifar_resnet8(input_size=16)")


@pytest.mark.parametrize("changes", ["zero_pad=around", "input_size=64"])
def test_a_converted_file_is_the_network_that_was_named(tmp_path: Path, changes: str) -> None:
    convert("pretrained:cifar_resnet20", tmp_path / "x.safetensors", OURS, net=f"cifar_resnet20({changes})")
    net, metadata = load_with_metadata(tmp_path / "x.safetensors")
    assert net.spec == resnetlab.spec(f"cifar_resnet20({changes})")
    assert metadata is not None
    assert metadata.measured == {}, "the accuracy is another network's"


@pytest.mark.parametrize(
    ("name", "channels", "ways"),
    [
        ("cifar_resnet8", 1, ("names", "order")),
        ("resnet18(stem=deep)", 4, ("names", "order")),
        pytest.param("vgg16(input_size=32)", 1, ("names",), marks=pytest.mark.slow),
    ],
)
def test_a_file_of_others_has_its_own_classes_and_channels(
    tmp_path: Path, name: str, channels: int, ways: tuple[str, ...]
) -> None:
    """As the named network of a file of ours has."""
    torch.save(resnetlab.build(name, in_channels=channels, num_classes=7).state_dict(), tmp_path / "x.pth")
    for match in ways:
        spec = resnetlab.load(tmp_path / "x.pth", net=name, match=match).spec
        assert (spec.in_channels, spec.num_classes) == (channels, 7)
    stated = name.replace("(", "(in_channels=3, ") if "(" in name else f"{name}(in_channels=3)"
    with pytest.raises(UserError, match="does not fit"):
        resnetlab.load(tmp_path / "x.pth", net=stated)


def test_the_accuracy_is_that_with_the_files_own_normalisation() -> None:
    known = load_described("pretrained:cifar_resnet20").metadata
    given = load_described("pretrained:cifar_resnet20", normalise="imagenet").metadata
    assert known is not None
    assert given is not None
    assert known.measured["top1"] > 80
    assert given.measured == {}


def test_a_size_is_a_whole_number_pythons_or_numpys() -> None:
    found = resnetlab.load("cifar_resnet20", pretrained=True, image_size=np.int64(40))  # type: ignore[arg-type]
    assert found.spec.input_size == 40
    with pytest.raises(UserError, match="image_size='x' must be a whole number of pixels, 8 to 4096"):
        resnetlab.load("cifar_resnet20", pretrained=True, image_size="x")  # type: ignore[arg-type]


def test_only_a_run_has_best_weights(run: Run) -> None:
    with pytest.raises(UserError, match="weights.safetensors: a file, and only a run folder has best weights"):
        resnetlab.load(run.folder / "last/weights.safetensors", which="best")


def test_a_folder_within_a_run_leads_to_its_weights(run: Run) -> None:
    with pytest.raises(UserError, match="give a file in it, such as 'weights.safetensors'"):
        resnetlab.load(run.folder / "last")


def test_damaged_and_missing_files_are_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes((run.folder / "last/weights.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match="cut.safetensors: not a complete safetensors file"):
        resnetlab.load(path)
    with pytest.raises(UserError, match="nowhere: no such run folder or weight file"):
        resnetlab.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not a run folder, it has neither run.json"):
        resnetlab.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"resnetlab": '{"spec": {}}'})
    with pytest.raises(UserError, match="its description is damaged"):
        resnetlab.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_folder_that_a_kill_left_under_its_old_name_is_found(run: Run, tmp_path: Path, which: str) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    shutil.rmtree(copy / f"{which}.old", ignore_errors=True)
    (copy / which).rename(copy / f"{which}.old")
    wanted = load_file(run.folder / which / "weights.safetensors")
    assert all(torch.equal(v, wanted[k]) for k, v in resnetlab.load(copy, which=which).state_dict().items())


def _described(run: Run, **changes: Any) -> str:
    values = json.loads(read_safetensors(run.folder / "last/weights.safetensors")[1]["resnetlab"])
    return json.dumps(values | changes)


WIDE = {"stages": [[1, 10**12]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": [1, 2]}, r"its mean of shape \(2,\) does not fit images of \(1, 8, 8\)"),
        ({"mean": []}, "its mean of shape"),
        ({"mean": 5}, "its mean of shape"),
        ({"mean": [[0.5] * 4] * 8}, r"its mean of shape \(8, 4\)"),
        ({"std": [[[1.0] * 4] * 8]}, r"its std of shape \(1, 8, 4\)"),
        ({"mean": "x"}, ""),
        ({"mean": [[[10**400]]]}, ""),
        ({"mean": [[[float("nan")]]]}, "its mean is not finite"),
        ({"std": [[[0]]]}, "its std is not finite and above 0"),
        ({"std": [[[-0.3]]]}, "its std is not finite and above 0"),
        ({"std": [[[10**400]]]}, ""),
        ({"spec": WIDE}, "width of stage 1=1000000000000 must be"),
        ({"spec": 5}, ""),
        ({"classes": ["a"]}, "its classes should be 10 names"),
        ({"recipe": []}, "its recipe should be"),
    ],
)
def test_a_damaged_description_is_named(run: Run, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(load_file(run.folder / "last/weights.safetensors"), path, {"resnetlab": _described(run, **changes)})
    with pytest.raises(UserError, match=r"x\.safetensors: its description is damaged \(.*" + message):
        resnetlab.load(path)


@pytest.mark.parametrize("classes", [None, [str(i) for i in range(10)]])
def test_numbers_in_the_place_of_names_are_none(run: Run, tmp_path: Path, classes: list[str] | None) -> None:
    """Earlier versions wrote them into files of others' weights, which have no recipe."""
    weights = load_file(run.folder / "last/weights.safetensors")
    save_file(weights, tmp_path / "x.safetensors", {"resnetlab": _described(run, classes=classes, recipe={})})
    metadata = load_with_metadata(tmp_path / "x.safetensors")[1]
    assert metadata is not None
    assert metadata.classes is None
    assert ModelMetadata.from_dict(metadata.to_dict()).classes is None
    own = load_with_metadata(run.folder)[1]
    assert own is not None
    assert own.classes == tuple("0123456789")  # the digits' names


def test_a_file_without_a_head_is_for_features_alone(tmp_path: Path) -> None:
    state = resnetlab.build("resnet18", seed=0).state_dict()
    torch.save({key: tensor for key, tensor in state.items() if not key.startswith("fc.")}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x.pth: has no head, the fully connected layer that gives classes: fine-tune"):
        resnetlab.load(tmp_path / "x.pth")
    found = resnetlab.load(tmp_path / "x.pth", head=False).state_dict()
    assert not found.pop("fc.weight").any()
    assert not found.pop("fc.bias").any()
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.items())
    torch.save(
        {"0.4.0.conv1.weight": state["layer1.0.conv1.weight"], "1.4.weight": torch.zeros(4, 4)}, tmp_path / "y.pth"
    )
    with pytest.raises(UserError, match="does not say which network it holds"):
        resnetlab.load(tmp_path / "y.pth")


def test_another_head_is_named(tmp_path: Path) -> None:
    state = resnetlab.build("resnet18", seed=0).state_dict()
    body = {f"backbone.{key}": tensor for key, tensor in state.items() if not key.startswith("fc.")}
    torch.save(body | {f"head.{i}.weight": torch.zeros(4, 4) for i in (0, 2)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"its head \(head.0.weight, head.2.weight\) is not one fully connected layer"):
        resnetlab.load(tmp_path / "x.pth")
    resnetlab.load(tmp_path / "x.pth", head=False)


def test_averages_are_of_weight_files_of_others(run: Run) -> None:
    with pytest.raises(UserError, match="which='ema' is not known: choose one of last, best"):
        resnetlab.load(run.folder, which="ema")
    with pytest.raises(UserError, match="holds a single set of weights, without averages"):
        resnetlab.load(run.folder / "last/weights.safetensors", which="ema")


@pytest.mark.slow
def test_vgg_nets_take_images_of_one_size(tmp_path: Path) -> None:
    vgg = resnetlab.build("vgg16", num_classes=2, input_size=32)
    (tmp_path / "x.safetensors").write_bytes(weights_bytes(vgg, vgg.spec))
    assert resnetlab.load(tmp_path / "x.safetensors", image_size=32).spec == vgg.spec
    with pytest.raises(UserError, match="vgg16 takes only images of 32 pixels, by its fully connected layers"):
        resnetlab.load(tmp_path / "x.safetensors", image_size=64)


def test_a_deeply_nested_description_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"resnetlab": "[" * 100_000})
    with pytest.raises(UserError, match="its description is damaged"):
        resnetlab.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("kind", [torch.int64, torch.bool, torch.complex64])
def test_weights_that_are_no_floating_point_numbers_are_refused(run: Run, tmp_path: Path, kind: torch.dtype) -> None:
    def changed(kind: torch.dtype) -> dict[str, Tensor]:
        return {k: v.to(kind) if k == "fc.weight" else v for k, v in found.items()}

    found = load_file(run.folder / "last/weights.safetensors")
    net = "cifar_resnet8(in_channels=1)"
    save_file(changed(kind), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=f"in it fc.weight is of {kind}, not torch.float32"):
        resnetlab.load(tmp_path / "x.safetensors", net=net)
    save_file(changed(torch.float16), tmp_path / "half.safetensors")
    assert resnetlab.load(tmp_path / "half.safetensors", net=net).fc.weight.dtype == torch.float32


def test_data_that_does_not_fit_the_network_is_refused(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_resnet8", in_channels=1, num_classes=7)
    save_file(net.state_dict(), tmp_path / "seven.safetensors")
    save_file(resnetlab.build("cifar_resnet8").state_dict(), tmp_path / "rgb.safetensors")
    with pytest.raises(UserError, match="a network for 3 channels and 10 classes, but digits has 1 and 10"):
        evaluate([tmp_path / "rgb.safetensors"], open_data("digits"), nets=["cifar_resnet8"])
    with pytest.raises(UserError, match="a network for 1 channel and 7 classes, but digits has 1 and 10"):
        evaluate([tmp_path / "seven.safetensors"], open_data("digits"), nets=["cifar_resnet8(in_channels=1)"])


def test_a_run_without_weights_is_told_how_to_go_on(tmp_path: Path) -> None:
    """It was stopped before its first checkpoint."""
    run = make_run(recipe("digits", net="cifar_resnet8"), tmp_path)
    open_folder(run, 1, "cpu")
    with pytest.raises(UserError, match=f"{run.folder}: the run has saved no weights yet; the command that started it"):
        resnetlab.load(run.folder)
    (run.folder / RESULT).write_text("{}")
    with pytest.raises(UserError, match=f"{run.folder}: the run is finished, but its weights have been removed"):
        resnetlab.load(run.folder)
