"""Degradation: deeper plain nets have higher training error; residual nets reverse it.

Paper:    He et al. 2015, sections 1, 4.1 and 4.2; Figures 1, 4, 6; Tables 2 and 6.
Claim:    with depth, plain nets get worse on the training images themselves, so it is not overfitting;
          the same nets with shortcuts do not.
Command:  resnetlab study run degradation --scale quick            (the digits, about 3 minutes on 2 cores)
          resnetlab study run degradation --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run degradation --scale paper --data cifar10:DIR     (days on one GPU)
Last result: reproduced at the scale quick (results/degradation-quick.json): plain-56 ends at 59.2 % training error,
          residual-56 at 0.0 %. One epoch of CIFAR-10, one seed (results/degradation-cifar.json): not reproduced,
          since by then both 56-layer nets are behind those of 20 layers: plain 89.0 against 66.2 % training error,
          residual 82.0 against 62.3 %
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from resnetlab.measuring.printed import PRINTED
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence, Outcome
from resnetlab.studies.frame.measurement import Weights
from resnetlab.studies.frame.scales import base, for_depth
from resnetlab.studies.frame.statistics import NOT_TESTED, Difference, Verdict, difference, mean_std
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.training.recipe import Recipe

KINDS = {"plain": "plain", "resnet": "residual"}
TOLERANCE = 1.0  # points by which a deeper residual net's training error may be higher
FAIL = 60.0  # %: plain-110's error is above this (He 2015, section 4.2)


@dataclass(frozen=True)
class _Scale:
    depths: tuple[int, ...]
    seeds: int
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        (8, 20, 56),
        5,
        Both("about 3 minutes on 2 cores", "双核约 3 分钟"),
        Both(
            "1,437 training images of 8x8 pixels, five seeds. So few and simple images leave residual nets little to "
            "improve on, so this scale doesn't test that their test error falls with depth.",
            "1,437 张 8x8 像素的训练图像，五个随机种子。图像又少又简单，残差网络几乎没有改进余地，"
            "因此这一规模不检验其测试误差是否随深度下降。",
        ),
    ),
    "cifar": _Scale(
        (20, 56),
        3,
        Both("a night on 2 cores, some minutes on a GPU", "双核一夜，GPU 数分钟"),
        Both("10 epochs instead of the paper's 164, and three seeds.", "训练 10 轮而非论文的 164 轮，三个随机种子。"),
    ),
    "paper": _Scale(
        (20, 32, 44, 56, 110),
        5,
        Both("two to three days on one GPU", "单块 GPU 两到三天"),
        Both(
            "The published recipe: 64,000 steps; 110 layers warm up at 0.01 until the training error is below 80 %.",
            "论文原方案：64,000 步；110 层先以 0.01 的学习率预热，直到训练误差低于 80 %。",
        ),
    ),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Plain and residual nets at every depth and seed."""
    s, recipe = _SCALES[scale], base(scale, data)
    return Plan(
        tuple(
            for_depth(recipe.override(net=f"cifar_{kind}{depth}", seed=seed), depth)
            for seed in range(s.seeds)
            for depth in s.depths
            for kind in KINDS
        ),
        s.expected,
        s.note,
    )


# By (kind, depth), of everything that was planned; a list is empty where every run failed.
Groups = dict[tuple[str, int], list[Outcome]]
Missing = dict[tuple[str, int], list[Recipe]]  # runs that failed
Errors = dict[tuple[str, int], list[float]]  # % of each seed


def judge(evidence: Evidence) -> Finding:
    """Compare the deepest and the shallowest nets of each kind, over seeds."""
    outcomes, failed = evidence.outcomes, [r for r in evidence.failed if isinstance(r, Recipe)]
    groups: Groups = {_kind_and_depth(r.net): [] for r in (*(o.recipe for o in outcomes), *failed)}
    for o in outcomes:
        groups[_kind_and_depth(o.recipe.net)].append(o)
    missing: Missing = {key: [r for r in failed if _kind_and_depth(r.net) == key] for key in groups}
    train: Errors = {key: [o.result["train_error"] for o in group] for key, group in groups.items()}
    test: Errors = {key: [o.result["test_error"] for o in group] for key, group in groups.items()}
    rows = _rows(evidence.scale, train, test, missing)
    figures = [_figure(groups, len(failed))] if outcomes else []
    words = _words(train, test, missing)
    return Finding(rows, figures, [_table(groups, train, test)], words, answer=words)


