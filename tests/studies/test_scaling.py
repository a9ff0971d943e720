"""The study `scaling`: its measurements, what it shares with others, and a rule that can find against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from resnetlab.measuring.propagation import shortcut_scale
from resnetlab.nets.mixing import Add, Mix, Plain, Scale
from resnetlab.nets.zoo import spec
from resnetlab.studies.degradation import STUDY as DEGRADATION
from resnetlab.studies.figures.draw import draw
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.measurement import Measured, Measurement, measure_or_cached
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED
from resnetlab.studies.frame.study import Plan, StudyResult
from resnetlab.studies.frame.text import both
from resnetlab.studies.scaling import STUDY
from resnetlab.studies.scaling.figures import FROZEN, HALF, NONE, number
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

DATA = {"quick": None, "cifar": "cifar10:x", "paper": "cifar10:x"}


@dataclass(frozen=True)
class World:
    """What is found when the study runs; by default, what the paper says."""

    train: Callable[[Mix], float] = {Add(): 0.1, HALF: 40.0, FROZEN: 8.0, Plain(): 60.0}.__getitem__
    test: Callable[[Mix], float] = {Add(): 6.0, HALF: 45.0, FROZEN: 12.0, Plain(): 70.0}.__getitem__
    growth: Callable[[Mix], float] = lambda mix: {0.0: 3000.0, 0.5: 1000.0}.get(shortcut_scale(mix), 30.0)
    off: float = 0.0  # by which share factors are above the product of scales, with pre-activation
    relu: float = 0.5  # by what a ReLU multiplies them
    difference: float = 0.0  # between Scale(0, 1) and the plain net
    spread: float = 0.2

    def values(self, m: Measurement) -> dict[str, Any]:
        """What a measurement gives."""
        if m.function.endswith("same"):
            return {"numbers": 1000, "largest_difference": self.difference}
        net = spec(m.run.net if m.run else m.settings["net"])
        units, scale = sum(s.units for s in net.stages), shortcut_scale(net.mix)  # type: ignore[union-attr]
        changed = self.relu if net.order == "post" else 1 + self.off  # type: ignore[union-attr]
        forward = [scale**at * (changed if at else 1) for at in range(units + 1)]
        no_h = net.mix == Plain()  # type: ignore[union-attr]
        growth = self.growth(net.mix) * (1 + 0.01 * m.seed)  # type: ignore[union-attr]
        return {
            "signal": [1.0] * (units + 1),
            "signal_factor": [None] * (units + 1) if no_h else forward,
            "signal_share": forward,
            "gradient": [growth ** (1 - at / units) for at in range(units + 1)],
            "shortcut_gradient": forward[::-1],
            "gradient_factor": [None] * (units + 1) if no_h else forward[::-1],
        }

    def outcome(self, recipe: Any) -> RunResult:
        """What a run ends with."""
        mix, shift = spec(recipe.net).mix, self.spread * (recipe.seed % 3 - 1)  # type: ignore[union-attr]
        errors = {"train_error": self.train(mix) + shift, "test_error": self.test(mix) + shift}
        lines = [{"epoch": epoch} | errors for epoch in (1, 2)]
        return RunResult(recipe, errors | {"seconds": 1.0}, lines, {})

    def judged(
        self, scale: str, plan: Plan | None = None, lost: Callable[[Any], bool] = lambda _: False
    ) -> StudyResult:
        """The finding, where what is `lost` failed."""
        plan = plan or STUDY.plan(scale, DATA[scale], ())
        evidence = Evidence(
            scale,
            [self.outcome(r) for r in plan.recipes if not lost(r)],
            [Measured(m, self.values(m), 0.1, {}) for m in plan.measurements if not lost(m)],
            [one for one in (*plan.recipes, *plan.measurements) if lost(one)],
        )
        return STUDY.judge(evidence)


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


PAPERS = World()
OTHER = World(
    train=lambda mix: 5.0 if mix == Add() else 1.0,
    test=lambda mix: 30.0 if mix == Add() else 10.0,
    growth=lambda mix: 3000.0 if mix == Plain() else 30.0,
    off=0.01,
    relu=1.01,
    difference=1e-6,
)


def test_data_as_in_the_paper_reproduce_it() -> None:
    finding = PAPERS.judged("paper")
    assert verdicts(finding) == [REPRODUCED] * 11


def test_contrary_data_refute_every_claim() -> None:
    finding = OTHER.judged("paper")
    expected = [CONTRADICTED] * 11
    expected[5] = expected[8] = NOT_TESTED  # nothing is lost, so nothing is lost to optimisation
    assert verdicts(finding) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [(38.46, "38.5"), (999.4, "999"), (999.6, "1,000"), (1234.6, "1,230"), (999_600, "1e+06"), (2.1e-9, "2.1e-09")],
)
def test_a_number_of_any_size_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("half", "verdict", "gap"),
    [
        (1000.0, REPRODUCED, "+1.0 ["),  # log10: 3 beside 3.5 and 1.5
        (1e9, REPRODUCED, "+2.0 ["),  # beyond the plain net, as much nearer to it as it is away from Add
        (1e-9, CONTRADICTED, "-2.0 ["),
    ],
)
def test_how_much_nearer_the_gradient_is_to_the_plain_nets(half: float, verdict: str, gap: str) -> None:
    world = replace(PAPERS, growth=lambda mix: {0.0: 3000.0, 0.5: half}.get(shortcut_scale(mix), 30.0))
    row = world.judged("quick").rows[2]
    assert row.verdict == verdict
    assert f"nearer to the plain net by {gap}" in str(row.measured)


def test_what_110_layers_do_is_asked_at_the_paper_scale_only() -> None:
    for scale in ("quick", "cifar"):
        assert verdicts(PAPERS.judged(scale)) == [REPRODUCED] * 10 + [NOT_TESTED]


def test_a_loss_on_test_images_only_is_not_one_of_optimisation() -> None:
    train = {Add(): 0.0, HALF: 2.0, FROZEN: 2.0, Plain(): 2.0}
    found = verdicts(World(train=train.__getitem__, test=lambda mix: 5.0 if mix == Add() else 40.0).judged("quick"))
    assert found[3:9] == [REPRODUCED, REPRODUCED, CONTRADICTED] * 2


def test_table_1_is_of_test_errors() -> None:
    """Better on the training images and worse on the test images is worse by the paper's table."""
    train = {Add(): 5.0, HALF: 1.0, FROZEN: 1.0, Plain(): 1.0}
    found = World(train=train.__getitem__).judged("quick")
    assert verdicts(found)[3:9] == [REPRODUCED, CONTRADICTED, NOT_TESTED] * 2
    assert [str(row.paper)[:22] for row in found.rows[3:9:3]] == ["fail against 6.61 % (1", "12.35 against 6.61 % ("]
    assert both(found.rows[3].paper).zh.startswith("失败 对 6.61 %")


