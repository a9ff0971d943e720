"""Bottleneck: 1x1 convolutions cut the cost of a unit, so that 152 layers cost less than VGG's 19.

Paper:    He et al. 2015, section 4.1 ("Deeper bottleneck architectures"), Figure 5, Table 1.
Claim:    two 3x3 convolutions on 256 channels have 1,179,648 weights, the bottleneck in their place 69,632; it costs
          about what a pair on 64 channels does; a projection in place of the identity doubles it; and 152 layers of
          such units need fewer multiply-adds than VGG-16 and VGG-19.
Command:  resnetlab study run bottleneck --scale quick      (a minute; other scales differ in rounds and batch only)
Last result: reproduced at the scale quick: every count is as claimed; a step of the pair on 256 channels takes 7.1
          times as long as the bottleneck's, VGG-19's 1.29 times ResNet-152's, and the bottleneck's 1.39 [1.36, 1.42]
          times that of the pair on 64
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from resnetlab.measuring.cost import interleaved_under_load, training_step, unit_cost
from resnetlab.measuring.printed import PRINTED
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec, StageSpec
from resnetlab.nets.zoo import build
from resnetlab.studies.figures.figure import Figure
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.costs import (
    BUSY_RULE,
    Costs,
    Measure,
    cost_table,
    exact,
    if_quiet,
    measure_networks,
    measured_by,
    sentence_of_times,
    time_panel,
    times,
)
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Subject, Weights, named
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.statistics import Verdict
from resnetlab.studies.frame.study import Finding, Plan, Study
from resnetlab.studies.frame.text import Both, Words, joined

MAP = 56  # pixels: the maps of Figure 5 are those of conv2_x


def _stage(channels: int, width: int, **changes: Any) -> NetSpec:
    return NetSpec(stages=(StageSpec(1, width),), stem_width=channels, input_size=MAP, **changes)


# The units that are compared, each as a network whose stage is made of it.
UNITS: dict[str, NetSpec] = {
    "pair-256": _stage(256, 256),
    "pair-64": _stage(64, 64),
    "bottleneck": _stage(256, 64, branch="bottleneck"),
    "with projection": _stage(256, 64, branch="bottleneck", shortcut="C"),
}
NETS = ("resnet152_v1", "vgg16", "vgg19")
WEIGHTS = {"pair-256": 1_179_648, "pair-64": 73_728, "bottleneck": 69_632, "with projection": 135_168}
SIMILAR = 1.1  # factor within which multiply-adds are called similar
SIMILAR_TIME = 1.5  # and times: units of other shapes are not equally fast per multiply-add
DOUBLED = (1.9, 2.1)

# (images a step of the units, their rounds, rounds of the networks)
_SCALES = {"quick": (1, 15, 9), "cifar": (8, 25, 15), "paper": (32, 51, 25)}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Nothing is trained: units and networks are counted, and timed alone."""
    base(scale, data)  # refuses data that the scale doesn't take
    batch, unit_rounds, net_rounds = _SCALES[scale]
    nets = {"nets": list(NETS), "batch": 1, "rounds": net_rounds, "training": False}
    return Plan(
        (),
        Both("about a minute", "约一分钟"),
        Both(
            f"Nothing is trained. Times are this machine's: a training step of a unit with {batch} images, a forward "
            "pass of a network with one.",
            f"不涉及训练。时间属于本机：单元为每步 {batch} 张图像的训练，网络为一张图像的前向。",
        ),
        (
            Measurement(f"{__name__}:measure_units", {"batch": batch, "rounds": unit_rounds}, alone=True),
            Measurement(named(measure_networks), nets, alone=True),
        ),
    )


