"""The claims of the study `orders`: what each needs, what was measured, and the verdict by the study's rule."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from resnetlab.nets.branches import ORDERS
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence, Outcome
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.statistics import (
    DIRECTION,
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    Verdict,
    difference,
    mean_std,
    weakest,
)
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.training.recipe import Recipe

TOLERANCE = 1.0  # points by which test errors that are called alike may differ

NAMES = {  # as He 2016, Figure 4
    "post": Both("original", "原始"),
    "bn_after_add": Both("BN after addition", "BN 在相加之后"),
    "relu_before_add": Both("ReLU before addition", "ReLU 在相加之前"),
    "relu_preact": Both("ReLU-only pre-activation", "仅 ReLU 预激活"),
    "full_preact": Both("full pre-activation", "完全预激活"),
}


class Key(NamedTuple):
    """A network of the study."""

    order: str
    depth: int
    branch: str


# He 2016, Table 2 (110 and 164 layers) and Table 3: CIFAR-10 test error in %.
PAPER = {
    **{Key(order, 110, "basic"): e for order, e in zip(ORDERS, (6.61, 8.17, 7.84, 6.71, 6.37), strict=True)},
    **{Key(order, 164, "bottleneck"): e for order, e in zip(ORDERS, (5.93, 6.50, 6.14, 5.91, 5.46), strict=True)},
    Key("post", 110, "single"): 9.90,
    Key("full_preact", 110, "single"): 8.91,
    Key("post", 1001, "bottleneck"): 7.61,
    Key("full_preact", 1001, "bottleneck"): 4.92,
}


def net(order: str, depth: int) -> str:
    """The name of the CIFAR network of that order: the original and the full pre-activation one have their own."""
    names = {"post": f"cifar_resnet{depth}", "full_preact": f"cifar_preresnet{depth}"}
    return names.get(order, f"cifar_resnet{depth}(order={order!r})")


@dataclass(frozen=True)
class Sorted:
    """The study's evidence by network, over seeds."""

    scale: str
    depths: list[int]  # of all five orders, from low to high
    deepest: int  # of the original and the full pre-activation order
    found: dict[Key, list[Outcome]]
    missing: dict[Key, list[Recipe | Measurement]]

    @classmethod
    def of(cls, evidence: Evidence) -> Sorted:
        """Sort the evidence."""
        found: dict[Key, list[Outcome]] = {}
        missing: dict[Key, list[Recipe | Measurement]] = {}
        for o in evidence.outcomes:
            found.setdefault(_key(o.recipe.net), []).append(o)
        for one in evidence.failed:
            if isinstance(one, Recipe):
                missing.setdefault(_key(one.net), []).append(one)
        keys = {*found, *missing}
        depths = sorted({key.depth for key in keys if key.order == "bn_after_add"})
        return cls(evidence.scale, depths, max(key.depth for key in keys), found, missing)

    def key(self, order: str, depth: int) -> Key:
        """The network of that order and depth, with the units that the zoo gives it."""
        return _key(net(order, depth))

    def errors(self, key: Key, part: str) -> list[float]:
        """The "train" or "test" errors in %, by seed."""
        return [o.result[f"{part}_error"] for o in self.found.get(key, [])]


def _key(name: str) -> Key:
    spec = named_spec(name)
    assert isinstance(spec, NetSpec)
    return Key(spec.order, spec.depth, spec.branch)


Judged = tuple[Words, Verdict]


def _worse(s: Sorted, order: str, part: str) -> Judged:
    """Whether an order has the higher error than the original one at the greater of the depths."""
    one, post = (s.errors(s.key(name, s.depths[-1]), part) for name in (order, "post"))
    gap = difference(one, post)
    measured = Both(
        f"{mean_std(one)} % against {mean_std(post)} % with {s.depths[-1]} layers: {gap} points",
        f"{s.depths[-1]} 层：{mean_std(one)} % 对 {mean_std(post)} %：{gap} 个百分点",
    )
    return measured, NOT_TESTED if s.scale == "quick" and part == "test" else gap.verdict_above(0)


def _alike(s: Sorted) -> Judged:
    """Whether ReLU-only pre-activation has the original order's test error, give or take TOLERANCE."""
    parts: list[Words] = []
    verdicts = []
    for depth in s.depths:
        one, post = (s.errors(s.key(name, depth), "test") for name in ("relu_preact", "post"))
        gap = difference(one, post)
        parts.append(Both(f"{depth} layers: {gap} points", f"{depth} 层：{gap} 个百分点"))
        inside = gap.low > -TOLERANCE and gap.high < TOLERANCE
        verdicts.append(REPRODUCED if inside else DIRECTION if abs(gap.mean) < TOLERANCE else NOT_REPRODUCED)
    return joined(parts, "; "), NOT_TESTED if s.scale == "quick" else weakest(verdicts)


