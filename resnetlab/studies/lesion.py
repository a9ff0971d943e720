"""Lesion: a residual net hardly misses a unit that is deleted or moved; a plain net is lost without one.

Paper:    Veit, Wilber & Belongie 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks".
Claim:    residual nets behave like many paths of different lengths, of which the short ones carry the gradient.
Command:  resnetlab study run lesion --scale quick                 (the digits, about 3 minutes on 2 cores)
          resnetlab study run lesion --data cifar10:DIR --weights cifar_plain56=FILE --weights cifar_resnet56=FILE
Last result: not reproduced at the scale quick, for one claim of nine: units that change sizes are not missed more. One
          less costs residual-56 2.2 points and leaves plain-20 at chance; paths of 5 of 27 units carry the gradient
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.lesion import (
    error_of,
    errors_without_each,
    kendall_tau,
    random_deletion,
    random_swaps,
    same_sized,
)
from resnetlab.measuring.paths import mean_length
from resnetlab.studies.frame.claims import Row, interval
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Subject, Weights
from resnetlab.studies.frame.networks import EXPECTED, IMAGES, Net, Taken, checked_batch, net_of, networks, taken
from resnetlab.studies.frame.scales import WEIGHTS
from resnetlab.studies.frame.statistics import NOT_REPRODUCED, Verdict, difference, spread, weakest
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.studies.lesion_figures import figures, table
from resnetlab.studies.lesion_paths import THEORY, arithmetic, gradient

MEASURE = "resnetlab.studies.lesion:measure"
PATHS = "resnetlab.studies.lesion_paths:measure"
# Test images; those on which many units are deleted or moved; those of path gradients; draws of each.
SETTINGS = {
    "quick": {"images": 360, "fewer": 360, "few": 64, "draws": 5},
    "cifar": {"images": 2000, "fewer": 500, "few": 32, "draws": 4},
    "paper": {"images": 10000, "fewer": 1000, "few": 64, "draws": 5},
    WEIGHTS: {"images": 2000, "fewer": 500, "few": 32, "draws": 4},
}
BATCH = 100
STEPS = 6  # how many numbers of deleted units, and of swaps, are tried
BARELY = 5.0  # points that the error may rise by, on average, if one unit is deleted
LOST = 80.0  # %: the error from which a net of ten classes counts as near chance, 90 %
JUMP = 0.5  # share of the whole rise that no single step may reach if it is smooth


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Lesions of every net, and the paths of the residual ones."""
    recipes, blank = networks(scale, data, weights)
    s = SETTINGS[scale]
    lesions = {k: s[k] for k in ("images", "fewer", "draws")}
    paths = {"images": s["few"], "draws": s["draws"]}
    measurements = [replace(m, function=MEASURE, settings=lesions) for m in blank]
    measurements += [replace(m, function=PATHS, settings=paths) for m in blank if net_of(m).kind == "residual"]
    note = IMAGES[scale] + Both(
        f" Single units are deleted on the first {s['images']:,} test images, several and swapped ones on the first "
        f"{s['fewer']:,}, {s['draws']} random draws each; path gradients are those of the first {s['few']}. Plain "
        "nets stand in for VGG, which halves maps five times and has 134 million parameters: too large for these "
        "images.",
        f"删除单个单元用前 {s['images']:,} 张测试图像；删除多个与交换用前 {s['fewer']:,} 张，各随机抽取 {s['draws']} "
        f"次；路径梯度用前 {s['few']} 张。VGG 五次减半特征图、参数达 1.34 亿，不适合此类图像，故以普通网络代替。",
    )
    return Plan(tuple(recipes), EXPECTED[scale], note, tuple(measurements))


