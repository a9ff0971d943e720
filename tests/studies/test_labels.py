"""Figures have words in both languages: axes as wholes, names of lines and networks word by word."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from resnetlab.studies.figures import draw as figures
from resnetlab.studies.figures.figure import Figure, Panel, Series
from resnetlab.studies.figures.labels import axis, cell, line, networks, panel
from resnetlab.studies.frame.text import Both

COMMITTED = Path(__file__).resolve().parents[2] / "results"
# What is called so in Chinese too: networks and mixes as commands name them, and the field's own names.
NAMES = r"\b(?:cifar_\w+|resnet\d+\w*|vgg\d+|ResNet|ReLU|Add|Plain|Scale|Xavier|dropout|MiB)\b"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("label", "chinese"),
    [
        ("plain-56 training", "普通-56 训练"),
        ("residual-110", "残差-110"),
        ("F of residual-56", "残差-56 的 F"),
        ("shortcut-only −6 start", "仅捷径门 −6 训练前"),
        ("no BN, small weights", "无 BN，权重小"),
        ("Scale(0.5, 1) test", "Scale(0.5, 1) 测试"),
        ("cifar_resnet1202", "cifar_resnet1202"),
        ("complainer", "complainer"),
    ],
)
def test_names_word_by_word(label: str, chinese: str) -> None:
    assert line(label) == Both(label, chinese)


def test_axes_cells_and_sentences() -> None:
    assert axis("epoch").zh == "轮次"
    assert axis("plain-8").zh == "普通-8"
    assert cell("pair-256").zh == "一对-256"
    assert cell(Both("plain", "普普通通")).zh == "普普通通", "what has words in both keeps them"
    assert networks(Both("plain-56 errs", "plain-56 的 cifar_plain56 出错")).zh == "普通-56 的 cifar_plain56 出错"
    assert panel("", "epoch", "error (%)") == Both("error (%) by epoch", "误差 (%)，随轮次变化")
    assert panel("t", "epoch", "loss").en == "t: loss by epoch"


@pytest.mark.parametrize("path", sorted(COMMITTED.glob("*-*.json")), ids=lambda path: path.stem)
def test_nothing_in_a_figure_is_in_english_only(path: Path) -> None:
    record = json.loads(path.read_text(encoding="utf-8"))
    panels = [p for f in record.get("figures", []) for p in f["panels"]]
    labels = [axis(p[of]) for p in panels for of in ("x_label", "y_label")]
    labels += [line(s["label"]) for p in panels for s in p["series"]]
    for words in labels:
        assert not re.search(r"[A-Za-z]{3}", re.sub(NAMES, "", words.zh)), words


def made_up() -> Figure:
    points = [1.0, 2.0, 3.0]
    lines = [
        Series(f"plain-8 {part}", part == "test", 0, points, points, points, points) for part in ("training", "test")
    ]
    return Figure("f", "made up", [Panel(Both("nets", "网络"), "epoch", "error (%)", lines)])


def test_a_picture_of_a_page_has_both_languages_and_says_which_is_which() -> None:
    figure = made_up()
    picture = ElementTree.fromstring(figures.draw_panel(figure, figure.panels[0], "p"))
    words = {text.get("lang"): text.text for text in picture.iter("text") if (text.text or "") in ("epoch", "轮次")}
    assert words == {"en": "epoch", "zh": "轮次"}
    assert picture.get("aria-label") == "nets: error (%) by epoch"
    assert picture.get("data-label-zh") == "网络：误差 (%)，随轮次变化"


def test_a_picture_of_its_own_follows_its_readers_language() -> None:
    picture = ElementTree.fromstring(figures.draw(made_up(), "p"))
    choices = [
        [choice.get("systemLanguage"), *(t.text for t in choice.iter(f"{SVG}text"))]
        for switch in picture.iter(f"{SVG}switch")
        for choice in switch
    ]
    assert ["zh", "轮次"] in choices
    assert [None, "epoch"] in choices
    assert not any(group.get("lang") for group in picture.iter())


def test_a_file_for_print_is_in_english() -> None:
    assert figures.draw_file(made_up(), "png", {}).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("depths", "ticks"),
    [([20.0, 56.0], {"20", "56"}), ([20.0, 32.0, 44.0, 56.0, 110.0], {"20", "32", "44", "56", "110"})],
)
def test_ticks_stand_at_the_depths_that_were_trained(depths: list[float], ticks: set[str]) -> None:
    figure = Figure(
        "f", "made up", [Panel("t", "layers", "%", [Series("a", False, 0, depths, depths, depths, depths)])]
    )
    picture = ElementTree.fromstring(figures.draw_panel(figure, figure.panels[0], "p"))
    assert ticks <= {t.text for t in picture.iter("text")}
