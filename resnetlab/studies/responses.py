"""Responses: what the layers of residual nets put out is smaller than in plain nets, and smaller still in deeper ones.

Paper:    He et al. 2015, section 4.2 and Figure 7.
Claim:    F stays near zero: the responses of residual nets are generally smaller, the more so the deeper they are.
Command:  resnetlab study run responses --scale quick              (the digits, about 2 minutes on 2 cores)
          resnetlab study run responses --data cifar10:DIR --weights cifar_plain56=FILE --weights cifar_resnet56=FILE
Last result: not reproduced at the scale quick: with 20 layers residual and plain nets respond alike (1.00), since 345
          steps hardly move batch norm's scales; residual-56 responds less than residual-20 (0.97) and plain-56 (1.22)
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from resnetlab.measuring.responses import branch_shares, response_stds
from resnetlab.studies.measurement import Subject, Weights
from resnetlab.studies.statistics import difference, weakest
from resnetlab.studies.study import WEIGHTS, Evidence, Figure, Finding, Panel, Plan, Study, Table
from resnetlab.studies.trained import (
    EXPECTED,
    IMAGES,
    Net,
    Taken,
    checked_batch,
    curve,
    interval,
    networks,
    spread,
    taken,
)
from resnetlab.studies.words import Both, Words, joined

MEASURE = "resnetlab.studies.responses:measure"
COUNTS = {"quick": 360, "cifar": 2000, "paper": 2000, WEIGHTS: 2000}  # test images
BATCH = 100
GENERALLY = 50.0  # %: of the ranks at which a smaller curve has to lie lower

_FIRST_IMAGES = Both(" Measured on the first 2,000 test images.", "在前 2,000 张测试图像上测量。")
_NOTES = {
    "quick": Both(
        " Batch norm's scales start at 1, and 345 steps hardly move them, so that most responses are still near 1 and "
        "little of the paper's effect can be there.",
        "BN 的缩放系数初值为 1，345 步训练几乎未改变它们，故多数响应仍接近 1，论文的效应在此只能显现很少。",
    )
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """The responses of every net."""
    recipes, blank = networks(scale, data, weights)
    measurements = [replace(m, function=MEASURE, settings={"images": COUNTS[scale]}) for m in blank]
    note = IMAGES[scale] + _NOTES.get(scale, _FIRST_IMAGES)
    return Plan(tuple(recipes), EXPECTED[scale], note, tuple(measurements))


def measure(subject: Subject) -> dict[str, Any]:
    """The deviation of each layer's response, the stem's first; of a residual net also ‖F‖/‖h‖ of each unit."""
    x, _ = checked_batch(subject)
    stds = response_stds(subject.net, x.split(BATCH))
    shares = {} if subject.net.spec.is_plain else branch_shares(subject.net, x.split(BATCH))
    return {"layers": list(stds), "stds": list(stds.values()), "units": list(shares), "shares": list(shares.values())}


def judge(evidence: Evidence) -> Finding:
    """Compare the deviations' means, and their sorted curves, over seeds."""
    found = taken(evidence, MEASURE)
    pairs, residual = found.pairs(), found.nets("residual")

    def smaller() -> tuple[Words, str]:
        gaps = [(p, r, difference(_means(found, p), _means(found, r))) for p, r in pairs]
        words = [
            Both(f"{p} {_said(found, p)}, {r} {_said(found, r)}: ", f"{p} {_said(found, p)}，{r} {_said(found, r)}：")
            + interval(gap)
            for p, r, gap in gaps
        ]
        return joined(list(words), "; "), weakest([gap.verdict_above(0) for _, _, gap in gaps])

    def below() -> tuple[Words, str]:
        shares = [(p, r, _share_below(found, p, r)) for p, r in pairs]
        words = [
            Both(f"{r} below {p} at {spread(s, 0)} % of the ranks", f"{r} 在 {spread(s, 0)} % 的名次上低于 {p}")
            for p, r, s in shares
        ]
        verdicts = [difference(s, [GENERALLY] * len(s)).verdict_above(0) for _, _, s in shares]
        return joined(list(words), "; "), weakest(verdicts)

    def falls() -> tuple[Words, str]:
        gaps = [difference(_means(found, a), _means(found, b)) for a, b in zip(residual, residual[1:], strict=False)]
        words = joined([f"{net} {_said(found, net)}" for net in residual], ", ")
        for gap in gaps:
            words += "; " + interval(gap)
        return words, weakest([gap.verdict_above(0) for gap in gaps])

    def near_zero() -> tuple[Words, str]:
        shares = _shares(found, residual[-1])
        words = Both(f"{residual[-1]}: ‖F‖/‖h‖ = {spread(shares)}", f"{residual[-1]}：‖F‖/‖h‖ = {spread(shares)}")
        return words, difference(shares, [1.0] * len(shares)).verdict_below(0)

    both_kinds = [net for pair in pairs for net in pair]
    rows = [
        found.row(
            Both("Residual nets have smaller responses than plain nets", "残差网络的响应小于普通网络"),
            Both("generally smaller (Fig. 7)", "总体更小（图 7）"),
            both_kinds,
            smaller,
        ),
        found.row(
            Both("So it is layer by layer, in order of size", "按大小排序后逐层比较，也是如此"),
            Both("the sorted curves lie lower (Fig. 7, bottom)", "排序后的曲线更低（图 7 下）"),
            both_kinds,
            below,
        ),
        found.row(
            Both("The deeper a residual net, the smaller its responses", "残差网络越深，响应越小"),
            Both("ResNet-20 > 56 > 110 (Fig. 7)", "ResNet-20 > 56 > 110（图 7）"),
            residual if len(residual) > 1 else [],
            falls,
        ),
        found.row(
            Both("A unit adds less than what it adds to", "单元所加之量小于其所加于之量"),
            Both("not in the paper; the brief: F stays near zero", "论文未测；任务说明：F 保持在零附近"),
            residual[-1:],
            near_zero,
        ),
    ]
    figures = [_figure(found)] if any(found.values.values()) else []
    return Finding(rows, figures, [_table(found)], _words(), _answer(found))


