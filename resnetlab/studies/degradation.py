"""Degradation: deeper plain nets have higher training error; residual nets reverse it.

Paper:    He et al. 2015, sections 1, 4.1 and 4.2; Figures 1, 4, 6; Tables 2 and 6.
Claim:    with depth, plain nets get worse on the training images themselves, so it is not overfitting;
          the same nets with shortcuts do not.
Command:  resnetlab study run degradation --scale quick            (the digits, about 3 minutes on 2 cores)
          resnetlab study run degradation --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run degradation --scale paper --data cifar10:DIR     (days on one GPU)
Last result: reproduced at the scale quick (results/degradation-quick.json): plain-56 ends at 59.2 % training error,
          residual-56 at 0.0 %
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from resnetlab.measuring.printed import PRINTED
from resnetlab.studies.measurement import Weights
from resnetlab.studies.scales import base, for_depth
from resnetlab.studies.statistics import Difference, difference, mean_std
from resnetlab.studies.study import (
    NOT_TESTED,
    Evidence,
    Figure,
    Finding,
    Outcome,
    Panel,
    Plan,
    Row,
    Series,
    Study,
    Table,
    judged_row,
)
from resnetlab.studies.words import Both, Words
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
    return Finding(rows, figures, [_table(groups, train, test)], _words(train, test, missing))


def _rows(scale: str, train: Errors, test: Errors, missing: Missing) -> list[Row]:
    depths = sorted({depth for _, depth in train})
    low, high = depths[0], depths[-1]
    plain, residual = ([(kind, depth) for depth in depths] for kind in KINDS)
    deepest = [("plain", high), ("resnet", high)]

    def row(claim: str, paper: str, needs: list[tuple[str, int]], measure: Callable[[], tuple[str, str]]) -> Row:
        return judged_row(claim, paper, [train[n] for n in needs], [missing[n] for n in needs], measure)

    def rise_of_plain() -> tuple[str, str]:
        rise = difference(train["plain", high], train["plain", low])
        words = f"{_along(train, 'plain', depths)}; {high} against {low} layers: {rise} points"
        return words, rise.verdict_above(0)

    def rise_of_residual() -> tuple[str, str]:
        rise = difference(train["resnet", high], train["resnet", low])
        words = f"{_along(train, 'resnet', depths)}; {high} against {low} layers: {rise} points"
        return words, rise.verdict_below(TOLERANCE)

    def gain_in_training() -> tuple[str, str]:
        gain = difference(train["plain", high], train["resnet", high])
        return f"plain − residual: {gain} points", gain.verdict_above(0)

    def gain_in_test() -> tuple[str, str]:
        plain, residual = test["plain", high], test["resnet", high]
        gain = difference(plain, residual)
        words = f"plain {mean_std(plain)} %, residual {mean_std(residual)} %; plain − residual: {gain} points"
        return words, gain.verdict_above(0)

    def fall_in_test() -> tuple[str, str]:
        fall = difference(test["resnet", low], test["resnet", high])
        words = f"{_along(test, 'resnet', depths)}; {low} against {high} layers: {fall} points"
        return words, NOT_TESTED if scale == "quick" else fall.verdict_above(0)

    def plain_110() -> tuple[str, str]:
        errors = test.get(("plain", 110), [])
        if not errors:
            return "no net of 110 layers at this scale", NOT_TESTED
        above = difference(errors, [FAIL] * len(errors)).verdict_above(0)
        return f"{mean_std(errors)} %", above if scale == "paper" else NOT_TESTED

    return [
        row(
            "The training error of plain nets rises with depth, so it is not overfitting",
            "plain-20 < 32 < 44 < 56 (Fig. 6, left)",
            plain,
            rise_of_plain,
        ),
        row(
            "The training error of residual nets does not rise with depth",
            "ResNet-20 > 32 > 44 > 56 > 110 (Fig. 6, middle)",
            residual,
            rise_of_residual,
        ),
        row(
            f"With {high} layers the residual net has the lower training error",
            "34 layers on ImageNet (Fig. 4); 56 on CIFAR-10 (Fig. 6)",
            deepest,
            gain_in_training,
        ),
        row(
            f"With {high} layers the residual net has the lower test error",
            "34 layers on ImageNet: 28.54 against 25.03 % (Table 2)",
            deepest,
            gain_in_test,
        ),
        row(
            "The test error of residual nets falls with depth",
            "8.75, 7.51, 7.17, 6.97, 6.43 % for 20 to 110 layers (Table 6)",
            residual,
            fall_in_test,
        ),
        row(
            "plain-110 does not train: its error is above 60 %",
            "above 60 % (section 4.2)",
            [key for key in plain if key == ("plain", 110)],
            plain_110,
        ),
    ]


def _kind_and_depth(net: str) -> tuple[str, int]:
    kind = "plain" if "plain" in net else "resnet"
    return kind, int(net.removeprefix(f"cifar_{kind}"))


def _along(errors: Errors, kind: str, depths: list[int]) -> str:
    means = [f"{statistics.fmean(errors[kind, depth]):.1f}" for depth in depths]
    return f"{', '.join(means)} % at {', '.join(map(str, depths))} layers"


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
            panels.append(Panel(f"{word} nets", "epoch", "error (%)", series, (0.0, 100.0)))
    return Figure(
        "curves",
        "Training error (dashed) and test error (solid) by epoch, mean over seeds; bands reach from the lowest "
        "to the highest seed. The residual nets are the plain ones with shortcuts (as He 2015, Fig. 6)."
        + (" Runs that failed are not in it." if failed else ""),
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
    rows = []
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
        "Errors after the last epoch, mean ± standard deviation over seeds, beside He 2015, Table 6 "
        "(CIFAR-10, 64,000 steps; plain nets are in its figures only).",
        ["network", "training error (%)", "test error (%)", "paper, test (%)", "seeds", "seconds a run"],
        rows,
    )


def _words(train: Errors, test: Errors, missing: Missing) -> str:
    high = max(depth for _, depth in train)
    if missing["plain", high] or missing["resnet", high]:
        return "Runs of the deepest nets failed, so what becomes of errors with depth is left open."
    seeds = train["plain", high]
    spread = f" (its seeds range from {min(seeds):.1f} to {max(seeds):.1f} %)" if len(seeds) > 1 else ""
    gap = difference(test["plain", high], train["plain", high])
    return (
        f"The deepest plain net ends at {statistics.fmean(seeds):.1f} % error on the images it was trained on{spread}, "
        f"the residual net of the same depth and cost at {statistics.fmean(train['resnet', high]):.1f} %. "
        f"The plain net's test error is {_beyond(gap)} its training error. {_meaning(train, gap)}"
    )


def _meaning(train: Errors, gap: Difference) -> str:
    """What the deepest plain net lacks, if it is worse than the residual one on the images it was trained on."""
    depth = max(depth for _, depth in train)
    behind = difference(train["plain", depth], train["resnet", depth]).mean
    if behind <= TOLERANCE:
        return "It learns its training images about as well as the residual net, so here is no degradation to explain."
    if behind > gap.mean:
        return (
            "More of its error is there on the training images than comes on top of it on the test images: what it "
            "lacks first is optimisation, not generalisation. The study says that this happens, not why."
        )
    return "It lacks both, optimisation and generalisation, and the second more."


def _beyond(gap: Difference) -> str:
    return f"{abs(gap.mean):.1f} points {'above' if gap.mean >= 0 else 'below'}"


STUDY = Study(
    name="degradation",
    title="Deeper plain nets train worse; residual nets do not",
    claim="Deeper plain nets have higher training error, so it is not overfitting; residual nets reverse it.",
    source="He et al. 2015, sections 1, 4.1 and 4.2; Figures 1, 4 and 6; Tables 2 and 6",
    method="Plain and residual nets of the same depth, width, cost and parameters (option A) are trained with the "
    "same recipe and seeds. Training error is that of the training batches over the last epoch, augmented if "
    "the recipe says so, as the papers plot it; test error is that of the last epoch, not of the best one.",
    rule="A difference between two means over seeds is reproduced if its 95 % interval (Welch's t) lies on the "
    "claim's side of the bound, a direction only if the mean does but the interval does not, else not reproduced. "
    f"The bound is 0, but for 'does not rise', which allows {TOLERANCE:g} point. The study's verdict is the "
    "weakest of its tested claims.",
    plan=plan,
    judge=judge,
)
