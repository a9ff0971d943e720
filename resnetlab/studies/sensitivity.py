"""Sensitivity: F = H − x reacts more to a change than H, in relative terms; how much of that is arithmetic.

Claim:    5.1 → 5.2 is a change of 2 %, 0.1 → 0.2 one of 100 % (the brief's second explanation; no paper's theorem).
Command:  resnetlab study run sensitivity --scale quick            (the digits, about 2 minutes on 2 cores)
          resnetlab study run sensitivity --data cifar10:DIR --weights cifar_plain56=FILE --weights cifar_resnet56=FILE
Last result: not reproduced at the scale quick: after a change of the weights F of residual-56 reacts 3.9 times as
          much as H, which is arithmetic, and after one of the input 0.85 times
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, replace
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.sensitivity import reactions
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.figures.series import over_seeds
from resnetlab.studies.frame.claims import Row, interval
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Subject, Weights
from resnetlab.studies.frame.networks import EXPECTED, IMAGES, Net, Taken, checked_batch, networks, taken
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.statistics import NOT_REPRODUCED, REPRODUCED, Verdict, difference, spread, weakest
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words, joined

MEASURE = "resnetlab.studies.sensitivity:measure"
COUNTS = {"quick": 360, "cifar": 500, "paper": 2000, WEIGHTS: 500}  # test images
BATCH = 100
CHANGE = 0.01  # relative size of the change of weights or input
X, H_BEFORE, H_AFTER = 5.0, 5.1, 5.2  # the brief's case: F = H − x goes from 0.1 to 0.2


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """The reactions of every unit of every net."""
    recipes, blank = networks(scale, data, weights)
    settings = {"images": COUNTS[scale], "change": CHANGE}
    note = IMAGES[scale] + Both(
        f" Measured on the first {COUNTS[scale]:,} test images, one random change per unit and seed.",
        f"在前 {COUNTS[scale]:,} 张测试图像上测量，每个单元与种子各一次随机改变。",
    )
    measurements = tuple(replace(m, function=MEASURE, settings=settings) for m in blank)
    return Plan(tuple(recipes), EXPECTED[scale], note, measurements)


def measure(subject: Subject) -> dict[str, Any]:
    """How each unit's F and H react to a change of its weights, and of its input."""
    x, _ = checked_batch(subject)
    found = reactions(subject.net, x.split(BATCH), subject.settings["change"], subject.seed)
    if not any(reaction.weights_F and reaction.input_F for reaction in found):
        raise UserError("F is zero in every unit: train the network first.")
    return {"units": [asdict(reaction) for reaction in found]}


def judge(evidence: Evidence) -> Finding:
    """Compare the reactions of F and H, in logarithms: a factor above 1 is a logarithm above 0."""
    found = taken(evidence, MEASURE)
    deepest, pairs = found.nets("residual")[-1:], found.pairs()

    def more(of: str) -> tuple[Words, Verdict]:
        logs = [_log_factor(values, of) for values in found.values[deepest[0]]]
        words = Both(f"{deepest[0]}: {_factor(logs)} times as much", f"{deepest[0]}：{_factor(logs)} 倍")
        if of == "weights":
            largest = max(_deviation(values) for values in found.values[deepest[0]])
            words += Both(
                f"; equal to ‖H‖/‖F‖ in every unit within {100 * largest:.2g} %",
                f"；在每个单元都等于 ‖H‖/‖F‖，偏差不超过 {100 * largest:.2g} %",
            )
        return words, difference(logs, [0.0] * len(logs)).verdict_above(0)

    def than_plain() -> tuple[Words, Verdict]:
        words: list[Words] = []
        verdicts = []
        for plain, residual in pairs:
            a, b = ([_log_mean(v, "weights_F") for v in found.values[net]] for net in (residual, plain))
            gap = difference(a, b)
            said = [100 * math.exp(statistics.fmean(logs)) for logs in (a, b)]
            words.append(
                Both(
                    f"F of {residual} {said[0]:.2f} %, H of {plain} {said[1]:.2f} %; difference of logarithms ",
                    f"{residual} 的 F {said[0]:.2f} %，{plain} 的 H {said[1]:.2f} %；对数之差 ",
                )
                + interval(gap)
            )
            verdicts.append(gap.verdict_above(0))
        return joined(words, "; "), weakest(verdicts)

    change = f"{100 * CHANGE:g} %"
    arithmetic = Both("0.1 → 0.2 against 5.1 → 5.2 (the brief)", "0.1 → 0.2 对 5.1 → 5.2（任务说明）")
    rows = [
        _arithmetic(),
        found.row(
            Both(
                f"When a unit's weights change by {change}, F reacts more than H, relatively",
                f"单元权重改变 {change} 时，F 的相对变化大于 H",
            ),
            arithmetic,
            deepest,
            lambda: more("weights"),
        ),
        found.row(
            Both(
                f"When its input changes by {change}, F reacts more than H, relatively",
                f"单元输入改变 {change} 时，F 的相对变化大于 H",
            ),
            arithmetic,
            deepest,
            lambda: more("input"),
        ),
        found.row(
            Both(
                f"F of a residual net reacts more than H of the plain net to {change} of weights",
                f"权重改变 {change} 时，残差网络的 F 比普通网络的 H 变化更大",
            ),
            Both("what the explanation needs, said nowhere", "该解释所必需，但无处说明"),
            [net for pair in pairs for net in pair],
            than_plain,
        ),
    ]
    figures = [_figure(found)] if any(found.values.values()) else []
    return Finding(rows, figures, [_table(found)], _words(), _answer(found))