def _rows(scale: str, train: Errors, test: Errors, missing: Missing) -> list[Row]:
    depths = sorted({depth for _, depth in train})
    low, high = depths[0], depths[-1]
    plain, residual = ([(kind, depth) for depth in depths] for kind in KINDS)
    deepest = [("plain", high), ("resnet", high)]

    def row(
        claim: Words, paper: Words, needs: list[tuple[str, int]], measure: Callable[[], tuple[Words, Verdict]]
    ) -> Row:
        return judged_row(claim, paper, [train[n] for n in needs], [missing[n] for n in needs], measure)

    def rise_of_plain() -> tuple[Words, Verdict]:
        rise = difference(train["plain", high], train["plain", low])
        words = _along(train, "plain", depths) + _apart(high, low, rise)
        return words, rise.verdict_above(0)

    def rise_of_residual() -> tuple[Words, Verdict]:
        rise = difference(train["resnet", high], train["resnet", low])
        words = _along(train, "resnet", depths) + _apart(high, low, rise)
        return words, rise.verdict_below(TOLERANCE)

    def gain_in_training() -> tuple[Words, Verdict]:
        gain = difference(train["plain", high], train["resnet", high])
        words = Both(f"plain − residual: {gain} points", f"普通 − 残差：{gain} 个百分点")
        return words, gain.verdict_above(0)

    def gain_in_test() -> tuple[Words, Verdict]:
        plain, residual = test["plain", high], test["resnet", high]
        gain = difference(plain, residual)
        words = Both(
            f"plain {mean_std(plain)} %, residual {mean_std(residual)} %; plain − residual: {gain} points",
            f"普通 {mean_std(plain)} %，残差 {mean_std(residual)} %；普通 − 残差：{gain} 个百分点",
        )
        return words, gain.verdict_above(0)

    def fall_in_test() -> tuple[Words, Verdict]:
        fall = difference(test["resnet", low], test["resnet", high])
        words = _along(test, "resnet", depths) + _apart(low, high, fall)
        return words, NOT_TESTED if scale == "quick" else fall.verdict_above(0)

    def plain_110() -> tuple[Words, Verdict]:
        errors = test.get(("plain", 110), [])
        if not errors:
            return Both("no net of 110 layers at this scale", "本规模没有 110 层的网络"), NOT_TESTED
        above = difference(errors, [FAIL] * len(errors)).verdict_above(0)
        return f"{mean_std(errors)} %", above if scale == "paper" else NOT_TESTED

    return [
        row(
            Both(
                "The training error of plain nets rises with depth, so it is not overfitting",
                "普通网络的训练误差随深度上升，因此不是过拟合",
            ),
            Both("plain-20 < 32 < 44 < 56 (Fig. 6, left)", "plain-20 < 32 < 44 < 56（图 6 左）"),
            plain,
            rise_of_plain,
        ),
        row(
            Both(
                "The training error of residual nets does not rise with depth",
                "残差网络的训练误差不随深度上升",
            ),
            Both("ResNet-20 > 32 > 44 > 56 > 110 (Fig. 6, middle)", "ResNet-20 > 32 > 44 > 56 > 110（图 6 中）"),
            residual,
            rise_of_residual,
        ),
        row(
            Both(
                f"With {high} layers the residual net has the lower training error",
                f"{high} 层时，残差网络的训练误差更低",
            ),
            Both(
                "34 layers on ImageNet (Fig. 4); 56 on CIFAR-10 (Fig. 6)",
                "ImageNet 上 34 层（图 4）；CIFAR-10 上 56 层（图 6）",
            ),
            deepest,
            gain_in_training,
        ),
        row(
            Both(
                f"With {high} layers the residual net has the lower test error",
                f"{high} 层时，残差网络的测试误差更低",
            ),
            Both(
                "34 layers on ImageNet: 28.54 against 25.03 % (Table 2)",
                "ImageNet 上 34 层：28.54 对 25.03 %（表 2）",
            ),
            deepest,
            gain_in_test,
        ),
        row(
            Both("The test error of residual nets falls with depth", "残差网络的测试误差随深度下降"),
            Both(
                "8.75, 7.51, 7.17, 6.97, 6.43 % for 20 to 110 layers (Table 6)",
                "20 至 110 层：8.75、7.51、7.17、6.97、6.43 %（表 6）",
            ),
            residual,
            fall_in_test,
        ),
        row(
            Both("plain-110 does not train: its error is above 60 %", "plain-110 训练不起来：误差高于 60 %"),
            Both("above 60 % (section 4.2)", "高于 60 %（4.2 节）"),
            [key for key in plain if key == ("plain", 110)],
            plain_110,
        ),
    ]


