"""How the study `depth` shows what it found: figures, tables and words."""

from __future__ import annotations

import statistics
from typing import Any

from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.costs import Cost, Costs, cost_table, milliseconds, quartiles, sentence_of_times
from resnetlab.studies.frame.statistics import mean_std
from resnetlab.studies.frame.text import Both, Words, joined

Errors = dict[int, list[float]]  # by depth: % of each seed
SMOOTHED = 8  # steps over which the error of batches is averaged for the eye


def figures(train: Errors, test: Errors, first: dict[str, list[dict[str, Any]]], costs: list[Costs]) -> list[Figure]:
    """Error by depth, first steps by step, and what a step costs by depth; without those that have no data."""
    found = []
    if any(train.values()):
        caption = Both(
            "Training error (dashed) and test error (solid) after the last epoch by depth; mean over seeds, bands "
            "reach from the lowest to the highest.",
            "末轮训练误差（虚线）与测试误差（实线）随深度的变化；各种子的均值，色带自最低至最高。",
        )
        series = [_by_depth("training", train), _by_depth("test", test)]
        panel = Panel(Both("Error by depth", "误差与深度"), "layers", "error (%)", series, x_log=True)
        found.append(Figure("errors", caption, [panel]))
    if any(first.values()):
        caption = Both(
            f"First steps of the deepest nets: the error of the batches, averaged over {SMOOTHED} steps; mean over "
            "seeds, bands reach from the lowest to the highest. Guessing is wrong for 90 %.",
            f"最深网络的最初各步：各批误差的 {SMOOTHED} 步平均；各种子的均值，色带自最低至最高。随机猜测错 90 %。",
        )
        series = [_steps(net, colour, found) for colour, (net, found) in enumerate(first.items()) if found]
        panel = Panel(Both("First steps", "最初各步"), "step", "training error (%)", series, (0.0, 100.0))
        found.append(Figure("first-steps", caption, [panel]))
    for nets in costs:
        caption = Both(
            "What a training step costs per image, by depth. Bars hold the middle half of the rounds; on the "
            "dashed lines cost would be in proportion to multiply-adds, from the shallowest net on.",
            "一步训练每张图像的代价与深度。竖线为中间一半轮次；虚线表示自最浅网络起代价与乘加次数成正比。",
        )
        found.append(Figure("costs", caption, _cost_panels(nets)))
    return found


def _by_depth(part: str, errors: Errors) -> Series:
    known = {depth: values for depth, values in errors.items() if values}
    return Series(
        f"ResNet {part}",
        part == "training",
        0,
        [float(depth) for depth in known],
        [round(statistics.fmean(values), 4) for values in known.values()],
        [round(min(values), 4) for values in known.values()],
        [round(max(values), 4) for values in known.values()],
    )


def _steps(net: str, colour: int, found: list[dict[str, Any]]) -> Series:
    runs = []
    for values in found:
        errors = values["errors"]
        width = min(SMOOTHED, len(errors))
        runs.append([statistics.fmean(errors[i - width : i]) for i in range(width, len(errors) + 1)])
    by_step = list(zip(*runs, strict=True))
    last = len(found[0]["errors"])
    return Series(
        net,
        False,
        colour,
        [float(last - len(by_step) + 1 + i) for i in range(len(by_step))],
        [round(statistics.fmean(step), 4) for step in by_step],
        [round(min(step), 4) for step in by_step],
        [round(max(step), 4) for step in by_step],
    )


def _time_per_image(cost: Cost) -> float:
    return milliseconds(cost) / cost["batch"]