def _arithmetic() -> Row:
    of_H = 100 * (H_AFTER - H_BEFORE) / H_BEFORE
    of_F = 100 * (H_AFTER - H_BEFORE) / (H_BEFORE - X)
    return Row(
        Both(
            f"With x = {X:g}, H from {H_BEFORE:g} to {H_AFTER:g} is 2 %, and F = H − x changes by 100 %",
            f"x = {X:g} 时，H 从 {H_BEFORE:g} 到 {H_AFTER:g} 是 2 %，而 F = H − x 变化 100 %",
        ),
        "2 %; 100 %",
        Both(f"by arithmetic: {of_H:.2f} %; {of_F:.0f} %", f"由计算得：{of_H:.2f} %；{of_F:.0f} %"),
        REPRODUCED if f"{of_H:.0f} {of_F:.0f}" == "2 100" else NOT_REPRODUCED,
    )


def _log_mean(values: dict[str, Any], key: str) -> float:
    """The mean logarithm over the units: that of their geometric mean; units without the value are left out."""
    return statistics.fmean(math.log(unit[key]) for unit in values["units"] if unit[key])


def _log_factor(values: dict[str, Any], of: str) -> float:
    """log of how many times as much F reacts as H, mean over the units."""
    kept = [u for u in values["units"] if u[f"{of}_F"] and u[f"{of}_H"]]
    return statistics.fmean(math.log(u[f"{of}_F"] / u[f"{of}_H"]) for u in kept)


def _factor(logs: list[float]) -> str:
    """Factors as text: their geometric mean, and from the lowest to the highest seed."""
    mean = f"{math.exp(statistics.fmean(logs)):.2f}"
    return mean if len(logs) < 2 else f"{mean} ({math.exp(min(logs)):.2f} – {math.exp(max(logs)):.2f})"


def _deviation(values: dict[str, Any]) -> float:
    """How far the ratio of reactions to the weights is from ‖H‖/‖F‖, relatively, in the unit where it is farthest."""
    kept = [u for u in values["units"] if u["weights_F"] and u["weights_H"] and u["size"]]
    return max(abs(u["weights_F"] / u["weights_H"] * u["size"] - 1) for u in kept)


