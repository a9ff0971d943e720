"""Boosting: whether a residual net learns differences unit by unit, each a step down the loss, like boosted trees.

Claim:    the net learns differences, like gradient-boosted trees (the brief; see Jastrzebski et al. 2018, section 4).
Command:  resnetlab study run boosting --scale quick               (the digits, about 2 minutes on 2 cores)
          resnetlab study run boosting --data cifar10:DIR --weights cifar_resnet56=FILE
Last result: direction only at the scale quick: the cosine of residual-56 is +0.011, which seeds don't tell from 0;
          the loss read out falls at 85 % of its units
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.boosting import alignments, read_outs
from resnetlab.measuring.responses import branch_shares
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.claims import interval
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Subject, Weights
from resnetlab.studies.frame.networks import EXPECTED, IMAGES, Net, Taken, checked_batch, net_of, networks, taken
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.statistics import Verdict, difference, spread
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words

MEASURE = "resnetlab.studies.boosting:measure"
COUNTS = {"quick": 360, "cifar": 2000, "paper": 2000, WEIGHTS: 2000}  # test images
BATCH = 25


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Directions, read-outs and sizes of the residual nets; plain ones have no shortcut to read out through."""
    recipes, blank = networks(scale, data, weights)
    chosen = [m for m in blank if net_of(m).kind == "residual"]
    trainings = [r for r in recipes if any(m.run == r for m in chosen)]
    measurements = [replace(m, function=MEASURE, settings={"images": COUNTS[scale]}) for m in chosen]
    note = IMAGES[scale] + Both(
        f" Measured on the first {COUNTS[scale]:,} test images. Residual nets only: plain nets have no shortcut "
        "through which features could reach the head.",
        f"在前 {COUNTS[scale]:,} 张测试图像上测量。仅测残差网络：普通网络没有可让特征通达输出层的捷径。",
    )
    return Plan(tuple(trainings), EXPECTED[scale], note, tuple(measurements))


def measure(subject: Subject) -> dict[str, Any]:
    """By unit: cosines of F with the descent direction, answers of the head from here on, ‖F‖/‖h‖."""
    x, labels = checked_batch(subject)
    batches = list(zip(x.split(BATCH), labels.split(BATCH), strict=True))
    units = [name for name, _ in subject.net.units()]
    aligned = alignments(subject.net, batches)
    if all(a.own is None for a in aligned.values()):
        raise UserError("F is zero in every unit: train the network first.")
    return {
        "units": units,
        "stages": [int(name.removeprefix("layer").partition(".")[0]) for name in units],
        "alignments": {name: asdict(a) for name, a in aligned.items()},
        "read_outs": [asdict(r) for r in read_outs(subject.net, batches)],
        "shares": branch_shares(subject.net, x.split(BATCH)),
    }


def judge(evidence: Evidence) -> Finding:
    """Compare cosines with zero and with those of other images; see whether the head's answers get better."""
    found = taken(evidence, MEASURE)
    deepest = found.nets("residual")[-1:]

    def downhill() -> tuple[Words, Verdict]:
        own = _cosines(found, deepest[0], "own")
        gap = difference(own, [0.0] * len(own))
        words = Both(
            f"{deepest[0]}: mean cosine {{}}; one random direction has ±{_chance(found, deepest[0]):.3f}",
            f"{deepest[0]}：平均余弦 {{}}；单个随机方向为 ±{_chance(found, deepest[0]):.3f}",
        )
        return _filled(words, interval(gap, 3)), gap.verdict_above(0)

    def of_its_image() -> tuple[Words, Verdict]:
        own, other = (_cosines(found, deepest[0], whose) for whose in ("own", "other"))
        gaps = [a - b for a, b in zip(own, other, strict=True)]
        gap = difference(gaps, [0.0] * len(gaps))
        words = Both(f"{spread(own, 3)} against {spread(other, 3)}: ", f"{spread(own, 3)} 对 {spread(other, 3)}：")
        return words + interval(gap, 3), gap.verdict_above(0)

    def better() -> tuple[Words, Verdict]:
        falls = [_share_of_falls(values) for values in found.values[deepest[0]]]
        words = Both(
            f"at {spread(falls, 0)} % of the units; {_gain_words(found, deepest[0])[0]}",
            f"在 {spread(falls, 0)} % 的单元处；{_gain_words(found, deepest[0])[1]}",
        )
        return words, difference(falls, [50.0] * len(falls)).verdict_above(0)

    def small() -> tuple[Words, Verdict]:
        shares = _shares(found, deepest[0])
        words = Both(f"‖F‖/‖h‖ = {spread(shares)} on average", f"‖F‖/‖h‖ 平均为 {spread(shares)}")
        return words, difference(shares, [1.0] * len(shares)).verdict_below(0)

    not_printed = Both("not in the papers", "论文未给出")
    rows = [
        found.row(
            Both("A unit steps down the loss: F(x) points along −∂loss/∂x", "单元沿损失下降：F(x) 指向 −∂loss/∂x"),
            Both("it does, in later units most (Jastrzebski 2018)", "是，后部单元最明显（Jastrzebski 2018）"),
            deepest,
            downhill,
        ),
        found.row(
            Both("And down that of its own image more than of another", "且更沿自身图像而非别的图像的损失下降"),
            not_printed,
            deepest,
            of_its_image,
        ),
        found.row(
            Both("The head's loss falls from unit to unit, at most of them", "在多数单元处，逐单元读出的损失下降"),
            Both("each tree lowers the loss (gradient boosting)", "每棵树降低损失（梯度提升）"),
            deepest,
            better,
        ),
        found.row(
            Both("What a unit adds is less than what it adds to", "单元所加之量小于其所加于之量"),
            not_printed,
            deepest,
            small,
        ),
    ]
    figures = [_figure(found)] if found.done("residual") else []
    return Finding(rows, figures, [_table(found)], _words(), _answer(found))


