"""The study `degradation`: its runs are the paper's, and its rule can find against it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resnetlab.errors import UserError
from resnetlab.nets.zoo import spec
from resnetlab.studies.degradation import STUDY
from resnetlab.studies.frame.claims import Row
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.scales import SCALES, for_depth
from resnetlab.studies.frame.statistics import (
    CONTRADICTED,
    DIRECTION,
    NOT_JUDGED,
    NOT_TESTED,
    REPRODUCED,
    UNDECIDED,
)
from resnetlab.studies.frame.study import StudyResult
from resnetlab.training.recipes import recipe

Errors = Callable[[str, int], float]  # (kind, depth) -> %


def judged(scale: str, train: Errors, test: Errors, spread: float = 0.2, seeds: int | None = None) -> StudyResult:
    """The finding if every seed ended with these errors, give or take."""
    outcomes = []
    for r in STUDY.plan(scale, None, ()).limited(None, seeds).recipes:
        kind = "plain" if "plain" in r.net else "resnet"
        depth = int(r.net.removeprefix(f"cifar_{kind}"))
        shift = spread * (r.seed % 3 - 1)
        result = {"train_error": train(kind, depth) + shift, "test_error": test(kind, depth) + shift, "seconds": 1.0}
        line = {"epoch": 1, "train_error": result["train_error"], "test_error": result["test_error"]}
        outcomes.append(RunResult(r, result, [line, line | {"epoch": 2}], {}))
    return STUDY.judge(Evidence(scale, outcomes))


def papers_way(kind: str, depth: int) -> float:
    return depth / 2 + 10 if kind == "plain" else 12 - depth / 20


def other_way(kind: str, depth: int) -> float:
    return 60 - depth / 2 if kind == "plain" else 10 + depth / 2


def flat(kind: str, depth: int) -> float:
    return 20.0


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_data_as_in_the_paper_reproduce_it() -> None:
    finding = judged("paper", papers_way, papers_way)
    assert verdicts(finding) == [REPRODUCED] * 7


def test_contrary_data_refute_every_claim() -> None:
    finding = judged("paper", other_way, other_way)
    assert verdicts(finding) == [CONTRADICTED] * 7


def test_no_difference_reproduces_nothing_but_that_nothing_rises() -> None:
    assert verdicts(judged("quick", flat, flat)) == [
        *(UNDECIDED, REPRODUCED, NOT_TESTED, UNDECIDED, UNDECIDED),
        *(NOT_TESTED, NOT_TESTED),
    ]


def test_seeds_that_scatter_give_a_direction_only() -> None:
    finding = judged("quick", papers_way, papers_way, spread=60)
    assert verdicts(finding)[0] == DIRECTION
    assert DIRECTION in verdicts(finding)


def test_one_seed_gives_a_direction_only() -> None:
    finding = judged("cifar", papers_way, papers_way, seeds=1)
    assert DIRECTION in verdicts(finding)
    assert finding.rows[-1].verdict == NOT_TESTED, "10 epochs don't show what 164 do"


def test_overfitting_is_not_degradation() -> None:
    """Plain nets that train better but generalise worse with depth must not pass for the paper's effect."""
    finding = judged("quick", other_way, papers_way)
    assert finding.rows[0].verdict == CONTRADICTED
    assert finding.rows[4].verdict == REPRODUCED


def test_one_depth_out_of_order_refutes_the_papers_order() -> None:
    """The ends alone would say that errors rise: plain-20 < 32 < 44 < 56, and 110 fails in any case."""

    def crossing(kind: str, depth: int) -> float:
        return papers_way(kind, {32: 44, 44: 32}.get(depth, depth))

    assert verdicts(judged("paper", crossing, crossing)) == [
        *(CONTRADICTED, REPRODUCED, CONTRADICTED, REPRODUCED, REPRODUCED),
        *(CONTRADICTED, REPRODUCED),
    ]


def test_no_deeper_residual_net_may_rise() -> None:
    finding = judged("paper", lambda kind, depth: 9.0 if (kind, depth) == ("resnet", 44) else 5.0, papers_way)
    assert finding.rows[1].verdict == CONTRADICTED


def test_a_residual_net_that_is_better_does_not_make_plain_nets_rise() -> None:
    """Plain nets that are equally bad at every depth don't degrade, however good residual nets are."""
    finding = judged("quick", lambda kind, depth: 50 if kind == "plain" else 1, papers_way)
    assert [row.verdict for row in finding.rows[:4]] == [UNDECIDED, REPRODUCED, NOT_TESTED, REPRODUCED]


def without(scale: str, *lost: tuple[str, int]) -> StudyResult:
    """The finding if everything is as in the paper, but the runs of these nets and seeds failed."""
    outcomes, failed = [], []
    for r in STUDY.plan(scale, None, ()).recipes:
        kind = "plain" if "plain" in r.net else "resnet"
        error = papers_way(kind, int(r.net.removeprefix(f"cifar_{kind}"))) + 0.1 * r.seed
        result = {"train_error": error, "test_error": error, "seconds": 1.0}
        if (r.net, r.seed) in lost:
            failed.append(r)
        else:
            outcomes.append(RunResult(r, result, [{"epoch": 1} | result], {}))
    return STUDY.judge(Evidence(scale, outcomes, failed=failed))


