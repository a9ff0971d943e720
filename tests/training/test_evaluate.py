"""Evaluation: networks trained by others reach their accuracy here; views and ensembles against averages by hand."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from resnetlab import build, load, spec
from resnetlab.data.crops import centre_crop
from resnetlab.data.decoding import decode_resized
from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.normalisation import Normalisation, imagenet
from resnetlab.data.open import open_data
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import on_meta
from resnetlab.training.evaluate import evaluate, trained_on
from resnetlab.weights.interop import write_state
from resnetlab.weights.load import Loaded, load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

# Files of ../shared/data/weights, the network, and how many of the 10,000 test images its author's code gets right.
PEERS = [
    ("akamaster/resnet20-12fca82f.th", "cifar_resnet20", 9173),
    ("akamaster/resnet56-4bfd9763.th", "cifar_resnet56", 9339),
    ("a-martyn/plainnet20.pt", "cifar_plain20", 9031),
    ("a-martyn/plainnet56.pt", "cifar_plain56", 8693),
    ("a-martyn/resnet20.pt", "cifar_resnet20", 9196),
    ("a-martyn/resnet56.pt", "cifar_resnet56", 9254),
]


@pytest.fixture(scope="session")
def weights() -> Path:
    """The folder of the files."""
    folder = Path(__file__).resolve().parents[2].parent / "shared/data/weights"
    if not folder.exists():
        pytest.skip(f"needs networks trained by others: {folder} is not there")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("file", "net", "right"), PEERS)
def test_accuracy_on_all_test_images(cifar10: Path, weights: Path, file: str, net: str, right: int) -> None:
    found = evaluate([weights / file], open_data(f"cifar10:{cifar10}"), nets=[net]).accuracy
    assert (found.images, found.top1_correct) == (10_000, right)


@pytest.mark.parametrize(
    ("net", "right"),
    [("cifar_resnet20", 915), pytest.param("cifar_resnet20(zero_pad=after)", 221, marks=pytest.mark.slow)],
)
def test_the_first_thousand_and_where_the_zeros_stand(cifar10: Path, weights: Path, net: str, right: int) -> None:
    """Half before and half after, as the file's layout says; a name that says otherwise is taken at its word."""
    data = open_data(f"cifar10:{cifar10}")
    assert data.shape is not None
    found = evaluate(
        [weights / "akamaster/resnet20-12fca82f.th"], replace(data, test=data.test[:1000]), nets=[net]
    ).accuracy
    assert found.top1_correct == pytest.approx(right, abs=1)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, in several shapes."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for side, count in (("train", 2), ("val", 5)):
        for label in ("ants", "bees"):
            (root / side / label).mkdir(parents=True)
            for i in range(count):
                noise = random.integers(0, 256, (40 + 9 * i, 70 - 8 * i, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / side / label / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two untrained networks for 32 pixels and two classes, as files that know nothing of preprocessing."""
    folder = tmp_path_factory.mktemp("networks")
    for seed, name in enumerate(("cifar_resnet8", "cifar_preresnet8")):
        net = build(name, num_classes=2, seed=seed)
        (folder / name).write_bytes(weights_bytes(net, net.spec))
    return sorted(folder.iterdir())


@torch.inference_mode()
def by_hand(path: Path, data: Data, views: str, flip: bool) -> Tensor:
    """The softmax averaged over the views of each image, one after another: N K."""
    net, normalise, rows = load(path), imagenet(), []
    assert isinstance(data.test, Files)
    for i in range(len(data.test)):
        content, found = data.test.read(i), []
        if views == "10-crop":
            image = decode_resized(content, 37)
            bottom, right = image.shape[0] - 32, image.shape[1] - 32
            places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
            parts = [image[top : top + 32, left : left + 32] for top, left in places]
        elif views == "multi-scale":
            parts = [decode_resized(content, side) for side in (32, 37, 55, 69, 91)]
        else:
            parts = [centre_crop(content, (), 32)]
        for part in parts:
            x = normalise(torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None])
            found += (
                [net(x).softmax(1), net(x.flip(3)).softmax(1)] if flip or views == "10-crop" else [net(x).softmax(1)]
            )
        rows.append(torch.stack(found).mean(0)[0])
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("views", "flip"),
    [("1-crop", False), ("1-crop", True), ("10-crop", False), ("multi-scale", False), ("multi-scale", True)],
)
def test_views_and_ensembles_are_averages_of_the_softmax(
    pictures: Path, networks: list[Path], views: str, flip: bool
) -> None:
    data = open_data(str(pictures))
    rows = [by_hand(path, data, views, flip) for path in networks]
    alone = [evaluate([path], data, views=views, flip=flip) for path in networks]
    both = evaluate(networks, data, views=views, flip=flip, workers=1)
    for found, wanted in (*zip(alone, rows, strict=True), (both, (rows[0] + rows[1]) / 2)):
        assert isinstance(data.test, Files)
        own = wanted.gather(1, data.test.labels[:, None])[:, 0]
        assert torch.allclose(found.answers.loss.float(), -own.log(), atol=1e-4)
        assert torch.allclose(found.answers.confidence.float(), wanted.max(1).values, atol=1e-4)
        assert torch.equal(found.answers.labels, data.test.labels)
    assert both.accuracies == tuple(found.accuracy for found in alone)


def test_an_ensemble_of_one_twice_is_the_one(networks: list[Path], pictures: Path) -> None:
    data = open_data(str(pictures))
    one = evaluate([networks[0]], data)
    twice = evaluate([networks[0]] * 2, data, nets=["cifar_preresnet8(num_classes=2)"])  # one name for all
    assert one.accuracy == one.accuracies[0]
    assert torch.allclose(twice.answers.confidence, one.answers.confidence, atol=1e-12)
    assert torch.equal(twice.answers.predicted, one.answers.predicted)


def saved(folder: Path, net: str, classes: tuple[str, ...], mean: Tensor, **fields: Any) -> Path:
    """A network's file that knows its classes and preprocessing."""
    made = build(net, num_classes=len(classes), **fields)
    path = folder / f"{net}.safetensors"
    path.write_bytes(
        weights_bytes(made, ModelMetadata(made.spec, classes, Normalisation(mean, torch.ones(3, 1, 1)), {}))
    )
    return path


def test_what_the_file_says_and_what_is_assumed_is_told(pictures: Path, networks: list[Path], tmp_path: Path) -> None:
    data = open_data(str(pictures))
    (assumed,) = evaluate(networks[:1], data).members
    assert (assumed.layout, assumed.normalisation) == (
        "resnetlab",
        "ImageNet's, assumed, since the file does not state one",
    )
    assert assumed.weights_sha256 == hashlib.sha256(networks[0].read_bytes()).hexdigest()
    pixel_mean = saved(tmp_path, "cifar_resnet8", ("ants", "bees"), torch.rand(3, 32, 32))
    assert evaluate([pixel_mean], data).members[0].normalisation == "from the file"
    (averaged,) = evaluate([pixel_mean], data, views="multi-scale").members
    assert averaged.normalisation.startswith("from the file, averaged over each channel")
    own = load_with_metadata(pixel_mean)[1]
    assert own is not None
    torch.testing.assert_close(averaged.normalise.mean.flatten(), own.normalisation.mean.mean((1, 2)))
    net = build("cifar_resnet8(zero_pad=around)")
    state = write_state(net.state_dict(), net.spec, "akamaster")
    torch.save(state, tmp_path / "theirs.th")
    (theirs,) = evaluate([tmp_path / "theirs.th"], ten_classes(), nets=["cifar_resnet8"]).members
    assert (theirs.layout, theirs.normalisation) == ("akamaster", "that of akamaster's training")
    assert not theirs.size_assumed, "images in memory have one"


def test_a_file_without_names_of_classes_is_compared_by_their_number(tmp_path: Path) -> None:
    net = build("cifar_resnet8(zero_pad=around)", seed=0)
    state = write_state(net.state_dict(), net.spec, "akamaster")
    rows = [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]  # of class1 to class10, as text has them
    natural = {key: t[torch.tensor(rows).argsort()] if "linear" in key else t for key, t in state.items()}
    torch.save(state, tmp_path / "text.th")
    torch.save(natural, tmp_path / "natural.th")
    data = replace(ten_classes(), classes=tuple(sorted(f"class{i}" for i in range(1, 11))))
    text = evaluate([tmp_path / "text.th"], data)
    mixed, sorted_as_timm = (evaluate([tmp_path / "natural.th"], data, class_order=o) for o in ("text", "natural"))
    assert torch.equal(text.answers.predicted, sorted_as_timm.answers.predicted)
    assert torch.allclose(text.answers.loss, sorted_as_timm.answers.loss, rtol=1e-6), "rounding, since rows moved"
    assert not torch.allclose(text.answers.loss, mixed.answers.loss, rtol=1e-3)
    assert text.members[0].matched.words == (
        "by order, since the file has no class names; the data's order is sorted as text, as in torchvision: number 1 "
        "is 'class10'; timm sorts naturally, so that it is 'class2': for such a file, use --class-order natural"
    )
    naturally = "sorted naturally, as in timm: number 1 is 'class2', not 'class10'"
    assert sorted_as_timm.members[0].matched.words.endswith(naturally)
    plain = evaluate([tmp_path / "text.th"], ten_classes()).members[0].matched
    assert plain.words == "by order, since the file has no class names"
    with pytest.raises(UserError, match="a network for 3 channels and 10 classes, but noise has 3 and 9"):
        evaluate([tmp_path / "text.th"], replace(data, classes=data.classes[:9]))
    named = saved(tmp_path, "cifar_resnet8", data.classes, torch.zeros(3, 1, 1))
    with pytest.raises(UserError, match="class-order=natural: the files have class names; leave it out"):
        evaluate([named], data, class_order="natural")


def test_the_size_of_images_is_told_or_assumed(pictures: Path, tmp_path: Path) -> None:
    torch.save(build("resnet18", num_classes=2, seed=0).state_dict(), tmp_path / "x.pth")
    data = open_data(str(pictures))
    assumed, given, named = (
        evaluate([tmp_path / "x.pth"], data, **options).members[0]
        for options in ({}, {"image_size": 40}, {"nets": ["resnet18(input_size=40)"]})
    )
    assert (assumed.net.spec.input_size, assumed.size_assumed) == (224, True)
    assert (given.net.spec.input_size, given.size_assumed) == (40, False)
    assert (named.net.spec.input_size, named.size_assumed) == (40, False)
    with pytest.raises(UserError, match="image_size=7 must be 8 to 4096 pixels"):
        evaluate([tmp_path / "x.pth"], data, image_size=7)
    with pytest.raises(UserError, match="images of noise are in memory and used uncropped: leave --image-size out"):
        evaluate([tmp_path / "x.pth"], ten_classes(), image_size=32)
    own = saved(tmp_path, "cifar_resnet8", ("ants", "bees"), torch.rand(3, 32, 32))
    with pytest.raises(UserError, match="its mean image has 32 pixels per side; leave --image-size 40 out"):
        evaluate([own], data, image_size=40)


def ten_classes() -> Data:
    """Images in memory, of noise."""
    pixels = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.arange(8))
    return Data("noise", images, images, tuple("abcdefghij"))


def test_mirror_images_of_data_in_memory(tmp_path: Path) -> None:
    data, path = ten_classes(), saved(tmp_path, "cifar_resnet8", tuple("abcdefghij"), torch.zeros(3, 1, 1))
    assert isinstance(data.test, Images)
    x = data.test.pixels.float() / 255
    with torch.inference_mode():
        wanted = (load(path)(x).softmax(1) + load(path)(x.flip(3)).softmax(1)) / 2
    found = evaluate([path], data, flip=True)
    assert torch.allclose(found.answers.confidence.float(), wanted.max(1).values, atol=1e-6)
    by_engine = evaluate([path], data, flip=True, engine=lambda net, normalise: lambda x: net(normalise(x)).detach())
    assert torch.allclose(by_engine.answers.confidence.float(), wanted.max(1).values, atol=1e-6)
    with pytest.raises(UserError, match="10-crop crops files, but the images of noise are in memory, all 32x32"):
        evaluate([path], data, views="10-crop")


def test_what_does_not_fit_is_named(
    pictures: Path, networks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_data(str(pictures))
    other = saved(tmp_path, "cifar_resnet14", ("fourmis", "abeilles"), torch.zeros(3, 1, 1))
    with pytest.raises(UserError, match=r"cifar_resnet14.safetensors: trained on the classes fourmis, abeilles"):
        evaluate([networks[0], other], data)
    with pytest.raises(UserError, match="unreadable='ignore' is not known: choose one of error, skip"):
        evaluate(networks, data, unreadable="ignore")
    with pytest.raises(UserError, match="10-crop already includes mirror images; leave --flip out"):
        evaluate(networks, data, views="10-crop", flip=True)
    with pytest.raises(UserError, match="views='12-crop' is not known: choose one of 1-crop, 10-crop, multi-scale"):
        evaluate(networks, data, views="12-crop")
    with pytest.raises(UserError, match="1 network but 2 names: give one --net for all, or one for each"):
        evaluate(networks[:1], data, nets=["cifar_resnet8", "cifar_resnet14"])
    with pytest.raises(UserError, match="noise has no test images"):
        evaluate(networks, replace(ten_classes(), test=ten_classes().test[:0]))
    vgg = Loaded(on_meta(spec("vgg16", num_classes=2, input_size=64)), None, "torchvision", tmp_path)
    monkeypatch.setattr("resnetlab.training.evaluate.load_described", lambda *_, **__: vgg)
    with pytest.raises(UserError, match="multi-scale needs a VGG net for images of 224 pixels"):
        evaluate(["vgg.pth"], data, views="multi-scale")


def with_names(folder: Path, file: str, classes: tuple[str, ...], order: tuple[int, ...]) -> Path:
    """One network, always the same, with its outputs in an order and under names; for -1 there is one never chosen."""
    net = build("cifar_resnet8", num_classes=2, seed=0)
    made = build("cifar_resnet8", num_classes=len(classes))
    assert isinstance(net, ResNet)
    assert isinstance(made, ResNet)
    with torch.no_grad():
        made.load_state_dict(net.state_dict() | {k: made.state_dict()[k] for k in ("fc.weight", "fc.bias")})
        for i, own in enumerate(order):
            made.fc.weight[i] = net.fc.weight[own] if own >= 0 else 0
            made.fc.bias[i] = net.fc.bias[own] if own >= 0 else -1e4
    card = ModelMetadata(made.spec, classes, Normalisation(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)), {"seed": 0})
    (folder / file).write_bytes(weights_bytes(made, card))
    return folder / file


def test_classes_are_matched_by_name_in_any_order(pictures: Path, tmp_path: Path) -> None:
    data, told = open_data(str(pictures)), list[str]()
    plain = evaluate([with_names(tmp_path, "plain", ("ants", "bees"), (0, 1))], data)
    turned = with_names(tmp_path, "turned", ("bees", "ants"), (1, 0))
    found = evaluate([turned], data, told=told.append)
    assert torch.equal(found.answers.predicted, plain.answers.predicted)
    assert torch.allclose(found.answers.loss, plain.answers.loss)
    assert found.classes == data.classes == ("ants", "bees")
    assert told == [
        "2 classes: ants, bees; 14 images, 10 tested (val); 32 pixels; parameter names: resnetlab; normalisation: from "
        "the file",
        f"{turned}: classes in a different order than in training",
    ]
    theirs = with_names(tmp_path, "theirs", ("abeilles", "fourmis"), (1, 0))
    named = evaluate([theirs], data, classes={"ants": "fourmis", "bees": "abeilles"})
    assert named.members[0].matched.taken == {"ants": "fourmis", "bees": "abeilles"}
    assert named.accuracy == found.accuracy
    both = evaluate([turned, tmp_path / "plain"], data)
    assert torch.equal(both.answers.predicted, plain.answers.predicted)
    assert torch.allclose(both.answers.loss, plain.answers.loss)


def test_a_network_of_more_classes_may_say_any_of_them(pictures: Path, tmp_path: Path) -> None:
    data = open_data(str(pictures))
    plain = evaluate([with_names(tmp_path, "plain", ("ants", "bees"), (0, 1))], data)
    more = with_names(tmp_path, "more", ("bees", "wasps", "ants"), (1, -1, 0))
    found = evaluate([more], data)
    assert found.accuracy.top1_correct == plain.accuracy.top1_correct
    assert found.classes == ("bees", "wasps", "ants")
    assert sorted(set(found.answers.labels.tolist())) == [0, 2]
    never = evaluate([with_names(tmp_path, "never", ("ants", "wasps", "bees"), (-1, 0, -1))], data)
    assert never.accuracy.top1_correct == 0
    told: list[str] = []
    evaluate([more, tmp_path / "never"], data, told=told.append)
    words = "classes 2 of the network's 3, any of which may be predicted"
    assert told[0] == "2 classes: ants, bees; 14 images, 10 tested (val)"
    assert told[1].startswith(f"{more}: 3 classes: bees, wasps, ants; 32 pixels; parameter names: resnetlab; ")
    assert told[2] == f"{more}: {words}; in a different order than in training"
    assert told[4] == f"{tmp_path / 'never'}: {words}"


@pytest.fixture
def broken(pictures: Path, tmp_path: Path) -> Path:
    """The pictures with three that can't be read among ten, one of them the last."""
    folder = tmp_path / "broken"
    shutil.copytree(pictures, folder)
    for name in ("ants/1.png", "ants/3.png", "bees/4.png"):
        path = folder / "val" / name
        path.write_bytes(path.read_bytes()[:90])
    return folder


@pytest.mark.parametrize("views", ["1-crop", "10-crop", "multi-scale"])
@pytest.mark.parametrize("batch", [1, 2, 16])
def test_unreadable_images_are_left_out_and_counted(
    pictures: Path, networks: list[Path], broken: Path, views: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetlab.training.evaluate.IMAGES_AT_ONCE", batch)
    monkeypatch.setattr("resnetlab.training.evaluate.evaluation_batch", lambda _: batch)
    data, whole = open_data(str(broken)), open_data(str(pictures))
    with pytest.raises(UserError, match="val/ants/1.png: can't be read .* --unreadable skip"):
        evaluate(networks, data, views=views)
    found = evaluate(networks, data, views=views, unreadable="skip")
    wanted = evaluate(networks, replace(whole, test=whole.test[torch.tensor([0, 2, 4, 5, 6, 7, 8])]), views=views)
    assert found.unreadable == tuple(str(broken / "val" / n) for n in ("ants/1.png", "ants/3.png", "bees/4.png"))
    assert torch.equal(found.answers.labels, wanted.answers.labels)
    assert torch.allclose(found.answers.loss, wanted.answers.loss, atol=1e-5)
    assert isinstance(found.images, Files)
    assert isinstance(wanted.images, Files)
    assert [found.images.name(i) for i in range(7)] == [wanted.images.name(i) for i in range(7)]
    assert found.accuracy.images == 7


def test_what_was_trained_without_unreadable_images_is_evaluated_so(broken: Path, tmp_path: Path) -> None:
    net = build("cifar_resnet8", num_classes=2)
    card = ModelMetadata(net.spec, ("ants", "bees"), imagenet(), {"unreadable": "skip"})
    (tmp_path / "skips").write_bytes(weights_bytes(net, card))
    strict = saved(tmp_path, "cifar_resnet8", ("ants", "bees"), torch.zeros(3, 1, 1))
    data = open_data(str(broken))
    assert len(evaluate([tmp_path / "skips"], data).unreadable) == 3
    for sources, how in (([tmp_path / "skips"], "error"), ([tmp_path / "skips", strict], None)):
        with pytest.raises(UserError, match="ants/1.png: can't be read"):
            evaluate(sources, data, unreadable=how)
    for path in (broken / "val").rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="0.png: neither this nor any other test image can be read"):
        evaluate([tmp_path / "skips"], open_data(str(broken)))


def test_what_runs_were_trained_on_is_told_by_their_folders(tmp_path: Path) -> None:
    (tmp_path / "run/last").mkdir(parents=True)
    settings = {"format": 3, "spec": {}, "recipe": {}, "data": {"name": "folder", "fingerprint": "0123"}}
    (tmp_path / "run/run.json").write_text(json.dumps(settings))
    (tmp_path / "other").mkdir()
    (tmp_path / "other/run.json").write_text('{"data": 5}')
    weights = tmp_path / "run/last/weights.safetensors"
    assert trained_on([tmp_path / "run", tmp_path / "other", "nowhere"]) == {"0123"}
    assert trained_on([weights]) == {"0123"}
