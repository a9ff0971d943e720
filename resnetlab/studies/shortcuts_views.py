"""How the study `shortcuts` shows what it found: table, figure and words."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from resnetlab.studies.figures.figure import Figure, Table
from resnetlab.studies.frame.costs import Costs, base_name, cost_table, sentence_of_times, time_panel, times
from resnetlab.studies.frame.statistics import difference, mean_std
from resnetlab.studies.frame.text import Both, Words, joined


def error_table(errors: Sequence[tuple[str, list[float], list[float], float]]) -> Table:
    """A row for each network: its name, training and test errors of its seeds in %, and the paper's, in %."""
    return Table(
        Both(
            "Errors after the last epoch, mean ± standard deviation over seeds, beside the paper's top-1 errors on "
            "ImageNet with 34 layers and 10 crops (Table 3).",
            "末轮误差，各种子的均值 ± 标准差；并列论文 ImageNet、34 层、10 裁剪的 top-1 误差（表 3）。",
        ),
        [
            Both("network", "网络"),
            Both("training error (%)", "训练误差（%）"),
            Both("test error (%)", "测试误差（%）"),
            Both("paper, 34 layers (%)", "论文，34 层（%）"),
            Both("seeds", "种子"),
        ],
        [
            [net, mean_std(train) if train else "–", mean_std(test) if test else "–", f"{printed:.2f}", str(len(test))]
            for net, train, test, printed in errors
        ],
    )


def costs_of(nets: Costs) -> Table:
    """What the options cost, counted and timed."""
    caption = Both(
        "Counted on the modules, per image; the time of a training step, taken in turn.",
        "由模块计数，按每张图像；时间为一步训练，轮流测得。",
    )
    return cost_table(caption, nets, Both("network", "网络"))


def figure(costs: list[Costs]) -> Figure:
    """The time of a step by its multiply-adds, with the first network's as the line of proportion."""
    return Figure(
        "times",
        Both(
            "Time of a training step against multiply-adds; bars hold the middle half of the rounds. On the "
            "dashed line time would be in proportion to multiply-adds.",
            "一步训练的时间与乘加次数；竖线为中间一半轮次。虚线表示时间与乘加次数成正比。",
        ),
        [time_panel(base_name(nets), dict(zip("ABC", nets.values(), strict=True)), "A") for nets in costs],
    )


def words(depth: int, test: dict[str, list[float]], units: list[dict[str, Any]]) -> Words:
    """How C does beside A in the deepest nets, by test errors; what the units that pad (as `PaddedUnit`) do there."""
    return joined([*_c_beside_a(depth, test), *_padding(units)], "\n\n")


def _c_beside_a(depth: int, test: dict[str, list[float]]) -> list[Words]:
    if not (test["A"] and test["C"]):
        return []
    rise = difference(test["C"], test["A"])
    if rise.low > 0:
        return [
            Both(
                f"With {depth} layers C is worse than A by {rise} points: against its place in the 2015 paper, whose "
                "nets have 16 units, and as in the 2016 paper, where 54 projections raise the error from 6.61 to "
                "12.22 %.",
                f"{depth} 层时 C 比 A 差 {rise} 个百分点：与 2015 年论文（16 个单元）的次序相反，而与 2016 年论文一致，"
                "其中 54 个投影使误差从 6.61 升至 12.22 %。",
            )
        ]
    known = "is better than A" if rise.high < 0 else "can't be told from A"
    known_zh = "优于 A" if rise.high < 0 else "与 A 无法区分"
    return [
        Both(
            f"With {depth} layers C {known}: {rise} points. The paper's order is of ImageNet, one run each.",
            f"{depth} 层时 C {known_zh}：{rise} 个百分点。论文的次序来自 ImageNet，各只一次运行。",
        )
    ]


def _padding(units: list[dict[str, Any]]) -> list[Words]:
    if not units:
        return []
    branch = statistics.fmean(u["branch_rms_added"] / u["branch_rms_kept"] for u in units)
    return [
        Both(
            "Where A pads, the unit has to make the new channels alone, as a plain net does: F there is "
            f"{branch:.2f} times as large (root mean square) as in the channels with a shortcut. This is so in the "
            "units that change sizes and in no other.",
            "A 补零之处，单元须像普通网络一样独自产生新通道：该处 F 的均方根是有捷径通道的 "
            f"{branch:.2f} 倍。这只发生在改变尺寸的单元。",
        )
    ]


def answer(costs: list[Costs], depth: int, test: dict[str, list[float]], units: list[dict[str, Any]]) -> Words:
    """What C costs, the test errors of the deepest nets by kind, and whether A's padded channels carry nothing."""
    parts: list[Words] = []
    for nets in costs[-1:]:
        a, _, c = nets
        kept, clock = nets[c]["training_bytes"] / nets[a]["training_bytes"], times(nets, c, a)
        timed = Both(f"A step takes {clock} times as long.", f"一步训练用时为 {clock} 倍。")
        parts += [
            Both(
                f"On {base_name(nets)}, C keeps {kept:.2f} times the activations of A.",
                f"在 {base_name(nets)} 上，C 保留的激活为 A 的 {kept:.2f} 倍。",
            ),
            sentence_of_times(nets, timed),
        ]
    if all(test.values()):
        means = ", ".join(f"{kind} {statistics.fmean(errors):.1f}" for kind, errors in test.items())
        parts.append(Both(f"Test errors with {depth} layers: {means} %.", f"{depth} 层的测试误差：{means} %。"))
    if units:
        zero = all(u["largest_shortcut"] == 0 == u["largest_gap"] for u in units)
        parts.append(
            Both(
                "In the channels that A pads, the shortcut carries "
                + ("exactly nothing." if zero else "something, against the claim."),
                "在 A 填充的通道中，捷径" + ("确实不传递任何内容。" if zero else "仍有传递，与论断相反。"),
            )
        )
    return joined(parts)