def _filled(words: Both, value: Both) -> Both:
    return Both(words.en.format(value.en), words.zh.format(value.zh))


def _cosines(found: Taken, net: Net, whose: str) -> list[float]:
    """The mean cosine over the units that keep their size, of each seed."""
    return [
        statistics.fmean(a[whose] for a in values["alignments"].values() if a[whose] is not None)
        for values in found.values[net]
    ]


def _chance(found: Taken, net: Net) -> float:
    """The deviation of a random direction's cosine, mean over the units."""
    return statistics.fmean(a["chance"] for values in found.values[net] for a in values["alignments"].values())


def _shares(found: Taken, net: Net) -> list[float]:
    return [statistics.fmean(s for s in values["shares"].values() if s is not None) for values in found.values[net]]


def _share_of_falls(values: dict[str, Any]) -> float:
    """In % of the units, how often the head's loss is lower after the unit than before it."""
    losses = [r["loss"] for r in values["read_outs"]]
    return 100 * statistics.fmean(after < before for before, after in zip(losses, losses[1:], strict=False))


def _errors(values: dict[str, Any]) -> tuple[float, float, float]:
    """The head's error: from the stem, before the last stage, after the last unit."""
    errors = [r["error"] for r in values["read_outs"]]
    return errors[0], errors[values["stages"].index(max(values["stages"]))], errors[-1]


def _gain_words(found: Taken, net: Net) -> tuple[str, str]:
    first, before, last = (statistics.fmean(e) for e in zip(*map(_errors, found.values[net]), strict=True))
    return (
        f"error {first:.0f} % from the stem, {before:.0f} % before the last stage, {last:.1f} % at the end",
        f"误差：首层后 {first:.0f} %，最后阶段之前 {before:.0f} %，最终 {last:.1f} %",
    )


def _figure(found: Taken) -> Figure:
    cosines: dict[str, list[Series]] = {"own": [], "other": []}
    errors, shares = [], []
    for colour, net in enumerate(found.done("residual")):
        values = found.values[net]
        aligned = [i for i, name in enumerate(values[0]["units"]) if name in values[0]["alignments"]]
        for whose, lines in cosines.items():
            seeds = [[v["alignments"][v["units"][i]][whose] or 0.0 for i in aligned] for v in values]
            lines.append(over_seeds(f"{net} {whose}", 2 * colour + (whose == "other"), [i + 1 for i in aligned], seeds))
        outs = [[r["error"] for r in v["read_outs"]] for v in values]
        errors.append(over_seeds(str(net), 2 * colour, range(len(outs[0])), outs))
        sizes = [[v["shares"][name] or 0.0 for name in v["units"]] for v in values]
        shares.append(over_seeds(str(net), 2 * colour, range(1, len(sizes[0]) + 1), sizes))
    return Figure(
        "units",
        Both(
            "By unit. Left: cosine of F(x) with −∂loss/∂x of the image itself, and of another image; units that "
            "change sizes have none. Then the error of the net's own head if only shortcuts run from this unit on, "
            "and ‖F(x)‖/‖h(x)‖. Means over seeds; bands from the lowest to the highest.",
            "按单元。左：F(x) 与自身图像及另一图像的 −∂loss/∂x 的余弦；改变尺寸的单元无此值。其后："
            "从该单元起只走捷径时网络自身输出层的误差；‖F(x)‖/‖h(x)‖。均为各种子的均值，色带为最低到最高。",
        ),
        [
            Panel(Both("F against the gradient", "F 与梯度"), "unit", "cosine", [*cosines["own"], *cosines["other"]]),
            Panel(Both("read out after each unit", "逐单元读出"), "unit (0: stem)", "error (%)", errors, (0.0, 100.0)),
            Panel(Both("size of F", "F 的大小"), "unit", "‖F‖ / ‖h‖", shares),
        ],
    )


