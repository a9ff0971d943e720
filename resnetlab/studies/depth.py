"""Depth: 110, 152 and 1,202 layers train; what they reach, and what a layer more costs.

Paper:    He et al. 2015, sections 4.1 and 4.2 ("Exploring over 1000 layers"), Table 6, Figure 6.
Claim:    residual nets of 110, 152 and 1,202 layers train without difficulty; 1,202 layers reach less than 0.1 %
          training error, but a higher test error than 110.
Command:  resnetlab study run depth --scale quick            (the digits, about 5 minutes on 2 cores)
          resnetlab study run depth --scale cifar --data cifar10:DIR     (a night on 2 cores)
          resnetlab study run depth --scale paper --data cifar10:DIR     (a week on one GPU)
Last result: not reproduced at the scale quick: 1,202 layers come to 46 % training error in 40 steps, 152 layers to
          71 % in 28; but of three seeds of 110 layers one ends at 79 % (0.2, 0.8 and 79.3 %), as the paper found that
          0.1 is slightly too large a rate to start them
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as tf

from resnetlab.data.loading import Batch
from resnetlab.measuring.printed import PRINTED
from resnetlab.nets.zoo import build
from resnetlab.studies import depth_views as views
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.costs import measure_networks, measured_by
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights, named
from resnetlab.studies.frame.scales import base, for_depth
from resnetlab.studies.frame.statistics import NOT_TESTED, Verdict, difference, mean_std
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import Stepper, make_optimiser

DEEPEST = 1202
FIRST_1202, FIRST_152 = f"cifar_resnet{DEEPEST}", "resnet152_v1"
STARTED = 80.0  # % training error: below it the paper takes the training of 110 layers to have begun (section 4.2)
LAST = 4  # of the first steps, the last quarter counts
FITTED = 0.1  # % training error that 1,202 layers stay below in the paper
TOLERANCE = 1.0  # points by which 110 layers' training error may be above 56 layers'


@dataclass(frozen=True)
class _Scale:
    depths: tuple[int, ...]  # of the runs
    seeds: dict[int, int]  # of depths that have others than `usual`
    usual: int
    first: dict[str, int]  # nets too deep for the scale, and how many first steps they take
    batch: int  # images of a timed step
    rounds: int
    expected: Words
    note: Words


_SCALES = {
    "quick": _Scale(
        depths=(8, 20, 56, 110),
        seeds={110: 3},
        usual=5,
        first={FIRST_1202: 40, FIRST_152: 28},
        batch=2,
        rounds=7,
        expected=Both("about 5 minutes on 2 cores, once degradation has run", "在 degradation 之后，双核约 5 分钟"),
        note=Both(
            "110 layers are trained in full, with three seeds. 1,202 and 152 layers take 40 and 28 steps, with three "
            "seeds: they show whether learning starts, not where it ends.",
            "110 层完整训练，三个随机种子。1,202 层与 152 层只训练 40 步与 28 步，三个随机种子："
            "它表明学习是否开始，而非最终结果。",
        ),
    ),
    "cifar": _Scale(
        depths=(20, 56, 110),
        seeds={110: 1},
        usual=3,
        first={FIRST_1202: 200, FIRST_152: 200},
        batch=2,
        rounds=15,
        expected=Both("a night on 2 cores, once degradation has run", "在 degradation 之后，双核一夜"),
        note=Both(
            "10 epochs instead of the paper's 164, and one seed of 110 layers; 1,202 and 152 layers take 200 steps.",
            "训练 10 轮而非论文的 164 轮，110 层只有一个种子；1,202 层与 152 层只训练最初 200 步。",
        ),
    ),
    "paper": _Scale(
        depths=(20, 32, 44, 56, 110, DEEPEST),
        seeds={DEEPEST: 3},
        usual=5,
        first={FIRST_152: 200},
        batch=16,
        rounds=25,
        expected=Both("a week on one GPU", "单块 GPU 一周"),
        note=Both(
            "The published recipe: 64,000 steps, from 110 layers on with a warm-up; three seeds of 1,202 layers. 152 "
            "layers, which the paper trains on ImageNet, take 200 steps.",
            "论文原方案：64,000 步，110 层起带预热；1,202 层三个种子。152 层在论文中于 ImageNet 训练，"
            "此处只训练 200 步。",
        ),
    ),
}
TIMED = (20, 56, 110, 302, DEEPEST)
# Of what takes first steps: the rate that its large first gradients allow (the best of 0.0003 to 0.01, tried on the
# digits with seed 0), and the side that images are brought to.
_FIRST: dict[str, dict[str, Any]] = {
    FIRST_1202: {"lr": 0.001, "size": None},
    FIRST_152: {"lr": 0.003, "size": 32},
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Runs by depth and seed; first steps of the nets that are too deep for the scale; costs by depth."""
    s, recipe = _SCALES[scale], base(scale, data)
    recipes = tuple(
        for_depth(recipe.override(net=f"cifar_resnet{depth}", seed=seed), depth)
        for depth in s.depths
        for seed in range(s.seeds.get(depth, s.usual))
    )
    first = [
        Measurement(
            f"{__name__}:measure_first_steps",
            {"net": net, "steps": steps, "batch": 32, **_FIRST[net]},
            data=recipe.data,
            seed=seed,
        )
        for net, steps in s.first.items()
        for seed in range(3)
    ]
    nets = {"nets": [f"cifar_resnet{depth}" for depth in TIMED], "batch": s.batch, "rounds": s.rounds, "training": True}
    return Plan(
        recipes,
        s.expected,
        s.note,
        (*first, Measurement(named(measure_networks), nets, alone=True)),
    )