def _cost_panels(nets: Costs) -> list[Panel]:
    costs = list(nets.values())
    depths = [float(c["depth"]) for c in costs]
    growth = [c["multiply_adds"] / costs[0]["multiply_adds"] for c in costs]

    def panel(title: Both, label: str, y_label: str, low: list[float], middle: list[float], high: list[float]) -> Panel:
        line = [round(middle[0] * g, 4) for g in growth]
        series = [
            Series("in proportion", True, 0, depths, line, line, line),
            Series(label, False, 1, depths, middle, low, high, marks=True),
        ]
        return Panel(title, "layers", y_label, series, x_log=True, y_log=True)

    low, high = ([round(quartiles(c)[end] / c["batch"], 4) for c in costs] for end in (0, 1))
    middle = [round(_time_per_image(c), 4) for c in costs]
    kept = [round(c["training_bytes"] / 2**20, 4) for c in costs]
    return [
        panel(Both("Time of a step", "一步的时间"), "time", "time per image (ms)", low, middle, high),
        panel(Both("Activations kept", "保留的激活"), "activations", "memory per image (MiB)", kept, kept, kept),
    ]


def error_table(train: Errors, test: Errors, on_paper: dict[int, float | None]) -> Table:
    """A row for each depth, beside what the paper prints."""
    return Table(
        Both(
            "Errors after the last epoch, mean ± standard deviation over seeds, beside He 2015, Table 6 (CIFAR-10).",
            "末轮误差，各种子的均值 ± 标准差；并列 He 2015 表 6（CIFAR-10）。",
        ),
        [
            Both("layers", "层数"),
            Both("training error (%)", "训练误差（%）"),
            Both("test error (%)", "测试误差（%）"),
            Both("paper, test (%)", "论文，测试（%）"),
            Both("seeds", "种子"),
        ],
        [
            [
                f"{depth:,}",
                mean_std(errors) if errors else "–",
                mean_std(test[depth]) if errors else "–",
                f"{on_paper[depth]:.2f}" if on_paper.get(depth) else "–",
                str(len(errors)),
            ]
            for depth, errors in train.items()
        ],
    )


def costs_of(nets: Costs) -> Table:
    """What each depth costs, counted and timed."""
    batch = next(iter(nets.values()))["batch"]
    caption = Both(
        f"Counted on the modules, per image of 32x32; the time of a training step of {batch} images.",
        f"由模块计数，按每张 32x32 图像；时间为 {batch} 张图像的一步训练。",
    )
    return cost_table(caption, nets, Both("network", "网络"))


def words(costs: list[Costs]) -> Words:
    """How time and memory grow with depth."""
    if not costs:
        return ""
    first, *_, last = costs[0].values()
    adds, kept = (last[key] / first[key] for key in ("multiply_adds", "training_bytes"))
    clock = _time_per_image(last) / _time_per_image(first)
    counted = Both(
        f"From {first['depth']} to {last['depth']:,} layers multiply-adds grow {adds:.1f} times and activations "
        f"{kept:.1f} times.",
        f"从 {first['depth']} 层到 {last['depth']:,} 层，乘加增至 {adds:.1f} 倍，激活增至 {kept:.1f} 倍。",
    )
    timed = Both(f"The time of a step grows {clock:.1f} times (medians).", f"一步的时间增至 {clock:.1f} 倍（中位数）。")
    return joined([counted, sentence_of_times(costs[0], timed)])


def answer(train: Errors, test: Errors, started: dict[str, list[float]]) -> Words:
    """What the deepest nets reached: those that ran, and those that took first steps (their last errors, in %)."""
    parts: list[Words] = []
    deepest = max((depth for depth, errors in train.items() if errors), default=0)
    if deepest:
        parts.append(
            Both(
                f"{deepest:,} layers end at {mean_std(train[deepest])} % training and {mean_std(test[deepest])} % test "
                "error.",
                f"{deepest:,} 层的训练误差为 {mean_std(train[deepest])} %，测试误差为 {mean_std(test[deepest])} %。",
            )
        )
    parts += [
        Both(
            f"In its first steps {net} comes to {mean_std(errors)} % training error; guessing gives 90 %.",
            f"{net} 在最初各步达到 {mean_std(errors)} % 的训练误差；随机猜测为 90 %。",
        )
        for net, errors in started.items()
    ]
    return joined(parts)