def test_a_claim_that_lacks_a_run_is_not_judged() -> None:
    finding = without("quick", ("cifar_plain56", 3))
    untested = NOT_TESTED
    assert verdicts(finding) == [NOT_JUDGED, REPRODUCED, untested, NOT_JUDGED, NOT_JUDGED, untested, untested]
    assert str(finding.rows[0].measured) == "1 of the 10 runs it needs failed"
    assert "left open" in str(finding.words)
    assert "Failed runs" in str(finding.figures[0].caption)
    assert [row[4] for row in finding.tables[0].rows if row[0] == "plain-56"] == ["4"]


def test_a_net_all_of_whose_runs_failed_is_shown_as_such() -> None:
    finding = without("paper", *(("cifar_plain110", seed) for seed in range(5)))
    assert ["plain-110", "–", "–"] in [row[:3] for row in finding.tables[0].rows]
    assert "plain-110 training" not in [s.label for s in finding.figures[0].panels[0].series]
    assert verdicts(finding) == [REPRODUCED] * 6 + [NOT_JUDGED], "the paper's comparisons end at 56 layers"


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_at_all_is_no_verdict(scale: str) -> None:
    finding = STUDY.judge(Evidence(scale, failed=list(STUDY.plan(scale, None, ()).recipes)))
    assert NOT_JUDGED in verdicts(finding)
    assert set(verdicts(finding)) <= {NOT_JUDGED, NOT_TESTED}


def test_no_missing_run_saves_what_another_claim_refutes() -> None:
    rows = [Row("c", "p", "m", verdict) for verdict in (REPRODUCED, NOT_JUDGED, CONTRADICTED, NOT_TESTED)]
    assert str(StudyResult(rows).verdict) == "1 of 3 reproduced, 1 not judged, 1 contradicted; 1 not tested"


def test_the_words_follow_the_data() -> None:
    words = str(judged("quick", papers_way, papers_way).words)
    assert "optimisation, not generalisation" in words
    easier = str(judged("quick", papers_way, lambda kind, depth: papers_way(kind, depth) - 1).words)
    assert "test error is 1.0 points below its training error" in easier
    assert "above its training error" not in easier, "which it is not"
    overfitted = judged("quick", lambda kind, depth: 0, lambda kind, depth: depth if kind == "plain" else 1)
    assert "no degradation here to explain" in str(overfitted.words)
    for behind, found in ((0.9, True), (1.1, False)):
        near = judged("quick", lambda kind, depth, b=behind: 20 + b * (kind == "plain"), flat)  # type: ignore[misc]
        assert ("no degradation here to explain" in str(near.words)) == found


@pytest.mark.parametrize("scale", SCALES)
def test_plain_and_residual_nets_differ_in_their_shortcuts_only(scale: str) -> None:
    recipes = STUDY.plan(scale, None, ()).recipes
    assert len(set(recipes)) == len(recipes)
    by_net = {(r.net, r.seed): r for r in recipes}
    for r in recipes:
        if "plain" in r.net:
            twin = by_net[r.net.replace("plain", "resnet"), r.seed]
            assert r.override(net=twin.net) == twin
            assert spec(r.net).override(mix=spec(twin.net).mix) == spec(twin.net)  # type: ignore[union-attr]


def test_110_layers_warm_up_as_the_paper_says() -> None:
    for r in STUDY.plan("paper", "cifar10:x", ()).recipes:
        warmup = ("train_error", 0.01, 80.0) if r.net.endswith("110") else ("none", 0.0, 80.0)
        assert (r.warmup, r.warmup_lr, r.warmup_error) == warmup
    for fields in ({"schedule": "onecycle"}, {"warmup": "linear", "warmup_steps": 9}):
        own = recipe("cifar_paper", **fields)
        assert for_depth(own, 110) == own, "it starts slowly anyway"


@pytest.mark.parametrize(("scale", "data"), [("quick", "cifar10:x"), ("cifar", "cifar100:x"), ("paper", "digits")])
def test_data_that_a_scale_does_not_take_are_refused(scale: str, data: str) -> None:
    with pytest.raises(UserError, match="leave out --data" if scale == "quick" else "give --data cifar10:DIR"):
        STUDY.plan(scale, data, ())


def test_the_figure_holds_every_curve_with_its_spread() -> None:
    (figure,) = judged("quick", papers_way, papers_way).figures
    assert [len(panel.series) for panel in figure.panels] == [6, 6]
    series = figure.panels[0].series[0]
    assert (series.label, series.dashed, series.x) == ("plain-8 training", True, [1.0, 2.0])
    assert series.low[0] < series.mean[0] < series.high[0]