def _means(found: Taken, net: Net) -> list[float]:
    """The mean deviation over the layers of the units, of each seed: without the stem's, which both kinds have."""
    return [statistics.fmean(values["stds"][_stem(values) :]) for values in found.values[net]]


def _stem(values: dict[str, Any]) -> int:
    """How many of the layers are the stem's."""
    return sum(not name.startswith("layer") for name in values["layers"])


def _said(found: Taken, net: Net) -> str:
    return spread(_means(found, net))


def _shares(found: Taken, net: Net) -> list[float]:
    """‖F‖/‖h‖, mean over units, of each seed."""
    return [statistics.fmean(s for s in values["shares"] if s is not None) for values in found.values[net]]


def _sorted(values: dict[str, Any]) -> list[float]:
    return sorted(values["stds"], reverse=True)


def _share_below(found: Taken, plain: Net, residual: Net) -> list[float]:
    """In % of the ranks, how often each residual seed's sorted curve lies below the mean of the plain ones."""
    above = [statistics.fmean(ranked) for ranked in zip(*map(_sorted, found.values[plain]), strict=True)]
    return [
        100 * statistics.fmean(a > b for a, b in zip(above, _sorted(values), strict=True))
        for values in found.values[residual]
    ]


def _figure(found: Taken) -> Figure:
    nets = [*found.done("plain"), *found.done("residual")]

    def panel(title: Both, x_label: str, ranked: bool) -> Panel:
        lines = []
        for colour, net in enumerate(nets):
            seeds = [_sorted(values) if ranked else values["stds"] for values in found.values[net]]
            lines.append(curve(str(net), colour, range(1, len(seeds[0]) + 1), seeds))
        return Panel(title, x_label, "std of the response", lines)

    panels = [
        panel(Both("in the order of the layers", "按层的次序"), "layer", ranked=False),
        panel(Both("sorted by size", "按大小排序"), "rank", ranked=True),
    ]
    shares = [
        curve(str(net), nets.index(net), range(1, len(seeds[0]) + 1), seeds)
        for net in found.done("residual")
        if (seeds := [[s or 0.0 for s in values["shares"]] for values in found.values[net]])
    ]
    if shares:
        panels.append(Panel(Both("branch beside shortcut", "分支与捷径之比"), "unit", "‖F‖ / ‖h‖", shares))
    return Figure(
        "responses",
        Both(
            "Standard deviation of each 3x3 layer's response, after BN and before the nonlinearity or the sum (as He "
            "2015, Fig. 7); layer 1 is the stem. Lines are means over seeds, bands reach from the lowest to the "
            "highest seed.",
            "各 3x3 层响应的标准差，取于 BN 之后、非线性或求和之前（同 He 2015 图 7）；第 1 层为首层卷积。"
            "曲线为各种子的均值，色带为最低到最高。",
        ),
        panels,
    )


