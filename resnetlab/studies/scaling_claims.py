"""The claims of the study `scaling`: what each needs, what was measured, and the verdict by the study's rule."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from resnetlab.measuring.propagation import shortcut_scale
from resnetlab.nets.mixing import Add, Mix, Plain, Scale
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.statistics import (
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    VERDICTS,
    Verdict,
    difference,
    mean_std,
)
from resnetlab.studies.frame.text import Both, Words
from resnetlab.training.recipe import Recipe

HALF, FROZEN, NONE = Scale(0.5, 1), Scale(0.5, 0.5), Scale(0, 1)
TRAINED: dict[Mix, str] = {Add(): "6.61", HALF: "fail", FROZEN: "12.35", Plain(): "fail"}  # He 2016, Table 1
AT_START: tuple[Mix, ...] = (Add(), Scale(1.1, 1), Scale(0.9, 1), HALF, Plain())
EXACT = 1e-3  # relative: what rounding may add to a product of some hundred factors
FAIL = 20.0  # %: the paper prints "fail" for a test error above this


class Key(NamedTuple):
    """What was done (run, or start, same, trained: the study's measurements), and with which network."""

    what: str
    mix: Mix
    depth: int
    order: str = "post"


@dataclass(frozen=True)
class Sorted:
    """The study's evidence by key; a key has a list over seeds: outcomes of runs, or values of measurements."""

    scale: str
    depth: int  # of the networks that are trained
    found: dict[Key, list[Any]]
    missing: dict[Key, list[Recipe | Measurement]]

    @classmethod
    def of(cls, evidence: Evidence) -> Sorted:
        """Sort the evidence."""
        found: dict[Key, list[Any]] = {}
        missing: dict[Key, list[Recipe | Measurement]] = {}
        for o in evidence.outcomes:
            found.setdefault(_key(o.recipe), []).append(o)
        for m in evidence.measured:
            found.setdefault(_key(m.measurement), []).append(m.values)
        for one in evidence.failed:
            missing.setdefault(_key(one), []).append(one)
        depth = next(key.depth for key in (*found, *missing) if key.what == "run")
        return cls(evidence.scale, depth, found, missing)

    def start(self, mix: Mix, order: str = "post", depth: int | None = None) -> list[dict[str, Any]]:
        """How a batch passes the untrained networks, by seed."""
        return self.found.get(Key("start", mix, depth or self.depth, order), [])

    def errors(self, mix: Mix, part: str) -> list[float]:
        """The "train" or "test" errors of the trained networks in %, by seed."""
        return [o.result[f"{part}_error"] for o in self.found.get(Key("run", mix, self.depth), [])]

    @property
    def none_is_plain(self) -> bool:
        """Whether Scale(0, 1) was found to be the plain net, in every seed."""
        found = self.found.get(Key("same", NONE, self.depth), [])
        return bool(found) and all(values["largest_difference"] == 0 for values in found)

    def lack(self, keys: list[Key]) -> bool:
        """Whether any of what the keys name failed, or isn't there."""
        return any(key in self.missing or key not in self.found for key in keys)


def _key(one: Recipe | Measurement) -> Key:
    if isinstance(one, Recipe):
        what, name = "run", one.net
    else:
        what, name = one.function.rpartition(":")[2], one.run.net if one.run else one.settings["net"]
    spec = named_spec(name)
    assert isinstance(spec, NetSpec)
    return Key(what, spec.mix, spec.depth, spec.order)


def products(mix: Mix, values: dict[str, Any]) -> list[float]:
    """∏λ from each x_l to x_L (He 2016, eq. 8), for the units that were measured."""
    last = len(values["gradient"]) - 1
    return [shortcut_scale(mix) ** (last - at) for at in range(last + 1)]


def growth(values: dict[str, Any]) -> float | None:
    """‖∂E/∂x_0‖ / ‖∂E/∂x_L‖: what becomes of the whole gradient from the last unit to the first."""
    first, last = values["gradient"][0], values["gradient"][-1]
    return first / last if first is not None and last else None


def fmean(values: list[float | None]) -> float | None:
    """Their mean; None where one of them is missing, or there is none."""
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def number(value: float | None) -> str:
    """Three digits of a number of any size."""
    if value is None:
        return "–"
    return f"{float(f'{value:.3g}'):,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


def named(mix: Mix) -> str:
    """A mix as the study's words call it: Scale(0.5, 1)."""
    return f"Scale({mix.a:g}, {mix.b:g})" if isinstance(mix, Scale) else type(mix).__name__


Judged = tuple[Words, Verdict]


def _product(s: Sorted, keys: list[Key]) -> Judged:
    worst = 0.0
    for key in keys:
        for values in s.found[key]:
            theory = products(key.mix, values)
            # Forward from x_0 to x_l as many units lie behind as backward from x_L to x_(L-l).
            for factors in (values["gradient_factor"], values["signal_factor"][::-1]):
                off = [math.inf if f is None else abs(f / t - 1) for f, t in zip(factors, theory, strict=True)]
                worst = max(worst, *off)
    measured = Both(f"relative deviation at most {worst:.1g}", f"相对偏差至多 {worst:.1g}")
    return measured, REPRODUCED if worst <= EXACT else NOT_REPRODUCED


def _with_relu(s: Sorted, keys: list[Key]) -> Judged:
    within, parts = True, []
    for key in keys:
        firsts = [values["gradient_factor"][0] for values in s.found[key]]
        theory = products(key.mix, s.found[key][0])[0]
        within &= all(f is not None and f <= theory * (1 + EXACT) for f in firsts)
        parts.append(f"λ = {shortcut_scale(key.mix):g}: {number(fmean(firsts))} (∏λ = {number(theory)})")
    return "; ".join(parts), REPRODUCED if within else NOT_REPRODUCED


def _plain_way(s: Sorted, keys: list[Key]) -> Judged:
    by_key = [[growth(values) for values in s.found[key]] for key in keys]
    if any(not g for group in by_key for g in group):
        return Both("a gradient is zero or not finite", "某个梯度为零或非有限"), NOT_REPRODUCED
    half, plain, add = ([math.log10(g) for g in group if g] for group in by_key)
    nearer = difference([2 * h for h in half], [p + a for p, a in zip(plain, add, strict=True)])
    times = [number(fmean(group)) for group in by_key]
    measured = Both(
        f"from the last to the first unit it becomes {times[0]} times as large with λ = 0.5, {times[1]} times in the "
        f"plain net, {times[2]} times with Add; λ = 0.5 is nearer to the plain net by {nearer} powers of ten",
        f"从最后一个单元到第一个单元，λ = 0.5 时变为 {times[0]} 倍，普通网络 {times[1]} 倍，Add {times[2]} 倍；"
        f"λ = 0.5 更接近普通网络，差 {nearer} 个数量级",
    )
    return measured, nearer.verdict_above(0)


def _worse(s: Sorted, mix: Mix) -> Judged:
    scaled, add = s.errors(mix, "train"), s.errors(Add(), "train")
    gap = difference(scaled, add)
    measured = Both(
        f"training error {mean_std(scaled)} % against {mean_std(add)} %: {gap} points",
        f"训练误差 {mean_std(scaled)} % 对 {mean_std(add)} %：{gap} 个百分点",
    )
    return measured, gap.verdict_above(0)


def _optimisation(s: Sorted, mix: Mix) -> Judged:
    trains = [s.errors(m, "train") for m in (mix, Add())]
    gaps = [
        [b - a for a, b in zip(t, s.errors(m, "test"), strict=True)] for m, t in zip((mix, Add()), trains, strict=True)
    ]
    lost, beyond = difference(*trains), difference(*gaps)
    more = difference(*([t - g for t, g in zip(*side, strict=True)] for side in zip(trains, gaps, strict=True)))
    measured = Both(
        f"{lost} points more on the training images, {beyond} points more between these and the test images; "
        f"the first exceeds the second by {more}",
        f"训练图像上多 {lost} 个百分点，训练与测试图像之间多 {beyond} 个百分点；前者超出后者 {more}",
    )
    return measured, NOT_TESTED if lost.mean <= 0 else more.verdict_above(0)


def _plain_net(s: Sorted, key: Key) -> Judged:
    largest = max(values["largest_difference"] for values in s.found[key])
    numbers = s.found[key][0]["numbers"]
    measured = Both(
        f"largest difference among {numbers:,} scores and gradients of weights: {largest:g}",
        f"{numbers:,} 个得分与权重梯度中的最大差：{largest:g}",
    )
    return measured, REPRODUCED if s.none_is_plain else NOT_REPRODUCED


def _fails(s: Sorted) -> Judged:
    half, frozen = s.errors(HALF, "test"), s.errors(FROZEN, "test")
    sides = [
        difference(half, [FAIL] * len(half)).verdict_above(0),
        difference(frozen, [FAIL] * len(frozen)).verdict_below(0),
    ]
    return f"{mean_std(half)} %; {mean_std(frozen)} %", NOT_TESTED if s.scale != "paper" else max(
        sides, key=VERDICTS.index
    )


def rows(s: Sorted) -> list[Row]:
    """Every claim with what was measured and its verdict."""

    def row(claim: Words, paper: Words, needs: list[Key], measure: Callable[[], Judged]) -> Row:
        have, failed = ([side.get(key, []) for key in needs] for side in (s.found, s.missing))
        return judged_row(claim, paper, have, failed, measure)

    preact = [Key("start", mix, s.depth, "full_preact") for mix in AT_START if shortcut_scale(mix)]
    relu = [Key("start", mix, s.depth) for mix in AT_START if 0 < shortcut_scale(mix) < 1]
    ways = [Key("start", mix, s.depth) for mix in (HALF, Plain(), Add())]
    same = Key("same", NONE, s.depth)
    runs = {mix: Key("run", mix, s.depth) for mix in TRAINED}
    found = [
        row(
            Both(
                f"Through shortcuts alone, signal and gradient change by ∏λ (pre-activation, {s.depth} layers, λ from "
                "0.5 to 1.1)",
                f"仅经捷径时，信号与梯度按 ∏λ 变化（预激活，{s.depth} 层，λ 为 0.5 至 1.1）",
            ),
            Both("eq. 7 and 8, with f the identity", "式 7、8，f 为恒等映射"),
            preact,
            partial(_product, s, preact),
        ),
        row(
            Both(
                "Where a ReLU follows the sum, so that f is not the identity, shortcuts with λ < 1 pass no more than "
                "∏λ of the gradient to the first unit",
                "相加之后有 ReLU（f 不是恒等）时，λ < 1 的捷径传到第一个单元的梯度不超过 ∏λ",
            ),
            Both(
                "exponentially small; the experiments have f = ReLU (section 3)",
                "指数级地小；实验中 f = ReLU（第 3 节）",
            ),
            relu,
            partial(_with_relu, s, relu),
        ),
        row(
            Both(
                "With λ = 0.5 the whole gradient behaves as in the plain net, since it has to pass the weight layers",
                "λ = 0.5 时，整个梯度的表现如同普通网络，因为它须经过权重层",
            ),
            Both(
                "the shortcut is blocked and the signal has to flow through the weight layers (section 3); what "
                "becomes of its norm is left open",
                "捷径被阻断，信号须流经权重层（第 3 节）；其范数如何，未作说明",
            ),
            ways,
            partial(_plain_way, s, ways),
        ),
    ]
    for mix in (HALF, FROZEN):
        needs = [runs[mix], runs[Add()]]
        found += [
            row(
                Both(f"{named(mix)} has a higher training error than Add", f"{named(mix)} 的训练误差高于 Add"),
                Both(
                    f"test error: {TRAINED[mix]} against 6.61 % (Table 1)",
                    f"测试误差：{TRAINED[mix]} 对 6.61 %（表 1）",
                ),
                needs,
                partial(_worse, s, mix),
            ),
            row(
                Both(
                    f"What {named(mix)} lacks is optimisation: it loses more on the training images than beyond them",
                    f"{named(mix)} 所欠缺的是优化：在训练图像上的损失多于其外的损失",
                ),
                Both("its training error is higher too (Fig. 3a)", "其训练误差也更高（图 3a）"),
                needs,
                partial(_optimisation, s, mix),
            ),
        ]
    return [
        *found,
        row(
            Both(
                "Scale(0, 1) is the plain net as a function, to the last bit, so its runs are Plain's",
                "Scale(0, 1) 作为函数与普通网络逐位相同，故其运行即 Plain 的运行",
            ),
            Both("'this is a plain net' (Table 1)", "「这是普通网络」（表 1）"),
            [same],
            partial(_plain_net, s, same),
        ),
        row(
            Both(
                "With 110 layers Scale(0.5, 1) fails (test error above 20 %), and Scale(0.5, 0.5) does not",
                "110 层时 Scale(0.5, 1) 失败（测试误差高于 20 %），Scale(0.5, 0.5) 不失败",
            ),
            Both("fail; 12.35 % (Table 1)", "失败；12.35 %（表 1）"),
            [runs[HALF], runs[FROZEN]],
            partial(_fails, s),
        ),
    ]
