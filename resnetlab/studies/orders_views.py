"""What a reader sees of the study `orders` beside its claims: figure, table, words and answer."""

from __future__ import annotations

import statistics

from resnetlab.nets.branches import ORDERS
from resnetlab.studies.figures.figure import Figure, Panel, Table
from resnetlab.studies.figures.series import error_lines
from resnetlab.studies.frame.statistics import DIRECTION, NOT_REPRODUCED, REPRODUCED, difference, mean_std
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.studies.orders_claims import NAMES, PAPER, Sorted


def figures(s: Sorted) -> list[Figure]:
    """Error curves of every order, a panel for each depth; none without runs."""
    panels = []
    for depth in dict.fromkeys((*s.depths, s.deepest)):
        lines = [
            line
            for colour, order in enumerate(ORDERS)
            for line in error_lines(NAMES[order].en, colour, s.found.get(s.key(order, depth), []))
        ]
        if lines:
            panels.append(Panel(Both(f"{depth} layers", f"{depth} 层"), "epoch", "error (%)", lines))
    caption = Both(
        "Training error (dashed) and test error (solid) by epoch, mean over seeds; bands reach from the lowest to "
        "the highest seed.",
        "按轮的训练误差（虚线）与测试误差（实线），种子均值；带为最低到最高的种子。",
    )
    return [Figure("curves", caption, panels)] if panels else []


def _drawn(order: str) -> str:
    """A basic unit of that order, as the paper writes it: W for weights."""
    o = ORDERS[order]
    letters = {"c": "W", "b": "BN", "r": "ReLU"}
    return " ".join([letters[c] for c in o.each + o.last] + ["+"] + [letters[c] for c in o.after])


def table(s: Sorted) -> Table:
    """Every network's errors beside the paper's."""
    rows: list[list[Words]] = []
    for key in sorted({*s.found, *s.missing}, key=lambda k: (k.depth, k.branch, list(ORDERS).index(k.order))):
        train, test = s.errors(key, "train"), s.errors(key, "test")
        epochs = {f"{o.result['epochs']:g}" for o in s.found.get(key, [])}
        rows.append(
            [
                NAMES[key.order],
                _drawn(key.order),
                f"{key.depth}, {key.branch}",
                "/".join(sorted(epochs)) or "–",
                mean_std(train) if train else "–",
                mean_std(test) if test else "–",
                f"{PAPER[key]:.2f}" if key in PAPER else "–",
                str(len(train)),
            ]
        )
    return Table(
        Both(
            "Errors after the last epoch, mean ± standard deviation over seeds, beside He 2016, Tables 2 and 3 "
            "(CIFAR-10, median of 5). The unit is written with two layers; + is the sum, W the weights.",
            "最后一轮之后的误差，种子均值 ± 标准差；旁列 He 2016 表 2、表 3（CIFAR-10，5 次的中位数）。单元按两层书"
            "写；+ 为相加，W 为权重层。",
        ),
        [
            Both("order", "顺序"),
            Both("unit", "单元"),
            Both("layers, branch", "层数，分支"),
            Both("epochs", "轮数"),
            Both("training error (%)", "训练误差 (%)"),
            Both("test error (%)", "测试误差 (%)"),
            Both("paper, test (%)", "论文，测试 (%)"),
            Both("seeds", "种子数"),
        ],
        rows,
    )


def answer(s: Sorted) -> Both:
    """Which order to take, by what was measured."""
    at = s.depths[-1]
    needs = [*(s.key(order, at) for order in ORDERS), *(s.key(order, s.deepest) for order in ("post", "full_preact"))]
    if any(key in s.missing or key not in s.found for key in needs):
        return Both("Runs that the answer needs failed, so it is left open.", "回答所需的运行有失败，故暂无结论。")
    gaps = {o: difference(s.errors(s.key(o, at), "train"), s.errors(s.key("post", at), "train")) for o in ORDERS}
    told: list[Words] = [
        Both(f"{NAMES[o].en} {gap} points", f"{NAMES[o].zh} {gap} 个百分点") for o, gap in gaps.items() if o != "post"
    ]
    post, full = (s.errors(s.key(order, s.deepest), "train") for order in ("post", "full_preact"))
    gap = difference(post, full)
    said = {
        REPRODUCED: Both("full pre-activation trains better", "完全预激活训练得更好"),
        DIRECTION: Both(
            "full pre-activation trains better in the mean, though the seeds leave doubt",
            "完全预激活平均而言训练得更好，但各种子间尚有疑问",
        ),
        NOT_REPRODUCED: Both("full pre-activation does not train better", "完全预激活并未训练得更好"),
    }[gap.verdict_above(0)]
    return joined(
        [
            Both(
                f"Training error with {at} layers, beside the original order's "
                f"{statistics.fmean(s.errors(s.key('post', at), 'train')):.1f} %: ",
                f"{at} 层的训练误差，相对于原始顺序的 {statistics.fmean(s.errors(s.key('post', at), 'train')):.1f} %：",
            )
            + joined(told, ", ")
            + Both(".", "。"),
            Both(
                f"With {s.deepest} layers {said.en}: {statistics.fmean(full):.1f} % against "
                f"{statistics.fmean(post):.1f} % ({gap} points).",
                f"{s.deepest} 层时{said.zh}：{statistics.fmean(full):.1f} % 对 {statistics.fmean(post):.1f} %（{gap} "
                "个百分点）。",
            ),
        ]
    )


def words(s: Sorted) -> Both:
    """What the study shows, and what it does not."""
    if s.scale == "paper":
        return Both(
            "The paper prints medians of five runs; the table has means. Orders that lie a tenth of a point apart "
            "need more than five seeds to be told apart.",
            "论文给出五次运行的中位数，本表为均值。相差十分之一个百分点的顺序，五个种子不足以区分。",
        )
    return Both(
        "Orders differ by 0.1 to 1.6 points in the paper's test errors, and a short training has larger "
        "differences between seeds. What can be seen here is whether an order hinders training, most of all at great "
        "depth; which of those that train well is the best is a question for the scale paper.",
        "论文中各顺序的测试误差相差 0.1 至 1.6 个百分点，而短训练在种子间的差异更大。此处能看到的是某种顺序是否妨碍"
        "训练，尤其在很深时；训练良好者中孰优孰劣，要由 paper 规模回答。",
    )
