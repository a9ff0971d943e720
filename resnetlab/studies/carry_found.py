"""What the study `carry` found, as figures, tables and words."""

from __future__ import annotations

import statistics

from resnetlab.measuring.gates import initial_carry
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.statistics import REPRODUCED, difference, mean_std
from resnetlab.studies.frame.text import Both, Words, joined, listed
from resnetlab.studies.shortcut_cases import ADD, CASES, printed, signed

# Of each seed "start" and "end", each a list of the units' values (measuring.gates.Carry); and that by case.
Seeds = list[dict[str, list[dict[str, float]]]]
Values = dict[str, Seeds]
Errors = dict[str, list[float]]  # % of each seed, by case

BIASES, UNITS = (0.0, -1.0, -3.0, -5.0, -6.0, -7.0), (1, 27, 54)  # of the table of theory
FACTOR = 2.0  # within which theory and measurement agree on what passes all units
PLAIN = "plain"
GATES = [name for name, case in CASES.items() if case.bias is not None]


def _over_seeds(label: str, dashed: bool, colour: int, by_seed: list[list[float]], marks: bool = False) -> Series:
    columns = list(zip(*by_seed, strict=True))
    return Series(
        label=label,
        dashed=dashed,
        colour=colour,
        x=[float(i) for i in range(1, len(columns) + 1)],
        mean=[statistics.fmean(c) for c in columns],
        low=[min(c) for c in columns],
        high=[max(c) for c in columns],
        marks=marks,
    )


def unit_figure(gates: Values) -> Figure:
    """What each unit carries and what is left from it to the last, at the start and the end."""

    def panel(title: Words, label: str, key: str, log: bool) -> Panel:
        series = [
            _over_seeds(f"{name} {when}", when == "start", i, [[u[key] for u in v[when]] for v in values])
            for i, (name, values) in enumerate(gates.items())
            if values
            for when in ("start", "end")
        ]
        return Panel(title, "unit", label, series, None if log else (0.0, 1.0), y_log=log)

    panels = [
        panel(Both("Carry of each unit", "各单元的传递比例"), "mean of 1 − g", "mean", False),
        panel(
            Both("What is left at the last unit of what enters this one", "进入该单元的信号到最后一个单元时所剩的比例"),
            "mean of the product",
            "left",
            True,
        ),
    ]
    caption = Both(
        "The gates at initialisation (dashed) and after training (solid), on test images; mean over seeds, bands from "
        "the lowest to the highest. An identity shortcut would stand at 1 in both.",
        "初始化时（虚线）与训练后（实线）的门，取测试图像；为各随机种子的均值，色带为最低到最高。"
        "恒等捷径在两图中均为 1。",
    )
    return Figure("units", caption, [p for p in panels if p.series])


def start_figure(gates: Values) -> Figure:
    """Theory beside what fresh gates leave: of all biases, and of those below 0 on an axis that shows them."""
    biases = sorted({CASES[name].bias or 0.0 for name, values in gates.items() if values}, reverse=True)

    def panel(title: Words, shown: list[float], log: bool) -> Panel:
        series = []
        for name, values in gates.items():
            bias = CASES[name].bias or 0.0
            if values and bias in shown:
                label, colour, units = f"b = {signed(bias)}", biases.index(bias), len(values[0]["start"])
                theory = [initial_carry(bias, units - i) for i in range(units)]
                found = [[u["left"] for u in v["start"]] for v in values]
                series.append(_over_seeds(label, False, colour, [theory]))
                series.append(_over_seeds(label, False, colour, found, marks=True))
        return Panel(title, "unit", "mean of the product", series, None if log else (0.0, 1.0), y_log=log)

    panels = [
        panel(
            Both("What is left at the last unit, at initialisation", "初始化时到最后一个单元所剩的比例"), biases, True
        ),
        panel(Both("The same, of gates with b < 0", "同上，b < 0 的门"), [b for b in biases if b < 0], False),
    ]
    caption = Both(
        "Theory, (1 − σ(b)) to the power of the units still to pass (lines), beside what random gates leave (marks; "
        "exclusive and shortcut-only gates).",
        "理论值：(1 − σ(b)) 的剩余单元数次幂（线）；旁为随机初始化的门实际留下的比例（点；互斥门与仅捷径门）。",
    )
    return Figure("start", caption, [p for p in panels if p.series])