def _kind_and_depth(net: str) -> tuple[str, int]:
    kind = "plain" if "plain" in net else "resnet"
    return kind, int(net.removeprefix(f"cifar_{kind}"))


def _along(errors: Errors, kind: str, depths: list[int]) -> Both:
    means = [f"{statistics.fmean(errors[kind, depth]):.1f}" for depth in depths]
    return Both(
        f"{', '.join(means)} % at {', '.join(map(str, depths))} layers",
        f"{'、'.join(map(str, depths))} 层：{'、'.join(means)} %",
    )


def _apart(one: int, other: int, by: Difference) -> Both:
    return Both(f"; {one} against {other} layers: {by} points", f"；{one} 层对 {other} 层：{by} 个百分点")


def _figure(groups: Groups, failed: int) -> Figure:
    depths = sorted({depth for _, depth in groups})
    panels = []
    for kind, word in KINDS.items():
        series = [
            _curve(f"{word}-{depth}", part, i, groups[kind, depth])
            for i, depth in enumerate(depths)
            for part in ("train", "test")
            if groups.get((kind, depth))
        ]
        if series:
            title = Both(f"{word} nets", {"plain": "普通网络", "resnet": "残差网络"}[kind])
            panels.append(Panel(title, "epoch", "error (%)", series, (0.0, 100.0)))
    return Figure(
        "curves",
        Both(
            "Training error (dashed) and test error (solid) by epoch, mean over seeds; bands reach from the lowest "
            "to the highest seed. The residual nets are the plain ones with shortcuts (as He 2015, Fig. 6).",
            "逐轮的训练误差（虚线）与测试误差（实线），各种子取平均；色带从最低种子到最高种子。"
            "残差网络即加了捷径的普通网络（如 He 2015 图 6）。",
        )
        + (Both(" Runs that failed are not in it.", "失败的运行不在其中。") if failed else ""),
        panels,
    )


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
    rows: list[list[Words]] = []
    for (kind, depth), group in sorted(groups.items()):
        on_paper = PRINTED.get(f"cifar_{kind}{depth}")
        rows.append(
            [
                f"{KINDS[kind]}-{depth}",
                mean_std(train[kind, depth]) if group else "–",
                mean_std(test[kind, depth]) if group else "–",
                f"{on_paper.error:.2f}" if on_paper and on_paper.error else "–",
                str(len(group)),
                f"{statistics.fmean(o.result['seconds'] for o in group):.0f}" if group else "–",
            ]
        )
    return Table(
        Both(
            "Errors after the last epoch, mean ± standard deviation over seeds, beside He 2015, Table 6 "
            "(CIFAR-10, 64,000 steps; plain nets are in its figures only).",
            "最后一轮后的误差，各种子的均值 ± 标准差，与 He 2015 表 6 对照"
            "（CIFAR-10，64,000 步；普通网络只见于其图中）。",
        ),
        [
            Both("network", "网络"),
            Both("training error (%)", "训练误差 (%)"),
            Both("test error (%)", "测试误差 (%)"),
            Both("paper, test (%)", "论文测试误差 (%)"),
            Both("seeds", "种子数"),
            Both("seconds a run", "每次秒数"),
        ],
        rows,
    )