def measure_first_steps(subject: Subject) -> dict[str, Any]:
    """Train the net of the settings for some steps; each batch's loss (None if not finite) and error in %.

    Settings: net, steps, batch, lr (constant), and size, the side in pixels that images are brought to, or None.
    """
    s = subject.settings
    images, labels = subject.batch(5_000, "train")
    recipe = Recipe(net=s["net"], lr=s["lr"], batch_size=s["batch"], schedule="constant", seed=subject.seed)
    net = build(s["net"], seed=subject.seed, in_channels=images.shape[1], num_classes=len(subject.data.classes))
    net.to(subject.device).train()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    step = Stepper(net, make_optimiser(net, recipe), recipe, subject.device)
    draws = torch.Generator().manual_seed(subject.seed)
    losses, errors = [], []
    for _ in range(s["steps"]):
        chosen = torch.randperm(len(images), generator=draws)[: s["batch"]].to(subject.device)
        x = images[chosen]  # N C H W
        if s["size"]:
            x = tf.interpolate(x, size=s["size"], mode="bilinear")
        result = step(Batch(x.contiguous(memory_format=torch.channels_last), labels[chosen], None), recipe.lr)
        loss = float(result.loss) / len(chosen)
        losses.append(loss if math.isfinite(loss) else None)
        errors.append(100 * int(result.wrong) / len(chosen))
    return {"losses": losses, "errors": errors}


Errors = dict[int, list[float]]  # by depth: % of each seed


def judge(evidence: Evidence) -> Finding:
    """Compare errors by depth over seeds; show costs by depth."""
    failed = [r for r in evidence.failed if isinstance(r, Recipe)]
    depths = sorted({_depth(r.net) for r in (*(o.recipe for o in evidence.outcomes), *failed)})
    train: Errors = {d: [] for d in depths}
    test: Errors = {d: [] for d in depths}
    for o in evidence.outcomes:
        train[_depth(o.recipe.net)].append(o.result["train_error"])
        test[_depth(o.recipe.net)].append(o.result["test_error"])
    lost = {d: [r for r in failed if _depth(r.net) == d] for d in depths}
    first = {net: _first_steps(evidence, net) for net in _FIRST}
    costs, _ = measured_by(evidence, "measure_networks")
    rows = [*_run_rows(train, test, lost), *_first_rows(evidence)]
    on_paper = {d: PRINTED[f"cifar_resnet{d}"].error for d in depths if f"cifar_resnet{d}" in PRINTED}
    return Finding(
        rows,
        views.figures(train, test, first, costs),
        [*([views.error_table(train, test, on_paper)] if train else []), *map(views.costs_of, costs)],
        views.words(costs),
        views.answer(train, test, {net: [_end(v) for v in values] for net, values in first.items() if values}),
    )


def _depth(net: str) -> int:
    return int(net.removeprefix("cifar_resnet"))


def _first_steps(evidence: Evidence, net: str) -> list[dict[str, Any]]:
    return [m.values for m in evidence.measured if m.measurement.settings.get("net") == net]