def measure(subject: Subject) -> dict[str, Any]:
    """Errors in %: intact, without each unit, with several random ones deleted, after random swaps."""
    net, s = subject.net, subject.settings
    if all(len(stage) < 2 for stage in same_sized(net)):
        raise UserError("no stage has two units that keep their maps' size: lesions need a deeper network.")
    x, labels = checked_batch(subject)
    every = list(zip(x.split(BATCH), labels.split(BATCH), strict=True))
    fewer = list(zip(x[: s["fewer"]].split(BATCH), labels[: s["fewer"]].split(BATCH), strict=True))
    movable = [i for stage in same_sized(net) for i in stage]
    draw = random.Random(subject.seed)
    deleted, swapped = [], []
    for step in range(STEPS + 1):
        count = round(step * len(movable) / STEPS)
        chosen = [random_deletion(net, count, draw) for _ in range(s["draws"] if 0 < count < len(movable) else 1)]
        deleted.append({"count": count, "errors": [error_of(net, fewer, deleted=units) for units in chosen]})
    for count in (0, *(2**step for step in range(STEPS))):
        orders = [random_swaps(net, count, draw) for _ in range(s["draws"] if count else 1)]
        errors = [error_of(net, fewer, order) for order in orders]
        swapped.append({"count": count, "taus": list(map(kendall_tau, orders)), "errors": errors})
    return {
        "same_size": [i in movable for i, _ in enumerate(net.units())],
        "intact": error_of(net, every),
        "without": errors_without_each(net, every),
        "deleted": deleted,
        "swapped": swapped,
    }


def judge(evidence: Evidence) -> Finding:
    """Compare what one deletion costs each kind of net; how errors grow with more; which paths carry gradient."""
    found, paths = taken(evidence, MEASURE), taken(evidence, PATHS)
    rows = [*_one_unit(found), *_several_units(found), arithmetic(), *gradient(paths)]
    return Finding(rows, figures(found, paths), [table(found, rise)], _words(), _answer(found, paths))


def rise(values: dict[str, Any], same_size: bool = True) -> float | None:
    """Points by which the error rises if one unit is deleted, mean over those that keep their size, or don't."""
    kept = zip(values["without"], values["same_size"], strict=True)
    rises = [error - values["intact"] for error, same in kept if error is not None and same is same_size]
    return statistics.fmean(rises) if rises else None


def _rises(found: Taken, net: Net, same_size: bool = True) -> list[float]:
    return [r for values in found.values[net] if (r := rise(values, same_size)) is not None]


def _one_unit(found: Taken) -> list[Row]:
    residual, plain, pairs = found.nets("residual")[-1:], found.nets("plain"), found.pairs()

    def barely() -> tuple[Words, Verdict]:
        rises = _rises(found, residual[0])
        words = Both(f"{residual[0]}: +{spread(rises)} points", f"{residual[0]}：+{spread(rises)} 个百分点")
        return words, difference(rises, [BARELY] * len(rises)).verdict_below(0)

    def lost() -> tuple[Words, Verdict]:
        errors = {net: [rise(v) + v["intact"] for v in found.values[net]] for net in plain}
        words = [f"{net}: {spread(e, 1)} %" for net, e in errors.items()]
        return "; ".join(words), weakest([difference(e, [LOST] * len(e)).verdict_above(0) for e in errors.values()])

    def less() -> tuple[Words, Verdict]:
        gaps = [(p, r, difference(_rises(found, p), _rises(found, r))) for p, r in pairs]
        words: list[Words] = [f"{p} − {r}: " + interval(gap, 1) for p, r, gap in gaps]
        return joined(words, "; "), weakest([gap.verdict_above(0) for _, _, gap in gaps])

    def changing() -> tuple[Words, Verdict]:
        same, other = _rises(found, residual[0]), _rises(found, residual[0], same_size=False)
        gap = difference(other, same)
        words = Both(
            f"+{spread(other)} points against +{spread(same)}: ",
            f"+{spread(other)} 对 +{spread(same)} 个百分点：",
        )
        return words + interval(gap), gap.verdict_above(0)

    measured = found.values[residual[0]] if residual else []
    all_alike = bool(measured) and all(all(values["same_size"]) for values in measured)
    return [
        found.row(
            Both("A residual net hardly misses one unit", "残差网络几乎不在乎少一个单元"),
            Both("no noticeable change, 110 layers (section 4.1)", "110 层时无明显变化（4.1 节）"),
            residual,
            barely,
        ),
        found.row(
            Both("A plain net without one unit is near chance", "普通网络少一个单元即近于随机猜测"),
            Both("VGG drops to chance (section 4.1)", "VGG 降至随机水平（4.1 节）"),
            plain,
            lost,
        ),
        found.row(
            Both("A unit less costs a residual net less than a plain one", "少一个单元，残差网络的损失小于普通网络"),
            Both("residual nets against VGG (section 4.1)", "残差网络对 VGG（4.1 节）"),
            [net for pair in pairs for net in pair],
            less,
        ),
        found.row(
            Both("Units that change sizes are missed more than others", "改变尺寸的单元缺失时影响更大"),
            Both("only the down-sampling units stand out (section 4.1)", "只有下采样单元突出（4.1 节）"),
            [] if all_alike else residual,
            changing,
        ),
    ]


