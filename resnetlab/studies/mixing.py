"""Mixing: every other way for shortcut and branch to meet is worse than adding them.

Paper:    He et al. 2016, section 3 and Table 1, Figure 3.
Claim:    with gates, a 1x1 convolution or dropout on all shortcuts a deep residual net trains worse than with
          identity shortcuts. (Constant scaling, the rest of the table, is the study `scaling`.)
Command:  resnetlab study run mixing --scale quick                 (the digits, about 6 minutes on 2 cores)
          resnetlab study run mixing --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run mixing --scale paper --data cifar10:DIR     (about a week on one GPU)
Last result: direction only at the scale quick: test errors of exclusive gates 68, 2.1 and 11 % (b = 0, −3, −6), of
          shortcut-only gates 40 and 1.6 % (0, −6), of the 1x1 convolution 8.4 %, of dropout 86 %, of Add 1.9 %: b = −3
          and the shortcut-only −6 are not told apart from it
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.cases import ADD, CASES, FAIL, case_of, printed, recipes, signed
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence, Outcome
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.statistics import NOT_TESTED, REPRODUCED, Verdict, difference, mean_std, weakest
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import SHARED, Both, Words, joined, listed
from resnetlab.training.recipe import Recipe

NEAR = 1.0  # points within which an error counts as near another; the paper's are 6.91 and 6.61 %


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Every case with every seed."""
    return Plan(recipes(scale, data), SHARED(f"cases.{scale}.expected"), SHARED(f"cases.{scale}.note"))


Groups = dict[str, list[Outcome]]  # by case, of everything that was planned; empty where every run failed
Errors = dict[str, list[float]]  # % of each seed


def judge(evidence: Evidence) -> Finding:
    """Compare every case with Add, over seeds."""
    failed = [r for r in evidence.failed if isinstance(r, Recipe)]
    there = {case_of(r) for r in (*(o.recipe for o in evidence.outcomes), *failed)}
    groups: Groups = {name: [] for name in CASES if name in there}
    for o in evidence.outcomes:
        groups[case_of(o.recipe)].append(o)
    missing = {name: [r for r in failed if case_of(r) == name] for name in groups}
    train: Errors = {name: [o.result["train_error"] for o in group] for name, group in groups.items()}
    test: Errors = {name: [o.result["test_error"] for o in group] for name, group in groups.items()}
    figures = [_figure(groups, bool(failed))] if evidence.outcomes else []
    whole = {name: errors for name, errors in test.items() if errors and not missing[name]}
    words, answer = _words(whole, train)
    return Finding(_rows(evidence.scale, train, test, missing), figures, [_table(groups, train, test)], words, answer)