def _figure(found: Taken) -> Figure:
    panels = []
    residual = found.done("residual")[-1:]
    plain = [net for net in found.done("plain") if not residual or net.depth == residual[0].depth][-1:]
    for of, title in (
        ("weights", Both("a change of the weights", "改变权重")),
        ("input", Both("a change of the input", "改变输入")),
    ):
        lines = [_line(found, n, f"{of}_{part}", f"{part} of {n}", c) for n in residual for c, part in enumerate("FH")]
        lines += [_line(found, net, f"{of}_H", f"H of {net}", 2) for net in plain]
        panels.append(Panel(title, "unit", "relative change (%)", lines))
    sizes = [_line(found, net, "size", str(net), c) for c, net in enumerate(found.done("residual"), 3)]
    if sizes:
        panels.append(Panel(Both("size of F", "F 的大小"), "unit", "100 ‖F‖ / ‖H‖", sizes))
    return Figure(
        "reactions",
        Both(
            f"Relative change of each unit's F and H = x + F after a random change of {100 * CHANGE:g} %. After a "
            "change of the weights ΔH = ΔF, so the two lines of a residual net lie ‖H‖/‖F‖ apart, whatever was "
            "learned. Means over seeds, bands from the lowest to the highest.",
            f"随机改变 {100 * CHANGE:g} % 后，各单元 F 与 H = x + F 的相对变化。改变权重时 ΔH = ΔF，"
            "故残差网络的两条线相距必为 ‖H‖/‖F‖，与学到什么无关。曲线为各种子的均值，色带为最低到最高。",
        ),
        panels,
    )


def _line(found: Taken, net: Net, key: str, label: str, colour: int) -> Series:
    seeds = [[100 * (unit[key] or 0.0) for unit in values["units"]] for values in found.values[net]]
    return over_seeds(label, colour, range(1, len(seeds[0]) + 1), seeds)


def _table(found: Taken) -> Table:
    keys = ("weights_F", "weights_H", "input_F", "input_H", "size")
    rows: list[list[Words]] = []
    for net in [*found.nets("plain"), *found.nets("residual")]:
        values = found.values[net]
        cells = ["–"] * len(keys)
        if values:
            cells = [spread([100 * math.exp(_log_mean(v, key)) for v in values]) for key in keys]
        rows.append([str(net), *cells, str(len(values))])
    return Table(
        Both(
            f"Relative changes in %, after {100 * CHANGE:g} %: geometric means over units, ± deviation over seeds. In "
            "a plain net F is H.",
            f"改变 {100 * CHANGE:g} % 后的相对变化（%）：对单元取几何均值，± 为各种子间的标准差。普通网络中 F 即 H。",
        ),
        [
            Both("network", "网络"),
            Both("weights: F", "权重：F"),
            Both("weights: H", "权重：H"),
            Both("input: F", "输入：F"),
            Both("input: H", "输入：H"),
            "100 ‖F‖/‖H‖",
            Both("seeds", "种子数"),
        ],
        rows,
    )


def _words() -> Both:
    return Both(
        "That F reacts more than H to a change of the weights is arithmetic: x stays, so ΔH = ΔF, and the factor is "
        "‖H‖/‖F‖ whatever the net has learned. Only the size of F beside H is a finding. Nor does a larger relative "
        "reaction show that learning is easier: the gradient is that of the loss, which sees ΔH. Two convolutions "
        "that each move by ε at random are expected to move what they put out by about √2 ε; less says that a part of "
        "it does not react, such as the constant that batch norm adds. He 2015 gives another reason: if the best H is "
        "near x, a small F is nearer to where training starts.",
        "权重改变时 F 的相对变化大于 H 是算术结果：x 不变，故 ΔH = ΔF，倍数恒为 ‖H‖/‖F‖，与网络学到什么无关；只有 F "
        "相对 H 的大小才是实测结论。相对变化大也不说明更易学习：梯度是损失的梯度，损失看到的是 ΔH。两个卷积各随机改变 "
        "ε，其输出预计改变约 √2 ε；更小则说明输出中有一部分不起反应，例如 BN 所加的常数。He 2015 的理由不同：若最优的 "
        "H 接近 x，则小的 F 离训练起点更近。",
    )