def largest_step(values: dict[str, Any]) -> float | None:
    """The largest rise from one number of deleted units to the next, as a share of the whole; None if none."""
    means = [statistics.fmean(step["errors"]) for step in values["deleted"]]
    whole = means[-1] - means[0]
    return max(b - a for a, b in zip(means, means[1:], strict=False)) / whole if whole > 0 else None


def _tau_correlation(values: dict[str, Any]) -> float:
    """Pearson's correlation of Kendall's tau with the error, over all draws of swaps; 0 where either is constant."""
    pairs = [pair for step in values["swapped"] for pair in zip(step["taus"], step["errors"], strict=True)]
    taus, errors = zip(*pairs, strict=True)
    return statistics.correlation(taus, errors) if len(set(taus)) > 1 and len(set(errors)) > 1 else 0.0


def _several_units(found: Taken) -> list[Row]:
    residual, plain = found.nets("residual")[-1:], found.done("plain")[-1:]

    def over_seeds(of: Callable[[dict[str, Any]], float | None], net: Net) -> list[float]:
        return [value for values in found.values[net] if (value := of(values)) is not None]

    def smooth() -> tuple[Words, Verdict]:
        steps = over_seeds(largest_step, residual[0])
        if not steps:
            return Both("deleting units raises no error", "删除单元未使误差上升"), NOT_REPRODUCED
        words = Both(f"{residual[0]}: {spread(steps)}", f"{residual[0]}：{spread(steps)}")
        for net in plain:
            words += Both(f"; {net}: ", f"；{net}：") + (spread(s) if (s := over_seeds(largest_step, net)) else "–")
        return words, difference(steps, [JUMP] * len(steps)).verdict_below(0)

    def moved() -> tuple[Words, Verdict]:
        found_here = over_seeds(_tau_correlation, residual[0])
        words = Both(
            f"correlation of Kendall's τ and error: {spread(found_here)}", f"τ 与误差的相关：{spread(found_here)}"
        )
        return words, difference(found_here, [0.0] * len(found_here)).verdict_below(0)

    return [
        found.row(
            Both(
                "The error rises smoothly with the number of deleted units: the largest step, as a share of the "
                f"whole rise, is below {JUMP:g}",
                f"误差随删除的单元数平滑上升：最大一步占总升幅的比例低于 {JUMP:g}",
            ),
            Both("smooth (section 4.2)", "平滑（4.2 节）"),
            residual,
            smooth,
        ),
        found.row(
            Both("The more the units are permuted, the higher the error", "单元次序打乱得越多，误差越高"),
            Both("smooth in Kendall's τ (section 4.3)", "随 Kendall τ 平滑变化（4.3 节）"),
            residual,
            moved,
        ),
    ]


def _words() -> Both:
    return Both(
        "A small rise after one deletion says that the other units make up for it, not that the unit does nothing: "
        "deleting several adds up. Units of a plain net are removed whole where their sizes allow it, which leaves "
        "the next one with inputs that it never saw; that is the fair counterpart, and also why it fails. The "
        "gradient along a path is exact (all paths together sum up to the gradient), but lengths are sampled, and of "
        "one point in training: its end.",
        "删除一个单元后误差升幅小，说明其余单元足以弥补，而非该单元没有作用：删除多个时影响会累加。"
        "普通网络的单元在尺寸允许处整个移除，后一单元因而得到从未见过的输入；这是对等的做法，也正是其失效的原因。"
        "沿单条路径的梯度是精确的（所有路径之和即梯度），但各长度的路径为抽样所得，且只反映训练结束这一时刻。",
    )