def measure_units(subject: Subject) -> Costs:
    """Exact counts of each unit, and seconds of its training step (the input's gradient too), taken in turn."""
    steps = []
    for spec in UNITS.values():
        net = build(spec, seed=subject.seed)
        assert isinstance(net, ResNet)
        *_, (_, unit) = net.units()
        generator = torch.Generator().manual_seed(subject.seed)
        x = torch.randn(subject.settings["batch"], unit.in_channels, MAP, MAP, generator=generator)
        steps.append(training_step(unit.to(subject.device), x.to(subject.device).requires_grad_()))
    taken, load = interleaved_under_load(steps, subject.settings["rounds"], subject.device)
    return {
        name: asdict(unit_cost(spec)) | {"seconds": seconds, "load": load.to_dict()}
        for (name, spec), seconds in zip(UNITS.items(), taken, strict=True)
    }


Judged = tuple[Words, Words, Measure]  # claim and paper's words before it


def judge(evidence: Evidence) -> Finding:
    """Compare counts exactly, and times by their ratio within one run."""
    units, failed_units = measured_by(evidence, "measure_units")
    nets, failed_nets = measured_by(evidence, "measure_networks")
    rows = [*_judged(_OF_UNITS, units, failed_units), *_judged(_OF_NETS, nets, failed_nets)]
    panels = [time_panel(Both("Training step of a unit", "单元的一步训练"), costs, "pair-256") for costs in units]
    panels += [time_panel(Both("Forward pass of a network", "网络的前向"), costs, "vgg19") for costs in nets]
    tables = [cost_table(_UNIT_CAPTION, costs, Both("unit", "单元")) for costs in units]
    tables += [cost_table(_NET_CAPTION, costs, Both("network", "网络")) for costs in nets]
    figures = [Figure("times", _FIGURE_CAPTION, panels)] if panels else []
    words = joined([*map(_words_of_units, units), *map(_words_of_nets, nets)], "\n\n")
    answer = joined([*map(_answer_of_units, units), *map(_answer_of_nets, nets)])
    return Finding(rows, figures, tables, words, answer)


def _judged(claims: tuple[Judged, ...], found: list[Costs], failed: list[Measurement]) -> list[Row]:
    return [judged_row(claim, paper, [found], [failed], partial(_of_first, m, found)) for claim, paper, m in claims]


def _of_first(measure: Measure, found: list[Costs]) -> tuple[Words, Verdict]:
    return measure(found[0])


def _weights(units: Costs) -> tuple[Words, Verdict]:
    pair, narrow = (units[name]["weights"] for name in ("pair-256", "bottleneck"))
    words = Both(
        f"{pair:,} and {narrow:,}: {pair / narrow:.2f} times", f"{pair:,} 与 {narrow:,}：{pair / narrow:.2f} 倍"
    )
    return words, exact((pair, narrow) == (WEIGHTS["pair-256"], WEIGHTS["bottleneck"]))


def _similar(units: Costs) -> tuple[Words, Verdict]:
    pair, narrow = (units[name] for name in ("pair-64", "bottleneck"))
    more = pair["multiply_adds"] / narrow["multiply_adds"]
    words = Both(
        f"{pair['weights']:,} and {narrow['weights']:,} weights; {more:.3f} times the multiply-adds",
        f"权重 {pair['weights']:,} 与 {narrow['weights']:,}；乘加为 {more:.3f} 倍",
    )
    return words, exact(1 / SIMILAR <= more <= SIMILAR)


def _doubled(units: Costs) -> tuple[Words, Verdict]:
    wide, narrow = (units[name] for name in ("with projection", "bottleneck"))
    more = wide["multiply_adds"] / narrow["multiply_adds"]
    words = Both(
        f"{wide['weights']:,} weights; {more:.2f} times the multiply-adds",
        f"权重 {wide['weights']:,}；乘加为 {more:.2f} 倍",
    )
    return words, exact(DOUBLED[0] <= more <= DOUBLED[1])


def _faster(units: Costs) -> tuple[Words, Verdict]:
    clock = times(units, "pair-256", "bottleneck")
    return Both(f"the pair takes {clock} times as long", f"一对 3x3 的用时为其 {clock} 倍"), clock.verdict_above(1)


def _as_fast(units: Costs) -> tuple[Words, Verdict]:
    clock = times(units, "bottleneck", "pair-64")
    words = Both(f"the bottleneck takes {clock} times as long", f"瓶颈的用时为其 {clock} 倍")
    return words, clock.verdict_within(SIMILAR_TIME)


