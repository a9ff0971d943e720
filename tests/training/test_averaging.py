"""Averaged weights equal their formula and leave training alone; statistics averaged anew are plain means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from resnetlab.data.loading import Batch
from resnetlab.nets.zoo import build
from resnetlab.run_files import read_epochs
from resnetlab.training.averaging import Average, reestimate
from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.step import Stepper


def finish(run: Run) -> Run:
    for _ in train(run, threads=1):
        pass
    return run


def test_the_average_equals_its_formula_and_counts_are_copied() -> None:
    net = nn.BatchNorm2d(2).double()
    average = Average(net, 0.3)
    wanted = net.weight.detach().clone()
    for t in range(6):
        with torch.no_grad():
            net.weight.copy_(torch.randn(2))
        net(torch.randn(4, 2, 3, 3).double())
        d = min(0.3, (1 + t) / (10 + t))
        wanted = d * wanted + (1 - d) * net.weight.detach()
        average.update()
    torch.testing.assert_close(average.tensors["weight"], wanted)
    assert int(average.tensors["num_batches_tracked"]) == 6
    assert not torch.equal(average.tensors["running_mean"], net.running_mean)  # type: ignore[arg-type]


def test_a_stepper_averages_after_every_step_and_evaluates_the_average() -> None:
    net, r = build("cifar_resnet8", seed=1).train(), Recipe(ema=0.5)
    fc = net.get_parameter("fc.weight")
    step = Stepper(net, make_optimiser(net, r), r, "cpu")
    wanted = fc.detach().clone()
    for t in range(3):
        step(Batch(torch.randn(4, 3, 16, 16), torch.arange(4), None), 0.1)
        d = min(0.5, (1 + t) / (10 + t))
        wanted = d * wanted + (1 - d) * fc.detach()
    own = fc.detach().clone()
    with step.evaluated() as evaluated:
        torch.testing.assert_close(evaluated.get_parameter("fc.weight").detach(), wanted)
    assert torch.equal(fc, own)
    assert not torch.allclose(own, wanted)


def test_swapped_twice_is_as_before_to_the_last_bit() -> None:
    net = build("cifar_resnet8", seed=1)
    average = Average(net, 0.9)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(1 / 3)
    own, held = ({k: v.clone() for k, v in which.items()} for which in (net.state_dict(), average.tensors))
    average.swap()
    assert all(torch.equal(v, held[k]) for k, v in net.state_dict().items())
    average.swap()
    assert all(torch.equal(v, own[k]) for k, v in net.state_dict().items())
    assert all(torch.equal(v, held[k]) for k, v in average.tensors.items())


def test_the_average_leaves_the_training_as_it_is_and_is_what_weight_files_hold(tmp_path: Path) -> None:
    plain = finish(make_run(recipe("digits", net="cifar_resnet8", epochs=1), tmp_path))
    run = finish(make_run(recipe("digits", net="cifar_resnet8", epochs=1, ema=0.9), tmp_path))
    trained = load_file(plain.folder / "last/weights.safetensors")
    state = load_file(run.folder / "last/state.safetensors")
    weights = load_file(run.folder / "last/weights.safetensors")
    assert all(torch.equal(state[f"net.{name}"], t) for name, t in trained.items())
    assert all(torch.equal(state[f"average.{name}"], t) for name, t in weights.items())
    assert not torch.equal(weights["fc.weight"], trained["fc.weight"])
    line = read_epochs(run.folder)[-1]
    for which in ("last", "best"):
        assert evaluate([run.folder], run.data, which=which).accuracy.error == line["test_error"]


@pytest.mark.slow
def test_an_interrupted_run_with_an_average_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    r = recipe("digits", net="cifar_resnet8", epochs=2, batch_size=180, ema=0.99, bn_reestimate=3, precision="bf16")
    unbroken = finish(make_run(r, tmp_path / "unbroken"))
    sitting = train(make_run(r, tmp_path / "broken"), threads=1)
    next(status for status in sitting if status.epochs_done == 1)
    sitting.close()  # type: ignore[attr-defined]  # a generator
    resumed = finish(make_run(r, tmp_path / "broken"))
    for name in ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl"):
        assert (resumed.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()


def test_statistics_anew_are_the_plain_means_of_the_batches() -> None:
    net = build("cifar_resnet8(mix=DropoutShortcut(0.5))", seed=1).eval()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.constant_(norm.running_var, 7.0)  # type: ignore[arg-type]
    batches = [torch.randn(6, 3, 16, 16) for _ in range(4)]
    inputs: list[torch.Tensor] = []
    last = net.layer3[0].bn2  # type: ignore[index]
    last.register_forward_hook(lambda module, given, out: inputs.append(given[0]))
    reestimate(net, iter(batches))
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in inputs]).mean(0)
    torch.testing.assert_close(last.running_mean, mean)
    torch.testing.assert_close(last.running_var, variance)
    assert int(last.num_batches_tracked) == 4
    assert last.momentum == 0.1
    assert not any(m.training for m in net.modules())


def test_statistics_anew_are_those_without_dropout_and_the_mode_stays() -> None:
    net = build("cifar_resnet8(mix=DropoutShortcut(0.5), stochastic_depth=0.5)", seed=1).train()
    batch = torch.randn(6, 3, 16, 16)
    found = []
    for _ in range(2):  # other random numbers
        reestimate(net, [batch])
        found.append(net.layer3[0].bn2.running_mean.clone())  # type: ignore[index]
    assert torch.equal(*found)
    assert all(m.training for m in net.modules())


def test_statistics_anew_without_batch_norm_read_nothing() -> None:
    def never() -> object:
        pytest.fail("a batch was read")
        yield

    reestimate(build("cifar_resnet8(norm=none)"), never())  # type: ignore[arg-type]


def test_after_training_the_weights_are_the_same_and_the_statistics_others(tmp_path: Path) -> None:
    plain = finish(make_run(recipe("digits", net="cifar_resnet8", epochs=1), tmp_path))
    run = finish(make_run(recipe("digits", net="cifar_resnet8", epochs=1, bn_reestimate=100), tmp_path))
    one, other = (load_file(r.folder / "last/weights.safetensors") for r in (plain, run))
    differ = {name.rpartition(".")[2] for name in one if not torch.equal(one[name], other[name])}
    assert differ == {"running_mean", "running_var"}
    assert int(other["bn1.num_batches_tracked"]) == 23  # no more than an epoch
    assert evaluate([run.folder], run.data).accuracy.error == read_epochs(run.folder)[-1]["test_error"]