def _table(found: Taken) -> Table:
    rows: list[list[Words]] = []
    for net in [*found.nets("plain"), *found.nets("residual")]:
        values = found.values[net]
        if not values:
            rows.append([str(net), "–", "–", "–", "–", "0"])
            continue
        stds = [statistics.fmean(seed) for seed in zip(*(v["stds"][_stem(v) :] for v in values), strict=True)]
        shares = spread(_shares(found, net)) if net.kind == "residual" else "–"
        rows.append(
            [
                str(net),
                _said(found, net),
                f"{statistics.median(stds):.2f}",
                f"{max(stds):.2f}",
                shares,
                str(len(values)),
            ]
        )
    return Table(
        Both(
            "Deviation of the responses over the layers of the units, and ‖F‖/‖h‖ over the units; means over seeds.",
            "各单元内层响应的标准差，以及各单元的 ‖F‖/‖h‖；均为各种子的均值。",
        ),
        [
            Both("network", "网络"),
            Both("mean std", "平均标准差"),
            Both("median", "中位数"),
            Both("largest", "最大"),
            "‖F‖/‖h‖",
            Both("seeds", "种子数"),
        ],
        rows,
    )


def _words() -> Both:
    return Both(
        "What is shown is the size of what each layer hands on, of which batch norm's learned scale decides most: on "
        "the training images the deviation of a channel's response is its γ. A small response therefore says that the "
        "net has learned small scales, not that the layer does nothing; lesion tests that. Where a plain net has not "
        "trained, its responses are those of a net that has not trained.",
        "所示为各层输出的大小，它主要由 BN 学到的缩放决定：在训练图像上，某通道响应的标准差即其 γ。"
        "因此响应小只说明网络学到了小的缩放，并不说明该层没有作用；后者由 lesion 检验。若某普通网络没有训练成功，"
        "其响应也只是一个未训练好的网络的响应。",
    )


def _answer(found: Taken) -> Both:
    pairs = [pair for pair in found.pairs() if found.whole(*pair)]
    if not pairs:
        return Both(
            "Open: no plain and residual net of one depth were measured.",
            "尚无定论：没有测得同一深度的普通与残差网络。",
        )
    plain, residual = pairs[-1]
    gap = difference(_means(found, plain), _means(found, residual)).mean
    share = statistics.fmean(_shares(found, residual))
    relation = ("smaller than", "小于") if gap > 0 else ("no smaller than", "不小于")
    size = ("less", "小于") if share < 1 else ("no less", "不小于")
    return Both(
        f"With {residual.depth} layers the responses of the residual net are {relation[0]} the plain net's: a mean "
        f"deviation of {_said(found, residual)} against {_said(found, plain)}. A unit adds {size[0]} than what it "
        f"adds to, ‖F‖/‖h‖ = {share:.2f} on average{', which is small but not zero' if 0.05 < share < 1 else ''}.",
        f"{residual.depth} 层时，残差网络的响应{relation[1]}普通网络：平均标准差 {_said(found, residual)} 对 "
        f"{_said(found, plain)}。单元所加之量{size[1]}其所加于之量，‖F‖/‖h‖ 平均为 "
        f"{share:.2f}{'，虽小但不为零' if 0.05 < share < 1 else ''}。",
    )


STUDY = Study(
    name="responses",
    title=Both("The responses of residual nets are small", "残差网络的响应较小"),
    claim=Both(
        "F stays near zero: layers of residual nets respond less than those of plain nets, in deeper nets less still.",
        "F 保持在零附近：残差网络各层的响应小于普通网络，越深越小。",
    ),
    source="He et al. 2015, section 4.2; Figure 7",
    method=Both(
        "The standard deviation of each 3x3 layer's response, after batch norm and before the nonlinearity or the "
        "sum, over all test images, channels and positions. The paper leaves open whether the first layer counts, and "
        "over what the deviation is taken; here the first layer is in the figure and not in the means. Beside it, "
        "‖F(x)‖/‖h(x)‖ of each unit.",
        "在 BN 之后、非线性或求和之前，对全部测试图像、通道与位置求各 3x3 层响应的标准差。论文未说明首层是否计入、"
        "标准差对什么求取；此处首层画入图中但不计入均值。同时给出各单元的 ‖F(x)‖/‖h(x)‖。",
    ),
    rule=Both(
        "A difference of means over seeds is reproduced if its 95 % interval (Welch's t) excludes zero on the "
        "claim's side, a direction only if the mean alone does, else not reproduced; over several pairs of nets the "
        f"weakest counts. In order of size: at more than {GENERALLY:g} % of the ranks the residual curve lies below "
        "the mean plain one. For 'less than what it adds to' the bound of the mean ratio is 1.",
        "均值之差（对种子）的 95 % 区间（Welch t）在论断一侧不含零，则为复现；仅均值如此，则为仅方向一致；"
        f"否则未复现；有多对网络时取最弱者。排序比较：残差曲线在超过 {GENERALLY:g} % 的名次上低于普通网络的平均曲线。"
        "“小于其所加于之量”以平均比值 1 为界。",
    ),
    plan=plan,
    judge=judge,
    takes_weights=True,
)