def _words(train: Errors, test: Errors, missing: Missing) -> Both:
    high = max(depth for _, depth in train)
    if missing["plain", high] or missing["resnet", high]:
        return Both(
            "Runs of the deepest nets failed, so what becomes of errors with depth is left open.",
            "最深网络的运行失败，误差如何随深度变化仍无定论。",
        )
    seeds, residual = train["plain", high], f"{statistics.fmean(train['resnet', high]):.1f}"
    spread: Words = ""
    if len(seeds) > 1:
        ends = f"{min(seeds):.1f}", f"{max(seeds):.1f}"
        spread = Both(f" (its seeds range from {ends[0]} to {ends[1]} %)", f"（各种子从 {ends[0]} 到 {ends[1]} %）")
    gap = difference(test["plain", high], train["plain", high])
    beyond = f"{abs(gap.mean):.1f}"
    return (
        Both(
            f"The deepest plain net ends at {statistics.fmean(seeds):.1f} % error on the images it was trained on",
            f"最深的普通网络在其训练图像上最终误差为 {statistics.fmean(seeds):.1f} %",
        )
        + spread
        + Both(
            f", the residual net of the same depth and cost at {residual} %. The plain net's test error is {beyond} "
            f"points {'above' if gap.mean >= 0 else 'below'} its training error. ",
            f"，同深度、同代价的残差网络为 {residual} %。普通网络的测试误差比训练误差"
            f"{'高' if gap.mean >= 0 else '低'} {beyond} 个百分点。",
        )
        + _meaning(train, gap)
    )


def _meaning(train: Errors, gap: Difference) -> Both:
    """What the deepest plain net lacks, if it is worse than the residual one on the images it was trained on."""
    depth = max(depth for _, depth in train)
    behind = difference(train["plain", depth], train["resnet", depth]).mean
    if behind <= TOLERANCE:
        return Both(
            "It learns its training images about as well as the residual net, so here is no degradation to explain.",
            "它学习训练图像的程度与残差网络相当，此处没有退化需要解释。",
        )
    if behind > gap.mean:
        return Both(
            "More of its error is there on the training images than comes on top of it on the test images: what it "
            "lacks first is optimisation, not generalisation. The study says that this happens, not why.",
            "其误差大部分在训练图像上就已存在，测试图像上增加的较少：它首先缺的是优化，而不是泛化。"
            "本研究只说明这一现象，不解释原因。",
        )
    return Both(
        "It lacks both, optimisation and generalisation, and the second more.", "优化与泛化它都缺，而后者更甚。"
    )


STUDY = Study(
    name="degradation",
    title=Both("Deeper plain nets train worse; residual nets do not", "普通网络越深训练越差，残差网络则不然"),
    claim=Both(
        "Deeper plain nets have higher training error, so it is not overfitting; residual nets reverse it.",
        "更深的普通网络训练误差更高，因此不是过拟合；残差网络扭转了这一现象。",
    ),
    source="He et al. 2015, sections 1, 4.1 and 4.2; Figures 1, 4 and 6; Tables 2 and 6",
    method=Both(
        "Plain and residual nets of the same depth, width, cost and parameters (option A) are trained with the "
        "same recipe and seeds. Training error is that of the training batches over the last epoch, augmented if "
        "the recipe says so, as the papers plot it; test error is that of the last epoch, not of the best one.",
        "以同样的方案和种子训练深度、宽度、代价、参数量都相同的普通网络与残差网络（选项 A）。训练误差取最后一轮各训练"
        "批次的误差（若方案含增强则为增强后的图像），与论文作图一致；测试误差取最后一轮，而非最好的一轮。",
    ),
    rule=Both(
        "A difference between two means over seeds is reproduced if its 95 % interval (Welch's t) lies on the "
        "claim's side of the bound, a direction only if the mean does but the interval does not, else not reproduced. "
        f"The bound is 0, but for 'does not rise', which allows {TOLERANCE:g} point. The study's verdict is the "
        "weakest of its tested claims.",
        "两组种子均值之差的 95 % 置信区间（Welch t）若全在论断一侧则为已复现；若只有均值在论断一侧则为仅方向一致；"
        f"否则为未复现。界限为 0，唯“不上升”容许 {TOLERANCE:g} 个百分点。研究的判定取其所检验论断中最弱者。",
    ),
    plan=plan,
    judge=judge,
)
