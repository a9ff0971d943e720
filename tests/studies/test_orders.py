"""The study `orders`: equal networks are equal runs, and a rule that can find against the paper."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resnetlab.nets.orders import ORDERS
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec
from resnetlab.studies.degradation import STUDY as DEGRADATION
from resnetlab.studies.figures.draw import draw
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.statistics import CONTRADICTED, DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED, UNDECIDED
from resnetlab.studies.frame.study import Plan, StudyResult
from resnetlab.studies.orders.figures import PAPER, Key, net
from resnetlab.studies.orders.study import STUDY
from resnetlab.training.recipe import Recipe

DATA = {"quick": None, "cifar": "cifar10:x", "paper": "cifar10:x"}
Errors = Callable[[NetSpec], float]  # %


def papers_way(net: NetSpec) -> float:
    return PAPER.get(Key(net.order, net.depth, net.branch), PAPER[Key(net.order, 110, "basic")]) + 3


def alike(net: NetSpec) -> float:
    return 10.0


def other_way(net: NetSpec) -> float:
    return {"post": 5.0, "bn_after_add": 3.0, "relu_before_add": 4.0, "relu_preact": 9.0, "full_preact": 9.0}[net.order]


def judged(
    scale: str,
    errors: Errors,
    spread: float = 0.02,
    plan: Plan | None = None,
    lost: Callable[[Recipe], bool] = lambda _: False,
    train: Errors | None = None,
) -> StudyResult:
    """The finding if test errors are these, give or take, and training errors too, unless `train` gives them."""
    plan = plan or STUDY.plan(scale, DATA[scale], ())
    outcomes = []
    for r in plan.recipes:
        found = spec(r.net)
        assert isinstance(found, NetSpec)
        training, error = (which(found) + spread * (r.seed % 3 - 1) for which in (train or errors, errors))
        result = {"train_error": training, "test_error": error, "epochs": 15.0, "seconds": 1.0}
        if not lost(r):
            outcomes.append(RunResult(r, result, [result | {"epoch": 1}, result | {"epoch": 2}], {}))
    return STUDY.judge(Evidence(scale, outcomes, [], [r for r in plan.recipes if lost(r)]))


def verdicts(finding: StudyResult) -> list[str]:
    return [row.verdict for row in finding.rows]


def test_data_as_in_the_paper_reproduce_it() -> None:
    finding = judged("paper", papers_way)
    assert verdicts(finding) == [REPRODUCED] * 8


def test_contrary_data_refute_every_claim() -> None:
    assert verdicts(judged("paper", other_way)) == [CONTRADICTED] * 8


def test_orders_that_are_all_alike_confirm_that_one_claim() -> None:
    expected = [UNDECIDED] * 3 + [REPRODUCED] + [UNDECIDED] * 4
    assert verdicts(judged("paper", alike)) == expected


def test_two_claims_are_about_training_errors() -> None:
    found = verdicts(judged("paper", papers_way, train=other_way))
    assert found == [CONTRADICTED, *[REPRODUCED] * 5, CONTRADICTED, REPRODUCED]


def test_an_order_that_seems_a_little_lower_leaves_open_which_is_the_lowest() -> None:
    def errors(net: NetSpec) -> float:
        return {"full_preact": 10.0, "relu_preact": 9.9}.get(net.order, 20.0)

    assert verdicts(judged("paper", errors, spread=0.5))[4] == UNDECIDED


def test_full_preactivation_has_to_be_the_lowest_of_all() -> None:
    """Better than the original order is not the best of five."""
    finding = judged("paper", lambda net: 1.0 if net.order == "relu_before_add" else papers_way(net))
    assert verdicts(finding)[4] == CONTRADICTED
    assert "ReLU before addition" in str(finding.rows[4].measured)


@pytest.mark.parametrize(("order", "row"), [("bn_after_add", 1), ("relu_before_add", 2)])
def test_what_table_2_says_of_110_and_164_layers_has_to_hold_of_both(order: str, row: int) -> None:
    finding = judged("paper", lambda net: 1.0 if (net.order, net.depth) == (order, 110) else papers_way(net))
    assert verdicts(finding)[row] == CONTRADICTED


def test_shortcuts_that_skip_one_layer_have_a_claim_of_their_own() -> None:
    finding = judged("paper", lambda net: 1.0 if (net.order, net.branch) == ("post", "single") else papers_way(net))
    assert [i for i, verdict in enumerate(verdicts(finding)) if verdict != REPRODUCED] == [5]
    assert str(judged("cifar", papers_way).rows[5].measured) == "not trained at this scale"


def test_what_a_scale_cannot_show_is_not_tested() -> None:
    quick, cifar = verdicts(judged("quick", papers_way)), verdicts(judged("cifar", papers_way))
    assert quick == [REPRODUCED, *[NOT_TESTED] * 5, REPRODUCED, NOT_TESTED]
    assert cifar == [*[REPRODUCED] * 5, NOT_TESTED, REPRODUCED, NOT_TESTED]


def test_seeds_that_scatter_and_one_seed_give_a_direction_only() -> None:
    assert verdicts(judged("paper", papers_way, spread=5)) == [DIRECTION] * 8
    one = judged("cifar", papers_way, plan=STUDY.plan("cifar", "cifar10:x", ()).limited(None, 1))
    assert verdicts(one) == [*[DIRECTION] * 5, NOT_TESTED, DIRECTION, NOT_TESTED]
    assert "seeds leave doubt" not in str(one.answer)
    assert "(section 4.2; Fig. 1)" in str(one.rows[6].paper), "He 2016, 4.2 Analysis, on 1001 layers"


def test_a_claim_that_lacks_a_run_is_not_judged() -> None:
    lost = net("bn_after_add", 56)
    finding = judged("quick", papers_way, lost=lambda r: (r.net, r.seed) == (lost, 1))
    untested = NOT_TESTED
    assert verdicts(finding) == [
        *(NOT_JUDGED, NOT_JUDGED, untested, untested),
        *(NOT_JUDGED, untested, REPRODUCED, untested),
    ]
    assert "left open" in str(finding.answer)
    assert [row[-1] for row in finding.tables[0].rows if str(row[0]) == "BN after addition"] == ["3", "2"]


@pytest.mark.parametrize("scale", SCALES)
def test_no_run_at_all_is_no_verdict(scale: str) -> None:
    finding = judged(scale, papers_way, lost=lambda _: True)
    assert set(verdicts(finding)) - {NOT_TESTED} == {NOT_JUDGED}
    assert finding.figures == []


def test_the_answer_follows_the_data() -> None:
    assert "full pre-activation trains better:" in str(judged("quick", papers_way).answer)
    assert "does not train better" in str(judged("quick", other_way).answer)


def test_the_papers_numbers() -> None:
    """He 2016, Tables 2 and 3: CIFAR-10, test error in %, medians of five runs."""
    printed: dict[tuple[int, str], dict[str, float]] = {}
    for key, error in PAPER.items():
        printed.setdefault((key.depth, key.branch), {})[key.order] = error
    names = ("post", "bn_after_add", "relu_before_add", "relu_preact", "full_preact")
    assert printed == {
        (110, "basic"): dict(zip(names, (6.61, 8.17, 7.84, 6.71, 6.37), strict=True)),
        (164, "bottleneck"): dict(zip(names, (5.93, 6.50, 6.14, 5.91, 5.46), strict=True)),
        (110, "single"): {"post": 9.90, "full_preact": 8.91},
        (1001, "bottleneck"): {"post": 7.61, "full_preact": 4.92},
    }


def test_the_digits_tell_how_far_the_papers_five_orders_lie_apart() -> None:
    five = [[PAPER[Key(order, *kind)] for order in ORDERS] for kind in ((110, "basic"), (164, "bottleneck"))]
    apart = max(max(errors) - min(errors) for errors in five)
    for words in (STUDY.plan("quick", None).note, judged("quick", papers_way).words):
        assert f"differ by at most {apart:.1f} points" in words.en
        assert f"至多相差 {apart:.1f} 个" in words.zh


def test_the_table_stands_beside_the_papers_numbers() -> None:
    rows = [[str(cell) for cell in row] for row in judged("paper", papers_way).tables[0].rows]
    printed = {(row[0], row[2]): row[6] for row in rows}
    assert len(rows) == len(PAPER) == 14
    assert printed["full pre-activation", "1001, bottleneck"] == "4.92"
    assert printed["original", "110, single"] == "9.90"
    assert [row[1] for row in rows if row[2] == "110, basic"] == [
        "W BN ReLU W BN + ReLU",
        "W BN ReLU W + BN ReLU",
        "W BN ReLU W BN ReLU +",
        "ReLU W BN ReLU W BN +",
        "BN ReLU W BN ReLU W +",
    ]


def test_the_figure_has_a_panel_for_each_depth_and_can_be_drawn() -> None:
    (figure,) = judged("quick", papers_way).figures
    assert [len(p.series) for p in figure.panels] == [10, 10, 4]
    assert draw(figure, "x").startswith("<svg")


@pytest.mark.parametrize("scale", ["quick", "cifar"])
def test_the_original_order_is_the_run_of_degradation(scale: str) -> None:
    theirs = set(DEGRADATION.plan(scale, DATA[scale], ()).recipes)
    shared = {r.net for r in STUDY.plan(scale, DATA[scale], ()).recipes if r in theirs}
    assert shared == ({"cifar_resnet20", "cifar_resnet56"} if scale == "quick" else {"cifar_resnet56"})


@pytest.mark.parametrize("depth", [20, 56, 110, 164])
def test_a_name_is_the_network_of_that_order(depth: int) -> None:
    for order in ORDERS:
        assert spec(net(order, depth)) == spec(f"cifar_resnet{depth}", order=order)


def test_the_papers_runs_warm_up_as_it_says() -> None:
    recipes = STUDY.plan("paper", None, ()).recipes
    assert {(r.warmup, r.warmup_lr, r.warmup_steps, r.iterations) for r in recipes} == {("constant", 0.01, 400, 64_000)}
    assert {spec(r.net).depth for r in recipes} == {110, 164, 1001}  # type: ignore[union-attr]
