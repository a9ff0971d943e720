"""The study `identity`: its measurements do what they say, and its rule can find against it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build
from resnetlab.run_files import read_epochs
from resnetlab.studies import degradation
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.measurement import Measured, Measurement, MeasurementContext, measure_or_cached, opened
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import (
    CONTRADICTED,
    DIRECTION,
    NOT_JUDGED,
    REPRODUCED,
    UNDECIDED,
)
from resnetlab.studies.frame.study import StudyResult
from resnetlab.studies.identity.measure import fit, train_on
from resnetlab.studies.identity.study import CONSTRUCT, FIT, STUDY, TRAIN_ON
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.training.setup import normalisation_of

Losses = Callable[[str, int], float]  # (mix, units) -> final loss


def papers_way(mix: str, units: int) -> float:
    return 1e-6 if mix == "Add()" else 0.1 * units


def judged(
    fits: Losses = papers_way,
    *,
    differs: tuple[float, int] = (0.0, 0),
    ends: tuple[float, float] = (30.0, 0.1),
    seeds: int | None = None,
    lost: str = "",
    scale: str = "quick",
) -> StudyResult:
    """The finding if stacks ended with these losses, constructed nets differed so (largest, answers changed), and
    training on led to these errors (plain, residual); the measurements of the function `lost` failed.
    """
    plan = STUDY.plan(scale, None, ()).limited(None, seeds)
    outcomes = []
    for r in plan.recipes:
        error = 0.2 + 0.1 * r.seed
        result = {"train_error": error, "test_error": 3.0, "seconds": 1.0}
        outcomes.append(RunResult(r, result, [{"epoch": 1} | result], {}))
    measured = []
    for m in plan.measurements:
        shift = 1 + 0.01 * m.seed
        if m.function == FIT:
            loss = fits(m.settings["mix"], m.settings["units"]) * shift
            values = {"first": 1.0 + m.settings["units"], "last": loss, "rate": 0.1}
        elif m.function == TRAIN_ON:
            assert m.run is not None
            values = {"train_errors": [50.0, ends["resnet" in m.run.net] * shift], "test_error": 3.0}
        else:
            d = {"largest": differs[0], "scores": 20.0 - m.seed, "changed": differs[1], "images": 360}
            values = {"exact": d, "calibrated": d}
        measured.append(Measured(m, values, 1.0, {}))
    kept = [m for m in measured if m.measurement.function != lost]
    failed: list[Recipe | Measurement] = [m for m in plan.measurements if m.function == lost]
    return STUDY.judge(Evidence(scale, outcomes, kept, failed))


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


@pytest.mark.parametrize("scale", SCALES)
def test_data_as_in_the_paper_reproduce_it(scale: str) -> None:
    finding = judged(scale=scale)
    assert verdicts(finding) == [REPRODUCED] * 6
    assert "has this solution too" in str(finding.answer)
    assert "of scores up to 20.0, 1080 images" in str(finding.rows[0].measured), "of all three seeds"
    assert [figure.name for figure in finding.figures] == ["fits", "training"]


def test_contrary_data_refute_every_claim() -> None:
    finding = judged(lambda mix, units: 1e-6 if mix == "Plain()" else 1.0, differs=(1e-3, 2), ends=(0.1, 30.0))
    assert verdicts(finding) == [*[CONTRADICTED] * 5, UNDECIDED], "stacks of all depths fit equally well"
    assert "has this solution too" not in str(finding.answer)


def test_each_claim_has_data_that_refute_it_alone() -> None:
    assert verdicts(judged(differs=(1e-6, 0))) == [CONTRADICTED, *[REPRODUCED] * 5]
    assert verdicts(judged(ends=(30.0, 8.0)))[2:4] == [CONTRADICTED, REPRODUCED]
    assert verdicts(judged(ends=(0.1, 0.1)))[2:4] == [REPRODUCED, UNDECIDED]
    finding = judged(lambda mix, units: papers_way("Plain()" if units > 1 else "Add()", units))
    assert verdicts(finding)[4] == UNDECIDED
    # one depth at which residual stacks are no better is told, and weighs as one of five
    finding = judged(lambda mix, units: papers_way("Plain()" if units == 16 else mix, units))
    assert verdicts(finding) == [REPRODUCED] * 6
    assert "32 layers +0.0 [" in str(finding.rows[4].measured)
    rows = verdicts(judged(lambda mix, units: 0.5 / units if mix == "Plain()" else 1e-6))
    assert rows == [*[REPRODUCED] * 5, CONTRADICTED]


def test_one_seed_gives_a_direction_only() -> None:
    assert verdicts(judged(seeds=1)) == [REPRODUCED, REPRODUCED, *[DIRECTION] * 4]


def test_a_loss_of_zero_is_one_that_float32_cannot_tell_from_it() -> None:
    finding = judged(lambda mix, units: 0.0 if mix == "Add()" else 0.9)
    assert verdicts(finding)[4] == REPRODUCED
    assert "mean +7.2 [+7.2, +7.2]" in str(finding.rows[4].measured)
    assert [row[5] for row in finding.tables[1].rows] == ["6e-08"] * len(finding.tables[1].rows)
    assert verdicts(judged(lambda mix, units: 0.0))[4:] == [UNDECIDED, UNDECIDED]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_not_judged(loss: float) -> None:
    finding = judged(lambda mix, units: loss if (mix, units) == ("Plain()", 16) else papers_way(mix, units))
    assert verdicts(finding)[4:] == [NOT_JUDGED, NOT_JUDGED]
    assert str(finding.rows[4].measured) == "some of the values it compares are not finite"
    assert "plain none" in str(finding.answer)
    plain, residual = finding.figures[0].panels[0].series
    assert (len(plain.x), len(residual.x)) == (4, 5)


def test_words_say_which_stacks_fit() -> None:
    """One fits if less than 1 % of x's variance is left."""
    words = str(judged(lambda mix, units: 0.009 if units < 8 and mix == "Add()" else 0.011).answer)
    assert "residual 2, 4, 8; plain none (tried: 2, 4, 8, 16, 32)" in words
    assert "not found from every start" in words
    assert "a residual stack of 32 layers starts at a loss of 17" in words.replace("\n", " ")
    assert "not found from every start" not in str(judged().answer)


