"""Carry: the shortcut as the carry gate of an LSTM, through which the signal reaches every layer.

Paper:    Srivastava et al. 2015 (1505.00387, 1507.06228); He et al. 2016, section 3 and Table 1.
Claim:    a shortcut that carries the signal makes a deep net trainable; a learned gate may do that, but the identity,
          which never closes, does it better.
Command:  resnetlab study run carry --scale quick                  (the digits, a minute beyond `mixing`, whose runs
                                                                    it measures, and `degradation`, for plain nets)
          resnetlab study run carry --scale cifar --data cifar10:DIR
          resnetlab study run carry --scale paper --data cifar10:DIR
Last result: not reproduced at the scale quick: gates with b = −6 train better than no shortcut (6.6 and 0.0 against
          62.8 % training error) and than b = 0; the exclusive one is worse than Add (11.2 against 1.9 % test error),
          the shortcut-only one is not (1.6 %); training makes them carry less, not more
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnetlab.studies.carry_found import (
    FACTOR,
    GATES,
    PLAIN,
    Errors,
    Values,
    agrees,
    called,
    epoch_figure,
    errors_table,
    expected_left,
    in_words,
    left,
    mean_carry,
    start_figure,
    theory_table,
    unit_figure,
)
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Weights
from resnetlab.studies.frame.statistics import (
    NOT_REPRODUCED,
    NOT_TESTED,
    REPRODUCED,
    Verdict,
    difference,
    mean_std,
    weakest,
)
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words, listed
from resnetlab.studies.shortcut_cases import ADD, CASES, SCALES, case_of, printed, recipes
from resnetlab.training.recipe import Recipe

OPEN = ("exclusive −6", "shortcut-only −6")  # gates that carry almost everything at the start
START_AND_END, BY_EPOCH = (f"resnetlab.studies.carry_gates:{name}" for name in ("start_and_end", "by_epoch"))


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """The gated nets of Table 1, Add and the plain net; the gates of each."""
    s = SCALES[scale]
    shared = [r for r in recipes(scale, data) if case_of(r) in (*GATES, ADD)]
    plain = [r.override(net=f"cifar_plain{s.depth}") for r in shared if case_of(r) == ADD]
    gated = [r for r in shared if case_of(r) in GATES]
    again = [
        r for r in gated if scale == "quick" and r.seed == 0 and case_of(r) in OPEN
    ]  # elsewhere it would take days
    return Plan(
        (*shared, *plain),
        s.expected
        + Both("; a minute if `mixing` and `degradation` ran", "；若 mixing 与 degradation 已运行则约 1 分钟"),
        s.note,
        (
            *(Measurement(START_AND_END, run=r, seed=r.seed) for r in gated),
            *(Measurement(BY_EPOCH, run=r, seed=r.seed) for r in again),
        ),
    )


def judge(evidence: Evidence) -> Finding:
    """Compare gates with each other, with Add and with no shortcut at all; and their carry with theory."""
    runs = [*(o.recipe for o in evidence.outcomes), *(r for r in evidence.failed if isinstance(r, Recipe))]
    there = [name for name in (PLAIN, *CASES) if name in {_case(r) for r in runs}]
    train: Errors = {name: [] for name in there}
    test: Errors = {name: [] for name in there}
    for o in evidence.outcomes:
        train[_case(o.recipe)].append(o.result["train_error"])
        test[_case(o.recipe)].append(o.result["test_error"])
    gates: Values = {name: [] for name in there if name in GATES}
    for m in evidence.measured:
        if m.measurement.function == START_AND_END:
            gates[_measured_case(m.measurement)].append(m.values)
    missing: dict[str, list[Recipe | Measurement]] = {name: [] for name in there}
    for one in evidence.failed:
        if isinstance(one, Recipe):
            missing[_case(one)].append(one)
        elif one.function == START_AND_END:
            missing[_measured_case(one)].append(one)
    rows = _rows(train, test, gates, missing)
    words, answer = in_words({n: test[n] for n in there if test[n] and not missing[n]}, train, gates)
    watched = {_measured_case(m.measurement): m.values for m in evidence.measured if m.measurement.function == BY_EPOCH}
    figures = [unit_figure(gates), start_figure(gates), epoch_figure(watched)]
    tables = [errors_table(train, test, gates), theory_table()]
    return Finding(rows, [f for f in figures if f.panels], tables, words, answer)


def _case(recipe: Recipe) -> str:
    return PLAIN if recipe.net.startswith("cifar_plain") else case_of(recipe)


def _measured_case(measurement: Measurement) -> str:
    assert measurement.run is not None
    return case_of(measurement.run)


def _rows(train: Errors, test: Errors, gates: Values, missing: dict[str, list[Recipe | Measurement]]) -> list[Row]:
    def row(claim: Words, paper: Words, needs: Sequence[str], measure: Callable[[], tuple[Words, Verdict]]) -> Row:
        if not needs or not set(needs) <= set(test):
            return Row(claim, paper, Both("not run at this scale", "本规模未运行"), NOT_TESTED)
        return judged_row(claim, paper, [test[n] for n in needs], [missing[n] for n in needs], measure)

    def theory() -> tuple[Words, Verdict]:
        pairs = [(called(name), left(gates[name], "start"), expected_left(name, gates[name])) for name in gates]
        words = listed([name + f": {found:.2g} ({expected:.2g})" for name, found, expected in pairs])
        return words, REPRODUCED if all(agrees(name, gates[name]) for name in gates) else NOT_REPRODUCED

    def higher(worse: str, better: str, errors: Errors) -> Callable[[], tuple[Words, Verdict]]:
        def measure() -> tuple[Words, Verdict]:
            gap = difference(errors[worse], errors[better])
            words = f"{mean_std(errors[worse])} − {mean_std(errors[better])} %: {gap}"
            return words, gap.verdict_above(0)

        return measure

    def drift() -> tuple[Words, Verdict]:
        changes = {n: [100 * (mean_carry(v["end"]) - mean_carry(v["start"])) for v in gates[n]] for n in carrying}
        gaps = {name: difference(change, [0.0] * len(change)) for name, change in changes.items()}
        words = listed([called(name) + f": {gap}" for name, gap in gaps.items()])
        return words, weakest([gap.verdict_above(0) for gap in gaps.values()])

    carrying = [name for name in gates if (CASES[name].bias or 0.0) < 0]
    carried = [
        row(
            called(name) + Both(": trains better than without shortcuts", "：训练误差低于无捷径的网络"),
            Both("plain nets degrade, highways don't", "普通网络退化，highway 不退化"),
            [PLAIN, name],
            higher(PLAIN, name, train),
        )
        for name in OPEN
    ]
    beside = [
        row(
            called(name) + Both(": a higher test error than no gate (Add)", "：测试误差高于不设门（Add）"),
            f"{printed(CASES[name])} / 6.61 %",
            [name, ADD],
            higher(name, ADD, test),
        )
        for name in OPEN
    ]
    more = [
        row(
            words
            + Both(": b = −6 carries more than b = 0, and trains better", "：b = −6 比 b = 0 传得多，训练误差也更低"),
            paper,
            [f"{kind} 0", f"{kind} −6"],
            higher(f"{kind} 0", f"{kind} −6", train),
        )
        for kind, words, paper in (
            ("exclusive", Both("exclusive gate", "互斥门"), Both("fail / 8.70 % (test)", "失败 / 8.70 %（测试）")),
            (
                "shortcut-only",
                Both("shortcut-only gate", "仅捷径门"),
                Both("12.86 / 6.91 % (test)", "12.86 / 6.91 %（测试）"),
            ),
        )
    ]
    return [
        row(
            Both(
                "At the start the gates leave (1 − σ(b))^units of the signal: measured (theory)",
                "初始时各门留给信号的比例为 (1 − σ(b))^单元数：实测（理论）",
            ),
            Both("arithmetic of eq. 7: 0.875 for b = −6, 54 units", "式 7 的算术：b = −6、54 个单元时为 0.875"),
            list(gates),
            theory,
        ),
        *carried,
        *more,
        *beside,
        row(
            Both(
                "Training makes gates with b < 0 carry more: change of the mean carry, in points",
                "训练使 b < 0 的门传得更多：平均传递比例的变化（百分点）",
            ),
            Both("biases drift further below 0 (highway nets)", "偏置进一步低于 0（highway 网络）"),
            carrying,
            drift,
        ),
    ]


STUDY = Study(
    name="carry",
    title=Both("Shortcuts as carry gates: does the signal reach every layer?", "捷径如同传送门：信号能到达每一层吗？"),
    claim=Both(
        "Like the carry gate of an LSTM, a shortcut lets the signal reach every layer, so deep nets become trainable.",
        "捷径如同 LSTM 的传送门，使信号到达每一层，从而使深层网络可以训练。",
    ),
    source="Srivastava et al. 2015, 1505.00387 and 1507.06228; He et al. 2016, section 3 and Table 1",
    method=Both(
        "The gated nets of He 2016, Table 1, beside Add and the plain net, trained alike (the runs of `mixing` and "
        "`degradation`). On test images the gates g of each unit are read, before training and after: the mean of "
        "1 − g, and the mean of the product of 1 − g, element by element, from each unit to the last.",
        "He 2016 表 1 中带门的网络，与 Add 及普通网络以相同方案训练（即 mixing 与 degradation 的运行）。在测试图像上"
        "读取训练前后各单元的门 g：1 − g 的均值，以及从各单元到最后一个单元逐元素相乘的 1 − g 之积的均值。",
    ),
    rule=Both(
        "A difference between two means over seeds is reproduced if its 95 % interval (Welch's t) lies above 0, a "
        "direction only if the mean does but the interval does not, else not reproduced; a change through training is "
        f"of the same seeds. Theory is reproduced if what passes all units agrees within a factor of {FACTOR:g}. A "
        "claim about several gates gets the weakest of their verdicts, and the study the weakest of its tested claims.",
        "两个均值之差：若其 95 % 区间（Welch t）高于 0 则为已复现；若仅均值如此则为仅方向一致；否则为未复现；"
        f"训练前后的变化按同一种子计算。若经过所有单元的比例与理论相差不到 {FACTOR:g} 倍，则理论为已复现。"
        "涉及多种门的论断取其中最弱的判定，研究取受检论断中最弱者。",
    ),
    theory=Both(
        "With $h(x) = (1 - g) x$ a unit gives $x_{l+1} = (1 - g_l) x_l + \\hat F_l$, and from unit $l$ to unit $L$ (He "
        "et al. 2016, eq. 7): $x_L = \\left( \\prod_{i=l}^{L-1} (1 - g_i) \\right) x_l + \\sum_{i=l}^{L-1} "
        "\\left( \\prod_{j=i+1}^{L-1} (1 - g_j) \\right) \\hat F_i$. The first factor is what the shortcuts carry.\n\n"
        "A gate with bias $b$ and weights near 0 has $1 - g = 1 - \\sigma(b) = \\frac{1}{1 + e^b}$, so the factor is "
        "$(1 + e^b)^{-(L-l)}$: for $b = -6$ and 54 units $0.875$, for $b = 0$ it is $2^{-54}$. The exclusive gate "
        "multiplies the branch with the same $g$, $\\hat F = g F$: what opens the one shuts the other.",
        "取 $h(x) = (1 - g) x$，单元给出 $x_{l+1} = (1 - g_l) x_l + \\hat F_l$，从单元 $l$ 到单元 $L$"
        "（He 等 2016，式 7）："
        "$x_L = \\left( \\prod_{i=l}^{L-1} (1 - g_i) \\right) x_l + \\sum_{i=l}^{L-1} "
        "\\left( \\prod_{j=i+1}^{L-1} (1 - g_j) \\right) \\hat F_i$。第一个因子即捷径所传送的部分。\n\n"
        "偏置为 $b$、权重接近 0 的门满足 $1 - g = 1 - \\sigma(b) = \\frac{1}{1 + e^b}$，因此该因子为 "
        "$(1 + e^b)^{-(L-l)}$："
        "$b = -6$、54 个单元时为 $0.875$，$b = 0$ 时为 $2^{-54}$。互斥门以同一个 $g$ "
        "乘分支，$\\hat F = g F$：打开其一便关上另一。",
    ),
    plan=plan,
    judge=judge,
)
