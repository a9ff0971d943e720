"""What a reader sees of the study `scaling` beside its claims: figures, tables, words and answer."""

from __future__ import annotations

from typing import Any

from resnetlab.measuring.propagation import shortcut_scale
from resnetlab.nets.mixing import Add, Plain
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.figures.series import error_lines, over_seeds
from resnetlab.studies.frame.statistics import REPRODUCED, difference, mean_std
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.studies.scaling_claims import (
    AT_START,
    EXACT,
    FROZEN,
    HALF,
    NONE,
    TRAINED,
    Key,
    Sorted,
    fmean,
    growth,
    named,
    number,
    products,
)

_ORDERS = {"full_preact": Both("pre-activation", "预激活"), "post": Both("post-activation", "后激活")}


def figures(s: Sorted) -> list[Figure]:
    """Factors of shortcuts beside theory, the whole gradient, and error curves; each only if there is data for it."""
    made = [_factors(s), _gradients(s), _curves(s)]
    return [figure for figure in made if figure.panels]


def _factors(s: Sorted) -> Figure:
    panels = []
    for order, words in _ORDERS.items():
        for key, title, x_label in (
            ("gradient_factor", Both("gradient, backward", "梯度，反向"), "units back from the last"),
            ("signal_factor", Both("signal, forward", "信号，前向"), "units on from the first"),
        ):
            lines: list[Series] = []
            for colour, mix in enumerate(m for m in AT_START if shortcut_scale(m)):
                found = [v[key][::-1] if key == "gradient_factor" else v[key] for v in s.start(mix, order)]
                if found:
                    name, units = f"λ = {shortcut_scale(mix):g}", range(len(found[0]))
                    theory = [shortcut_scale(mix) ** passed for passed in units]
                    lines += [
                        over_seeds(f"{name} theory", colour, units, [theory], dashed=True),
                        over_seeds(f"{name} measured", colour, units, found, marks=True),
                    ]
            if lines:
                panels.append(Panel(words + Both(": ", "：") + title, x_label, "factor", lines, y_log=True))
    return Figure(
        "factors",
        Both(
            "What becomes of the gradient at the last unit's output, and of the signal at the first unit's input, "
            f"through shortcuts only, in untrained nets of {s.depth} layers: the product of scales dashed, what was "
            "measured as points with the range over seeds. In pre-activation nets f is the identity, as in the "
            "theory; in post-activation nets it is a ReLU, which takes more. Points that are zero are left out.",
            f"未训练的 {s.depth} 层网络中，最后一个单元输出处的梯度与第一个单元输入处的信号仅经捷径时的变化因子：虚线"
            "为各缩放系数之积，点为测得值及其在各种子间的范围。预激活网络中 f 为恒等映射，与理论一致；后激活网络中 f "
            "是 ReLU，还会带走一部分。为零的点未画出。",
        ),
        panels,
    )


def _gradients(s: Sorted) -> Figure:
    groups = [
        (Both(f"{words.en}, untrained", f"{words.zh}，未训练"), [(m, s.start(m, order)) for m in AT_START])
        for order, words in _ORDERS.items()
    ]
    after = [(mix, s.found.get(Key("trained", mix, s.depth), [])) for mix in TRAINED]
    groups.append((Both("post-activation, trained", "后激活，训练后"), after))
    colours = {mix: i for i, mix in enumerate((*AT_START, FROZEN))}
    panels = []
    for title, group in groups:
        lines = [
            over_seeds(named(mix), colours[mix], range(len(found[0]["gradient"])), [_relative(v) for v in found])
            for mix, found in group
            if found
        ]
        drawn = [line for line in lines if line.x]
        if drawn:
            panels.append(Panel(title, "units back from the last", "gradient (last = 1)", drawn, y_log=True))
    return Figure(
        "gradients",
        Both(
            "Norm of the whole gradient of the loss at the input of each unit, beside that at the last unit's "
            f"output; {s.depth} layers, mean over seeds, bands from the lowest to the highest.",
            f"损失对各单元输入的整个梯度的范数，相对于最后一个单元输出处的范数；{s.depth} 层，种子均值，带为最低到最"
            "高。",
        ),
        panels,
    )


def _relative(values: dict[str, Any]) -> list[float | None]:
    last = values["gradient"][-1]
    return [g / last if g is not None and last else None for g in values["gradient"][::-1]]


def _curves(s: Sorted) -> Figure:
    runs = [(mix, s.found.get(Key("run", mix, s.depth), [])) for mix in TRAINED]
    lines = [line for i, (mix, group) in enumerate(runs) for line in error_lines(named(mix), i, group)]
    title = Both(f"{s.depth} layers", f"{s.depth} 层")
    return Figure(
        "curves",
        Both(
            "Training error (dashed) and test error (solid) by epoch, mean over seeds; bands reach from the lowest "
            "to the highest seed (as He 2016, Fig. 3).",
            "按轮的训练误差（虚线）与测试误差（实线），种子均值；带为最低到最高的种子（对应 He 2016 图 3）。",
        ),
        [Panel(title, "epoch", "error (%)", lines, (0.0, 100.0))] if lines else [],
    )


