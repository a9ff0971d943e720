"""Shortcuts: zero padding (A), projections where sizes change (B), or everywhere (C): what they cost and gain.

Paper:    He et al. 2015, section 4.1 ("Identity vs. projection shortcuts"), Table 3.
Claim:    C is the best by a little and costs the most memory, time and parameters; the channels that A pads carry no
          residual learning; the differences are small, so projections are not what cures degradation.
Command:  resnetlab study run shortcuts --scale quick            (the digits, about 4 minutes on 2 cores)
          resnetlab study run shortcuts --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run shortcuts --scale paper --data cifar10:DIR     (days on one GPU)
Last result: not reproduced at the scale quick: C costs the most (5 % more parameters and multiply-adds, 18 to 23 % more
          activations, 12 to 39 % more time than A), A's added channels carry exactly nothing, and all options are far
          from the plain net; but with 56 layers C is the worst of them, 8.4 % test error against 1.9 % with A
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from resnetlab.measuring.padding import padded_units
from resnetlab.studies import shortcuts_views as views
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.costs import BUSY_RULE, Costs, base_name, busy, exact, measure_networks, measured_by, times
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights, named
from resnetlab.studies.frame.scales import base, for_depth
from resnetlab.studies.frame.statistics import (
    DIRECTION,
    NOT_JUDGED,
    NOT_REPRODUCED,
    REPRODUCED,
    Difference,
    Verdict,
    difference,
    weakest,
)
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.training.recipe import Recipe

OPTIONS = ("A", "B", "C")
KINDS = ("plain", *OPTIONS)
SHARE = 0.5  # of what a shortcut gains over none: what the options may differ by and be called alike
PRINTED = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}  # %, ImageNet, 34 layers, 10 crops: He 2015, Table 3


@dataclass(frozen=True)
class _Scale:
    depths: tuple[int, ...]
    seeds: int
    batch: int  # images of a timed step of the CIFAR nets; of ResNet-34 an eighth
    rounds: int
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        depths=(20, 56),
        seeds=3,
        batch=8,
        rounds=15,
        expected=Both("about 4 minutes on 2 cores, once degradation has run", "在 degradation 之后，双核约 4 分钟"),
        note=Both(
            "Three seeds. Of 360 test images one is 0.28 points: differences of a few tenths of a point, as those "
            "between A, B and C in the paper, can't be told here.",
            "三个随机种子。测试图像 360 张，一张即 0.28 个百分点："
            "论文中 A、B、C 之间零点几个百分点的差别，此处无法分辨。",
        ),
    ),
    "cifar": _Scale(
        depths=(20,),
        seeds=3,
        batch=32,
        rounds=25,
        expected=Both("half a night on 2 cores, once degradation has run", "在 degradation 之后，双核半夜"),
        note=Both(
            "10 epochs instead of the paper's 164, and three seeds.", "训练 10 轮而非论文的 164 轮，三个随机种子。"
        ),
    ),
    "paper": _Scale(
        depths=(56, 110),
        seeds=5,
        batch=128,
        rounds=51,
        expected=Both("two to three days on one GPU", "单块 GPU 两到三天"),
        note=Both(
            "The paper compares the options on ImageNet with 34 layers; here it is CIFAR-10 with its recipe.",
            "论文在 ImageNet 上以 34 层比较三种选项；此处为 CIFAR-10 及其训练方案。",
        ),
    ),
}


def net_of(kind: str, depth: int) -> str:
    """The network of a depth that is plain, or has option A, B or C."""
    if kind == "plain":
        return f"cifar_plain{depth}"
    return f"cifar_resnet{depth}" if kind == "A" else f"cifar_resnet{depth}(shortcut={kind})"


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Every option and the plain net at every depth and seed; A's padded channels; what the options cost."""
    s, recipe = _SCALES[scale], base(scale, data)
    recipes = {
        (kind, depth, seed): for_depth(recipe.override(net=net_of(kind, depth), seed=seed), depth)
        for seed in range(s.seeds)
        for depth in s.depths
        for kind in KINDS
    }
    padded = [
        Measurement(f"{__name__}:measure_padding", {"images": 256}, run=r, seed=seed)
        for (kind, _, seed), r in recipes.items()
        if kind == "A"
    ]
    timed = [
        Measurement(
            named(measure_networks),
            {"nets": nets, "batch": batch, "rounds": s.rounds, "training": True},
            alone=True,
        )
        for nets, batch in (
            ([net_of(kind, s.depths[0]) for kind in OPTIONS], s.batch),
            ([f"resnet34(shortcut={kind})" for kind in OPTIONS], s.batch // 8),
        )
    ]
    return Plan(tuple(recipes.values()), s.expected, s.note, (*padded, *timed))


def measure_padding(subject: Subject) -> dict[str, Any]:
    """The units that pad: max |h| and max |y − F| in the added channels, and the branch beside the shortcut."""
    x, _ = subject.batch(subject.settings["images"])
    return {"units": [unit.to_dict() for unit in padded_units(subject.net, x)]}


Errors = dict[tuple[str, int], list[float]]  # by kind and depth: % of each seed


@dataclass(frozen=True)
class _Runs:
    """What was trained: by kind and depth, over seeds, with what failed."""

    train: Errors
    test: Errors
    failed: dict[tuple[str, int], list[Recipe]]

    @property
    def deepest(self) -> int:
        return max((depth for _, depth in self.test), default=0)


def judge(evidence: Evidence) -> Finding:
    """Compare the options' errors over seeds, their counts exactly, their times within one run."""
    runs = _sorted(evidence)
    deepest = {kind: runs.test.get((kind, runs.deepest), []) for kind in KINDS}
    padded, lost_padded = measured_by(evidence, "measure_padding")
    costs, lost_costs = measured_by(evidence, "measure_networks")
    rows = _cost_rows(costs, lost_costs)
    rows += _error_rows(runs) if runs.test else []
    rows.append(_padding_row(padded, lost_padded))
    errors = [(net_of(*key), runs.train[key], test, PRINTED[key[0]]) for key, test in runs.test.items()]
    units = [unit for values in padded for unit in values["units"]]
    return Finding(
        rows,
        [views.figure(costs)] if costs else [],
        [*([views.error_table(errors)] if errors else []), *map(views.costs_of, costs)],
        views.words(runs.deepest, deepest, units),
        views.answer(costs, runs.deepest, deepest, units),
    )


def _sorted(evidence: Evidence) -> _Runs:
    keys = {(net_of(kind, d), kind, d) for kind in KINDS for s in _SCALES.values() for d in s.depths}
    failed = [r for r in evidence.failed if isinstance(r, Recipe)]
    found = {o.recipe.net for o in evidence.outcomes} | {r.net for r in failed}
    train, test, lost = {}, {}, {}
    for net, kind, depth in sorted(keys, key=lambda k: (k[2], KINDS.index(k[1]))):
        if net in found:
            of_net = [o.result for o in evidence.outcomes if o.recipe.net == net]
            train[kind, depth] = [r["train_error"] for r in of_net]
            test[kind, depth] = [r["test_error"] for r in of_net]
            lost[kind, depth] = [r for r in failed if r.net == net]
    return _Runs(train, test, lost)


def _weakest(verdicts: list[Verdict]) -> Verdict:
    return weakest(verdicts)


def _cost_rows(costs: list[Costs], failed: list[Measurement]) -> list[Row]:
    """Counts and times; in each of `costs` the networks stand in the order of OPTIONS."""

    def most() -> tuple[Words, Verdict]:
        parts, holds = [], True
        for nets in costs:
            a, b, c = nets.values()
            holds &= all(c[key] > max(a[key], b[key]) for key in _COUNTS)
            counts = [f"{c[key] / a[key]:.3f}" for key in _COUNTS]
            parts.append(f"{base_name(nets)} {', '.join(counts)}")
        words = Both("C / A in parameters, multiply-adds, activations: ", "C / A，依次为参数、乘加、激活：")
        return words + "; ".join(parts), exact(holds)

    def longest() -> tuple[Words, Verdict]:
        parts, verdicts = [], []
        for nets in costs:
            if words := busy(nets):
                return words, NOT_JUDGED
            for option, net in zip(OPTIONS[:2], nets, strict=False):
                clock = times(nets, list(nets)[-1], net)
                parts.append(f"{base_name(nets)}, C / {option}: {clock}")
                verdicts.append(clock.verdict_above(1))
        return "; ".join(parts), _weakest(verdicts)

    paper = Both("so section 4.1, without numbers", "如 4.1 节所述，无数字")
    return [
        judged_row(
            Both("C has the most parameters, multiply-adds and kept activations", "C 的参数、乘加与保留的激活最多"),
            paper,
            [costs],
            [failed],
            most,
        ),
        judged_row(
            Both("A training step takes longest with C", "C 的一步训练用时最长"), paper, [costs], [failed], longest
        ),
    ]


_COUNTS = ("parameters", "multiply_adds", "training_bytes")


def _error_rows(runs: _Runs) -> list[Row]:
    depth = runs.deepest
    test = {kind: runs.test.get((kind, depth), []) for kind in KINDS}
    lost = {kind: runs.failed.get((kind, depth), []) for kind in KINDS}

    def over(one: str, other: str) -> Difference:
        return difference(test[one], test[other])

    def ordered() -> tuple[Words, Verdict]:
        steps = [over("A", "B"), over("B", "C")]
        words = Both(
            f"{_means(test)}; A − B: {steps[0]}, B − C: {steps[1]} points",
            f"{_means(test)}；A − B：{steps[0]}，B − C：{steps[1]} 个百分点",
        )
        return words, _weakest([d.verdict_above(0) for d in steps])

    def alike() -> tuple[Words, Verdict]:
        gain = over("plain", "A")
        between = [over(*pair) for pair in ("AB", "AC", "BC")]
        largest = max(abs(d.mean) for d in between)
        words = Both(
            f"{depth} layers, at most {largest:.1f} points between options; plain − A: {gain} points",
            f"{depth} 层，选项间至多相差 {largest:.1f} 个百分点；plain − A：{gain} 个百分点",
        )
        if max(max(abs(d.low), abs(d.high)) for d in between) < SHARE * gain.low:
            return words, REPRODUCED
        return words, DIRECTION if largest < SHARE * gain.mean else NOT_REPRODUCED

    table = (
        (
            Both("The test error falls from A to B and from B to C", "测试误差从 A 到 B、从 B 到 C 依次下降"),
            Both(
                "25.03, 24.52, 24.19 % with 34 layers (ImageNet, Table 3); with 110, A 6.61 and C 12.22 % (CIFAR-10, "
                "He 2016, Table 1)",
                "34 层 25.03、24.52、24.19 %（ImageNet，表 3）；110 层 A 6.61、C 12.22 %（CIFAR-10，He 2016 表 1）",
            ),
            OPTIONS,
            ordered,
        ),
        (
            Both(
                f"A, B and C differ by less than {SHARE:g} of what A gains over the plain net",
                f"A、B、C 之差小于 A 相对普通网络增益的 {SHARE:g} 倍",
            ),
            Both("by 0.84 of 28.54 − 25.03 = 3.51 points (Table 3)", "28.54 − 25.03 = 3.51 个百分点中的 0.84（表 3）"),
            KINDS,
            alike,
        ),
    )
    return [
        judged_row(claim, paper, [test[k] for k in needed], [lost[k] for k in needed], measure)
        for claim, paper, needed, measure in table
        if all(test[k] or lost[k] for k in needed)
    ]


def _means(test: dict[str, list[float]]) -> str:
    return ", ".join(f"{kind} {statistics.fmean(test[kind]):.2f} %" for kind in OPTIONS)


def _padding_row(found: list[dict[str, Any]], failed: list[Measurement]) -> Row:
    def measure() -> tuple[Words, Verdict]:
        units = [unit for values in found for unit in values["units"]]
        shortcut, gap = (max((u[k] for u in units), default=0.0) for k in ("largest_shortcut", "largest_gap"))
        kept = min((u["shortcut_rms_kept"] for u in units), default=0.0)
        words = Both(
            f"{len(units)} units of {len(found)} trained nets: in the added channels |h| is at most {shortcut:g} and "
            f"|y − F| at most {gap:g}; in the others h has a root mean square of at least {kept:.2f}",
            f"{len(found)} 个已训练网络的 {len(units)} 个单元：新增通道中 |h| 至多 {shortcut:g}，|y − F| 至多 {gap:g}；"
            f"其余通道中 h 的均方根至少 {kept:.2f}",
        )
        return words, exact(bool(units) and shortcut == 0 and gap == 0 and kept > 0)

    return judged_row(
        Both(
            "In the channels that A pads nothing is carried: h = 0 and y = F, exactly",
            "A 填充的通道不传递任何内容：h = 0 且 y = F，精确成立",
        ),
        Both(
            "“the zero-padded dimensions in A indeed have no residual learning” (section 4.1)",
            "“A 中补零的维度确无残差学习”（4.1 节）",
        ),
        [found],
        [failed],
        measure,
    )


STUDY = Study(
    name="shortcuts",
    title=Both("Shortcuts where sizes change: A, B and C", "尺寸改变处的捷径：A、B 与 C"),
    claim=Both(
        "Zero padding (A), projections where sizes change (B), or everywhere (C): C is best, but costs memory, time "
        "and parameters; A's padded channels carry no residual learning.",
        "补零（A）、尺寸改变处投影（B）、处处投影（C）：C 最好，但增加内存、时间与参数；A 的补零通道没有残差学习。",
    ),
    source="He et al. 2015, section 4.1 (Identity vs. projection shortcuts), Table 3; He et al. 2016, Table 1",
    method=Both(
        "The same nets with A, B and C and without shortcuts are trained with one recipe and the same seeds. "
        "Parameters, multiply-adds and what a step keeps for its backward pass are counted on the modules; steps are "
        "timed in turn in one process. In the trained nets with A, h, F and y of every unit that pads are compared on "
        "test images.",
        "同一网络分别用 A、B、C 及不用捷径，以相同方案与种子训练。参数、乘加及一步为反向所保留者由模块计数；"
        "各步在同一进程中轮流计时。对训练好的 A 网络，在测试图像上比较每个补零单元的 h、F 与 y。",
    ),
    rule=Both(
        "A count is reproduced if it is as the claim says, else not. A difference between means over seeds is "
        "reproduced if its 95 % interval (Welch's t) lies above 0, a direction only if the mean does, else not; a "
        "ratio of times likewise, by the interval of its median over rounds (the sign test's) above 1. Options differ "
        f"by less if every interval between them stays within {SHARE:g} of the lower end of A's gain, a direction only "
        "if the means do. The study's verdict is the weakest of its tested claims.",
        "计数与论断一致则为复现，否则为未复现。种子均值之差的 95 % 区间（Welch t）大于 0 则为复现，仅均值如此则只是"
        "方向，否则为未复现；时间之比同理，以各轮中位数的区间（符号检验）大于 1 为准。"
        "若选项之间的每一区间都在 A 的增益下界的 "
        f"{SHARE:g} 倍以内，则为差别较小；仅均值如此则只是方向。"
        "研究的判定取所检验论断中最弱者。",
    )
    + BUSY_RULE,
    plan=plan,
    judge=judge,
)
