"""The study `orders`: its plan, its claims, and what it says of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resnetlab.nets.orders import ORDERS
from resnetlab.studies.frame.claims import (
    Claim,
    Comparison,
    Interval,
    Judged,
    claim,
    comparison,
    less,
    more,
    rows,
    within,
)
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, Metric, runs_by, test_error, train_error
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.scales import base, warmed_up_2016
from resnetlab.studies.frame.statistics import DIRECTION, REPRODUCED, UNDECIDED, difference, weakest
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.orders.figures import Key, by_order, called, curves, error_table, net, single

TEXT = Catalogue.of(__name__)
LEAST = 56  # layers from which orders are compared: the paper has 110 and 164, and 20 hardly differ
TOLERANCE = 1.0  # points by which test errors that are called alike may differ


@dataclass(frozen=True)
class Scale:
    """What is trained at a scale."""

    depths: tuple[int, ...]  # of all five orders
    deepest: int  # of the original and the full pre-activation order
    seeds: int
    epochs: float | None = None  # of the deepest, if fewer: the start of training shows how they learn


SCALES = {
    "quick": Scale((20, 56), 110, seeds=3, epochs=4.0),
    "cifar": Scale((56,), 164, seeds=3),
    "paper": Scale((110, 164), 1001, seeds=5),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """All five orders at the scale's depths; the original and full pre-activation also at its greatest depth."""
    s, recipe = SCALES[scale], base(scale, data)
    if scale == "paper":
        recipe = warmed_up_2016(recipe)
    deep = recipe.override(epochs=s.epochs) if s.epochs else recipe
    nets = [(recipe, net(order, depth)) for depth in s.depths for order in ORDERS]
    nets += [(deep, net(order, s.deepest)) for order in ("post", "full_preact")]
    if scale == "paper":
        nets += [(recipe, net(order, 110, "single")) for order in ("post", "full_preact")]
    return planned(TEXT, scale, [r.override(net=name, seed=seed) for seed in range(s.seeds) for r, name in nets])


def judge(evidence: Evidence) -> StudyResult:
    """Compare each order with the original one."""
    nets = runs_by(evidence, lambda recipe: Key.of(recipe.net))
    depths = sorted({key.depth for key in nets if key.order == "bn_after_add"})
    deepest = max(key.depth for key in nets)
    return StudyResult(
        rows(TEXT, claims(nets, depths, deepest, evidence.scale)),
        curves(nets, list(dict.fromkeys((*depths, deepest)))),
        [error_table(nets)],
        TEXT("words.paper" if evidence.scale == "paper" else "words.short"),
        _answer(nets, depths[-1], deepest),
    )


def claims(nets: Groups[Key], depths: list[int], deepest: int, scale: str) -> Iterator[Claim]:
    """How each order compares with the original one, at each depth that trains all five and at the greatest depth."""
    five = {depth: by_order(nets, depth) for depth in depths if depth >= LEAST}
    two, one_layer = by_order(nets, deepest), single(nets)
    enough_images = scale != "quick"  # to tell test errors apart

    def above_original(error: Metric, order: str) -> list[Comparison]:
        return [more(error, net[order], than=net["post"], depth=depth) for depth, net in five.items()]

    yield claim("bn_after_add", above_original(train_error, "bn_after_add"))
    yield claim("bn_tests_worse", above_original(test_error, "bn_after_add"), tested=enough_images)
    yield claim("relu_before_add", above_original(test_error, "relu_before_add"), tested=enough_images)
    yield claim(
        "relu_preact",
        [within(test_error, n["relu_preact"], of=n["post"], by=TOLERANCE, depth=d) for d, n in five.items()],
        tested=enough_images,
    )
    yield claim("full_preact", [_lowest(*n.values()) for n in five.values()], tested=enough_images)
    yield claim("one_layer", [less(test_error, full, than=post) for post, full in [one_layer] if post.key in nets])
    yield claim(
        "deep_trains_better",
        [less(train_error, two["full_preact"], than=two["post"])],
        values={"depth": deepest},
    )
    yield claim(
        "deep_tests_better",
        [less(test_error, two["full_preact"], than=two["post"])],
        values={"depth": deepest},
        tested=scale == "paper",
    )


@comparison
def _lowest(*orders: Group[Key]) -> Judged:
    """That full pre-activation's test error is below the original order's, and that no other's mean is lower.

    An order with a lower mean leaves the claim undecided, or contradicts it if its interval says so.
    """
    others = {net.key.order: net for net in orders}
    full = others.pop("full_preact")
    below = {order: less(test_error, full, than=net) for order, net in others.items()}
    compared = below["post"]
    lower = [one.verdict for one in below.values() if one.verdict >= UNDECIDED]
    lowest = min(orders, key=lambda net: net.mean(test_error))
    words = {**compared.words, "depth": full.key.depth, "lowest": called(lowest.key.order)}
    return weakest([compared.verdict, *lower]), words


def _answer(nets: Groups[Key], depth: int, deepest: int) -> Words:
    """Which order to take, by the training errors."""
    five, two = by_order(nets, depth), by_order(nets, deepest)
    post, full = two["post"], two["full_preact"]
    if not all(group.whole for group in (*five.values(), post, full)):
        return TEXT("answer.open")
    original = five.pop("post")
    gaps = {order: difference(group.of(train_error), original.of(train_error)) for order, group in five.items()}
    orders = [TEXT("answer.order", order=called(order), gap=Interval(gap)) for order, gap in gaps.items()]
    gap = difference(post.of(train_error), full.of(train_error))
    in_the_mean = "answer.better_in_the_mean" if gap.has_interval else "answer.better"
    keys = {REPRODUCED: "answer.better", DIRECTION: in_the_mean}
    key = keys.get(gap.verdict_above(0), "answer.no_better")
    return joined(
        [
            TEXT("answer.beside_original", depth=depth, original=original.mean(train_error), orders=orders),
            TEXT(
                key,
                depth=deepest,
                full=full.mean(train_error),
                original=post.mean(train_error),
                gap=Interval(gap),
            ),
        ]
    )


STUDY = stated(TEXT, plan=plan, judge=judge)
