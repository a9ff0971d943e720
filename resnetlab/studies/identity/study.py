"""Identity: surplus layers need only be the identity, which a residual unit is with F = 0.

Paper:    He et al. 2015, sections 1 and 3.1.
Claim:    a deeper net contains the shallower one, with identities for the rest; driving F to 0 is easier than fitting
          x with a stack of nonlinear layers.
Command:  resnetlab study run identity --scale quick               (about 3 minutes on 2 cores beyond `degradation`,
                                                                    whose runs it measures)
          resnetlab study run identity --scale cifar --data cifar10:DIR
          resnetlab study run identity --scale paper --data cifar10:DIR
Last result: reproduced at the scale quick: constructed nets differ in no bit; trained on, the residual one stays at
          0.0 % training error and the plain one ends at 2.1 %; residual stacks of 2 to 8 layers fit x to 1e-6 to 1e-7
          of the plain ones' loss, and with 32 layers neither kind fits it
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Weights
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.statistics import NOT_REPRODUCED, REPRODUCED, Verdict, difference, mean_std
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words, listed
from resnetlab.studies.identity_found import (
    DEEP,
    KINDS,
    SHALLOW,
    Found,
    Key,
    construction_table,
    fit_figure,
    fit_table,
    in_words,
    training_figure,
)
from resnetlab.training.recipe import Recipe

MIXES = {"plain": "Plain()", "resnet": "Add()"}
UNITS = (DEEP - 2) // 6  # per stage of the deep net
TOLERANCE = 1.0  # points by which the deep net's training error may end above the shallow net's
RATES = [0.3, 0.1]  # of which each stack has the better
CONSTRUCT, TRAIN_ON, FIT = (f"resnetlab.studies.identity_fits:{name}" for name in ("construct", "train_on", "fit"))


@dataclass(frozen=True)
class _Scale:
    epochs: int  # that a constructed net is trained on
    stacks: tuple[int, ...]  # units
    steps: int
    expected: Words
    note: Words


SEEDS = 3
_SCALES = {
    "quick": _Scale(
        5,
        (1, 2, 4, 8, 16),
        300,
        Both("3 minutes on 2 cores beyond `degradation`", "在 degradation 之外双核约 3 分钟"),
        Both(
            "Nets of 20 layers on the digits, three seeds; trained on as 56 layers for 5 epochs. Stacks of 2 to 32 "
            "layers.",
            "在 digits 上训练的 20 层网络，三个种子；扩成 56 层后再训练 5 轮。各叠为 2 至 32 层。",
        ),
    ),
    "cifar": _Scale(
        3,
        (1, 2, 4, 8, 16, 32),
        1000,
        Both("a night on 2 cores beyond `degradation`", "在 degradation 之外双核约一夜"),
        Both(
            "Nets of 20 layers after 10 epochs, three seeds; trained on as 56 layers for 3. Stacks of 2 to 64 layers.",
            "训练 10 轮的 20 层网络，三个种子；扩成 56 层后再训练 3 轮。各叠为 2 至 64 层。",
        ),
    ),
    "paper": _Scale(
        10,
        (1, 2, 4, 8, 16, 32),
        2000,
        Both("a few hours on a GPU beyond `degradation`", "在 degradation 之外单块 GPU 数小时"),
        Both(
            "Nets of 20 layers by the published recipe, three seeds; trained on as 56 layers for 10 epochs of it. "
            "Stacks of 2 to 64 layers.",
            "按论文方案训练的 20 层网络，三个种子；扩成 56 层后按该方案再训练 10 轮。各叠为 2 至 64 层。",
        ),
    ),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Shallow nets, which are made deeper and trained on; deep ones from scratch; stacks of units."""
    s, recipe = _SCALES[scale], base(scale, data)
    runs = {
        (kind, depth, seed): recipe.override(net=f"cifar_{kind}{depth}", seed=seed)
        for seed in range(SEEDS)
        for depth in (SHALLOW, DEEP)
        for kind in KINDS
    }
    shallow = [(seed, run) for (_, depth, seed), run in runs.items() if depth == SHALLOW]
    fit: dict[str, Any] = {"steps": s.steps, "rates": RATES}
    return Plan(
        tuple(runs.values()),
        s.expected,
        s.note,
        (
            *(Measurement(CONSTRUCT, {"units": UNITS}, run=run, seed=seed) for seed, run in shallow),
            *(Measurement(TRAIN_ON, {"units": UNITS, "epochs": s.epochs}, run=run, seed=seed) for seed, run in shallow),
            *(
                Measurement(FIT, {"mix": mix, "units": units} | fit, seed=seed)
                for seed in range(SEEDS)
                for units in s.stacks
                for mix in MIXES.values()
            ),
        ),
    )