def tables(s: Sorted) -> list[Table]:
    """The trained networks beside Table 1, and the untrained ones by depth."""
    return [_trained(s), _by_depth(s)]


def _trained(s: Sorted) -> Table:
    cells: list[list[Words]] = []
    for mix, printed in [*TRAINED.items(), (NONE, "fail")]:
        as_plain = mix == NONE and s.none_is_plain
        source = Plain() if as_plain else mix
        train, test = s.errors(source, "train"), s.errors(source, "test")
        passed = s.found.get(Key("trained", source, s.depth), [])
        note: Words = Both(" (the runs of Plain)", "（Plain 的运行）") if as_plain else ""
        cells.append(
            [
                named(mix) + note,
                mean_std(train) if train else "–",
                mean_std(test) if test else "–",
                printed if printed != "fail" else Both("fail", "失败"),
                number(fmean([v["gradient_factor"][0] for v in passed])),
                number(fmean([growth(v) for v in passed])),
                str(len(train)),
            ]
        )
    return Table(
        Both(
            f"Errors after the last epoch, {s.depth} layers, mean ± standard deviation over seeds, beside He 2016, "
            "Table 1 (CIFAR-10, 110 layers, median of 5; fail: above 20 %). Then, of the trained nets, the factor of "
            "shortcuts only from the last unit's output to the first unit's input, and how many times as large the "
            "whole gradient becomes on that way.",
            f"最后一轮之后的误差，{s.depth} 层，种子均值 ± 标准差；旁列 He 2016 表 1（CIFAR-10，110 层，5 次的中位"
            "数；失败：高于 20 %）。其后为训练后网络中，从最后一个单元的输出到第一个单元的输入仅经捷径的因子，以及整"
            "个梯度在这段路上变为多少倍。",
        ),
        [
            Both("shortcut", "捷径"),
            Both("training error (%)", "训练误差 (%)"),
            Both("test error (%)", "测试误差 (%)"),
            Both("paper, test (%)", "论文，测试 (%)"),
            Both("shortcuts only", "仅经捷径"),
            Both("whole gradient", "整个梯度"),
            Both("seeds", "种子数"),
        ],
        cells,
    )


def _by_depth(s: Sorted) -> Table:
    depths = sorted({key.depth for key in s.found if key.what == "start"})
    cells: list[list[Words]] = []
    for depth in depths:
        for mix in sorted(AT_START, key=shortcut_scale):
            groups = [s.start(mix, order, depth) for order in _ORDERS]
            if not all(groups):
                continue
            factors = [fmean([v["gradient_factor"][0] for v in group]) for group in groups]
            growths = [fmean([growth(v) for v in group]) for group in groups]
            units = len(groups[0][0]["gradient"]) - 1
            theory = products(mix, groups[0][0])[0]
            cells.append([str(depth), str(units), named(mix), *(number(v) for v in (theory, *factors, *growths))])
    return Table(
        Both(
            "Untrained nets, mean over seeds: the factor of shortcuts only, from the last unit's output to the first "
            "unit's input, and how many times as large the whole gradient becomes on that way.",
            "未训练的网络，种子均值：从最后一个单元的输出到第一个单元的输入，仅经捷径的因子，以及整个梯度在这段路上"
            "变为多少倍。",
        ),
        [
            Both("layers", "层数"),
            Both("units", "单元数"),
            Both("shortcut", "捷径"),
            "∏λ",
            Both("shortcuts only, pre-activation", "仅经捷径，预激活"),
            Both("shortcuts only, post-activation", "仅经捷径，后激活"),
            Both("whole gradient, pre-activation", "整个梯度，预激活"),
            Both("whole gradient, post-activation", "整个梯度，后激活"),
        ],
        cells,
    )