def test_seeds_that_scatter_and_one_seed_give_a_direction_only() -> None:
    assert verdicts(replace(PAPERS, spread=60).judged("quick"))[3:6] == [DIRECTION] * 3
    one = PAPERS.judged("quick", STUDY.plan("quick", None, ()).limited(None, 1))
    assert verdicts(one) == [REPRODUCED] * 2 + [DIRECTION] * 7 + [REPRODUCED, NOT_TESTED]
    assert "trains worse in the one seed that there is" in str(one.answer)


def test_a_factor_that_is_missing_is_no_product() -> None:
    class Dead(World):
        def values(self, m: Measurement) -> dict[str, Any]:
            found = super().values(m)
            return found | {key: [None] * len(v) for key, v in found.items() if key.startswith("grad")}

    finding = Dead().judged("quick")
    assert verdicts(finding)[:3] == [CONTRADICTED, CONTRADICTED, NOT_JUDGED]
    assert "does not agree" in str(finding.answer)
    json.dumps([f.panels for f in finding.figures], allow_nan=False, default=vars)


def test_rounding_does_not_pass_more_than_the_product() -> None:
    for relu, found in ((1.0005, REPRODUCED), (1.002, CONTRADICTED)):
        assert verdicts(replace(PAPERS, relu=relu).judged("quick"))[1] == found


def test_every_shortcut_passes_the_product_of_its_scales() -> None:
    class OneIsOff(World):
        def values(self, m: Measurement) -> dict[str, Any]:
            name = m.run.net if m.run else m.settings["net"]
            return (OTHER if "Scale(a=0.5, b=1.0)" in name else PAPERS).values(m)

    assert verdicts(OneIsOff().judged("quick"))[0] == CONTRADICTED


def test_a_claim_that_lacks_a_run_or_a_measurement_is_not_judged() -> None:
    def lost(one: Any) -> bool:
        name = one.settings.get("net", "") if isinstance(one, Measurement) else one.net
        return one.seed == 1 and name in ("cifar_resnet56(mix=Scale(a=0.5, b=1.0))", "cifar_plain56")

    finding = PAPERS.judged("quick", lost=lost)
    reproduced, open_ = REPRODUCED, NOT_JUDGED
    assert verdicts(finding) == [reproduced, *[open_] * 5, *[reproduced] * 4, open_]
    assert "left open" in str(finding.answer)


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_at_all_is_no_verdict(scale: str) -> None:
    finding = PAPERS.judged(scale, lost=lambda _: True)
    assert set(verdicts(finding)) == {NOT_JUDGED}
    assert finding.figures == []
    assert "left open" in str(finding.answer)


