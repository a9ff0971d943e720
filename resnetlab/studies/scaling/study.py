"""The study `scaling`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

from resnetlab.measuring.propagation import shortcut_scale
from resnetlab.nets.mixing import Mix
from resnetlab.studies.frame.cases import FAIL
from resnetlab.studies.frame.claims import (
    Claim,
    Instead,
    Interval,
    Judged,
    claim,
    comparison,
    exact,
    holds,
    less,
    more,
    rows,
)
from resnetlab.studies.frame.evidence import Evidence, Group, measured_by, runs_by, test_error, train_error
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.scales import base, warmed_up_2016
from resnetlab.studies.frame.statistics import DIRECTION, NOT_JUDGED, NOT_TESTED, REPRODUCED, difference, weakest
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.scaling.figures import (
    ADD,
    AT_START,
    DEPTHS,
    FROZEN,
    HALF,
    NETS,
    NONE,
    ORDERS,
    PLAIN,
    TRAINED,
    Net,
    Nets,
    called,
    deviation,
    figures,
    growth,
    largest_difference,
    mean,
    number,
    product,
    share,
    tables,
    units,
    whole_factor,
)
from resnetlab.studies.scaling.measure import same, start, trained

TEXT = Catalogue.of(__name__)
START, SAME, AFTER = named(start), named(same), named(trained)
FAMILIES = {"full_preact": "preresnet", "post": "resnet"}  # order -> family of the zoo
IMAGES = 64  # of the batch that is sent through
EXACT = 1e-3  # relative: what rounding may add to a product of some hundred factors
SCALES = {"quick": (56, 5), "cifar": (56, 3), "paper": (110, 5)}  # the depth that is trained, and how many seeds


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Runs with four shortcuts; how gradients pass through these nets and through untrained ones of more scales."""
    (trained_depth, seeds), recipe = SCALES[scale], base(scale, data)
    if scale == "paper":
        recipe = warmed_up_2016(recipe)
    images = {"images": IMAGES}

    def untrained(function: str, net: str, seed: int) -> Measurement:
        return Measurement(function, {"net": net, **images}, data=recipe.data, seed=seed)

    runs = [recipe.override(net=_name(mix, trained_depth), seed=seed) for seed in range(seeds) for mix in TRAINED]
    starts = [
        untrained(START, _name(mix, depth, order), seed)
        for order, depth, mix, seed in itertools.product(ORDERS, DEPTHS, AT_START, range(seeds))
    ]
    as_plain = [untrained(SAME, _name(NONE, trained_depth), seed) for seed in range(seeds)]
    ends = [Measurement(AFTER, images, run=run, seed=run.seed) for run in runs]
    return planned(TEXT, scale, runs, [*starts, *as_plain, *ends])


def _name(mix: Mix, depth: int, order: str = "post") -> str:
    """The zoo's name of a CIFAR network with these shortcuts."""
    if mix == PLAIN and order == "post":
        return f"cifar_plain{depth}"
    name = f"cifar_{FAMILIES[order]}{depth}"
    return name if mix == ADD else f"{name}(mix={mix!r})"


def judge(evidence: Evidence) -> StudyResult:
    """Compare the measured factors with the product of scales, and training with scaled and unscaled shortcuts."""
    runs = runs_by(evidence, Net.of, NETS)
    starts, as_plain, ends = (measured_by(evidence, what, Net.of, NETS) for what in (START, SAME, AFTER))
    depth = next(net.depth for net in runs)
    nets = Nets(depth, runs, starts, ends, as_plain[Net(NONE, depth)])
    found = rows(TEXT, claims(nets, evidence.scale))
    return StudyResult(found, figures(nets), tables(nets), _words(nets), _answer(nets))


def claims(nets: Nets, scale: str) -> Iterator[Claim]:
    """That shortcuts pass the product of their scales, and that networks which scale them train worse."""
    identity = [nets.start(mix, "full_preact") for mix in AT_START if shortcut_scale(mix)]
    yield claim("product", [_exact(*identity)], values={"depth": nets.depth, "exact": EXACT})
    yield claim("with_relu", [_at_most(nets.start(mix)) for mix in AT_START if 0 < shortcut_scale(mix) < 1])
    yield claim("plain_way", [_nearer(nets.start(HALF), nets.start(PLAIN), nets.start(ADD))])
    for mix in (HALF, FROZEN):
        scaled, add = nets.run(mix), nets.run(ADD)
        values = {"mix": called(mix), "printed": TRAINED[mix]}
        yield claim("tests_worse", [more(test_error, scaled, than=add)], values=values)
        yield claim("worse", [more(train_error, scaled, than=add)], values=values)
        yield claim("optimisation", [_optimisation(scaled, add)], values=values)
    yield claim(
        "none_is_plain",
        [exact(largest_difference, nets.same, of=0.0)],
        cell=lambda: {"numbers": nets.same.values[0]["numbers"], "largest": max(nets.same.of(largest_difference))},
    )
    yield claim(
        "fails",
        [more(test_error, nets.run(HALF), than=FAIL), less(test_error, nets.run(FROZEN), than=FAIL)],
        tested=scale == "paper",
    )