def epoch_figure(watched: dict[str, dict[str, list[float]]]) -> Figure:
    """The gates of the runs that were trained again, by epoch."""

    def panel(title: Words, label: str, key: str) -> Panel:
        series = []
        for i, (name, found) in enumerate(watched.items()):
            values = found[key]
            x = [float(epoch) for epoch in range(len(values))]
            series.append(Series(name, False, i, x, values, values, values))
        return Panel(title, "epoch", label, series)

    panels = [
        panel(Both("Mean carry over units", "各单元传递比例的均值"), "mean of 1 − g", "mean"),
        panel(
            Both("What is left of the signal after all units", "经过所有单元后信号所剩的比例"),
            "mean of the product",
            "left",
        ),
    ]
    caption = Both(
        "The gates through training: one seed, trained again and looked at after each epoch; 0 is initialisation.",
        "训练过程中的门：取一个随机种子重新训练，每轮之后测量；0 为初始化。",
    )
    return Figure("epochs", caption, [p for p in panels if p.series])


def called(name: str) -> Both:
    """A case in words, or the plain net."""
    return CASES[name].words if name in CASES else Both("no shortcut (plain)", "无捷径（普通网络）")


def mean_carry(units: list[dict[str, float]]) -> float:
    """The mean over a network's units."""
    return statistics.fmean(unit["mean"] for unit in units)


def left(values: Seeds, when: str) -> float:
    """What passes all units, mean over seeds."""
    return statistics.fmean(v[when][0]["left"] for v in values)


def expected_left(name: str, values: Seeds) -> float:
    """What theory says passes all units at the start."""
    return initial_carry(CASES[name].bias or 0.0, len(values[0]["start"]))


def agrees(name: str, values: Seeds) -> bool:
    """Whether what passes all units at the start is the theory's, within FACTOR."""
    expected = expected_left(name, values)
    return expected / FACTOR < left(values, "start") < expected * FACTOR


def errors_table(train: Errors, test: Errors, gates: Values) -> Table:
    """What is left of the signal, and the errors, by case."""

    def shares(name: str) -> list[Words]:
        values = gates.get(name, [])
        if not values:
            return ["–"] * 3 if name in GATES else ["1", "1", "1"] if name == ADD else ["0", "0", "0"]
        return [f"{expected_left(name, values):.2g}", f"{left(values, 'start'):.2g}", f"{left(values, 'end'):.2g}"]

    rows = [
        [
            called(name),
            *shares(name),
            mean_std(train[name]) if train[name] else "–",
            mean_std(test[name]) if test[name] else "–",
            printed(CASES[name]) if name in CASES else "> 20",
        ]
        for name in test
    ]
    return Table(
        Both(
            "What the shortcuts leave of the signal from the first unit to the last, and the errors, mean ± standard "
            "deviation over seeds, beside He 2016, Table 1 (ResNet-110; plain: 0 on the shortcut).",
            "从第一个单元到最后一个单元，捷径留给信号的比例，以及误差（各随机种子的均值 ± 标准差），旁列 He 2016 表 1"
            "（ResNet-110；其普通网络即捷径系数为 0 的一行）。",
        ),
        [
            Both("shortcut", "捷径"),
            Both("theory, start", "理论，初始"),
            Both("start", "初始"),
            Both("end", "训练后"),
            Both("training error (%)", "训练误差 (%)"),
            Both("test error (%)", "测试误差 (%)"),
            Both("paper, test (%)", "论文，测试 (%)"),
        ],
        rows,
    )


def theory_table() -> Table:
    """(1 − σ(b))^units for some biases and depths."""
    return Table(
        Both(
            "Theory: what gates with the bias b and no weights carry, 1 − σ(b), through so many units.",
            "理论：偏置为 b、权重为零的门经过若干单元后的传递比例，即 1 − σ(b) 的幂。",
        ),
        ["b", *(Both(f"{n} unit{'s' if n > 1 else ''}", f"{n} 个单元") for n in UNITS)],
        [[signed(bias), *(f"{initial_carry(bias, n):.4g}" for n in UNITS)] for bias in BIASES],
    )