def test_the_answer_follows_the_data() -> None:
    usual = PAPERS.judged("quick").answer
    assert "0.5^27 = 7.5e-09" in str(usual)
    assert "0.5^54 = 5.6e-17" in str(PAPERS.judged("paper").answer), "He 2016's 110 layers"
    assert "does not vanish" in str(usual)
    assert "the shortcut is lost, and the network trains worse:" in str(usual)
    between = replace(PAPERS, growth=lambda mix: 1.5 if shortcut_scale(mix) == 0.5 else 30.0).judged("quick").answer
    assert "grows less" in str(between)
    other = replace(OTHER, growth=lambda mix: 0.01).judged("quick").answer
    assert "vanishes" in str(other)
    assert "not every such network trains worse" in str(other)


def test_the_table_lends_plains_runs_to_scale_0_1_only_if_they_are_one_function() -> None:
    rows = [PAPERS.judged("quick").tables[0].rows[-1], OTHER.judged("quick").tables[0].rows[-1]]
    assert [str(row[0]) for row in rows] == ["Scale(0, 1) (the runs of Plain)", "Scale(0, 1)"]
    assert [row[-1] for row in rows] == ["5", "0"]


def test_the_figures_can_be_drawn_with_theory_beside_what_was_measured() -> None:
    figures = PAPERS.judged("quick").figures
    assert [f.name for f in figures] == ["factors", "gradients", "curves"]
    lines = figures[0].panels[0].series
    assert [(line.label, line.marks) for line in lines[:2]] == [("λ = 1 theory", False), ("λ = 1 measured", True)]
    assert all(theory.mean == measured.mean for theory, measured in zip(lines[::2], lines[1::2], strict=True))
    for figure in figures:
        assert draw(figure, "x").startswith("<svg")


@pytest.mark.parametrize("scale", ["quick", "cifar"])
def test_add_and_plain_are_the_runs_of_degradation(scale: str) -> None:
    theirs = set(DEGRADATION.plan(scale, DATA[scale], ()).recipes)
    ours = STUDY.plan(scale, DATA[scale], ()).recipes
    assert {r.net for r in ours if r in theirs} == {"cifar_resnet56", "cifar_plain56"}
    assert len(set(ours)) == len(ours)


def test_the_papers_runs_warm_up_as_it_says() -> None:
    recipes = STUDY.plan("paper", None, ()).recipes
    assert {(r.warmup, r.warmup_lr, r.warmup_steps, r.iterations) for r in recipes} == {("constant", 0.01, 400, 64_000)}
    assert {spec(r.net).depth for r in recipes} == {110}  # type: ignore[union-attr]


def take_one(function: str, net: str, folder: Path) -> dict[str, Any]:
    name = f"resnetlab.studies.scaling.measure:{function}"
    return measure_or_cached(Measurement(name, {"net": net, "images": 32}, data="digits", seed=1), folder).values


def test_scale_0_1_is_the_plain_net_and_another_scale_is_not(tmp_path: Path) -> None:
    assert take_one("same", f"cifar_resnet8(mix={NONE!r})", tmp_path)["largest_difference"] == 0
    assert take_one("same", f"cifar_resnet8(mix={Scale(0.1, 1)!r})", tmp_path)["largest_difference"] > 0


def test_an_untrained_net_is_measured_on_real_images(tmp_path: Path) -> None:
    found = take_one("start", "cifar_preresnet8(mix=Scale(0.5, 1))", tmp_path)
    assert found["gradient_factor"] == pytest.approx([0.125, 0.25, 0.5, 1])


def test_a_trained_net_is_measured_with_the_weights_of_its_run(tmp_path: Path) -> None:
    short = recipe("digits", net="cifar_preresnet8(mix=Scale(0.5, 1))", epochs=0.1)
    list(train(make_run(short, tmp_path), threads=1))
    function = "resnetlab.studies.scaling.measure:trained"
    found = measure_or_cached(Measurement(function, {"images": 32}, run=short), tmp_path).values
    assert found["gradient_factor"] == pytest.approx([0.125, 0.25, 0.5, 1])
    assert found["gradient"] != take_one("start", short.net, tmp_path)["gradient"]