def _answer(found: Taken) -> Both:
    nets = [net for net in found.nets("residual") if found.whole(net)]
    if not nets:
        return Both("Open: no residual net was measured.", "尚无定论：没有测得残差网络。")
    net = nets[-1]
    logs = {of: [_log_factor(values, of) for values in found.values[net]] for of in ("weights", "input")}
    answer = Both(
        f"In {net} F reacts {_factor(logs['weights'])} times as much as H to a change of the weights, which is "
        f"‖H‖/‖F‖ by arithmetic, and {_factor(logs['input'])} times as much to a change of the input.",
        f"在 {net} 中，F 对权重改变的反应是 H 的 {_factor(logs['weights'])} 倍，按算术即 ‖H‖/‖F‖；对输入改变则为 "
        f"{_factor(logs['input'])} 倍。",
    )
    twins = [plain for plain, other in found.pairs() if other == net and found.whole(plain)]
    if not twins:
        return answer
    gap = difference(*([_log_mean(v, "weights_F") for v in found.values[one]] for one in (net, twins[0])))
    factor = math.exp(gap.mean)
    clear = gap.low > 0 or gap.high < 0
    return answer + Both(
        f" Against H of {twins[0]} it is {factor:.2f} times as "
        f"much{'' if clear else ', which the seeds do not tell from 1'}: relative reactions alone do not show easier "
        "learning.",
        f"与 {twins[0]} 的 H 相比为 {factor:.2f} 倍{'' if clear else '，各种子无法将其与 1 区分'}："
        "仅凭相对变化不能说明更易学习。",
    )


STUDY = Study(
    name="sensitivity",
    title=Both("F reacts more than H: how much is arithmetic", "F 比 H 更敏感：其中多少是算术"),
    claim=Both(
        "F = H − x reacts more strongly to a change than H: 5.1 → 5.2 is 2 %, 0.1 → 0.2 is 100 %.",
        "F = H − x 对变化的反应强于 H：5.1 → 5.2 为 2 %，0.1 → 0.2 为 100 %。",
    ),
    source="the brief's second explanation; He et al. 2015, section 3.1 and Figure 7, for small F",
    method=Both(
        f"Unit by unit of trained nets, the same small change ({100 * CHANGE:g} %, Gaussian, seeded) is made of the "
        "unit's weights, each filter by its own norm, or of its input, image by image; then ‖ΔF‖/‖F‖ beside "
        "‖ΔH‖/‖H‖, with H = h(x) + F(x) before the nonlinearity, and norms over the test images. In plain nets H is "
        "F.",
        f"对训练好的网络逐单元作同样的小改变（{100 * CHANGE:g} %，高斯，固定种子）：或改权重（按各滤波器自身范数），"
        "或改输入（逐图像）；再比较 ‖ΔF‖/‖F‖ 与 ‖ΔH‖/‖H‖，其中 H = h(x) + F(x) 取于非线性之前，范数对测试图像求取。"
        "普通网络中 H 即 F。",
    ),
    rule=Both(
        "Mean logarithms over the units, then over seeds with 95 % intervals (Welch's t): reproduced if the interval "
        "lies above 0, a direction only if the mean alone does, else not reproduced. The deepest residual net counts; "
        "against plain nets, the weakest pair of one depth. The brief's numbers are checked by arithmetic.",
        "先对单元取对数均值，再对各种子取均值及 95 % 区间（Welch t）：区间在 0 以上为复现，仅均值如此为仅方向一致，"
        "否则未复现。以最深的残差网络为准；与普通网络相比时取同一深度中最弱的一对。任务说明中的数字以计算核对。",
    ),
    plan=plan,
    judge=judge,
    takes_weights=True,
    theory=Both(
        "With $H = x + F$, a change of the unit's weights leaves $x$ alone, so $\\Delta H = \\Delta F$ and "
        "$\\frac{\\|\\Delta F\\|}{\\|F\\|} = \\frac{\\|H\\|}{\\|F\\|} \\cdot \\frac{\\|\\Delta H\\|}{\\|H\\|}$. The "
        "brief's case is $x = 5$, $F = 0.1$, $H = 5.1$: the factor is $5.1 / 0.1 = 51$, and 51 times 1.96 % is 100 %. "
        "A change of the input moves both, $\\Delta H = \\Delta x + \\Delta F$, and then nothing is fixed beforehand.",
        "设 $H = x + F$。改变单元权重时 $x$ 不变，故 $\\Delta H = \\Delta F$，从而 $\\frac{\\|\\Delta F\\|}{\\|F\\|} "
        "= \\frac{\\|H\\|}{\\|F\\|} \\cdot \\frac{\\|\\Delta H\\|}{\\|H\\|}$。任务说明之例为 $x = 5$、$F = 0.1$、$H = "
        "5.1$：倍数为 $5.1 / 0.1 = 51$，51 乘 1.96 % 即 100 %。改变输入则两者都动，$\\Delta H = \\Delta x + \\Delta "
        "F$，此时无法事先断定。",
    ),
)