def _rows(scale: str, train: Errors, test: Errors, missing: dict[str, list[Recipe]]) -> list[Row]:
    def row(claim: Words, paper: Words, needs: list[str], measure: Callable[[], tuple[Words, Verdict]]) -> Row:
        if not set(needs) <= set(test):
            return Row(claim, paper, Both("not run at this scale", "本规模未运行"), NOT_TESTED)
        return judged_row(claim, paper, [test[n] for n in needs], [missing[n] for n in needs], measure)

    def compared(worse: str, better: str, bound: float = 0.0) -> Callable[[], tuple[Words, Verdict]]:
        def measure() -> tuple[Words, Verdict]:
            gap, trained = difference(test[worse], test[better]), difference(train[worse], train[better])
            words = Both(
                f"{mean_std(test[worse])} against {mean_std(test[better])} %: {gap} points; training {trained}",
                f"{mean_std(test[worse])} 对 {mean_std(test[better])} %：{gap} 个百分点；训练误差 {trained}",
            )
            return words, gap.verdict_below(bound) if bound else gap.verdict_above(0)

        return measure

    def training() -> tuple[Words, Verdict]:
        gaps = {name: difference(train[name], train[ADD]) for name in slower}
        words = listed([CASES[name].words + f": {gap}" for name, gap in gaps.items()])
        return words, weakest([gap.verdict_above(0) for gap in gaps.values()])

    def failing() -> tuple[Words, Verdict]:
        words = listed([CASES[name].words + f": {mean_std(test[name])} %" for name in fails])
        above = [difference(test[name], [FAIL] * len(test[name])).verdict_above(0) for name in fails]
        return words, weakest(above) if scale == "paper" else NOT_TESTED

    def best_bias() -> tuple[Words, Verdict]:
        swept = {name: test[name] for name in sweep}
        words = listed([f"b = {signed(CASES[name].bias or 0)}: {mean_std(errors)} %" for name, errors in swept.items()])
        gaps = [difference(errors, test["exclusive −6"]) for name, errors in swept.items() if name != "exclusive −6"]
        return words, weakest([gap.verdict_above(0) for gap in gaps]) if scale == "paper" else NOT_TESTED

    slower = [name for name in ("exclusive −6", "shortcut-only 0", "1x1 conv") if name in test]
    fails = [name for name in test if CASES[name].printed is None]
    sweep = [name for name in test if name.startswith("exclusive")]
    rows = [
        row(
            case.words + Both(": a higher test error than Add", "：测试误差高于 Add"),
            f"{printed(case)} / 6.61 %",
            [name, ADD],
            compared(name, ADD),
        )
        for name, case in CASES.items()
        if name not in (ADD, "shortcut-only −6")
    ]
    return [
        *rows,
        row(
            Both(
                f"The shortcut-only gate with b = −6 comes near Add: within {NEAR:g} point",
                f"b = −6 的仅捷径门接近 Add：相差不到 {NEAR:g} 个百分点",
            ),
            "6.91 / 6.61 %",
            ["shortcut-only −6", ADD],
            compared("shortcut-only −6", ADD, NEAR),
        ),
        row(
            Both("The exclusive gate: b = 0 is worse than b = −6", "互斥门：b = 0 差于 b = −6"),
            Both("fail / 8.70 %", "失败 / 8.70 %"),
            ["exclusive 0", "exclusive −6"],
            compared("exclusive 0", "exclusive −6"),
        ),
        row(
            Both("The shortcut-only gate: b = 0 is worse than b = −6", "仅捷径门：b = 0 差于 b = −6"),
            "12.86 / 6.91 %",
            ["shortcut-only 0", "shortcut-only −6"],
            compared("shortcut-only 0", "shortcut-only −6"),
        ),
        row(
            Both("The training error is higher than Add's too: it is optimisation", "训练误差也高于 Add：属于优化问题"),
            Both("training loss higher in Fig. 3 (b), (c), (d)", "图 3 (b)(c)(d) 中训练损失更高"),
            [*slower, ADD],
            training,
        ),
        row(
            Both(
                "The exclusive gate is best with b = −6 (a matter of depth and length: judged with 110 layers alone)",
                "互斥门以 b = −6 最佳（与深度和训练长度有关：仅在 110 层时判定）",
            ),
            Both("8.70 %; b = −7: 9.81 %; 0 to −5 fail", "8.70 %；b = −7：9.81 %；0 至 −5 失败"),
            [*(sweep or ["exclusive −6"])],
            best_bias,
        ),
        row(
            Both(
                f"Dropout and exclusive gates with b = 0 to −5 fail: above {FAIL:g} % (judged with 110 layers alone)",
                f"dropout 与 b = 0 至 −5 的互斥门失败：误差高于 {FAIL:g} %（仅在 110 层时判定）",
            ),
            Both("fail", "失败"),
            fails or ["dropout"],
            failing,
        ),
    ]


