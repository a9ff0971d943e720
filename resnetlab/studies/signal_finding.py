"""What the study `signal` finds: its claims judged, and words on them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from resnetlab.studies.frame.claims import Row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.statistics import DIRECTION, NOT_REPRODUCED, REPRODUCED, Verdict, difference
from resnetlab.studies.frame.study import Finding
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.studies.signal_results import INITS, KINDS, YANG, Group, Net, factors, figures, growth, mean, tables

VANISHING = 0.5  # a factor per layer below which a signal vanishes: 20 layers leave a millionth
TOLERANCE = 0.1  # relative error of a predicted factor per layer


@dataclass(frozen=True)
class _Claim:
    """That plain nets of these initialisations start, or do not."""

    words: Words
    paper: Words
    inits: tuple[str, ...]
    norm: str
    starts: bool


_CLAIMS = (
    _Claim(
        Both(
            "Plain nets with small Gaussian weights and without BN fail to start",
            "小方差高斯权重且无 BN 的平直网络未能起步",
        ),
        Both("hampered from the beginning (He 2015, section 1)", "从一开始就受阻（He 2015，第 1 节）"),
        *(("gaussian",), "none", False),
    ),
    _Claim(
        Both("Plain nets with He's initialisation start without BN", "He 初始化的平直网络无 BN 也能起步"),
        Both(
            "22 and 30 layers converge (1502.01852, Figures 2 and 3)",
            "22 层与 30 层均收敛（1502.01852，图 2、3）",
        ),
        *(("he_fan_out",), "none", True),
    ),
    _Claim(
        Both("Plain nets with BN start from each initialisation", "有 BN 的平直网络在各种初始化下都能起步"),
        Both(
            "tens of layers start to converge (He 2015, section 1)",
            "数十层的网络开始收敛（He 2015，第 1 节）",
        ),
        *(tuple(INITS), "batch", True),
    ),
)


def judge(evidence: Evidence) -> Finding:
    """Signals and gradients of the deepest nets, and which nets of those that were trained have started."""
    signals, starts = Group.of(evidence, "at_start"), Group.of(evidence, "start")
    rows = [*_signal_rows(signals), *_start_rows(starts)]
    return Finding(rows, figures(signals), tables(signals, starts), _words(signals), _answer(signals, starts))


def _signal_rows(group: Group) -> list[Row]:
    depth = group.depths[-1]

    def net(kind: str, init: str, norm: str) -> Net:
        return Net(kind, init, norm, depth)

    small, xavier, he = bare = [net("plain", init, "none") for init in INITS]
    he_bn = net("plain", "he_fan_out", "batch")
    residual, residual_bn = net("resnet", "he_fan_out", "none"), net("resnet", "he_fan_out", "batch")

    def vanishing() -> tuple[Words, Verdict]:
        ways = (group.logs(small, "signal_growth"), group.logs(small, "gradient_growth"))
        logs = [max(pair) for pair in zip(*ways, strict=True)]
        fall = difference(logs, [math.log(VANISHING)] * len(logs))
        return factors(group, small), fall.verdict_below(0)

    def recursion() -> tuple[Words, Verdict]:
        off = [max(_errors(group.found[n][i]) for n in bare) for i in range(len(group.found[bare[0]]))]
        found = difference(off, [0.0] * len(off))
        words = Both("largest error of a factor per layer", "每层因子的最大误差")
        return words + f" {100 * found.mean:.1f} %", found.verdict_below(TOLERANCE)

    def he_against_xavier() -> tuple[Words, Verdict]:
        gain = difference(group.logs(he, "gradient_growth"), group.logs(xavier, "gradient_growth"))
        words = joined(["Xavier: ", factors(group, xavier), "; He: ", factors(group, he)], "")
        return words, gain.verdict_above(0)

    def multiplying() -> tuple[Words, Verdict]:
        logs = group.logs(residual, "signal_growth")
        first = [values["first_stage"] for values in group.found[residual] if values["first_stage"]]
        words = Both("variance times", "每单元方差乘以") + f" {math.exp(4 * statistics.fmean(logs)):.2f}"
        words += Both(" per unit", "")
        if first:
            words += Both("; in the first stage", "；第一阶段") + f" {mean([f**4 for f in first]):.2f}"
        with_bn = group.logs(residual_bn, "signal_growth")
        words += Both("; with BN", "；有 BN 时") + f" {math.exp(4 * statistics.fmean(with_bn)):.2f}"
        return words, difference(logs, with_bn).verdict_above(0)

    def explosion() -> tuple[Words, Verdict]:
        logs = group.logs(he_bn, "gradient_growth")
        return factors(group, he_bn), difference(logs, [0.0] * len(logs)).verdict_above(0)

    def tamed() -> tuple[Words, Verdict]:
        gain = difference(group.logs(he_bn, "gradient_growth"), group.logs(residual_bn, "gradient_growth"))
        words = (KINDS["plain"], ": ", factors(group, he_bn), "; ", KINDS["resnet"], ": ", factors(group, residual_bn))
        return joined(list(words), ""), gain.verdict_above(0)

    layers = Both(f" ({depth} layers)", f"（{depth} 层）")
    return [
        group.row(
            Both(
                "Without BN, small Gaussian weights let signal and gradient of a plain net vanish",
                "无 BN 时，小方差高斯权重使平直网络的信号和梯度消失",
            )
            + layers,
            Both("deep nets do not converge (He 2015, section 1)", "深层网络不收敛（He 2015，第 1 节）"),
            [small],
            vanishing,
        ),
        group.row(
            Both(
                "He's recursion predicts how signal and gradient of plain nets without BN change per layer",
                "He 的递推式能预测无 BN 平直网络中信号与梯度逐层的变化",
            )
            + layers,
            Both(
                "Var(y_l) = (n_l/2) Var(w_l) Var(y_{l-1}) (1502.01852, eq. 9, 13)",
                "Var(y_l) = (n_l/2) Var(w_l) Var(y_{l-1})（1502.01852，式 9、13）",
            ),
            bare,
            recursion,
        ),
        group.row(
            Both("He's initialisation leaves more of the gradient than Xavier's", "He 初始化比 Xavier 保留更多梯度")
            + layers,
            Both("by √2 per layer (1502.01852, section 2.2)", "每层 √2 倍（1502.01852，第 2.2 节）"),
            [he, xavier],
            he_against_xavier,
        ),
        group.row(
            Both(
                "Without BN, He's initialisation lets a residual net's variance multiply from unit to unit, faster "
                "than "
                "with BN, where it adds up",
                "无 BN 时，He 初始化使残差网络的方差逐单元成倍增长，快于有 BN 时的累加",
            )
            + layers,
            Both("about 2^l over l units (Fixup, section 2)", "l 个单元后约为 2^l（Fixup，第 2 节）"),
            [residual, residual_bn],
            multiplying,
        ),
        group.row(
            Both("BN makes the gradients of a plain net explode", "BN 使平直网络的梯度爆炸") + layers,
            Both(f"times {YANG:.2f} per layer in wide nets (Yang 2019)", f"宽网络中每层乘以 {YANG:.2f}（Yang 2019）"),
            [he_bn],
            explosion,
        ),
        group.row(
            Both(
                "With BN, the gradient of a residual net grows less per layer than a plain net's",
                "有 BN 时，残差网络梯度的逐层增长小于平直网络",
            )
            + layers,
            Both("skip connections avoid the explosion (Yang 2019)", "快捷连接可避免爆炸（Yang 2019）"),
            [he_bn, residual_bn],
            tamed,
        ),
    ]


def _start_rows(group: Group) -> list[Row]:
    def row(claim: _Claim, depth: int) -> Row:
        nets = [Net("plain", init, claim.norm, depth) for init in claim.inits]
        layers = Both(f" ({depth} layers)", f"（{depth} 层）")
        return group.row(claim.words + layers, claim.paper, nets, lambda: _counted(group, nets, claim.starts))

    return [row(claim, depth) for depth in group.depths for claim in _CLAIMS]


def _counted(group: Group, nets: list[Net], wanted: bool) -> tuple[Words, Verdict]:
    """How many seeds started, and whether that is what was claimed."""
    started = [values["step"] is not None for net in nets for values in group.found[net]]
    right = sum(s is wanted for s in started)
    words = Both(f"{sum(started)} of {len(started)} started", f"{len(started)} 次中有 {sum(started)} 次起步")
    if right == len(started) and min(len(group.found[net]) for net in nets) >= 3:
        return words, REPRODUCED
    return words, DIRECTION if 2 * right > len(started) else NOT_REPRODUCED


def _errors(values: dict[str, Any]) -> float:
    """The largest relative error of the predicted growths."""
    keys = ("signal_growth", "gradient_growth")
    return max(abs(values["predicted"][key] / values[key] - 1) for key in keys)


def _words(group: Group) -> Words:
    return Both(
        "What is shown is the state before training and whether the loss begins to fall, not how well a net ends: a "
        "net "
        "that starts may still train badly (see the study degradation). A net that fails to start here might with "
        "other rates, a warm-up or more steps. He's recursion is an expectation over weights; a single narrow net "
        "strays from it, more so the deeper it is (Hanin 2018), so predicted and measured signals drift apart at the "
        "end of the net although their factors per layer agree.\n\n"
        "The growth that BN brings is seen on batches of real images, whose activations are correlated over pixels; "
        "the theory's 1.21 is for wide layers and independent inputs.",
        "这里展示的是训练之前的状态以及损失是否开始下降，而不是网络最终有多好：能起步的网络仍可能训练得很差（见 "
        "degradation）。"
        "在这里未能起步的网络，换用其他学习率、预热或更多步数也许可以起步。He 的递推式是对权重的期望；单个窄网络会偏"
        "离它，"
        "越深偏离越大（Hanin 2018），因此尽管每层因子相符，预测与实测的信号在网络末端仍会逐渐分开。\n\n"
        "BN 带来的增长是在真实图像的批次上看到的，其激活在像素间相关；理论值 1.21 针对宽层和独立输入。",
    )


def _answer(signals: Group, starts: Group) -> Words:
    deep, shallow = signals.depths[-1], starts.depths[0]
    bare = [Net("plain", init, "none", deep) for init in INITS]
    normed = Net("plain", "he_fan_out", "batch", deep)
    if not all(signals.found[net] for net in (*bare, normed)):
        return Both("Measurements failed, so the question is left open.", "有测量失败，问题没有答案。")
    small, xavier, he, bn = (f"{growth(signals, net, 'gradient_growth'):.2f}" for net in (*bare, normed))

    def started(init: str, norm: str) -> str:
        seeds = starts.found[Net("plain", init, norm, shallow)]
        return f"{sum(v['step'] is not None for v in seeds)}/{len(seeds)}"

    counts = ", ".join(f"{name} {started(init, 'none')}" for init, name in INITS.items())
    with_bn = ", ".join(f"{name} {started(init, 'batch')}" for init, name in INITS.items())
    return Both(
        f"In plain nets of {deep} layers without BN each layer multiplies the gradient by {small} (small Gaussian "
        f"weights), {xavier} (Xavier) or {he} (He); with BN and He's initialisation by {bn}. Of the seeds of plain "
        "nets "
        f"of {shallow} layers these started to learn without BN: {counts}; with BN: {with_bn}.",
        f"在无 BN 的 {deep} 层平直网络中，每层使梯度乘以 {small}（小方差高斯）、{xavier}（Xavier）或 {he}（He）；"
        f"有 BN 且用 He 初始化时乘以 {bn}。{shallow} 层平直网络的各随机种子中，"
        f"无 BN 时能开始学习的有：{counts}；有 BN 时：{with_bn}。",
    )