def _best(s: Sorted) -> Judged:
    """Whether full pre-activation has the lowest mean test error, and one below the original order's."""
    parts: list[Words] = []
    verdicts = []
    for depth in s.depths:
        means = {order: statistics.fmean(s.errors(s.key(order, depth), "test")) for order in ORDERS}
        gap = difference(*(s.errors(s.key(order, depth), "test") for order in ("post", "full_preact")))
        first = min(means, key=means.__getitem__)
        parts.append(
            Both(
                f"{depth} layers: original − full pre-activation {gap} points, the lowest is {NAMES[first].en}",
                f"{depth} 层：原始 − 完全预激活 {gap} 个百分点，最低者为{NAMES[first].zh}",
            )
        )
        verdicts.append(gap.verdict_above(0) if first == "full_preact" else NOT_REPRODUCED)
    return joined(parts, "; "), NOT_TESTED if s.scale == "quick" else weakest(verdicts)


def _deep(s: Sorted, part: str) -> Judged:
    """Whether full pre-activation has the lower error at great depth."""
    post, full = (s.errors(s.key(order, s.deepest), part) for order in ("post", "full_preact"))
    gap = difference(post, full)
    measured = Both(
        f"{mean_std(full)} % against {mean_std(post)} %; original − full pre-activation: {gap} points",
        f"{mean_std(full)} % 对 {mean_std(post)} %；原始 − 完全预激活：{gap} 个百分点",
    )
    return measured, NOT_TESTED if part == "test" and s.scale != "paper" else gap.verdict_above(0)


def rows(s: Sorted) -> list[Row]:
    """Every claim with what was measured and its verdict."""

    def row(claim: Words, paper: Words, needs: list[Key], measure: Callable[[], Judged]) -> Row:
        have, failed = ([side.get(key, []) for key in needs] for side in (s.found, s.missing))
        return judged_row(claim, paper, have, failed, measure)

    def beside(*orders: str) -> list[Key]:
        return [s.key(order, s.depths[-1]) for order in orders]

    alike = [s.key(order, depth) for depth in s.depths for order in ("relu_preact", "post")]
    deep = [s.key(order, s.deepest) for order in ("post", "full_preact")]
    of_deep = Both(f"With {s.deepest} layers", f"{s.deepest} 层时，")
    return [
        row(
            Both(
                "BN after the sum makes training harder: the training error is higher than the original order's",
                "相加之后的 BN 使训练更难：训练误差高于原始顺序",
            ),
            Both(
                "test error 8.17 against 6.61 %, 6.50 against 5.93 % (Table 2); its loss falls slowly at first",
                "测试误差 8.17 对 6.61 %、6.50 对 5.93 %（表 2）；其损失起初下降缓慢",
            ),
            beside("bn_after_add", "post"),
            partial(_worse, s, "bn_after_add", "train"),
        ),
        row(
            Both(
                "ReLU before the sum is worse than the original order in test error",
                "ReLU 在相加之前，测试误差高于原始顺序",
            ),
            Both("7.84 against 6.61 %, 6.14 against 5.93 % (Table 2)", "7.84 对 6.61 %、6.14 对 5.93 %（表 2）"),
            beside("relu_before_add", "post"),
            partial(_worse, s, "relu_before_add", "test"),
        ),
        row(
            Both(
                "ReLU-only pre-activation has about the original order's test error",
                "仅 ReLU 预激活的测试误差与原始顺序相近",
            ),
            Both("6.71 against 6.61 %, 5.91 against 5.93 % (Table 2)", "6.71 对 6.61 %、5.91 对 5.93 %（表 2）"),
            alike,
            partial(_alike, s),
        ),
        row(
            Both(
                "Full pre-activation has the lowest test error of the five, below the original order's",
                "完全预激活的测试误差在五种顺序中最低，低于原始顺序",
            ),
            Both("6.37 against 6.61 %, 5.46 against 5.93 % (Table 2)", "6.37 对 6.61 %、5.46 对 5.93 %（表 2）"),
            [s.key(order, depth) for depth in s.depths for order in ORDERS],
            partial(_best, s),
        ),
        row(
            of_deep
            + Both(
                " full pre-activation is easier to optimise: it has the lower training error",
                "完全预激活更易优化：训练误差更低",
            ),
            Both(
                "1001 layers: the original's training error falls very slowly at first (section 4.1)",
                "1001 层：原始顺序的训练误差起初下降极慢（第 4.1 节）",
            ),
            deep,
            partial(_deep, s, "train"),
        ),
        row(
            of_deep + Both(" full pre-activation has the lower test error", "完全预激活的测试误差更低"),
            Both("1001 layers: 4.92 against 7.61 % (Table 3)", "1001 层：4.92 对 7.61 %（表 3）"),
            deep,
            partial(_deep, s, "test"),
        ),
    ]
