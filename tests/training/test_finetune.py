"""Fine-tuning: what is kept of a source and what is new, what stays frozen, when it ends, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import resnetlab
from resnetlab.data.images import Data, Images
from resnetlab.data.normalisation import imagenet
from resnetlab.data.open import open_data
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build, spec
from resnetlab.run_files import read_epochs
from resnetlab.training.evaluate import evaluate
from resnetlab.training.finetune import Pretrained
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.setup import first_network, normalisation_of
from resnetlab.weights.interop import write_state
from resnetlab.weights.load import Loaded

STEM_AND_STAGE = ("conv1", "bn1", "layer1")


def finished(run: Run) -> Run:
    for _ in train(run, threads=1):
        pass
    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that knows the ten digits."""
    fields = {"net": "cifar_resnet8", "epochs": 2, "normalise": "channel_mean_std"}
    return finished(make_run(recipe("digits", **fields), tmp_path_factory.mktemp("source")))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two classes of coloured noise, in files."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for place, count in ((folder / part / name, n) for part, n in (("train", 10), ("val", 2)) for name in "ab"):
        place.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8)).save(place / f"{i}.png")
    return f"folder:{folder}"


def some_digits(*names: str) -> Data:
    """The digits 0, 1, ... under other names."""
    data = open_data("digits")

    def few(images: Any) -> Images:
        return images[images.labels < len(names)]

    return replace(data, train=few(data.train), test=few(data.test), classes=names)


def tuned(source: Run | Path | str, root: Path, data: Data | None = None, **fields: Any) -> Run:
    start = str(source.folder if isinstance(source, Run) else source)
    return make_run(recipe("digits", **{"start": start, "epochs": 2, **fields}), root, data)


def state(folder: Path, which: str = "last") -> dict[str, torch.Tensor]:
    return load_file(folder / which / "weights.safetensors")


def test_another_set_of_classes_gets_a_new_head(source: Run, tmp_path: Path) -> None:
    run = tuned(source, tmp_path, some_digits("zero", "one", "two"), seed=7)
    assert run.spec == replace(source.spec, num_classes=3)
    assert run.pretrained is not None
    kept, first = state(source.folder), first_network(run, run.recipe, "cpu").state_dict()
    fresh = build(run.spec, seed=7).state_dict()
    assert all(torch.equal(v, fresh[k] if k.startswith("fc.") else kept[k]) for k, v in first.items())
    assert run.pretrained.note == (
        f"kept {len(first) - 2} tensors of cifar_resnet8 from {source.folder}; fc is new: 10 -> 3 classes "
        "(zero, one, two)"
    )
    finished(run)
    told = json.loads((run.folder / "run.json").read_text())
    assert told["start"] == run.pretrained.to_dict()
    assert told["start"]["new"] == ["fc.weight", "fc.bias"]
    assert told["recipe"]["start"] == str(source.folder)
    found = evaluate([run.folder], some_digits("zero", "one", "two")).accuracy
    assert found.error == pytest.approx((run.result() or {})["test_error"])
    assert found.error < 20


def test_the_same_classes_keep_the_head(source: Run, tmp_path: Path) -> None:
    run = tuned(source, tmp_path)
    first = first_network(run, run.recipe, "cpu").state_dict()
    assert all(torch.equal(v, first[k]) for k, v in state(source.folder).items())
    assert run.pretrained is not None
    assert run.pretrained.note.endswith("; fc is kept too, since the classes are the same")
    other_names = tuned(source, tmp_path, some_digits(*"abcdefghij")).pretrained
    assert other_names is not None
    assert other_names.note.endswith("; fc is new: 10 -> 10 classes (a, b, c, d, e and 5 more)")


def test_network_and_normalisation_are_the_sources_unless_given(source: Run, tmp_path: Path) -> None:
    wanted = normalisation_of(source)
    few = some_digits("zero", "one")
    found = normalisation_of(tuned(source, tmp_path, few))
    assert torch.equal(found.mean, wanted.mean)
    assert torch.equal(found.std, wanted.std)
    other = tuned(source, tmp_path, few, normalise="pixel_mean", net="cifar_resnet8")
    assert normalisation_of(other).mean.shape == (1, 8, 8)
    assert other.pretrained is not None
    assert other.pretrained.normalisation is None, "the source's has no part in its id"
    assert other.id != tuned(source, tmp_path, few).id


def test_a_file_of_others_gives_its_weights(tmp_path: Path, pictures: str) -> None:
    wanted = build("cifar_resnet8(num_classes=2)", seed=3).state_dict()
    save_file(wanted, tmp_path / "theirs.safetensors")
    net = "cifar_resnet8(num_classes=2)"
    run = tuned(tmp_path / "theirs.safetensors", tmp_path, data=open_data(pictures), net=net, image_size=16)
    assert run.spec.input_size == 16
    for name, tensor in first_network(run, run.recipe, "cpu").state_dict().items():
        assert torch.equal(tensor, wanted[name]) != name.startswith("fc.w"), name