def judge(evidence: Evidence) -> Finding:
    """Compare constructed nets with what they are built from, and residual stacks with plain ones."""
    done: list[tuple[Recipe | Measurement, dict[str, Any]]] = [
        *((o.recipe, o.result) for o in evidence.outcomes),
        *((m.measurement, m.values) for m in evidence.measured),
    ]
    found = Found({}, {})
    for one in [*(one for one, _ in done), *evidence.failed]:
        found.values.setdefault(_key(one), [])
        found.failed.setdefault(_key(one), [])
    for one, values in done:
        found.values[_key(one)].append(values)
    for one in evidence.failed:
        found.failed[_key(one)].append(one)
    words, answer = in_words(found)
    figures = [fit_figure(found), training_figure(found, evidence.outcomes)]
    tables = [construction_table(found), fit_table(found)]
    return Finding(_rows(found), [f for f in figures if f.panels], tables, words, answer)


def _key(one: Recipe | Measurement) -> Key:
    net = one.net if isinstance(one, Recipe) else one.run.net if one.run else ""
    kind = "plain" if "plain" in net else "resnet"
    if isinstance(one, Recipe):
        return "net", kind, int(net.removeprefix(f"cifar_{kind}"))
    if one.function == FIT:
        return "fit", next(k for k, mix in MIXES.items() if mix == one.settings["mix"]), one.settings["units"]
    return one.function.rpartition(":")[2], kind, 0


def _rows(found: Found) -> list[Row]:
    def row(claim: Words, paper: Words, needs: list[Key], measure: Callable[[], tuple[Words, Verdict]]) -> Row:
        return judged_row(claim, paper, [found.values[n] for n in needs], [found.failed[n] for n in needs], measure)

    def exact() -> tuple[Words, Verdict]:
        values = [v["exact"] for v in found.of("construct", "resnet", 0)]
        words = _largest(values)
        return words, REPRODUCED if all(v["largest"] == 0 for v in values) else NOT_REPRODUCED

    def same_answers() -> tuple[Words, Verdict]:
        values = [v["exact"] for v in found.of("construct", "plain", 0)]
        changed = sum(v["changed"] for v in values)
        words = _largest(values) + Both(f"; answers that change: {changed}", f"；改变的分类：{changed}")
        return words, NOT_REPRODUCED if changed else REPRODUCED

    def stays() -> tuple[Words, Verdict]:
        after = [v["train_errors"][-1] for v in found.of("train_on", "resnet", 0)]
        before = [v["train_error"] for v in found.of("net", "resnet", SHALLOW)]
        gap = difference(after, before)
        words = Both(
            f"{SHALLOW} layers {mean_std(before)} %, trained on with {DEEP} {mean_std(after)} %: {gap} points",
            f"{SHALLOW} 层 {mean_std(before)} %，扩成 {DEEP} 层再训练后 {mean_std(after)} %：{gap} 个百分点",
        )
        return words, gap.verdict_below(TOLERANCE)

    def plain_ends_higher() -> tuple[Words, Verdict]:
        plain, residual = ([v["train_errors"][-1] for v in found.of("train_on", kind, 0)] for kind in KINDS)
        gap = difference(plain, residual)
        words = Both(
            f"{mean_std(plain)} against {mean_std(residual)} %: {gap} points",
            f"{mean_std(plain)} 对 {mean_std(residual)} %：{gap} 个百分点",
        )
        return words, gap.verdict_above(0)

    def residual_fits_better() -> tuple[Words, Verdict]:
        plain, residual = ([found.log_loss(kind, n) for n in stacks] for kind in KINDS)
        gap = difference(*([statistics.fmean(seed) for seed in zip(*logs, strict=True)] for logs in (plain, residual)))
        by_depth = [difference(a, b) for a, b in zip(plain, residual, strict=True)]
        each = listed([Both(f"{2 * n} layers {d}", f"{2 * n} 层 {d}") for n, d in zip(stacks, by_depth, strict=True)])
        return Both(f"mean {gap}: ", f"平均 {gap}：") + each, gap.verdict_above(0)

    def plain_rises() -> tuple[Words, Verdict]:
        rise = difference(found.log_loss("plain", stacks[-1]), found.log_loss("plain", stacks[0]))
        words = Both(
            f"{2 * stacks[-1]} against {2 * stacks[0]} layers: {rise} powers of ten",
            f"{2 * stacks[-1]} 层对 {2 * stacks[0]} 层：{rise} 个数量级",
        )
        return words, rise.verdict_above(0)

    stacks = found.stacks
    section = Both("section 3.1", "3.1 节")
    return [
        row(
            Both(
                f"A residual net of {SHALLOW} layers, made {DEEP} with F = 0, gives the same scores to the last bit",
                f"把 {SHALLOW} 层的残差网络以 F = 0 的单元扩成 {DEEP} 层，输出逐位相同",
            ),
            Both("a solution by construction exists (section 3.1)", "存在构造出的解（3.1 节）"),
            [("construct", "resnet", 0)],
            exact,
        ),
        row(
            Both("A plain net can be made deeper with the same answers", "普通网络也能如此加深而分类不变"),
            Both("the same (sections 1, 3.1)", "同上（1、3.1 节）"),
            [("construct", "plain", 0)],
            same_answers,
        ),
        row(
            Both(
                f"The constructed residual net, trained on, is no worse on its training images (within {TOLERANCE:g} "
                "point)",
                f"构造出的残差网络继续训练后，训练误差不变差（{TOLERANCE:g} 个百分点以内）",
            ),
            section,
            [("train_on", "resnet", 0), ("net", "resnet", SHALLOW)],
            stays,
        ),
        row(
            Both(
                "The constructed plain net, trained on, ends with a higher training error than the residual one",
                "构造出的普通网络继续训练后，训练误差高于残差网络",
            ),
            Both("solvers may have difficulties with identities (section 3.1)", "求解器可能难以逼近恒等映射（3.1 节）"),
            [("train_on", kind, 0) for kind in KINDS],
            plain_ends_higher,
        ),
        row(
            Both(
                "Residual stacks fit x → x better than plain ones: by how many powers of ten of the loss, mean over "
                "depths",
                "拟合 x → x 时残差的叠优于普通的：损失相差的数量级，对各深度平均",
            ),
            section,
            [("fit", kind, n) for kind in KINDS for n in stacks],
            residual_fits_better,
        ),
        row(
            Both("The deeper a plain stack, the worse it fits x → x", "普通的叠越深，拟合 x → x 越差"),
            section,
            [("fit", "plain", n) for n in (stacks[0], stacks[-1])] if stacks else [],
            plain_rises,
        ),
    ]


