"""The cases of He 2016, Table 1, and their runs, which the studies `mixing` and `carry` share."""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.text import Both, Words
from resnetlab.training.recipe import Recipe

FAIL = 20.0  # % of test error above which Table 1 prints "fail"
ADD = "Add"


@dataclass(frozen=True)
class Case:
    """A row of He 2016, Table 1."""

    change: str  # to the residual net, as its name says it
    words: Both
    on_shortcut: Words
    on_branch: Words
    printed: float | None  # test error in %, median of 5; None: "fail"
    bias: float | None = None  # of a gate, at the start


def signed(bias: float) -> str:
    """A bias as it is read."""
    return f"{bias:g}".replace("-", "−")


def _gate(kind: str, bias: float, printed: float | None) -> Case:
    exclusive = kind == "ExclusiveGate"
    words = Both("exclusive gate", "互斥门") if exclusive else Both("shortcut-only gate", "仅捷径门")
    change = f"(mix={kind}(bias={bias}))"
    return Case(
        change,
        words + Both(f", b = {signed(bias)}", f"，b = {signed(bias)}"),
        "1 − g",
        "g" if exclusive else "1",
        printed,
        bias,
    )


CASES: dict[str, Case] = {
    ADD: Case("", Both("identity (Add)", "恒等（Add）"), "1", "1", 6.61),
    "exclusive 0": _gate("ExclusiveGate", 0.0, None),
    "exclusive −3": _gate("ExclusiveGate", -3.0, None),
    "exclusive −6": _gate("ExclusiveGate", -6.0, 8.70),
    "exclusive −7": _gate("ExclusiveGate", -7.0, 9.81),
    "shortcut-only 0": _gate("ShortcutGate", 0.0, 12.86),
    "shortcut-only −6": _gate("ShortcutGate", -6.0, 6.91),
    "1x1 conv": Case(
        "(shortcut='C')", Both("1x1 convolution", "1x1 卷积"), Both("1x1 convolution", "1x1 卷积"), "1", 12.22
    ),
    "dropout": Case(
        "(mix=DropoutShortcut(p=0.5))",
        Both("dropout 0.5", "dropout 0.5"),
        Both("dropout 0.5", "dropout 0.5"),
        "1",
        None,
    ),
}


@dataclass(frozen=True)
class _Scale:
    depth: int
    cases: tuple[str, ...]
    seeds: int
    expected: Words
    note: Words


SCALES: dict[str, _Scale] = {
    "quick": _Scale(
        56,
        tuple(name for name in CASES if name != "exclusive −7"),
        3,
        Both("about 6 minutes on 2 cores", "双核约 6 分钟"),
        Both(
            "56 layers, 27 units, 345 steps on 1,437 images of 8x8 pixels, three seeds. The paper has 54 units and "
            "64,000 steps.",
            "56 层、27 个单元，在 1,437 张 8x8 像素的图像上训练 345 步，三个随机种子。论文为 54 个单元、64,000 步。",
        ),
    ),
    "cifar": _Scale(
        56,
        (ADD, "exclusive −6", "shortcut-only 0", "1x1 conv", "dropout"),
        3,
        Both("a night on 2 cores, some minutes on a GPU", "双核一夜，GPU 数分钟"),
        Both(
            "56 layers, 10 epochs instead of the paper's 164, three seeds; four of the cases.",
            "56 层，训练 10 轮而非论文的 164 轮，三个随机种子；只取其中四种情形。",
        ),
    ),
    "paper": _Scale(
        110,
        tuple(CASES),
        5,
        Both("about a week on one GPU", "单块 GPU 约一周"),
        Both(
            "The published recipe: 110 layers, 64,000 steps of which 400 warm up at 0.01 (He 2016, section 4).",
            "论文原方案：110 层，64,000 步，其中前 400 步以 0.01 的学习率预热（He 2016，第 4 节）。",
        ),
    ),
}


def recipes(scale: str, data: str | None) -> tuple[Recipe, ...]:
    """Every case of the scale with every seed; all are trained alike."""
    s, recipe = SCALES[scale], base(scale, data)
    if scale == "paper":
        recipe = recipe.override(warmup="constant", warmup_lr=0.01, warmup_steps=400)
    nets = [f"cifar_resnet{s.depth}{CASES[name].change}" for name in s.cases]
    return tuple(recipe.override(net=net, seed=seed) for seed in range(s.seeds) for net in nets)


def case_of(recipe: Recipe) -> str:
    """The case that a recipe of `recipes` trains."""
    _, bracket, rest = recipe.net.partition("(")
    return next(name for name, case in CASES.items() if case.change == bracket + rest)


def printed(case: Case) -> str:
    """The test error (%) that Table 1 prints."""
    return f"{case.printed:.2f}" if case.printed is not None else f"> {FAIL:g}"