def test_a_file_without_names_of_classes_gets_a_new_head(tmp_path: Path) -> None:
    """Ten outputs and the folders 0 to 9 are no reason to take them for the same."""
    net = build("cifar_resnet8(zero_pad=around)", in_channels=1, seed=3)
    torch.save(write_state(net.state_dict(), net.spec, "akamaster"), tmp_path / "theirs.th")
    digits = open_data("digits")
    assert digits.classes == tuple("0123456789")
    run = tuned(tmp_path / "theirs.th", tmp_path, digits, net="cifar_resnet8(zero_pad=around)")
    assert run.pretrained is not None
    assert run.pretrained.new == ("fc.weight", "fc.bias")
    assert "; fc is new: 10 classes without names in the file -> 10 classes (0, 1, " in run.pretrained.note


@pytest.mark.parametrize("other_head", [False, True])
def test_a_file_without_a_head_gets_one(tmp_path: Path, pictures: str, other_head: bool) -> None:
    wanted = build("resnet18", seed=3).state_dict()
    body = {f"backbone.{name}": tensor for name, tensor in wanted.items() if not name.startswith("fc.")}
    projector = {"projector.0.weight": torch.zeros(4, 512), "projector.2.weight": torch.zeros(4, 4)}
    torch.save(body | (projector if other_head else {}), tmp_path / "x.pth")
    run = tuned(tmp_path / "x.pth", tmp_path, data=open_data(pictures), net="", image_size=16)
    assert run.pretrained is not None
    assert run.pretrained.note.endswith("; fc is new: none in the file -> 2 classes (a, b)")
    first = first_network(run, run.recipe, "cpu").state_dict()
    assert first["fc.weight"].any()
    assert all(torch.equal(first[name.removeprefix("backbone.")], tensor) for name, tensor in body.items())