@comparison
def _exact(*nets: Group[Net]) -> Judged:
    """That shortcuts pass signal and gradient by ∏λ, through however many units."""
    worst = max(map(deviation, nets))
    return holds(worst <= EXACT), {"worst": worst}


@comparison
def _at_most(net: Group[Net]) -> Judged:
    """That shortcuts pass no more than ∏λ of the gradient to the first unit."""
    passed, theory = net.of(whole_factor), product(net)
    factors = {"factor": number(mean(net, whole_factor)), "product": number(theory)}
    words = {"scale": shortcut_scale(net.key.mix), **factors}
    return holds(all(factor <= theory * (1 + EXACT) for factor in passed)), words


@comparison
def _nearer(half: Group[Net], plain: Group[Net], add: Group[Net]) -> Judged:
    """That the logarithm of the gradient's growth lies nearer to the plain net's than to Add's."""
    nets = {"half": half, "plain": plain, "add": add}
    if not all(grown > 0 for net in nets.values() for grown in net.of(growth)):
        raise Instead(TEXT("claims.plain_way.no_gradient"), NOT_JUDGED)
    logs = {name: [math.log10(grown) for grown in net.of(growth)] for name, net in nets.items()}
    ends = list(zip(logs["plain"], logs["add"], strict=True))
    up = math.copysign(2, sum(p - a for p, a in ends))  # towards the plain net
    # Beyond one of them, the two distances differ by no more than they do there.
    between = [min(max(h, min(both)), max(both)) for h, both in zip(logs["half"], ends, strict=True)]
    nearer = difference([up * h for h in between], [up * (p + a) / 2 for p, a in ends])
    times = {name: number(mean(net, growth)) for name, net in nets.items()}
    return nearer.verdict_above(0), {**times, "gap": Interval(nearer)}


@comparison
def _optimisation(scaled: Group[Net], add: Group[Net]) -> Judged:
    """That scaling raises the training error by more than the gap to the test error, if it raises it at all."""
    metrics = (train_error, _beyond, _more_than_beyond)
    lost, beyond, gap = (difference(scaled.of(metric), add.of(metric)) for metric in metrics)
    words = {"lost": Interval(lost), "beyond": Interval(beyond), "gap": Interval(gap)}
    return gap.verdict_above(0) if lost.mean > 0 else NOT_TESTED, words


def _beyond(values: dict[str, Any]) -> float:
    return test_error(values) - train_error(values)


def _more_than_beyond(values: dict[str, Any]) -> float:
    return train_error(values) - _beyond(values)


def _answer(nets: Nets) -> Words:
    """Why x and not x/2, by what was measured."""
    half = nets.start(HALF, "full_preact")
    runs = {"half": nets.run(HALF), "frozen": nets.run(FROZEN), "add": nets.run(ADD)}
    starts = [nets.start(mix) for mix in (HALF, ADD, PLAIN)]
    if not all(net.whole for net in (half, *starts, *runs.values())):
        return TEXT("answer.open")
    factor, theory = mean(half, whole_factor), product(half)
    key = "answer.agrees" if abs(factor / theory - 1) <= EXACT else "answer.does_not_agree"
    multiplies = TEXT(key, units=units(half), theory=theory, factor=number(factor))
    worse = [more(train_error, net, than=runs["add"]).verdict for net in (runs["half"], runs["frozen"])]
    on_average = "answer.trains_worse_once" if len(runs["add"].done) == 1 else "answer.trains_worse_on_average"
    keys = {REPRODUCED: "answer.trains_worse", DIRECTION: on_average}
    key = keys.get(weakest(worse), "answer.not_all_train_worse")
    loses = TEXT(key, depth=nets.depth, **{name: mean(net, train_error) for name, net in runs.items()})
    return joined([multiplies, _whole_gradient(*(mean(net, growth) for net in starts)), loses])


def _whole_gradient(half: float, add: float, plain: float) -> Words:
    """How the whole gradient grows, and whether it vanishes with λ = 0.5."""
    if any(map(math.isnan, (half, add, plain))):
        return TEXT("answer.no_gradient")
    key = "answer.vanishes" if half < 1 else "answer.grows_less" if half < add else "answer.grows_more"
    return TEXT(key, half=number(half), add=number(add), plain=number(plain))


def _words(nets: Nets) -> Words:
    """What the study shows, and what it does not."""
    half, add = (number(mean(nets.start(mix, "full_preact"), share)) for mix in (HALF, ADD))
    return TEXT("words", depth=nets.depth, half=half, add=add)


STUDY = stated(TEXT, plan=plan, judge=judge, images=IMAGES)
