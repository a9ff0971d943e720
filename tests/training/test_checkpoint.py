"""Checkpoints: nothing is believed that was not checked, and there is always a whole one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.nets.zoo import build
from resnetlab.training import checkpoint
from resnetlab.training.checkpoint import Checkpoint, EpochTotals, TrainingProgress, load_checkpoint, save_checkpoint
from resnetlab.training.loop import train
from resnetlab.training.optimiser import make_optimiser, parameters_of, restore_optimiser
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.schedule import ScheduleState
from resnetlab.training.step import Stepper
from resnetlab.weights.files import read_safetensors
from resnetlab.weights.metadata import described


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(recipe("digits", net="cifar_resnet8", epochs=1), tmp_path_factory.mktemp("runs"))
    for _ in train(run, threads=1):
        pass
    return run.folder


def stepper(name: str = "cifar_resnet8") -> Stepper:
    net = build(f"{name}(in_channels=1)")
    return Stepper(net, make_optimiser(net, recipe("digits")), recipe("digits"), "cpu")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("sha256",), [], r"sha256 is \[\], not an object"),
        (("sha256",), {}, "weights.safetensors: damaged, its checksum differs"),
        (("sha256", "weights.safetensors"), "x", "weights.safetensors: damaged, its checksum differs"),
        (("progress",), [], r"progress is \[\], not an object"),
        (("progress", "epoch"), "x", "epoch is 'x', not a whole number from 0"),
        (("progress", "step"), "x", "step is 'x', not a whole number"),
        (("progress", "step"), None, "step is None, not a whole number"),
        (("progress", "step"), True, "step is True, not a whole number"),
        (("progress", "step"), 1.5, "step is 1.5, not a whole number"),
        (("progress", "step"), -1, "step is -1, not a whole number from 0"),
        (("progress", "seconds"), 10**400, "seconds is 10+\\.\\.\\., not a number from 0 to"),
        (("progress", "best_error"), float("nan"), "best_error is nan, not a number from 0"),
        (("schedule", "drops"), [], r"drops is \[\], not a whole number"),
        (("schedule", "warm_since"), "x", "warm_since is 'x', not a whole number from 0 or null"),
    ],
)
def test_a_state_of_other_values_is_damaged(
    trained: Path, tmp_path: Path, place: tuple[str, ...], value: object, message: str
) -> None:
    shutil.copytree(trained / "last", tmp_path / "last")
    state = json.loads((tmp_path / "last/state.json").read_text())
    inner = state
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    state["checksum"] = checkpoint.checksum({k: v for k, v in state.items() if k != "checksum"})
    (tmp_path / "last/state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=f"last.*{message}"):
        load_checkpoint(tmp_path, stepper())


def test_a_state_without_its_checksum_is_damaged(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "last", tmp_path / "last")
    state = json.loads((tmp_path / "last/state.json").read_text())
    del state["checksum"]
    (tmp_path / "last/state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match="damaged, its checksum differs"):
        load_checkpoint(tmp_path, stepper())


def test_an_optimiser_is_restored_as_it_was_saved(trained: Path) -> None:
    """What is not saved is forgotten, and what is has the layout of its parameter, or steps would take longer."""
    how = recipe("digits")
    net = build("cifar_resnet8(in_channels=1)").to(memory_format=torch.channels_last)
    optimiser = make_optimiser(net, how)
    saved = {f"momentum.{i}": torch.full(p.shape, float(i)) for i, p in enumerate(parameters_of(optimiser)) if i != 3}
    for p in net.parameters():
        optimiser.state[p]["momentum_buffer"] = torch.ones_like(p)
    restore_optimiser(optimiser, how, saved)
    for i, p in enumerate(parameters_of(optimiser)):
        if i == 3:
            assert "momentum_buffer" not in optimiser.state.get(p, {})
            continue
        kept = optimiser.state[p]["momentum_buffer"]
        assert kept.stride() == p.stride()
        assert torch.equal(kept, saved[f"momentum.{i}"])


def test_a_kill_after_a_kill_leaves_a_whole_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only last.old is there, and the next checkpoint dies before it takes its place."""
    shutil.copytree(trained / "last", tmp_path / "last.old")
    step = stepper()
    metadata = described(read_safetensors(trained / "last/weights.safetensors")[1])[1]
    assert metadata is not None

    def save() -> None:
        save_checkpoint(tmp_path, step, metadata, Checkpoint(TrainingProgress(epoch=7), ScheduleState()))

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            save()
    found = load_checkpoint(tmp_path, step)
    assert found is not None
    assert found.progress.epoch == 1
    save()
    assert {p.name for p in tmp_path.iterdir()} == {"last", "last.old"}
    found = load_checkpoint(tmp_path, step)
    assert found is not None
    assert found.progress.epoch == 7


