"""What a plan costs before it runs: by multiply-adds, and in hours where something tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnetlab.measuring.complexity import complexity
from resnetlab.nets.zoo import spec
from resnetlab.studies.frame import budget as budgets
from resnetlab.studies.frame.budget import Budget, budget, epochs_of, total_epochs
from resnetlab.studies.frame.cases import CASES
from resnetlab.studies.frame.run import in_turn
from resnetlab.studies.frame.scales import SHORTER, base, warmed_up
from resnetlab.studies.frame.study import study
from resnetlab.training import dry_run as dry_run_module
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

CIFAR = base("cifar", "cifar10:nowhere")
DIGITS = recipe("digits", net="cifar_resnet8", epochs=1)
NETS = [f"cifar_resnet20{case.change}" for case in CASES.values()]


def test_an_epoch_of_the_unit_costs_one() -> None:
    assert epochs_of(CIFAR.override(net="cifar_resnet20", epochs=1)) == 1
    assert epochs_of(CIFAR.override(net="cifar_resnet20", epochs=25, seed=7)) == 25
    assert epochs_of(base("paper", "cifar10:x").override(net="cifar_resnet20")) == pytest.approx(64_000 * 128 / 50_000)


@pytest.mark.parametrize("net", [*NETS, "cifar_plain56", "cifar_preresnet164", "cifar_resnet56(shortcut='B')"])
def test_multiply_adds_are_those_of_the_whole_network(net: str) -> None:
    counted = complexity(spec(net)).multiply_adds / complexity(spec("cifar_resnet20")).multiply_adds
    assert epochs_of(CIFAR.override(net=net, epochs=1)) == pytest.approx(counted, rel=1e-12)


def test_small_images_cost_little() -> None:
    whole = epochs_of(CIFAR.override(net="cifar_resnet20", epochs=1))
    assert epochs_of(DIGITS.override(net="cifar_resnet20")) == pytest.approx(whole * 1437 / 50_000 / 16, rel=0.02)


def test_a_run_is_counted_once() -> None:
    one = CIFAR.override(net="cifar_resnet20", epochs=2)
    assert total_epochs([one, one, one.override(seed=1)]) == 4


def test_finished_runs_are_left_out_and_tell_the_time(tmp_path: Path) -> None:
    recipes = [DIGITS, DIGITS.override(seed=1), DIGITS]
    before = budget(recipes, tmp_path)
    assert (before.runs, before.finished, before.seconds_left) == (2, 0, None), "too little to be worth a measurement"
    assert before.epochs_left == before.epochs == total_epochs(recipes)
    assert not list(tmp_path.iterdir()), "nothing is trained or kept"
    list(train(make_run(DIGITS, tmp_path), threads=1))
    after = budget(recipes, tmp_path)
    assert (after.finished, after.by_runs) == (1, True)
    assert after.epochs_left == pytest.approx(before.epochs / 2)
    assert after.seconds_left is not None
    assert "; 1 finished, " in after.words
    assert " of training on this machine, by finished runs" in after.words


@pytest.mark.parametrize(
    ("others", "words"),
    [(None, "by a few steps"), (1.84, "by a few steps beside other work on 1.8 cores, without which")],
)
def test_a_few_steps_tell_the_time_where_no_run_does(
    others: float | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "WORTH_TIMING", 0.0)
    monkeypatch.setattr(dry_run_module, "other_work", lambda: others)
    found = budget([DIGITS, DIGITS.override(net="cifar_resnet14")], tmp_path)
    assert found.seconds_left is not None
    assert found.seconds_left > 0
    assert words in found.words
    assert ("other work" in found.words) is (others is not None)
    assert not list(tmp_path.iterdir())


def test_a_cost_in_words() -> None:
    assert Budget(0, 0, 0, 0).words == "nothing is trained"
    assert Budget(2, 1.0, 2, 0).words == "2 runs with the multiply-adds of 1 epoch of cifar_resnet20, all finished"
    assert Budget(3, 4.2, 3, 0).words == "3 runs with the multiply-adds of 4.2 epochs of cifar_resnet20, all finished"
    assert Budget(1, 0.034, 1, 0).words == "1 run with the multiply-adds of 0.034 epochs of cifar_resnet20, finished"
    assert Budget(3, 1234, 0, 1234, 7200).words == (
        "3 runs with the multiply-adds of 1,234 epochs of cifar_resnet20; "
        "about 2.0 hours of training on this machine, by a few steps"
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "1 minute"), (600, "10 minutes"), (5340, "89 minutes"), (5400, "1.5 hours")]
)
def test_short_times_are_in_minutes(seconds: float, words: str) -> None:
    assert f"about {words} of training" in Budget(3, 9, 0, 9, seconds).words


def test_runs_of_another_machine_tell_no_time_and_few_threads_count_for_few_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(DIGITS, tmp_path)
    list(train(run, threads=1))
    taken = run.result()
    assert taken is not None
    monkeypatch.setattr(budgets, "available_cores", lambda: 4)
    rate = budgets._rate([run], "cpu")
    assert rate == pytest.approx(taken["seconds"] / 4 / epochs_of(DIGITS))
    here = budgets.machine("cpu")
    for other in ({"processor": "another"}, {"cores": 0}, {"device": "another"}):
        monkeypatch.setattr(budgets, "machine", lambda _, other=other: here | other)
        assert budgets._rate([run], "cpu") is None


@pytest.mark.parametrize("name", ["degradation", "orders", "mixing", "carry", "depth", "shortcuts", "scaling"])
@pytest.mark.parametrize("scale", ["quick", "cifar", "paper"])
def test_the_first_seed_of_everything_comes_first(name: str, scale: str) -> None:
    plan = study(name).plan(scale, None, ())
    seeds = [r.seed for r in plan.recipes]
    assert seeds == sorted(seeds)
    turns = in_turn(plan.recipes)
    assert [plan.recipes[i].seed for i in turns] == seeds
    assert sorted(turns) == list(range(len(seeds)))
    assert spec(plan.recipes[turns[0]].net).depth == max(spec(r.net).depth for r in plan.recipes if r.seed == 0)


@pytest.mark.parametrize(
    "name", ["degradation", "orders", "mixing", "carry", "depth", "shortcuts", "scaling", "lesion"]
)
def test_at_the_scale_cifar_every_network_is_trained_alike(name: str) -> None:
    """By the paper's recipe, shorter, with three seeds; the only help is the paper's own, for 110 layers."""
    recipes = study(name).plan("cifar", "cifar10:x", ()).recipes
    shared = recipe("cifar_paper", data="cifar10:x", **SHORTER)
    helped = {r for r in recipes if r.net == "cifar_resnet110"}
    assert {r.override(net=shared.net, seed=0) for r in recipes if r not in helped} == {shared}
    assert {r.override(net=shared.net, seed=0) for r in helped} <= {warmed_up(shared)}
    assert {r.seed for r in recipes} == {0, 1, 2}
    assert {sum(other.net == r.net for other in recipes) for r in recipes} == {3}