def _answer(found: Taken, paths: Taken) -> Both:
    pairs = [pair for pair in found.pairs() if found.whole(*pair)]
    if not pairs:
        return Both(
            "Open: no plain and residual net of one depth were measured.",
            "尚无定论：没有测得同一深度的普通与残差网络。",
        )
    plain, residual = pairs[-1]
    costs = [statistics.fmean(_rises(found, net)) for net in (residual, plain)]
    intact = [statistics.fmean(v["intact"] for v in found.values[net]) for net in (residual, plain)]
    answer = Both(
        f"Deleting one unit raises the error of {residual} by {costs[0]:.1f} points on average (from {intact[0]:.1f} "
        f"%), that of {plain} by {costs[1]:.1f} (from {intact[1]:.1f} %).",
        f"删除一个单元，{residual} 的误差平均上升 {costs[0]:.1f} 个百分点（原为 {intact[0]:.1f} %），{plain} 上升 "
        f"{costs[1]:.1f}（原为 {intact[1]:.1f} %）。",
    )
    if not paths.whole(residual):
        return answer
    every = [values["norms"] for values in paths.values[residual]]
    length, units = statistics.fmean(map(mean_length, every)), len(every[0]) - 1
    shorter = length < units / 2
    return answer + Both(
        f" Its gradient comes from paths of {length:.1f} units on average, {'shorter' if shorter else 'no shorter'} "
        f"than most paths, which have about {units / 2:g} of {units}.",
        f"其梯度来自平均长 {length:.1f} 个单元的路径，{'短于' if shorter else '不短于'}多数路径（约 {units / 2:g}，共 "
        f"{units} 个单元）。",
    )


STUDY = Study(
    name="lesion",
    title=Both("Residual nets behave like many short paths", "残差网络如同许多短路径的集合"),
    claim=Both(
        "Residual nets behave like many paths of different lengths: they hardly miss single units, and short paths "
        "carry the gradient.",
        "残差网络如同许多长短不一的路径：几乎不在乎缺少个别单元，且梯度主要由短路径传递。",
    ),
    source="Veit, Wilber & Belongie 2016 (arXiv:1605.06431), sections 3 to 5",
    method=Both(
        "Single units of trained nets are deleted: a residual one keeps its shortcut (F = 0), a plain one is left out "
        "whole, except where it changes sizes. Then several random ones that keep their size, the same in both kinds, "
        "are deleted, and random pairs within a stage change places, with Kendall's τ for how much. Errors are those "
        "on test images. The gradient of the loss at the image is taken along random single paths of each length, "
        "through F in the units of the path and through the shortcut in the others.",
        "对训练好的网络删除单个单元：残差单元保留捷径（F = 0），普通单元整个移除（改变尺寸者除外）。"
        "再随机删除多个不改变尺寸的单元（两类网络相同），并在同一阶段内随机交换单元，以 Kendall τ 衡量打乱程度。"
        "误差均在测试图像上测得。损失对图像的梯度沿各种长度的随机单条路径求取：路径上的单元走 F，其余走捷径。",
    ),
    rule=Both(
        "Means over seeds, with 95 % intervals (Welch's t): reproduced if the interval lies on the claim's side of "
        "the bound, a direction only if the mean alone does, else not reproduced; over several nets the weakest "
        f"counts. 'Hardly' is a rise below {BARELY:g} points, mean over the units that keep their size; 'near chance' "
        f"an error above {LOST:g} %; 'smoothly' that no step among {STEPS} about equal ones makes {JUMP:g} of the "
        "whole rise; the other bounds are 0, and for the length of paths half the units. The deepest residual net "
        "counts.",
        "对各种子取均值及 95 % 区间（Welch t）：区间位于界限的论断一侧为复现，仅均值如此为仅方向一致，否则未复现；"
        f"多个网络取最弱者。“几乎不”指不改变尺寸的单元平均升幅低于 {BARELY:g} 个百分点；“近于随机”指误差高于 {LOST:g} "
        f"%；“平滑”指 {STEPS} 等步中没有一步达到总升幅的 {JUMP:g}；其余界限为 0，路径长度以单元数之半为界。"
        "以最深的残差网络为准。",
    ),
    plan=plan,
    judge=judge,
    takes_weights=True,
    theory=THEORY,
)