@pytest.mark.parametrize(
    ("rng_states", "message"),
    [
        ({"cpu": torch.zeros(7, dtype=torch.uint8)}, "damaged, it lacks the random state"),
        ({"cpu": torch.zeros(5056, dtype=torch.float32)}, "damaged, it lacks the random state"),
        ({"cuda": torch.zeros(16)}, "damaged, it lacks the random state"),
        ({"cuda": torch.zeros(1, 16, dtype=torch.uint8)}, "damaged, it lacks the random state"),
        ({}, "damaged, it counts more errors than images"),
    ],
)
def test_within_an_epoch_random_states_and_totals_must_be_possible(
    trained: Path, tmp_path: Path, rng_states: dict[str, torch.Tensor], message: str
) -> None:
    metadata = described(read_safetensors(trained / "last/weights.safetensors")[1])[1]
    assert metadata is not None
    totals, states = EpochTotals(seen=4, wrong=5), {"cpu": torch.get_rng_state()} | rng_states
    within = Checkpoint(TrainingProgress(position=4), ScheduleState(), [totals], [states])
    save_checkpoint(tmp_path, stepper(), metadata, within)
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path, stepper())


def test_each_process_gets_its_own_totals_and_random_state(trained: Path, tmp_path: Path) -> None:
    metadata = described(read_safetensors(trained / "last/weights.safetensors")[1])[1]
    assert metadata is not None
    totals = [EpochTotals(seen=4, wrong=4), EpochTotals(seen=3, wrong=1)]  # an error of 100 % is possible
    states = [{"cpu": torch.Generator().manual_seed(seed).get_state()} for seed in (1, 2)]
    within = Checkpoint(TrainingProgress(position=7), ScheduleState(), totals, states)
    save_checkpoint(tmp_path, stepper(), metadata, within)
    found = load_checkpoint(tmp_path, stepper())
    assert found is not None
    assert found.totals == totals
    assert all(torch.equal(one["cpu"], other["cpu"]) for one, other in zip(found.rng_states, states, strict=True))


def test_weights_of_another_network_are_refused(trained: Path, tmp_path: Path) -> None:
    metadata = described(read_safetensors(trained / "last/weights.safetensors")[1])[1]
    assert metadata is not None
    save_checkpoint(tmp_path, stepper(), metadata, Checkpoint(TrainingProgress(), ScheduleState()))
    words = r"last/weights.safetensors: does not fit the run's network: it lacks layer1.1.* Nothing was loaded"
    with pytest.raises(UserError, match=words):
        load_checkpoint(tmp_path, stepper("cifar_resnet14"))


def test_a_second_damaged_checkpoint_takes_the_place_of_the_first(trained: Path, tmp_path: Path) -> None:
    for name in ("last", "last.old", "last.damaged"):
        shutil.copytree(trained / "last", tmp_path / name)
    (tmp_path / "last/state.json").write_text("damaged anew")
    assert load_checkpoint(tmp_path, stepper()) is not None
    assert (tmp_path / "last.damaged/state.json").read_text() == "damaged anew"
    assert not (tmp_path / "last").exists()


def test_a_state_whose_values_stand_in_another_order_is_the_same(trained: Path, tmp_path: Path) -> None:
    """As another program writes it that adds spaces, or sorts."""
    shutil.copytree(trained / "last", tmp_path / "last")
    state = json.loads((tmp_path / "last/state.json").read_text())
    (tmp_path / "last/state.json").write_text(json.dumps(dict(reversed(state.items()))))
    assert load_checkpoint(tmp_path, stepper()) is not None