def _figure(groups: Groups, failed: bool) -> Figure:
    gates = [name for name in groups if name == ADD or name.startswith("exclusive")]
    others = [name for name in groups if not name.startswith("exclusive")]
    caption = Both(
        "Training error (dashed) and test error (solid) by epoch, mean over seeds; bands reach from the lowest to the "
        "highest seed (compare He 2016, Fig. 3). b is the gates' bias at the start.",
        "各轮的训练误差（虚线）与测试误差（实线），为各随机种子的均值；色带为最低到最高的种子（参见 He 2016 图 3）。"
        "b 为门的初始偏置。",
    )
    if failed:
        caption += Both(" Runs that failed are not in it.", "失败的运行未画出。")
    panels = [
        _panel(Both("Exclusive gates", "互斥门"), gates, groups),
        _panel(
            Both("Gates on the shortcut alone, 1x1 convolution, dropout", "仅捷径门、1x1 卷积、dropout"), others, groups
        ),
    ]
    return Figure("curves", caption, [p for p in panels if p.series])


def _panel(title: Words, names: list[str], groups: Groups) -> Panel:
    series = [
        _curve(name, part, colour, groups[name])
        for colour, name in enumerate(names)
        for part in ("train", "test")
        if groups[name]
    ]
    return Panel(title, "epoch", "error (%)", series, (0.0, 100.0))


def _curve(name: str, part: str, colour: int, group: list[Outcome]) -> Series:
    by_epoch = list(zip(*([line[f"{part}_error"] for line in o.epochs] for o in group), strict=True))
    return Series(
        label=f"{name} {'training' if part == 'train' else 'test'}",
        dashed=part == "train",
        colour=colour,
        x=[float(line["epoch"]) for line in group[0].epochs],
        mean=[round(statistics.fmean(errors), 4) for errors in by_epoch],
        low=[round(min(errors), 4) for errors in by_epoch],
        high=[round(max(errors), 4) for errors in by_epoch],
    )


def _table(groups: Groups, train: Errors, test: Errors) -> Table:
    rows = [
        [
            CASES[name].words,
            CASES[name].on_shortcut,
            CASES[name].on_branch,
            mean_std(train[name]) if group else "–",
            mean_std(test[name]) if group else "–",
            f"{statistics.median(test[name]):.2f}" if group else "–",
            printed(CASES[name]),
            str(len(group)),
        ]
        for name, group in groups.items()
    ]
    return Table(
        Both(
            "Errors after the last epoch, mean ± standard deviation and median over seeds, beside He 2016, Table 1 "
            f"(ResNet-110, CIFAR-10, median of 5; above {FAIL:g} % it prints 'fail').",
            "最后一轮的误差：各随机种子的均值 ± 标准差与中位数，旁列 He 2016 表 1（ResNet-110，CIFAR-10，5 次的中位数；"
            f"高于 {FAIL:g} % 记为 fail）。",
        ),
        [
            Both("case", "情形"),
            Both("on the shortcut", "捷径上"),
            Both("on F", "F 上"),
            Both("training error (%)", "训练误差 (%)"),
            Both("test error (%)", "测试误差 (%)"),
            Both("median, test (%)", "测试误差中位数 (%)"),
            Both("paper, test (%)", "论文，测试 (%)"),
            Both("seeds", "种子数"),
        ],
        rows,
    )


