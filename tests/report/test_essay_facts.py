"""What each number of the essay is, by its row and column or its line; and numbers that contradict a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnetlab.report.essay import design, explanations
from resnetlab.report.essay.facts import Facts, Library
from resnetlab.report.essay.values import Book, Number
from resnetlab.studies.frame.record import read_records
from resnetlab.studies.frame.text import both

COMMITTED = Path(__file__).resolve().parents[2] / "results"
PARTS: dict[str, Callable[[Library], Facts]] = {
    name: getattr(design if hasattr(design, name) else explanations, name)
    for name in (
        *("problem", "vanishing", "gradients", "reaction", "identity", "deletion", "carry"),
        *("shortcuts", "bottleneck", "product", "left"),
    )
}
TEST, TRAIN, TIME = "test error (%)", "training error (%)", "time (ms)"
KEPT, ALONE = "kept for the backward pass (MiB)", "shortcuts only, pre-activation"
GROWTH = "whole gradient, post-activation"

# By part and name: the column and words of the row, or the figure, the panel and the line.
MEANT: dict[str, dict[str, tuple[str, ...]]] = {
    "problem": {
        f"{kind}_{name}": ("curves", f"{kind} nets", f"{kind}-{{{name}}} training", "mean")
        for kind in ("plain", "residual")
        for name in ("deep", "shallow")
    },
    "vanishing": {
        "small": ("gradient", "plain-", "gaussian", "no BN"),
        "he": ("gradient", "plain-", "He", "no BN"),
        "bn": ("gradient", "plain-", "He", " BN"),
        "small_started": ("started", "plain-", "gaussian", "no BN"),
        "bn_started": ("started", "plain-", "gaussian", " BN"),
    },
    "gradients": {
        "plain": ("autocorrelation", "plain, BN", "L = ", "mean/1"),
        "beta_1": ("autocorrelation", "residual, BN, β = 1", "L = ", "mean/1"),
        "beta_small": ("autocorrelation", "residual, BN, β = 0.1", "L = ", "mean/1"),
        "trap": ("autocorrelation", "plain, not centred", "L = ", "mean/1"),
        "white": ("autocorrelation", "noise", "white", "mean/1"),
        "brown": ("autocorrelation", "noise", "brown", "mean/1"),
        "plain_pixels": ("lag 1", "plain-"),
        "residual_pixels": ("lag 1", "residual-"),
    },
    "reaction": {
        "weights_f": ("weights: F", "residual-"),
        "weights_h": ("weights: H", "residual-"),
        "input_f": ("input: F", "residual-"),
        "input_h": ("input: H", "residual-"),
    },
    "identity": {
        **{f"{kind}_built": ("construction", kind) for kind in ("plain", "residual")},
        **{f"{kind}_on": ("then trained with 56", kind) for kind in ("plain", "residual")},
        "plain_fit": ("plain, final",),
        "residual_fit": ("residual, final",),
        "deepest_fit": ("residual, final",),
        "deepest_first": ("residual, first",),
        "size": ("‖F‖/‖h‖", "residual-"),
    },
    "deletion": {
        f"{kind}_{name}": (column, f"{kind}-")
        for kind in ("plain", "residual")
        for name, column in (("whole", "intact (%)"), ("more", "without a unit of equal sizes"))
    },
    "carry": {
        "add": (TEST, "identity (Add)"),
        "plain": (TEST, "no shortcut (plain)"),
        "widest": (TEST, "exclusive gate, b = −6"),
        "widest_left": ("start", "exclusive gate, b = −6"),
        "shut": (TEST, "exclusive gate, b = 0"),
        "shut_left": ("start", "exclusive gate, b = 0"),
        "best": (TEST, "gate, b = "),
    },
    "shortcuts": {
        "test_plain": (TEST, "cifar_plain"),
        "test_a": (TEST, "cifar_resnet"),
        **{f"test_{option.lower()}": (TEST, f"(shortcut={option})") for option in "BC"},
        **{f"parameters_{option.lower()}": ("parameters", f"resnet34(shortcut={option})") for option in "ABC"},
        **{f"kept_{option.lower()}": (KEPT, f"resnet34(shortcut={option})") for option in "ABC"},
        **{f"time_{option.lower()}": (TIME, f"resnet34(shortcut={option})") for option in "ABC"},
    },
    "bottleneck": {
        f"{unit.replace('-', '_')}_{name}": (column, unit)
        for unit in ("pair-256", "pair-64", "bottleneck")
        for name, column in (("weights", "weights"), ("time", TIME))
    }
    | {
        f"{net}_{name}": (column, net)
        for net in ("resnet152_v1", "vgg19")
        for name, column in (("adds", "multiply-adds (M)"), ("time", TIME))
    },
    "product": {"half": (ALONE, "Scale(0.5, 1)"), "deepest_half": (ALONE, "Scale(0.5, 1)")},
    "left": {
        "add_growth": (GROWTH, "Add"),
        "half_growth": (GROWTH, "Scale(0.5, 1)"),
        "plain_growth": (GROWTH, "Plain"),
        "add_error": (TRAIN, "Add"),
        "half_error": (TRAIN, "Scale(0.5, 1)"),
        "frozen_error": (TRAIN, "Scale(0.5, 0.5)"),
        "plain_error": (TRAIN, "Plain"),
        "shut_gate": (TRAIN, "exclusive gate, b = 0"),
        "open_gate": (TRAIN, "exclusive gate, b = −6"),
        "conv": (TRAIN, "1x1 convolution"),
    },
}


@pytest.fixture(scope="module")
def library() -> Library:
    if not any(COMMITTED.glob("degradation-*.json")):
        pytest.skip("no results of studies are committed")
    return Library.of([Book.of(record) for record in read_records(COMMITTED)])


def book_of(library: Library, number: Number) -> Book:
    return next(book for books in library.books.values() for book in books if book.file == number.record)


def place_of(library: Library, number: Number) -> tuple[str, str]:
    """The column and the row of a number in a table; or its figure, and its panel, line and point."""
    values, keys = book_of(library, number).values, number.at.split("/")[1:]
    if keys[0] == "tables":
        table = values["tables"][int(keys[1])]
        header, row = table["header"], table["rows"][int(keys[3])]
        return both(header[int(keys[4])]).en, " ".join(both(cell).en for cell in row[:3])
    figure = values["figures"][int(keys[1])]
    panel = figure["panels"][int(keys[3])]
    return figure["name"], "/".join([both(panel["title"]).en, panel["series"][int(keys[5])]["label"], *keys[6:]])


@pytest.mark.parametrize("part", PARTS)
def test_numbers_are_what_their_names_say(library: Library, part: str) -> None:
    facts = PARTS[part](library)
    depths = {name: f"{facts.values[name].value:.0f}" for name in ("deep", "shallow") if name in facts.values}
    for name, (column, *words) in MEANT[part].items():
        found, beside = place_of(library, facts.values[name])
        assert found == column, name
        assert all(word.format(**depths) in beside for word in words), (name, beside)


@pytest.mark.parametrize(
    ("name", "units", "column"),
    [
        ("ratio", ("pair-256", "bottleneck"), "weights"),
        ("ratio_64", ("pair-64", "bottleneck"), "weights"),
        ("time_ratio", ("pair-256", "bottleneck"), TIME),
    ],
)
def test_ratios_are_of_what_their_names_say(library: Library, name: str, units: tuple[str, str], column: str) -> None:
    number = PARTS["bottleneck"](library).values[name]
    for at, unit in zip(number.at.split(" "), units, strict=True):
        found, beside = place_of(library, replace(number, at=at))
        assert (found, beside.split(" ")[0]) == (column, unit)


@pytest.mark.parametrize(
    ("part", "table", "kind"), [("reaction", 0, "residual"), ("deletion", 0, "residual"), ("vanishing", 0, "plain")]
)
def test_the_deepest_net_is_meant(library: Library, part: str, table: int, kind: str) -> None:
    facts = PARTS[part](library)
    names = [row[0] for row in facts.book.rows(table).values() if row[0].startswith(f"{kind}-")]
    assert facts.values["deep"].value == max(int(name.removeprefix(f"{kind}-")) for name in names)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("problem", "plain_deep", 0.0),
        ("problem", "residual_deep", 99.0),
        ("vanishing", "small", "0.60"),
        ("vanishing", "bn", "0.90"),
        ("vanishing", "small_started", "1/3"),
        ("vanishing", "bn_started", "0/3"),
        ("gradients", "plain", 0.3),
        ("gradients", "beta_1", 0.1),
        ("gradients", "beta_small", 0.5),
        ("gradients", "residual_pixels", "0.200"),
        ("reaction", "weights_h", "99.00"),
        ("reaction", "input_f", "99.00"),
        ("identity", "plain_built", "1; 0"),
        ("identity", "residual_built", "1; 0"),
        ("identity", "residual_on", "99.00"),
        ("identity", "residual_on", "18.00"),
        ("identity", "plain_on", "16.00"),
        ("identity", "deepest_fit", "0.05"),
        ("identity", "plain_fit", "0.001"),
        ("deletion", "residual_more", "99.9"),
        ("carry", "widest", "0.00"),
        ("carry", "shut", "0.00"),
        ("shortcuts", "test_plain", "0.00"),
        ("shortcuts", "test_c", "0.00"),
        ("shortcuts", "kept_c", "1.0"),
        ("bottleneck", "bottleneck_time", "1.0"),
        ("bottleneck", "pair_256_time", "1.0"),
        ("bottleneck", "vgg19_time", "1.0"),
        ("product", "off", "0.01"),
        ("left", "half_growth", "1"),
        ("left", "half_growth", "AS ADD"),
        ("left", "half_error", "0.00"),
        ("left", "shut_gate", "0.00"),
        ("left", "conv", "0.00"),
    ],
)
def test_a_number_that_contradicts_the_sentence_shows(
    library: Library, part: str, name: str, value: float | str
) -> None:
    facts = PARTS[part](library)
    if not facts.fits:
        pytest.skip("the committed record itself contradicts the sentence, which is not shown")
    if value == "AS ADD":  # hardly more than Add's, and so nearer to it than to the plain net's
        value = f"{1.01 * facts.values['add_growth'].value:.3f}"
    number = facts.values[name]
    book = book_of(library, number)
    wrong = json.loads(json.dumps(book.values))
    *path, last = number.at.split("/")[1:]
    inside: Any = wrong
    for key in path:
        inside = inside[int(key) if isinstance(inside, list) else key]
    inside[int(last) if isinstance(inside, list) else last] = value
    changed = {
        study: [replace(one, values=wrong) if one is book else one for one in books]
        for study, books in library.books.items()
    }
    assert not PARTS[part](Library(changed)).fits
