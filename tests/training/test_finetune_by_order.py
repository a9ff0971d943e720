"""Fine-tuning from files whose names nobody here knows: paired by order, normalised as given, recorded in the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.normalisation import parse_normalisation
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build
from resnetlab.run_files import read_settings
from resnetlab.training.loop import train
from resnetlab.training.recipe import NORMALISATIONS
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.run_details import changed_fields
from resnetlab.training.setup import first_network, normalisation_of
from resnetlab.weights.convert import convert
from resnetlab.weights.interop import IN_ORDER
from resnetlab.weights.load import load_with_metadata

NET = "cifar_resnet8(in_channels=1)"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A file with names of its own, beside an epoch."""
    state = build(NET, seed=3).state_dict()
    renamed = {key.replace("layer", "group").replace("conv", "c").replace("fc", "out"): t for key, t in state.items()}
    torch.save({"state_dict": renamed, "epoch": 3}, tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def tuned(source: Path, root: Path, **fields: Any) -> Run:
    return make_run(recipe("digits", **{"start": str(source), "net": NET, "epochs": 1, **fields}), root)


def test_a_run_starts_from_tensors_that_are_paired_by_order(theirs: Path, tmp_path: Path) -> None:
    run = tuned(theirs, tmp_path, match="order", normalise="0.3/0.2")
    wanted = build(NET, seed=3).state_dict()
    first = first_network(run, run.recipe, "cpu").state_dict()
    assert run.pretrained is not None
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in first.items() if name not in run.pretrained.new)
    assert run.pretrained.naming == IN_ORDER
    normalise = normalisation_of(run)
    assert (normalise.mean.item(), normalise.std.item()) == pytest.approx((0.3, 0.2))
    for _ in train(run, threads=1):
        pass
    settings = read_settings(run.folder)
    assert settings["start"]["pairs"][0].split() == ["c1", "->", "conv1", "(16x1x3x3)"]
    assert len(settings["start"]["pairs"]) == 2 * 7 + 1
    assert changed_fields(settings)["match"] == "order"
    _, metadata = load_with_metadata(run.folder)
    assert metadata is not None
    assert metadata.recipe["match"] == "order"
    assert torch.equal(metadata.normalisation.mean, normalise.mean)
    again = tuned(theirs, tmp_path, match="order", normalise="0.3/0.2")
    assert again.result() == run.result() is not None


def test_the_same_weights_and_normalisation_are_the_same_run_however_they_were_found(
    theirs: Path, tmp_path: Path
) -> None:
    convert(theirs, tmp_path / "ours.safetensors", "resnetlab", net=NET, match="order", normalise="0.3/0.2")
    by_order = tuned(theirs, tmp_path, match="order", normalise="channel_mean_std")
    assert by_order.id == tuned(tmp_path / "ours.safetensors", tmp_path, normalise="channel_mean_std").id
    assert by_order.id != tuned(theirs, tmp_path, match="order", normalise="0.3/0.2").id


def test_fields_that_are_new_change_no_id() -> None:
    """Of before `match`, and before `normalise` took numbers."""
    assert make_run(recipe("digits"), Path("runs")).id == "1c22ca79e181"
    assert make_run(recipe("digits", seed=3, epochs=5, normalise="imagenet"), Path("runs")).id == "485f647d3c60"


def test_a_new_start_is_read_by_its_names_again(theirs: Path) -> None:
    given = recipe("digits", start=str(theirs), net=NET, match="order")
    assert given.override(start="other").match == "names"
    assert given.override(start="other", match="order").match == "order"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"match": "order", "start": ""}, r"match='order' needs weights to start from \(--from\)"),
        ({"match": "order", "net": ""}, "theirs.pth: --match order needs the network's name: give --net"),
        ({"match": "order", "net": "cifar_resnet14(in_channels=1)"}, "theirs.pth: does not fit cifar_resnet14"),
        ({"match": "size"}, "match='size' is not known: choose one of names, order"),
        (
            {"match": "order", "normalise": "cifar10"},
            "normalise='cifar10' must be .*images have one channel",
        ),
        ({"match": "order", "normalise": "0.1,0.2/0.3"}, "normalise='0.1,0.2/0.3' must be .*each one number, since"),
        (
            {"normalise": "pixelmean"},
            "pixel_mean, .*source, cifar10, cifar100, or MEAN/STD.*Did you mean pixel",
        ),
        ({"normalise": "0.5/0"}, "deviations greater than 0"),
        ({"normalise": 0.5}, "normalise=0.5 must be text"),
    ],
)
def test_what_can_not_be_is_one_line(theirs: Path, tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        tuned(theirs, tmp_path / "runs", **fields)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_an_ambiguous_file_is_refused(tmp_path: Path) -> None:
    state = build(NET, seed=3).state_dict()
    torch.save({key: state[key] for key in reversed(state)}, tmp_path / "theirs.pth")
    with pytest.raises(UserError, match=r"theirs.pth: its order is ambiguous"):
        tuned(tmp_path / "theirs.pth", tmp_path, match="order")
    resnetlab.save_pretrained(build(NET), tmp_path / "folder")
    with pytest.raises(UserError, match="states which network it holds; leave --match order out"):
        tuned(tmp_path / "folder", tmp_path, match="order", net="")


def test_the_command_prints_the_pairs_and_whose_normalisation_it_is(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    given = ["--from", str(theirs), "--net", NET, "--match", "order", "--epochs", "1", "--runs", str(tmp_path / "runs")]
    assert main(["train", "digits", *given]) == 0
    assert any("out" in message and message.endswith("-> fc (10x64)") for message in caplog.messages)
    said = capsys.readouterr().err
    whose = "each channel's mean and standard deviation over the training images"
    assert f"parameter names: by order; normalisation: {whose}, " in said
    assert "since the file does not state one (--normalise gives it)" in said


def test_numbers_are_what_eval_takes_them_for() -> None:
    for text in ("imagenet", "cifar10", "cifar100", "0.5/0.5", "0.1,0.2,0.3/0.4"):
        made = replace(recipe("cifar_paper"), normalise=text)
        assert made.normalise == text
        assert parse_normalisation(text, 3, NORMALISATIONS).mean.shape == (3, 1, 1)