def _end(values: dict[str, Any]) -> float:
    """The training error in % over the last quarter of the first steps."""
    errors = values["errors"]
    return statistics.fmean(errors[-max(1, len(errors) // LAST) :])


def _below(errors: Sequence[float], bound: float) -> Verdict:
    """Whether the mean over seeds lies below a bound."""
    return difference(errors, [bound] * len(errors)).verdict_below(0)


def _run_rows(train: Errors, test: Errors, lost: dict[int, list[Recipe]]) -> list[Row]:
    def as_well() -> tuple[Words, Verdict]:
        rise = difference(train[110], train[56])
        words = Both(
            f"{mean_std(train[110])} % training error; 110 against 56 layers: {rise} points",
            f"训练误差 {mean_std(train[110])} %；110 层对 56 层：{rise} 个百分点",
        )
        return words, rise.verdict_below(TOLERANCE)

    def fitted() -> tuple[Words, Verdict]:
        return f"{mean_std(train[DEEPEST])} %", _below(train[DEEPEST], FITTED)

    def overfitted() -> tuple[Words, Verdict]:
        rise = difference(test[DEEPEST], test[110])
        words = Both(
            f"{mean_std(test[110])} % with 110, {mean_std(test[DEEPEST])} % with 1,202: {rise} points",
            f"110 层 {mean_std(test[110])} %，1,202 层 {mean_std(test[DEEPEST])} %：{rise} 个百分点",
        )
        return words, rise.verdict_above(0)

    def row(claim: Words, paper: Words, needed: tuple[int, ...], measure: Any) -> Row:
        if not all(d in train for d in needed):
            return Row(claim, paper, Both("no such runs at this scale", "此规模无此运行"), NOT_TESTED)
        return judged_row(claim, paper, [train[d] for d in needed], [lost[d] for d in needed], measure)

    return [
        row(
            Both(
                f"110 layers train as well as 56: training error at most {TOLERANCE:g} point above",
                f"110 层与 56 层训练得同样好：训练误差至多高 {TOLERANCE:g} 个百分点",
            ),
            Both("lower than 56 (Fig. 6, middle)", "低于 56 层（图 6 中）"),
            (56, 110),
            as_well,
        ),
        row(
            Both(f"1,202 layers reach a training error below {FITTED:g} %", f"1,202 层的训练误差低于 {FITTED:g} %"),
            Both("below 0.1 % (section 4.2)", "低于 0.1 %（4.2 节）"),
            (DEEPEST,),
            fitted,
        ),
        row(
            Both("Their test error is above that of 110 layers", "其测试误差高于 110 层"),
            Both("7.93 against 6.43 % (Table 6): overfitting", "7.93 对 6.43 %（表 6）：过拟合"),
            (110, DEEPEST),
            overfitted,
        ),
    ]


def _first_rows(evidence: Evidence) -> list[Row]:
    """That the nets that only took their first steps start to train."""
    rows = []
    for net, (claim, paper) in _STARTS.items():
        found = _first_steps(evidence, net)
        failed = [m for m in evidence.failed if isinstance(m, Measurement) and m.settings.get("net") == net]
        if found or failed:
            rows.append(judged_row(claim, paper, [found], [failed], partial(_started, found)))
    return rows


def _started(found: list[dict[str, Any]]) -> tuple[Words, Verdict]:
    ends, steps = [_end(values) for values in found], len(found[0]["errors"])
    words = Both(
        f"{mean_std(ends)} % over the last quarter of {steps} steps", f"{steps} 步的后四分之一为 {mean_std(ends)} %"
    )
    return words, _below(ends, STARTED)


_STARTS: dict[str, tuple[Words, Words]] = {
    FIRST_1202: (
        Both(f"1,202 layers start to train: error below {STARTED:g} %", f"1,202 层开始学习：误差低于 {STARTED:g} %"),
        Both("“no optimization difficulty” (section 4.2)", "“没有优化困难”（4.2 节）"),
    ),
    FIRST_152: (
        Both(f"152 layers start to train: error below {STARTED:g} %", f"152 层开始学习：误差低于 {STARTED:g} %"),
        Both("trained on ImageNet: 21.43 % top-1 error (Table 3)", "在 ImageNet 上训练：top-1 误差 21.43 %（表 3）"),
    ),
}

STUDY = Study(
    name="depth",
    title=Both("How deep a residual net can be", "残差网络可以有多深"),
    claim=Both("Residual nets of 152 and of 1,202 layers train.", "152 层与 1,202 层的残差网络可以训练。"),
    source="He et al. 2015, sections 4.1 and 4.2 (Exploring over 1000 layers), Table 6, Figure 6",
    method=Both(
        "Residual nets (option A) of rising depth are trained with one recipe. Nets too deep for the scale take their "
        "first steps only, at a constant rate on batches of 32; 152 layers are ImageNet's net on images enlarged to 32 "
        "pixels. Parameters, multiply-adds and what a step keeps for its backward pass are counted on the modules; a "
        "step is timed on random images of 32x32, all depths in turn in one process.",
        "以同一方案训练深度递增的残差网络（选项 A）。对该规模而言过深的网络只训练最初若干步，学习率恒定，批量 32；"
        "152 层为 ImageNet 网络，图像放大到 32 像素。参数、乘加及一步为反向所保留者由模块计数；"
        "一步的时间在 32x32 随机图像上测得，各深度在同一进程中轮流进行。",
    ),
    rule=Both(
        "A mean over seeds, or a difference of two, is reproduced if its 95 % interval (t, Welch's for two) lies on "
        "the claim's side of the bound, a direction only if the mean does but the interval does not, else not. The "
        f"bound for 'as well' is {TOLERANCE:g} point, for 'start to train' {STARTED:g} %, where guessing is wrong for "
        "90 %; it is the mark that the paper uses. The study's verdict is the weakest of its tested claims.",
        "种子均值或两均值之差的 95 % 区间（t；两组时为 Welch）落在论断一侧则为复现，仅均值如此则只是方向，"
        "否则为未复现。"
        f"“同样好”的界限为 {TOLERANCE:g} 个百分点；“开始学习”为 {STARTED:g} %，即论文所用的标志，而随机猜测错 90 %。"
        "研究的判定取所检验论断中最弱者。",
    ),
    plan=plan,
    judge=judge,
)