def of_unknown_classes(monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    """Have every source be a network of which nothing else is known."""
    loaded = Loaded(build(net), None, "torchvision", Path("theirs.pth"))
    monkeypatch.setattr("resnetlab.training.finetune.load_described", lambda *_, **__: loaded)


def test_where_classes_and_normalisation_are_not_told(
    tmp_path: Path, pictures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head goes, and images are normalised as in an evaluation of such files."""
    of_unknown_classes(monkeypatch, "cifar_resnet8(num_classes=2)")
    run = tuned(tmp_path, tmp_path, data=open_data(pictures))
    assert run.pretrained is not None
    assert run.pretrained.note.endswith("; fc is new: 2 classes without names in the file -> 2 classes (a, b)")
    assert run.recipe.normalise == "imagenet"
    of_unknown_classes(monkeypatch, "cifar_resnet8(in_channels=1)")
    assert tuned(tmp_path, tmp_path).recipe.normalise == "channel_mean_std"


def test_a_vgg_net_gets_a_new_head_too(tmp_path: Path, pictures: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_unknown_classes(monkeypatch, "vgg16(num_classes=3)")
    run = tuned(tmp_path, tmp_path, data=open_data(pictures))
    assert run.pretrained is not None
    assert run.pretrained.new == ("classifier.6.weight", "classifier.6.bias")
    assert run.pretrained.note.startswith("kept 30 tensors of vgg16 from ")


FROZEN: dict[str, Any] = {"freeze": 2, "ema": 0.9, "weight_decay": 0.01, "channels_last": True, "bn_reestimate": 3}


@pytest.mark.parametrize("changes", [FROZEN, {"freeze": 1, "checkpoint_activations": True}])
def test_frozen_parts_keep_every_bit(source: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Weights and batch norm's statistics, its count of batches too; all others change."""
    run = finished(tuned(source, tmp_path, some_digits("zero", "one"), lr=0.1, **changes))
    before, frozen = state(source.folder), STEM_AND_STAGE[: changes["freeze"] + 1]
    for which in ("last", "best"):
        for name, tensor in state(run.folder, which).items():
            if name.startswith("fc."):
                continue
            assert torch.equal(tensor, before[name]) == name.startswith(frozen), (which, name)


def test_a_run_ends_when_the_validation_error_does_not_fall(source: Run, tmp_path: Path) -> None:
    """Nothing can be learnt here: the first evaluation stays the best one."""
    still: dict[str, Any] = {"lr": 0, "warmup": "none", "freeze": 4, "validation_share": 0.1}
    run = finished(tuned(source, tmp_path, stop_after=2, epochs=9, **still))
    result = run.result()
    assert result is not None
    assert run.recipe.validation_images == 144
    assert (result["epochs"], result["steps"]) == (3, 3 * 21)
    assert len(read_epochs(run.folder)) == 3
    assert (run.folder / "best/weights.safetensors").exists()
    assert not list(train(run, threads=1)), "it is finished"
    to_its_end = finished(tuned(source, tmp_path, stop_after=4, epochs=3, **still)).result()
    assert to_its_end is not None
    assert to_its_end["epochs"] == 3


def test_the_best_weights_are_those_of_the_lowest_validation_error(source: Run, tmp_path: Path) -> None:
    fields = {"validation_images": 200, "stop_after": 2, "epochs": 12, "lr": 0.2, "warmup": "none", "seed": 1}
    run = finished(tuned(source, tmp_path, schedule="constant", **fields))
    errors = [line["validation_error"] for line in read_epochs(run.folder)]
    best = errors.index(min(errors))
    assert len(errors) == min(12, best + 3)
    test = evaluate([run.folder], open_data("digits"), which="best").accuracy
    assert test.error == pytest.approx(read_epochs(run.folder)[best]["test_error"])


def test_few_images_get_the_least_number_of_steps(source: Run, tmp_path: Path) -> None:
    run = finished(tuned(source, tmp_path, some_digits("a", "b"), epochs=1, least_iterations=11))
    result = run.result()
    assert result is not None
    assert (result["steps"], result["epochs"]) == (11, 3)  # 288 images, 5 steps an epoch


def test_a_run_is_named_by_the_weights_it_starts_from(source: Run, tmp_path: Path) -> None:
    """Wherever they lie; other weights make another run."""
    wanted = tuned(source, tmp_path).id
    moved = shutil.copytree(source.folder, tmp_path / "moved")
    assert tuned(moved, tmp_path).id == wanted
    assert tuned(moved / "last/weights.safetensors", tmp_path).id == wanted
    assert tuned(finished(make_run(source.recipe.override(seed=1), tmp_path)), tmp_path).id != wanted
    assert make_run(recipe("digits", epochs=2, net="cifar_resnet8"), tmp_path).id != wanted


def test_the_hash_of_what_is_kept_is_of_its_numbers_and_its_normalisation() -> None:
    """Whatever order they are in, and whatever is said of them."""
    tensors = {"a": torch.zeros(2), "b": torch.ones(2, 1)}
    kept = Pretrained(spec("cifar_resnet8"), tensors, (), imagenet(), "kept")
    same = replace(kept, tensors=dict(reversed(tensors.items())), note="", resizing=Resizing(0.95))
    assert same.digest == kept.digest
    others = [{"a": torch.zeros(2), "c": torch.ones(2, 1)}, tensors | {"b": torch.ones(1, 2)}]
    others += [tensors | {"a": torch.ones(2)}, tensors | {"a": torch.zeros(2).half()}]
    changed = [replace(kept, normalisation=None), *(replace(kept, tensors=each) for each in others)]
    assert len({each.digest for each in (kept, *changed)}) == 6


def test_what_was_fine_tuned_needs_its_source_only_to_go_on(source: Run, tmp_path: Path) -> None:
    there = shutil.copytree(source.folder, tmp_path / "source")
    run = finished(tuned(there, tmp_path / "runs", epochs=1))
    shutil.rmtree(there)
    assert resnetlab.load(run.folder).spec == run.spec
    with pytest.raises(UserError, match="source: no such run folder .* the command that resumes it needs them too"):
        tuned(there, tmp_path / "runs", epochs=1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"start": "nowhere"}, "nowhere: no such run folder or weight file to start from"),
        ({"start": "\0"}, "holds a null character, which no path has"),
        ({"start": "x" * 5000}, "no such run folder or weight file to start from"),
        ({"start": "empty"}, "empty: not a run folder"),
        ({"start": "note.txt"}, "note.txt: "),
        (
            {"start": "SOURCE", "data": "PICTURES"},
            r"for images with 1 channel, but those of pictures\d+ have 3",
        ),
        ({"start": "SOURCE", "net": "cifar_resnet14"}, "does not fit cifar_resnet14: it lacks layer1.1"),
        ({"start": "SOURCE", "net": "cifar_resnt"}, "network 'cifar_resnt' is not known"),
        ({"start": "SOURCE", "freeze": 5}, "cifar_resnet8 has a stem and 3 stages, so choose 0 to 4"),
        ({"start": "SOURCE", "validation_share": 0.9, "data": "PICTURES"}, "images with 1 channel"),
    ],
)
def test_a_source_that_does_not_do_is_one_line(
    source: Run, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("no weights")
    known = {"SOURCE": str(source.folder), "PICTURES": pictures}
    with pytest.raises(UserError, match=message) as caught:
        make_run(recipe("digits", **{k: known.get(v, v) for k, v in fields.items()}), tmp_path / "runs")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_a_mean_image_of_another_size_is_refused(tmp_path: Path, pictures: str) -> None:
    fields = {"net": "cifar_resnet8", "data": pictures, "epochs": 1, "batch_size": 8}
    there = finished(make_run(recipe("digits", image_size=16, **fields), tmp_path)).folder
    assert tuned(there, tmp_path, data=open_data(pictures)).spec.input_size == 16
    with pytest.raises(UserError, match="its mean image is 16 pixels wide, but these images are 24: give"):
        tuned(there, tmp_path, data=open_data(pictures), image_size=24)
    tuned(there, tmp_path, data=open_data(pictures), image_size=24, normalise="imagenet")