def _table(found: Taken) -> Table:
    rows: list[list[Words]] = []
    for net in found.nets("residual"):
        values = found.values[net]
        if not values:
            rows.append([str(net), *["–"] * 6, "0"])
            continue
        errors = [f"{statistics.fmean(e):.1f}" for e in zip(*map(_errors, values), strict=True)]
        cosines = [spread(_cosines(found, net, whose), 3) for whose in ("own", "other")]
        rows.append([str(net), *cosines, *errors, spread(_shares(found, net)), str(len(values))])
    return Table(
        Both(
            "Means over units, ± deviation over seeds; errors are of the net's head, through shortcuts alone.",
            "对单元取均值，± 为各种子间的标准差；误差为仅经捷径由网络自身输出层读出。",
        ),
        [
            Both("network", "网络"),
            Both("cosine, own image", "余弦，自身图像"),
            Both("cosine, another", "余弦，另一图像"),
            Both("error from the stem (%)", "首层后误差 (%)"),
            Both("before the last stage", "最后阶段之前"),
            Both("at the end", "最终"),
            "‖F‖/‖h‖",
            Both("seeds", "种子数"),
        ],
        rows,
    )


def _words() -> Both:
    return Both(
        "A positive cosine says that the units of the trained net move features the way that lowers the loss; "
        "gradient boosting asks for more, that each unit is fitted to what the ones before it leave, and here all are "
        "trained at once. The head was trained on the last unit's output only, so what it reads out of earlier ones "
        "is a lower bound of what these know. Where the cosine with another image's gradient is as large, the "
        "direction is one that all images share.",
        "余弦为正说明训练好的网络中各单元把特征推向降低损失的方向；梯度提升的要求更多：每个单元拟合前面各单元的残余，"
        "而这里所有单元同时训练。输出层只在最后单元的输出上训练过，因此从较早单元读出的只是其所含信息的下界。"
        "若与另一图像梯度的余弦同样大，则该方向为所有图像共有。",
    )


def _answer(found: Taken) -> Both:
    nets = [net for net in found.nets("residual") if found.whole(net)]
    if not nets:
        return Both("Open: no residual net was measured.", "尚无定论：没有测得残差网络。")
    net = nets[-1]
    own, falls = (
        statistics.fmean(_cosines(found, net, "own")),
        statistics.fmean(map(_share_of_falls, found.values[net])),
    )
    along = ("not down", "并不沿")
    if own > 0:
        along = ("down", "沿") if own > _chance(found, net) else ("hardly down", "几乎不沿")
    gradual = ("most", "多数") if falls > 50 else ("only some", "仅部分")
    en, zh = _gain_words(found, net)
    return Both(
        f"On average the units of {net} step {along[0]} the loss's gradient (cosine {own:+.3f}), and the loss read "
        f"out falls at {gradual[0]} of them ({falls:.0f} %); {en}.",
        f"{net} 各单元平均{along[1]}损失梯度的下降方向（余弦 {own:+.3f}），读出的损失在{gradual[1]}单元处下降"
        f"（{falls:.0f} %）；{zh}。",
    )


STUDY = Study(
    name="boosting",
    title=Both("Units as steps of gradient boosting", "单元如同梯度提升的各步"),
    claim=Both(
        "The net learns differences, like gradient-boosted trees: each unit corrects what the ones before it leave.",
        "网络学习的是差值，如同梯度提升树：每个单元修正前面各单元的残余。",
    ),
    source="the brief; Jastrzebski et al. 2018 (arXiv:1710.04773), section 4, for the cosine",
    method=Both(
        "For each unit of trained residual nets: the cosine between F(x) and −∂loss/∂x at that unit, image by image, "
        "beside the same with the gradient of another image; the error of the net's own head if from a unit on only "
        "shortcuts run (F = 0; option A subsamples and pads with zeros); ‖F(x)‖/‖h(x)‖. Units that change sizes have "
        "no cosine, since x and F(x) differ in shape.",
        "对训练好的残差网络的每个单元：逐图像求 F(x) 与该处 −∂loss/∂x 的余弦，并与另一图像的梯度相比；"
        "从某单元起只走捷径（F = 0；选项 A 下采样并补零）时网络自身输出层的误差；‖F(x)‖/‖h(x)‖。改变尺寸的单元因 x 与 "
        "F(x) 形状不同而无余弦。",
    ),
    rule=Both(
        "Of the deepest residual net, means over seeds with 95 % intervals (Welch's t): reproduced if the interval "
        "lies on the claim's side of the bound, a direction only if the mean alone does, else not reproduced. Bounds: "
        "0 for the cosine and for what it has over another image's; 50 % of the units for the falling loss; 1 for "
        "‖F‖/‖h‖.",
        "以最深的残差网络为准，对各种子取均值及 95 % 区间（Welch t）：区间位于界限的论断一侧为复现，"
        "仅均值如此为仅方向一致，否则未复现。界限：余弦及其超出另一图像的部分为 0；损失下降为 50 % 的单元；‖F‖/‖h‖ 为 "
        "1。",
    ),
    plan=plan,
    judge=judge,
    takes_weights=True,
)