def _fewer(nets: Costs) -> tuple[Words, Verdict]:
    counts = {name: nets[name]["multiply_adds"] for name in NETS}
    words = ", ".join(f"{name} {count / 1e9:.2f} G" for name, count in counts.items())
    return words, exact(counts["resnet152_v1"] < min(counts["vgg16"], counts["vgg19"]))


def _net_faster(nets: Costs) -> tuple[Words, Verdict]:
    clock = times(nets, "vgg19", "resnet152_v1")
    return Both(f"VGG-19 takes {clock} times as long", f"VGG-19 的用时为其 {clock} 倍"), clock.verdict_above(1)


_FIG_5 = Both("“similar time complexity” (Fig. 5)", "“时间复杂度相近”（图 5）")
_PRINTED = [f"{(PRINTED[name].multiply_adds or 0) / 1e9:.1f}" for name in NETS]
_OF_UNITS: tuple[Judged, ...] = (
    (
        Both(
            "The bottleneck has 69,632 weights, two 3x3 convolutions on 256 channels 1,179,648",
            "瓶颈有 69,632 个权重，256 通道上的两个 3x3 卷积有 1,179,648 个",
        ),
        Both(
            "not compared there; the brief of this project: 16.94 times",
            "论文未作此比较；本项目任务书：16.94 倍",
        ),
        _weights,
    ),
    (
        Both(
            f"It needs about the multiply-adds of the pair on 64 channels: within a factor of {SIMILAR:g}",
            f"其乘加次数与 64 通道的一对 3x3 相近：相差不超过 {SIMILAR:g} 倍",
        ),
        _FIG_5,
        _similar,
    ),
    (
        Both("A projection in place of the identity doubles it", "以投影代替恒等捷径使其加倍"),
        Both("“doubled” (section 4.1)", "“加倍”（4.1 节）"),
        _doubled,
    ),
    (
        Both("A step of it is faster than one of the pair on 256 channels", "其一步训练比 256 通道的一对 3x3 快"),
        Both("the reason for it (section 4.1); no times", "引入它的理由（4.1 节）；无时间"),
        if_quiet(_faster),
    ),
    (
        Both(
            f"A step of it takes about as long as one of the pair on 64: within a factor of {SIMILAR_TIME:g}",
            f"其一步训练与 64 通道的一对 3x3 用时相近：相差不超过 {SIMILAR_TIME:g} 倍",
        ),
        _FIG_5 + Both("; no times", "；无时间"),
        if_quiet(_as_fast),
    ),
)
_OF_NETS: tuple[Judged, ...] = (
    (
        Both("152 layers need fewer multiply-adds than VGG-16 and VGG-19", "152 层的乘加次数少于 VGG-16 与 VGG-19"),
        Both(f"{', '.join(_PRINTED)} G (section 4.1, Table 1)", f"{'、'.join(_PRINTED)} G（4.1 节，表 1）"),
        _fewer,
    ),
    (
        Both("A forward pass of 152 layers is faster than VGG-19's", "152 层的前向比 VGG-19 快"),
        Both("no times", "无时间"),
        if_quiet(_net_faster),
    ),
)

_UNIT_CAPTION = Both(
    f"Units on maps of {MAP}x{MAP}, counted on the modules, per image; the time of a training step.",
    f"{MAP}x{MAP} 特征图上的单元，由模块计数，按每张图像；时间为一步训练。",
)
_NET_CAPTION = Both(
    "Networks on images of 224x224, counted on the modules, per image; the time of a forward pass. The paper's "
    "multiply-adds of VGG-16 leave out its fc layers.",
    "224x224 图像上的网络，由模块计数，按每张图像；时间为一次前向。论文中 VGG-16 的乘加次数不含全连接层。",
)
_FIGURE_CAPTION = Both(
    "Time against multiply-adds; bars hold the middle half of the rounds. On the dashed line time would be in "
    "proportion to multiply-adds.",
    "时间与乘加次数；竖线为中间一半轮次。虚线表示时间与乘加次数成正比。",
)