def answer(s: Sorted) -> Both:
    """Why x and not x/2, by what was measured."""
    keys = [Key("start", HALF, s.depth, "full_preact"), *(Key("start", m, s.depth) for m in (HALF, Add(), Plain()))]
    runs = [Key("run", mix, s.depth) for mix in (HALF, FROZEN, Add())]
    if s.lack([*keys, *runs]):
        return Both("What the answer needs failed in part, so it is left open.", "回答所需的部分结果缺失，故暂无结论。")
    half = s.start(HALF, "full_preact")
    units = len(half[0]["gradient"]) - 1
    factor, theory = fmean([v["gradient_factor"][0] for v in half]), products(HALF, half[0])[0]
    agrees = factor is not None and abs(factor / theory - 1) <= EXACT
    parts: list[Words] = [
        Both(
            f"Because the scales multiply. Through the shortcuts of {units} units x passes the gradient by a factor "
            f"of 1, x/2 by 0.5^{units} = {theory:.1e}; the pre-activation net "
            f"{'agrees' if agrees else 'does not agree'}, with {number(factor)} measured.",
            f"因为缩放系数逐层相乘。经过 {units} 个单元的捷径，x 传递梯度的因子为 1，x/2 为 0.5^{units} = "
            f"{theory:.1e}；预激活网络{'与此相符' if agrees else '与此不符'}，测得 {number(factor)}。",
        ),
        _whole(s),
    ]
    errors = [s.errors(mix, "train") for mix in (HALF, FROZEN, Add())]
    gaps = [difference(scaled, errors[-1]) for scaled in errors[:2]]
    means = [fmean(list(e)) or 0.0 for e in errors]
    numbers = f"{means[0]:.1f} %", f"{means[1]:.1f} %", f"{means[2]:.1f} %"
    if all(gap.verdict_above(0) == REPRODUCED for gap in gaps):
        said = Both("and trains worse for it", "训练也因此更差")
    elif all(gap.mean > 0 for gap in gaps):
        said = Both(
            "and trains worse in the mean, though the seeds leave doubt", "平均而言训练更差，但各种子间尚有疑问"
        )
    else:
        said = Both("but here not every such network trains worse", "但此处这类网络并非都训练得更差")
    parts.append(
        Both(
            f"It is the shortcut that x/2 loses, {said.en}: training errors of {s.depth} layers are {numbers[0]} with "
            f"Scale(0.5, 1), {numbers[1]} with Scale(0.5, 0.5), {numbers[2]} with Add.",
            f"x/2 失去的是捷径，{said.zh}：{s.depth} 层的训练误差，Scale(0.5, 1) 为 {numbers[0]}，Scale(0.5, 0.5) 为 "
            f"{numbers[1]}，Add 为 {numbers[2]}。",
        )
    )
    return joined(parts)


def _whole(s: Sorted) -> Both:
    """What becomes of the whole gradient, and whether it vanishes with λ = 0.5."""
    half, add, plain = (fmean([growth(v) for v in s.start(mix)]) for mix in (HALF, Add(), Plain()))
    if half is None or add is None or plain is None:
        return Both("A gradient was zero or not finite.", "某个梯度为零或非有限。")
    numbers = number(half), number(add), number(plain)
    if half < 1:
        said = Both("The whole gradient vanishes with it", "整个梯度也随之消失")
    elif half < add:
        said = Both("The whole gradient grows less", "整个梯度增长得更少")
    else:
        said = Both(
            "Yet the gradient does not vanish: by the way that is left, through the weight layers and their batch "
            "norms, it grows more",
            "但梯度并未消失：经由余下的路径，即权重层及其 BN，它反而增长更多",
        )
    return Both(
        f"{said.en}. Before training (post-activation, as the paper trains) it is {numbers[0]} times as large at the "
        f"first unit as after the last with λ = 0.5, {numbers[1]} times with Add, {numbers[2]} times in the plain "
        "net.",
        f"{said.zh}。训练前（论文所训练的后激活网络），第一个单元处的梯度与最后一个单元之后相比，λ = 0.5 为 "
        f"{numbers[0]} 倍，Add 为 {numbers[1]} 倍，普通网络为 {numbers[2]} 倍。",
    )


def words(s: Sorted) -> Both:
    """What the study shows, and what it does not."""
    shares = []
    for mix in (Add(), HALF):
        found = s.start(mix, "full_preact")
        pairs = [(v["shortcut_gradient"][0], v["gradient"][0]) for v in found]
        shares.append(number(fmean([part / whole if part is not None and whole else None for part, whole in pairs])))
    return Both(
        "The product of scales is an exact statement about one path out of very many, the one that takes every "
        f"shortcut. In untrained pre-activation nets of {s.depth} layers what it brings to the first unit has a norm "
        f"of {shares[0]} times the whole gradient's with Add, and {shares[1]} times with λ = 0.5. The rest comes by "
        "paths that pass some of the branches, and every shortcut on them is scaled, too.\n\nThe study shows that "
        "scaled shortcuts pass less and that such networks train as they do; that the one is the cause of the other "
        "is the paper's explanation, and fits what is measured, but is not proved by it.",
        f"各缩放系数之积是对极多路径中一条路径的精确陈述，即处处走捷径的那一条。在未训练的 {s.depth} 层预激活网络中，"
        f"它带到第一个单元的梯度范数，Add 时为整个梯度的 {shares[0]} 倍，λ = 0.5 时为 {shares[1]} 倍。其余的经由穿过"
        "部分分支的路径而来，这些路径上的每条捷径也都被缩放。\n\n本研究表明缩放的捷径传得更少，也表明这样的网络训练"
        "得如何；前者是后者的原因，这是论文的解释，与测量相符，但测量并未证明它。",
    )