def _words(test: Errors, train: Errors) -> tuple[Words, Words]:
    """What it shows, in full and in short; of the cases none of whose runs failed."""
    if ADD not in test or len(test) < 2:
        return Both(
            "Runs of Add or of all the others failed: nothing to compare.", "Add 或其余各情形失败：无从比较。"
        ), ""
    gaps = {name: difference(errors, test[ADD]) for name, errors in test.items() if name != ADD}
    told = {
        Both("Worse than Add", "差于 Add"): [n for n, gap in gaps.items() if gap.verdict_above(0) == REPRODUCED],
        Both("Better than Add", "优于 Add"): [n for n, gap in gaps.items() if gap.verdict_below(0) == REPRODUCED],
        Both("Not told apart from Add", "与 Add 无法区分"): [
            n for n, gap in gaps.items() if REPRODUCED not in (gap.verdict_above(0), gap.verdict_below(0))
        ],
    }
    parts: list[Words] = [
        how + Both(": ", "：") + listed([CASES[n].words + f" ({statistics.fmean(test[n]):.1f} %)" for n in names])
        for how, names in told.items()
        if names
    ]
    told_apart = Both(" (by 95 % intervals over seeds).", "（按种子间的 95 % 区间）。")
    adding = (
        Both("Adding ends at ", "相加的测试误差为 ") + f"{statistics.fmean(test[ADD]):.1f} %" + Both(" test error", "")
    )
    sentences = [adding, *parts]
    answer = Both(joined(sentences, ". ").en, joined(sentences, "。").zh) + told_apart
    words: list[Words] = [answer]
    swept = {CASES[n].bias or 0.0: statistics.fmean(errors) for n, errors in test.items() if n.startswith("exclusive")}
    if len(swept) > 1:
        best = min(swept, key=lambda bias: swept[bias])
        words.append(
            Both(
                f"Of the exclusive gate's biases tried here b = {signed(best)} is best; the paper's best is −6. A "
                "bias far below 0 keeps the shortcut open and, by the same gate, F shut, so which is best depends on "
                "how many units there are and how long F has to open.",
                f"互斥门在此尝试的偏置中以 b = {signed(best)} 最佳；论文为 −6。偏置远低于 0 时捷径畅通，但同一个门"
                "也关住了 F，因此何者最佳取决于单元数以及 F 有多少时间打开。",
            )
        )
    fitted = [n for n in gaps if statistics.fmean(train[n]) <= statistics.fmean(train[ADD]) + NEAR]
    if fitted:
        words.append(
            listed([CASES[n].words for n in fitted])
            + Both(
                f": the training error is within {NEAR:g} point of Add's, so what they lack, if anything, is not shown "
                "to be optimisation here.",
                f"：训练误差与 Add 相差不超过 {NEAR:g} 个百分点，因此在此看不出它们的差距（若有）源于优化。",
            )
        )
    return joined(words, "\n\n"), answer


STUDY = Study(
    name="mixing",
    title=Both("Other ways to join shortcut and branch than adding", "捷径与分支相加之外的其他结合方式"),
    claim=Both(
        "Gates, a 1x1 convolution or dropout on the shortcuts make a deep residual net worse than identities do.",
        "在捷径上使用门、1x1 卷积或 dropout 的深层残差网络不如使用恒等捷径的网络。",
    ),
    source="He et al. 2016, section 3, Table 1 and Figure 3",
    method=Both(
        "A residual net of basic units, ReLU after the sum, is trained with each way on all of its units, with the "
        "same recipe and seeds. A gate is a 1x1 convolution with a sigmoid, without batch norm; where maps shrink it "
        "has the unit's stride, and the shortcut beside it is option A. The 1x1 convolution is option C: each has a "
        "batch norm. Dropout is on the shortcut's output and rescales by 1/(1 − p), as Caffe's; the paper leaves these "
        "points open.",
        "由 basic 单元组成、和之后接 ReLU 的残差网络，在所有单元上采用每一种方式，以相同方案和随机种子训练。"
        "门为 1x1 卷积加 sigmoid，不带 BN；特征图缩小处取单元的步长，旁边的捷径为选项 A。1x1 卷积即选项 C，"
        "各带一个 BN。dropout 作用于捷径的输出，并按 1/(1 − p) 放大（同 Caffe）；论文未说明这些细节。",
    ),
    rule=Both(
        "A difference between two means over seeds is reproduced if its 95 % interval (Welch's t) lies on the claim's "
        "side of the bound, a direction only if the mean does but the interval does not, else not reproduced. The "
        f"bound is 0, {NEAR:g} point for 'near' and {FAIL:g} % for 'fail'. A claim about several cases gets the "
        "weakest of their verdicts, and the study the weakest of its tested claims.",
        "两个均值之差：若其 95 % 区间（Welch t）位于论断一侧则为复现；若仅均值如此则为仅方向一致；否则为未复现。"
        f"界限为 0，“接近”为 {NEAR:g} 个百分点，“失败”为 {FAIL:g} %。涉及多种情形的论断取其中最弱的判定，"
        "研究取受检论断中最弱者。",
    ),
    plan=plan,
    judge=judge,
)