def _words_of_units(units: Costs) -> Words:
    pair, narrow = (units[name] for name in ("pair-64", "bottleneck"))
    saved = units["pair-256"]["multiply_adds"] / narrow["multiply_adds"]
    clock = times(units, "pair-256", "bottleneck")
    kept, weights = (_times_as_much(key, narrow, pair) for key in ("training_bytes", "weights"))
    below = clock.high < saved
    counted = Both(
        f"{saved:.2f} compares units of equal width. At equal cost, as in the paper, the bottleneck has {weights:.2f} "
        f"times the weights and keeps {kept:.1f} times the activations.",
        f"{saved:.2f} 是同宽单元之比。"
        f"按论文的同等代价比较，瓶颈的权重为 {weights:.2f} 倍，保留的激活为 {kept:.1f} 倍。",
    )
    timed = Both(
        f"Multiply-adds differ by a factor of {saved:.1f}, times by {clock}"
        + (": batch norm, ReLU and the sum still pass over all 256 channels." if below else "."),
        f"乘加相差 {saved:.1f} 倍，时间相差 {clock} 倍"
        + ("：BN、ReLU 与求和仍经过全部 256 个通道。" if below else "。"),
    )
    return joined([counted, sentence_of_times(units, timed)])


def _times_as_much(key: str, one: dict[str, Any], other: dict[str, Any]) -> float:
    """How many times as much of something one costs as the other."""
    return one[key] / other[key]


def _words_of_nets(nets: Costs) -> Words:
    deep, vgg = nets["resnet152_v1"], nets["vgg19"]
    kept, parameters = _times_as_much("training_bytes", deep, vgg), _times_as_much("parameters", vgg, deep)
    return Both(
        f"VGG-19 has {parameters:.1f} times the parameters of 152 layers, which keep {kept:.1f} times its activations "
        "in training. Times are of one machine and its library: another may order them otherwise, the counts not.",
        f"VGG-19 的参数为 152 层的 {parameters:.1f} 倍，后者训练时保留的激活为其 {kept:.1f} 倍。"
        "时间只属于一台机器及其算子库：换一台次序可能不同，计数则不会。",
    )


def _answer_of_units(units: Costs) -> Words:
    pair, narrow = (units[name]["weights"] for name in ("pair-256", "bottleneck"))
    clock, equal = times(units, "pair-256", "bottleneck"), times(units, "bottleneck", "pair-64")
    counted = Both(
        f"1x1 convolutions cut {pair:,} weights to {narrow:,}, {pair / narrow:.2f} times.",
        f"1x1 卷积把 {pair:,} 个权重减为 {narrow:,} 个，为 {pair / narrow:.2f} 倍。",
    )
    timed = Both(
        f"The clock's factor is {clock}. Beside the pair of equal cost, on 64 channels, the bottleneck takes {equal} "
        "times as long.",
        f"时钟上为 {clock} 倍。与同等代价的 64 通道一对 3x3 相比，瓶颈的用时为 {equal} 倍。",
    )
    return joined([counted, sentence_of_times(units, timed)])


def _answer_of_nets(nets: Costs) -> Words:
    deep, vgg = (nets[name]["multiply_adds"] / 1e9 for name in ("resnet152_v1", "vgg19"))
    clock = times(nets, "vgg19", "resnet152_v1")
    counted = Both(
        f"152 layers need {deep:.1f} G multiply-adds and VGG-19 {vgg:.1f} G.",
        f"152 层需 {deep:.1f} G 次乘加，VGG-19 需 {vgg:.1f} G。",
    )
    timed = Both(f"For one image VGG-19 takes {clock} times as long.", f"单张图像 VGG-19 的用时为 {clock} 倍。")
    return joined([counted, sentence_of_times(nets, timed)])


