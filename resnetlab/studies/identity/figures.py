"""What the study `identity` found, by part, as figures, tables and words."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.evidence import Outcome
from resnetlab.studies.frame.measurement import Measurement
from resnetlab.studies.frame.statistics import mean_std
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.training.recipe import Recipe

KINDS = {"plain": Both("plain", "普通"), "resnet": Both("residual", "残差")}
SHALLOW, DEEP = 20, 56  # layers
FITTED = 0.01  # final loss below which x counts as fitted: 1 % of its variance
SMALLEST = 2.0**-24  # what float32 can just tell from 1: smaller losses count as this

Key = tuple[str, str, int]  # ("net", kind, layers), ("construct" or "train_on", kind, 0), ("fit", kind, units)


@dataclass(frozen=True)
class Found:
    """What there is, by key: runs as their errors, measurements as their values; and how much of it failed."""

    values: dict[Key, list[dict[str, Any]]]
    failed: dict[Key, list[Recipe | Measurement]]

    def of(self, *key: Any) -> list[dict[str, Any]]:
        return self.values[key]

    def whole(self, key: Key) -> bool:
        """Whether there is any of it, and none failed."""
        return bool(self.values.get(key)) and not self.failed[key]

    @property
    def stacks(self) -> list[int]:
        return sorted({units for what, _, units in self.values if what == "fit"})

    def log_loss(self, kind: str, units: int) -> list[float]:
        """log10 of the final losses of stacks of so many units."""
        return [math.log10(max(v["last"], SMALLEST)) for v in self.of("fit", kind, units)]

    def loss(self, kind: str, units: int) -> float:
        """The final loss, geometric mean over seeds."""
        return 10.0 ** statistics.fmean(self.log_loss(kind, units))


def fit_figure(found: Found) -> Figure:
    """Final loss by depth."""
    series = []
    for colour, kind in enumerate(KINDS):
        stacks = [n for n in found.stacks if found.values.get(("fit", kind, n))]
        by_depth = [found.log_loss(kind, n) for n in stacks]
        if stacks:
            series.append(
                Series(
                    label=KINDS[kind].en,
                    dashed=False,
                    colour=colour,
                    x=[2.0 * n for n in stacks],
                    mean=[10.0 ** statistics.fmean(logs) for logs in by_depth],
                    low=[10.0 ** min(logs) for logs in by_depth],
                    high=[10.0 ** max(logs) for logs in by_depth],
                )
            )
    panel = Panel(
        Both("Stacks fitted to x → x", "拟合 x → x 的叠"), "layers", "loss / variance of x", series, None, True, True
    )
    caption = Both(
        "Final loss by depth, geometric mean over seeds, bands from the lowest to the highest; a constant output has "
        "1. Losses below what float32 tells from 1 are drawn there.",
        "最终损失随深度的变化，为各种子的几何均值，色带为最低到最高；常数输出的损失为 1。小于 float32 "
        "分辨率的损失画在该处。",
    )
    return Figure("fits", caption, [panel] if series else [])


def training_figure(found: Found, outcomes: list[Outcome]) -> Figure:
    """Training error by epoch of constructed deep nets, and of deep nets from scratch."""
    series = []
    for colour, kind in enumerate(KINDS):
        built = [v["train_errors"] for v in found.values.get(("train_on", kind, 0), [])]
        scratch = [
            [line["train_error"] for line in o.epochs] for o in outcomes if o.recipe.net == f"cifar_{kind}{DEEP}"
        ]
        for how, errors in (("scratch", scratch), ("constructed", built)):
            if errors:
                columns = list(zip(*errors, strict=True))
                series.append(
                    Series(
                        label=f"{KINDS[kind].en}-{DEEP} {how}",
                        dashed=how == "scratch",
                        colour=colour,
                        x=[float(i) for i in range(1, len(columns) + 1)],
                        mean=[statistics.fmean(c) for c in columns],
                        low=[min(c) for c in columns],
                        high=[max(c) for c in columns],
                    )
                )
    title = Both(f"Training error with {DEEP} layers", f"{DEEP} 层的训练误差")
    caption = Both(
        f"Nets of {DEEP} layers trained from scratch (dashed), and trained on from nets of {SHALLOW} layers to which "
        "identities were added (solid); mean over seeds, bands from the lowest to the highest.",
        f"从头训练的 {DEEP} 层网络（虚线），以及由 {SHALLOW} 层网络添加恒等单元后继续训练的网络（实线）；"
        "为各种子的均值，色带为最低到最高。",
    )
    return Figure("training", caption, [Panel(title, "epoch", "error (%)", series, (0.0, 100.0))] if series else [])


def construction_table(found: Found) -> Table:
    """What the construction changes, and where further training leads."""

    def differences(kind: str, how: str) -> str:
        values = [v[how] for v in found.values.get(("construct", kind, 0), [])]
        return f"{max(v['largest'] for v in values):.2g}; {sum(v['changed'] for v in values)}" if values else "–"

    def errors(what: str, kind: str, layers: int = 0) -> str:
        values = found.values.get((what, kind, layers), [])
        ends = [v["train_error"] if what == "net" else v["train_errors"][-1] for v in values]
        return mean_std(ends) if ends else "–"

    rows: list[list[Words]] = [
        [
            words,
            differences(kind, "exact"),
            differences(kind, "calibrated"),
            errors("net", kind, SHALLOW),
            errors("train_on", kind),
            errors("net", kind, DEEP),
        ]
        for kind, words in KINDS.items()
    ]
    return Table(
        Both(
            f"From {SHALLOW} to {DEEP} layers by construction: the largest difference of a score and how many answers "
            "change, and training errors (%), mean ± standard deviation over seeds. 'Calibrated': a plain net's "
            "surplus batch norms have the data's statistics.",
            f"由 {SHALLOW} 层构造 {DEEP} 层：输出的最大差与改变的分类数，以及训练误差（%），各种子的均值 ± 标准差。"
            "“校准”：普通网络新增的 BN 取数据的统计量。",
        ),
        [
            Both("net", "网络"),
            Both("construction", "构造"),
            Both("calibrated", "校准"),
            Both(f"{SHALLOW} layers", f"{SHALLOW} 层"),
            Both(f"trained on with {DEEP}", f"扩成 {DEEP} 层再训练"),
            Both(f"{DEEP} from scratch", f"从头训练 {DEEP} 层"),
        ],
        rows,
    )


def fit_table(found: Found) -> Table:
    """First and final losses of stacks, and which rate was the better."""

    def cells(kind: str, units: int) -> list[Words]:
        values = found.values.get(("fit", kind, units), [])
        if not values:
            return ["–"] * 3
        rates = sorted({v["rate"] for v in values}, reverse=True)
        first = statistics.fmean(v["first"] for v in values)
        return [f"{first:.2g}", f"{found.loss(kind, units):.2g}", ", ".join(f"{rate:g}" for rate in rates)]

    return Table(
        Both(
            "Stacks fitted to x → x: loss over the variance of x at the first step (mean over seeds) and at the end "
            "(geometric mean), and the better rate.",
            "拟合 x → x 的叠：第一步的损失（均值）与最终损失（几何均值），均除以 x 的方差；以及较好的学习率。",
        ),
        [
            Both("layers", "层数"),
            *(words + tail for words in KINDS.values() for tail in (_FIRST, _LAST, _RATE)),
        ],
        [[str(2 * n), *(cell for kind in KINDS for cell in cells(kind, n))] for n in found.stacks],
    )


_FIRST, _LAST, _RATE = Both(", first", "，起始"), Both(", final", "，最终"), Both(", rate", "，学习率")


def in_words(found: Found) -> tuple[Words, Words]:
    """What it shows, in full and in short; a part whose runs failed is left out."""
    parts: list[Words] = []
    if all(found.whole(("construct", kind, 0)) for kind in KINDS):
        plain, residual = ([v["exact"] for v in found.of("construct", kind, 0)] for kind in KINDS)
        apart = [max(v["largest"] for v in values) for values in (residual, plain)]
        parts.append(
            Both(
                f"Made {DEEP} layers deep by construction, a residual net of {SHALLOW} gives scores that differ by "
                f"{apart[0]:.2g} at most, and a plain one by {apart[1]:.2g}.",
                f"把 {SHALLOW} 层网络构造成 {DEEP} 层，残差网络的输出最多相差 {apart[0]:.2g}，"
                f"普通网络最多相差 {apart[1]:.2g}。",
            )
        )
        if not any(v["changed"] for v in plain):
            parts.append(
                Both(
                    "So a deep plain net has this solution too; the question is whether training finds or keeps it.",
                    "可见深层普通网络也有这个解；问题在于训练能否找到并保持它。",
                )
            )
    if all(found.whole(("train_on", kind, 0)) for kind in KINDS):
        ends = [statistics.fmean(v["train_errors"][-1] for v in found.of("train_on", kind, 0)) for kind in KINDS]
        parts.append(
            Both(
                f"Trained on from there, the residual net ends at {ends[1]:.1f} % training error and the plain one at "
                f"{ends[0]:.1f} %.",
                f"由此继续训练，残差网络的训练误差为 {ends[1]:.1f} %，普通网络为 {ends[0]:.1f} %。",
            )
        )
    stacks = [n for n in found.stacks if all(found.whole(("fit", kind, n)) for kind in KINDS)]
    if stacks:
        fitted = {kind: [2 * n for n in stacks if found.loss(kind, n) < FITTED] for kind in KINDS}
        told = {kind: Both(_layers(n, "none"), _layers(n, "无", "、")) for kind, n in fitted.items()}
        parts.append(
            Both(
                f"Fitted to x → x, to less than {100 * FITTED:g} % of its variance, stacks of these depths succeed: "
                f"residual {told['resnet'].en}; plain {told['plain'].en}, of {_layers([2 * n for n in stacks], '')} "
                "layers.",
                f"拟合 x → x、残余小于其方差 {100 * FITTED:g} % 的层数：残差 {told['resnet'].zh}；普通 "
                f"{told['plain'].zh}（试过 {_layers([2 * n for n in stacks], '', '、')} 层）。",
            )
        )
        beyond = [2 * n for n in stacks if found.loss("resnet", n) >= FITTED]
        if beyond:
            first = statistics.fmean(v["first"] for v in found.of("fit", "resnet", beyond[-1] // 2))
            parts.append(
                Both(
                    "F → 0 is not found from everywhere: initialised as usual each unit adds about as much as x has, "
                    f"so a residual stack of {beyond[-1]} layers starts at a loss of {first:.0f}, where a constant "
                    "has 1.",
                    "F → 0 并非从任何起点都能找到：按通常的初始化，每个单元加上的量与 x 相当，因此 "
                    f"{beyond[-1]} 层的残差叠起始损失为 {first:.0f}，而常数的损失为 1。",
                )
            )
    if not parts:
        parts.append(Both("Runs of every part failed: nothing is shown.", "各部分的运行都有失败：没有结论。"))
    answer = joined(parts)
    kept = Both(
        "That a unit can be the identity says little about what trained units are; `responses` measures how small "
        "their F is. In the plain net the identity holds in evaluation; in training its batch norms follow the batch, "
        "so it starts about there.",
        "单元可以成为恒等映射，并不说明训练后的单元如何；其 F 有多小见 responses。普通网络的恒等只在评估时成立；"
        "训练时 BN 随批次变化，因此只是大致从那里出发。",
    )
    return joined([answer, kept], "\n\n"), answer


def _layers(depths: list[int], none: str, between: str = ", ") -> str:
    return between.join(map(str, depths)) or none