@pytest.mark.parametrize(("lost", "open_rows"), [(CONSTRUCT, [0, 1]), (TRAIN_ON, [2, 3]), (FIT, [4, 5])])
def test_a_claim_that_lacks_a_measurement_is_not_judged(lost: str, open_rows: list[int]) -> None:
    finding = judged(lost=lost)
    assert [i for i, v in enumerate(verdicts(finding)) if v == NOT_JUDGED] == open_rows
    assert NOT_JUDGED in verdicts(finding)


@pytest.mark.parametrize("scale", SCALES)
def test_nothing_at_all_is_no_verdict(scale: str) -> None:
    plan = STUDY.plan(scale, None, ())
    finding = STUDY.judge(Evidence(scale, failed=[*plan.recipes, *plan.measurements]))
    assert verdicts(finding) == [NOT_JUDGED] * 6
    assert finding.figures == []


def test_its_runs_are_those_of_degradation() -> None:
    for scale in SCALES:
        assert set(STUDY.plan(scale, None, ()).recipes) <= set(degradation.STUDY.plan(scale, None, ()).recipes)


def test_training_on_is_what_a_run_does(tmp_path: Path) -> None:
    """From a network that was only initialised, without surplus units, it is the run itself."""
    one = recipe("digits", net="cifar_resnet8", epochs=2, milestones=(0.6,), lr=0.02)
    run = make_run(one, tmp_path)
    list(train(run, threads=1))
    net = build(run.spec, seed=one.seed)
    assert isinstance(net, ResNet)
    subject = MeasurementContext({"units": 1, "epochs": 2}, 0, "cpu", one, net, opened("digits"), normalisation_of(run))
    found = train_on(subject)
    errors = [line["train_error"] for line in read_epochs(run.folder)]
    assert found["train_errors"] == pytest.approx(errors, rel=1e-12), "but for how a share is made a percentage"
    assert found["test_error"] == read_epochs(run.folder)[-1]["test_error"]
    shorter = MeasurementContext(
        {"units": 1, "epochs": 9}, 0, "cpu", one.override(epochs=1), net, subject.images, subject.normalisation
    )
    assert len(train_on(shorter)["train_errors"]) == 1, "no longer than the run, which --epochs may shorten"


def test_a_trained_net_is_made_deeper(tmp_path: Path) -> None:
    for kind in ("plain", "resnet"):
        one = recipe("digits", net=f"cifar_{kind}8", epochs=1)
        list(train(make_run(one, tmp_path), threads=1))
        found = measure_or_cached(Measurement(CONSTRUCT, {"units": 3}, run=one), tmp_path).values
        assert found["exact"]["images"] == 360
        assert found["exact"]["changed"] == 0
        assert (found["exact"]["largest"] == 0) or kind == "plain"
        assert found["calibrated"]["largest"] < 1e-3


def test_a_stack_learns_to_pass_x_on() -> None:
    def last(mix: str, rates: list[float]) -> dict[str, float]:
        return fit(
            MeasurementContext({"mix": mix, "units": 1, "steps": 80, "rates": rates}, 0, "cpu", None, None, None, None)
        )

    residual, plain = last("Add()", [0.3]), last("Plain()", [0.3])
    assert residual["last"] < 1e-3 < 0.05 < plain["last"] < plain["first"]
    better = last("Add()", [1e-4, 0.3])
    assert better == residual | {"rate": 0.3}


@pytest.mark.parametrize("lost", [math.nan, math.inf])
@pytest.mark.parametrize("rates", [[0.3, 0.1], [0.1, 0.3]])
def test_a_rate_that_diverges_is_not_the_better_one(
    monkeypatch: pytest.MonkeyPatch, rates: list[float], lost: float
) -> None:
    def fitted(mix: str, units: int, steps: int, rate: float, seed: int) -> tuple[float, float]:
        return (2.0, lost if rate == 0.3 else 0.5)

    monkeypatch.setattr("resnetlab.studies.identity.measure._fitted", fitted)
    settings = {"mix": "Add()", "units": 1, "steps": 80, "rates": rates}
    found = fit(MeasurementContext(settings, 0, "cpu", None, None, None, None))
    assert found == {"first": 2.0, "last": 0.5, "rate": 0.1}