_SUM = r"256 \cdot 64 + 3^2 \cdot 64^2 + 64 \cdot 256 = 16{,}384 + 36{,}864 + 16{,}384 = 69{,}632"
_ANY_WIDTH = r"\frac{2 \cdot 9 (4w)^2}{4w^2 + 9w^2 + 4w^2} = \frac{288}{17} = 16.94"
_THEORY = Both(
    "A $k \\times k$ convolution from $c$ to $c'$ channels has $k^2 c c'$ weights and uses each once at each of the "
    "$s \\times s$ positions of its output: $k^2 c c' s^2$ multiply-adds.\n\n"
    "Two of 3x3 on 256 channels have $2 \\cdot 3^2 \\cdot 256^2 = 1{,}179{,}648$ weights; the bottleneck in "
    f"their place has ${_SUM}$. With any width $w$ inside and $4w$ outside the ratio is ${_ANY_WIDTH}$.\n\n"
    "The paper compares at equal cost, not at equal width: two of 3x3 on 64 channels have "
    "$2 \\cdot 3^2 \\cdot 64^2 = 73{,}728$ weights, $\\frac{18}{17} = 1.059$ times the bottleneck's. A projection from "
    "256 to 256 channels in place of the identity makes it $69{,}632 + 256^2 = 135{,}168$, "
    "$\\frac{33}{17} = 1.94$ times: that the identity has no weights is what keeps the bottleneck cheap.",
    "从 $c$ 到 $c'$ 通道的 $k \\times k$ 卷积有 $k^2 c c'$ 个权重，在输出的 $s \\times s$ 个位置上各用一次："
    "$k^2 c c' s^2$ 次乘加。\n\n"
    "256 通道上的两个 3x3 有 $2 \\cdot 3^2 \\cdot 256^2 = 1{,}179{,}648$ 个权重；取而代之的瓶颈有 "
    f"${_SUM}$。内宽 $w$、外宽 $4w$ 时，比值恒为 ${_ANY_WIDTH}$。\n\n"
    "论文比较的是同等代价而非同宽：64 通道上的两个 3x3 有 $2 \\cdot 3^2 \\cdot 64^2 = 73{,}728$ 个权重，"
    "为瓶颈的 $\\frac{18}{17} = 1.059$ 倍。若以 256 到 256 通道的投影代替恒等捷径，则为 "
    "$69{,}632 + 256^2 = 135{,}168$，即 $\\frac{33}{17} = 1.94$ 倍：恒等捷径没有权重，瓶颈才便宜。",
)

STUDY = Study(
    name="bottleneck",
    title=Both("1x1 convolutions make depth affordable", "1x1 卷积使深度负担得起"),
    claim=Both(
        "1x1 convolutions cut 1,179,648 weights to 69,632 (16.94 times), and 152 layers cost less than VGG-19.",
        "1x1 卷积把 1,179,648 个权重减为 69,632 个（16.94 倍），152 层的代价低于 VGG-19。",
    ),
    source="He et al. 2015, section 4.1 (Deeper bottleneck architectures), Figure 5, Table 1",
    method=Both(
        "Units and networks are built as for training, and counted on what was built. Times are taken in turn in one "
        "process with nothing beside it, and compared round by round.",
        "单元与网络按训练时的方式构建，并在其上计数。时间在同一进程中轮流测得，旁无他事，逐轮求比。",
    ),
    rule=Both(
        "A count is reproduced if it is as the claim says, else not; 'doubled' is a factor from "
        f"{DOUBLED[0]:g} to {DOUBLED[1]:g}. A ratio of times is reproduced if the 95 % interval of its median over "
        "rounds (the sign test's) keeps to the claim's bounds, a direction only if the median does, else not. The "
        "study's verdict is the weakest of its tested claims.",
        f"计数与论断一致则为复现，否则为未复现；“加倍”指 {DOUBLED[0]:g} 至 {DOUBLED[1]:g} 倍。"
        "时间之比：各轮中位数的 95 % 区间（符号检验）在论断界限之内则为复现，仅中位数如此则只是方向，否则为未复现。"
        "研究的判定取所检验论断中最弱者。",
    )
    + BUSY_RULE,
    plan=plan,
    judge=judge,
    theory=_THEORY,
)