def in_words(test: Errors, train: Errors, gates: Values) -> tuple[Words, Words]:
    """What it shows, in full and in short; of the cases none of whose runs failed."""
    complete = [name for name in gates if name in test and gates[name]]
    if ADD not in test or not complete:
        return Both("Runs of Add or of all gates failed: nothing to compare.", "Add 或全部门的运行失败：无从比较。"), ""
    best = min(complete, key=lambda name: statistics.fmean(test[name]))
    widest = max(complete, key=lambda name: left(gates[name], "start"))
    gap = difference(test[best], test[ADD])
    how = (
        Both("worse than no gate", "差于不设门")
        if gap.verdict_above(0) == REPRODUCED
        else Both("better than no gate", "优于不设门")
        if gap.verdict_below(0) == REPRODUCED
        else Both("not told apart from no gate", "与不设门无法区分")
    )
    sentences: list[Words] = [
        called(best)
        + Both(
            f" is the best gate here ({statistics.fmean(test[best]):.1f} % test error) and is ",
            f" 是此处最好的门（测试误差 {statistics.fmean(test[best]):.1f} %），",
        )
        + how
        + Both(
            f" ({statistics.fmean(test[ADD]):.1f} %; difference {gap} points).",
            f"（{statistics.fmean(test[ADD]):.1f} %；相差 {gap} 个百分点）。",
        )
    ]
    if PLAIN in test:
        helped = [n for n in complete if difference(train[PLAIN], train[n]).verdict_above(0) == REPRODUCED]
        sentences.append(
            Both(
                f"{len(helped)} of {len(complete)} gates train better than no shortcut at all, by intervals over "
                "seeds.",
                f"按种子间的区间，{len(complete)} 种门中有 {len(helped)} 种训练误差低于完全没有捷径的网络。",
            )
        )
    answer = joined(sentences)
    words: list[Words] = [answer]
    exclusive = {n: statistics.fmean(train[n]) for n in complete if n.startswith("exclusive")}
    if len(exclusive) > 1:
        most = max(exclusive, key=lambda name: left(gates[name], "start"))
        lowest = min(exclusive, key=lambda name: exclusive[name])
        bias = signed(CASES[lowest].bias or 0.0)
        words.append(
            Both(
                f"Among the exclusive gates b = {bias} carries most at the start and has the lowest training error.",
                f"在互斥门中，b = {bias} 初始时传得最多，训练误差也最低。",
            )
            if most == lowest
            else Both(
                f"Carrying more is not all: among the exclusive gates b = {bias} has the lowest training error, though "
                f"b = {signed(CASES[most].bias or 0.0)} carries more. What lets the signal pass shuts F by as much.",
                f"并非传得越多越好：在互斥门中，b = {bias} 的训练误差最低，尽管 b = "
                f"{signed(CASES[most].bias or 0.0)} 传得更多。"
                "让信号通过的门，也以同样的程度关住了 F。",
            )
        )
    off = [n for n in complete if not agrees(n, gates[n])]
    if off:
        words.append(
            Both(
                "Theory leaves the gates' weights out. Where x grows along the net, as F adds to it, so does W·x and "
                "with it the spread of the gates; most is lost where they shut. It misses by more than a factor of "
                f"{FACTOR:g}: ",
                f"理论忽略了门的权重。若 F 不断加到 x 上，x 沿网络增大，W·x 随之增大，门的取值也随之分散，"
                f"损失主要出现在关上之处。与理论相差超过 {FACTOR:g} 倍的有：",
            )
            + listed([called(n) for n in off])
            + Both(".", "。")
        )
    start, end = left(gates[widest], "start"), left(gates[widest], "end")
    words.append(
        Both("The gate that is open widest at the start, ", "初始时开得最大的门（")
        + called(widest)
        + Both(
            f", leaves {start:.2g} of the signal through all units then and {end:.2g} after training. This is the part "
            "that comes straight along the shortcuts, without the ReLU after each sum and without what F adds; that a "
            "signal arrives does not say that it is of use.",
            f"）让信号经所有单元后剩 {start:.2g}，训练后剩 {end:.2g}。这只是沿捷径直接到达的部分，不计每次求和后的 "
            "ReLU "
            "与 F 的贡献；信号能到达，并不说明它有用。",
        )
    )
    return joined(words, "\n\n"), answer