def _largest(values: list[dict[str, Any]]) -> Both:
    largest, scores = max(v["largest"] for v in values), max(v["scores"] for v in values)
    images = sum(v["images"] for v in values)
    return Both(
        f"largest difference {largest:.2g}, of scores up to {scores:.1f}, {images} images",
        f"最大差 {largest:.2g}（输出最大 {scores:.1f}，{images} 张图像）",
    )


STUDY = Study(
    name="identity",
    title=Both("Surplus layers need only be the identity", "多余的层只需成为恒等映射"),
    claim=Both(
        "A deeper net need be no worse: its surplus layers can be the identity, and F = 0 is easier to reach than F "
        "= x.",
        "更深的网络不应更差：多余的层可以是恒等映射，而且达到 F = 0 比达到 F = x 更容易。",
    ),
    source="He et al. 2015, sections 1 and 3.1",
    method=Both(
        f"(a) Trained nets of {SHALLOW} layers get surplus units at each stage's end until they have {DEEP}: residual "
        "ones with γ = β = 0 in F's last batch norm, so that F = 0 and, after ReLU, relu(x + 0) = x; plain ones with "
        "convolutions that copy each channel, and batch norms with μ = 0 and σ² + ε = 1. Their scores are compared. "
        "(b) They are trained on by the same recipe; a plain one's batch norms then have the data's statistics, so "
        "that in training too they about pass on x. (c) Stacks of the same units are fitted to x → x: random x after "
        f"a ReLU, mean squared error over the variance of x, gradients clipped, the better of the rates {RATES[0]:g} "
        f"and {RATES[1]:g}; all weights start as in every network.",
        f"(a) 在训练好的 {SHALLOW} 层网络的各阶段末尾添加单元，直至 {DEEP} 层：残差网络令 F 末尾 BN 的 γ = β = 0，"
        "于是 F = 0，且 relu(x + 0) = x；普通网络用逐通道复制的卷积和 μ = 0、σ² + ε = 1 的 BN。比较两者的输出。(b) "
        "以同一方案继续训练；此时普通网络的 BN 取数据的统计量，使其在训练中也大致传递 x。(c) 把同样单元的叠拟合到 x → "
        f"x：x 为 ReLU 之后的随机数，损失为均方误差除以 x 的方差，裁剪梯度，取学习率 {RATES[0]:g} 与 {RATES[1]:g} "
        "中较好者；所有权重按通常方式初始化。",
    ),
    rule=Both(
        "'To the last bit' allows no difference in any score, 'the same answers' no image whose class changes. A "
        "difference between two means over seeds (of errors, or of log10 of the loss) is reproduced if its 95 % "
        "interval (Welch's t) lies on the claim's side of the bound, a direction only if the mean does but the "
        f"interval does not, else not reproduced; the bound is 0, and {TOLERANCE:g} point for 'no worse'. Losses of "
        "several depths count by the mean of their log10. The study's verdict is the weakest of its tested claims.",
        "“逐位相同”不允许任何输出有差别，“分类不变”不允许任何图像改变类别。两个均值之差（误差，或损失的 log10）：若其 "
        "95 % 区间（Welch t）位于论断一侧则为已复现；若仅均值如此则为仅方向一致；否则为未复现。界限为 0，“不变差”为 "
        f"{TOLERANCE:g} 个百分点。各深度的损失取其 log10 的平均。研究取受检论断中最弱者。",
    ),
    plan=plan,
    judge=judge,
)
