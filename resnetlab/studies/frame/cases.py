"""The cases of He 2016, Table 1, and their runs, which the studies `mixing` and `carry` share."""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.studies.frame.scales import CIFAR_EPOCHS, base, warmed_up_2016
from resnetlab.studies.frame.text import SHARED, Both, Words
from resnetlab.training.recipe import Recipe

FAIL = 20.0  # % of test error above which Table 1 prints "fail"
ADD = "Add"


@dataclass(frozen=True)
class Case:
    """A row of He 2016, Table 1."""

    change: str  # to the residual net, as written in a network's name
    words: Both
    on_shortcut: Words
    on_branch: Words
    printed: float | None  # test error in %, median of 5; None: "fail"
    bias: float | None = None  # initial bias of a gate


def signed(bias: float) -> str:
    """A bias as text, with a true minus sign."""
    return f"{bias:g}".replace("-", "−")


def _exclusive(bias: float, printed: float | None) -> Case:
    words = SHARED("cases.exclusive", bias=signed(bias))
    return Case(f"(mix=ExclusiveGate(bias={bias}))", words, "1 − g", "g", printed, bias)


def _shortcut_only(bias: float, printed: float | None) -> Case:
    words = SHARED("cases.shortcut_only", bias=signed(bias))
    return Case(f"(mix=ShortcutGate(bias={bias}))", words, "1 − g", "1", printed, bias)


_CONV, _DROPOUT = SHARED("cases.conv"), SHARED("cases.dropout")
CASES: dict[str, Case] = {
    ADD: Case("", SHARED("cases.add"), "1", "1", 6.61),
    "exclusive 0": _exclusive(0.0, None),
    "exclusive −3": _exclusive(-3.0, None),
    "exclusive −6": _exclusive(-6.0, 8.70),
    "exclusive −7": _exclusive(-7.0, 9.81),
    "shortcut-only 0": _shortcut_only(0.0, 12.86),
    "shortcut-only −6": _shortcut_only(-6.0, 6.91),
    "1x1 conv": Case("(shortcut='C')", _CONV, _CONV, "1", 12.22),
    "dropout": Case("(mix=DropoutShortcut(p=0.5))", _DROPOUT, _DROPOUT, "1", None),
}


@dataclass(frozen=True)
class _Scale:
    depth: int
    cases: tuple[str, ...]
    seeds: int


SCALES: dict[str, _Scale] = {
    "quick": _Scale(56, tuple(name for name in CASES if name != "exclusive −7"), 3),
    "cifar": _Scale(56, (ADD, "exclusive −6", "shortcut-only 0", "1x1 conv", "dropout"), 3),
    "paper": _Scale(110, tuple(CASES), 5),
}


def recipes(scale: str, data: str | None) -> tuple[Recipe, ...]:
    """Every case of the scale with every seed; all are trained alike."""
    s, trained = SCALES[scale], base(scale, data)
    if scale == "paper":
        trained = warmed_up_2016(trained)
    nets = [f"cifar_resnet{s.depth}{CASES[name].change}" for name in s.cases]
    return tuple(trained.override(net=net, seed=seed) for seed in range(s.seeds) for net in nets)


def note(scale: str) -> Words:
    """The note about a scale's runs."""
    return SHARED(f"cases.{scale}.note", epochs=CIFAR_EPOCHS)


def case_of(one: Recipe) -> str:
    """The case that a recipe of `recipes` trains."""
    _, bracket, rest = one.net.partition("(")
    return next(name for name, case in CASES.items() if case.change == bracket + rest)


def printed(case: Case) -> str:
    """The test error (%) that Table 1 prints."""
    return f"{case.printed:.2f}" if case.printed is not None else f"> {FAIL:g}"
