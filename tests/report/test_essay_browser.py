"""The essay in a real browser: each thing that moves shows what the record has, by key as well as by pointer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browsing import CUT_OFF, ENGLISH, FAINT, NAMELESS, opened

from resnetlab.report.essay.facts import Library
from resnetlab.report.essay.page import essay
from resnetlab.report.essay.values import Book, number_in
from resnetlab.report.numbers import scientific
from resnetlab.studies.frame.record import read_records

COMMITTED = Path(__file__).resolve().parents[2] / "results"


def library() -> Library:
    return Library.of([Book.of(record) for record in read_records(COMMITTED)])


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(COMMITTED.glob("degradation-*.json")):
        pytest.skip("no results of studies are committed")
    path = tmp_path_factory.mktemp("essay") / "essay.html"
    path.write_text(essay(library()), encoding="utf-8")
    return path


def recorded(element: Any) -> float:
    """What stands at the place of the record that an element names."""
    found: Any = json.loads((COMMITTED / element.get_attribute("data-record")).read_text())
    for key in element.get_attribute("data-at").split("/")[1:]:
        found = found[int(key)] if isinstance(found, list) else found[key]
    return number_in(found) if isinstance(found, str) else float(found)


def one_digit(value: float) -> str:
    return f"{value:.1f}".replace("-", "−")


def slide(slider: Any, steps: int, back: bool = False) -> None:
    slider.focus()
    for _ in range(steps):
        slider.press("ArrowLeft" if back else "ArrowRight")


@pytest.mark.parametrize(
    ("width", "scheme", "locale"),
    [(390, "dark", "zh-CN"), pytest.param(768, "light", "en-GB", marks=pytest.mark.slow), (1440, "dark", "en-GB")],
)
def test_nothing_is_cut_off_faint_or_nameless(
    browser: Any, page_file: Path, width: int, scheme: str, locale: str
) -> None:
    with opened(browser, page_file, width, color_scheme=scheme, locale=locale) as page:
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate(FAINT) == []
        assert page.evaluate(NAMELESS) == []


# What is called so in Chinese too: data and networks, mixes and code, and the machine.
NAMES = {
    *("resnetlab", "CIFAR", "ImageNet", "ResNet", "resnet", "VGG", "LSTM", "ReLU", "MiB", "highway", "dropout"),
    *("Add", "mix", "conv", "relu", "def", "return", "Intel", "Xeon", "Processor", "AMD", "EPYC"),
}


def test_the_chinese_page_has_no_english_words(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, locale="zh-CN") as page:
        assert set(page.evaluate(ENGLISH)) - NAMES == set()
        page.get_by_role("radio", name="English").check()
        assert {"epoch", "plain", "training", "Contents", "Why"} <= set(page.evaluate(ENGLISH))


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1440, 900)])
def test_first_screen_has_question_figure_and_answer(browser: Any, page_file: Path, width: int, height: int) -> None:
    with opened(browser, page_file, width) as page:
        page.set_viewport_size({"width": width, "height": height})
        for selector in ("h1", ".hero figure svg", ".hero .lead"):
            box = page.locator(selector).bounding_box()
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= height, selector


def test_curves_are_drawn_as_training_proceeds(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        figure = page.locator("figure.problem")
        slider, shown = figure.locator("#draw"), figure.locator(".draw output")
        drawn = figure.locator("clipPath[id^=drawn] rect").first
        last, whole = shown.inner_text(), float(drawn.get_attribute("width"))
        slider.focus()
        slider.press("Home")
        assert shown.inner_text() == "1"
        assert float(drawn.get_attribute("width")) < 0.1 * whole
        assert figure.locator(".readout caption .at").all_inner_texts() == ["1", "1"]
        slide(slider, 3)
        values = figure.locator(".panel").first.locator("tbody tr").last.locator("td b").all_inner_texts()
        lines = {s["label"]: s for s in degradation()["figures"][0]["panels"][0]["series"]}
        name = figure.locator(".panel").first.locator("tbody th").last.inner_text()
        for value, part in zip(values, ("training", "test"), strict=True):
            line = lines[f"{name} {part}"]
            assert value == f"{line['mean'][line['x'].index(4.0)]:.1f}"
        figure.get_by_role("button").click()
        assert figure.get_by_role("button").get_attribute("aria-pressed") == "true"
        page.wait_for_function("last => document.querySelector('.draw output').textContent === last", arg=last)
        assert float(drawn.get_attribute("width")) == whole


def degradation() -> dict[str, Any]:
    book = library().pictured("degradation")  # which the figure draws
    return dict(book.values)


def test_the_product_of_scales_stands_beside_what_was_measured(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        box = page.locator("#thing-product")
        scale, depth = box.get_by_role("slider").all()
        left, measured = box.locator(".left"), box.locator(".measured")

        def is_right() -> None:
            factor = float(scale.input_value()) ** ((int(depth.input_value()) - 2) / 2)
            assert left.inner_text() == scientific(factor)
            if box.locator(".is-measured").is_visible():
                assert measured.inner_text() == scientific(recorded(measured))
                assert recorded(measured) == pytest.approx(factor, rel=0.01)

        assert measured.is_visible(), "it begins with a network that was measured"
        is_right()
        depth.focus()
        depth.press("End")
        assert measured.is_visible()
        is_right()
        slide(scale, 1)
        assert not measured.is_visible()
        is_right()
        slide(scale, 9)
        assert scale.input_value() == "1"
        assert left.inner_text() == "1"
        is_right()


def test_bottleneck_has_the_two_cases(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        box = page.locator("#thing-bottleneck")
        ratio, pair, narrow = (box.locator(s) for s in (".ratio", ".pair b", ".narrow b"))
        record = json.loads((COMMITTED / "bottleneck-quick.json").read_text())
        weights = {row[0]: row[1] for row in record["tables"][0]["rows"]}
        assert [pair.inner_text(), narrow.inner_text()] == [weights["pair-256"], weights["bottleneck"]]
        assert ratio.inner_text() == "16.94"
        box.get_by_role("button").first.click()
        assert [pair.inner_text(), narrow.inner_text()] == [weights["pair-64"], weights["bottleneck"]]
        assert ratio.inner_text() == "1.06"
        slide(box.get_by_role("slider").first, 1)
        assert narrow.inner_text() == f"{2 * 320 * 80 + 9 * 80 * 80:,}"
        assert not box.locator(".case .cost").is_visible()


def test_the_same_step_is_two_percentages(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        box = page.locator("#thing-reaction")
        texts = [box.locator(s) for s in (".h-step", ".h-percent", ".f-step", ".f-percent", ".step")]
        assert [t.inner_text() for t in texts] == ["H: 5.1 → 5.2", "1.96", "F: 0.1 → 0.2", "100", "0.1"]
        slide(box.get_by_role("slider").nth(2), 1)
        assert [t.inner_text() for t in texts] == ["H: 5.1 → 5.3", "3.92", "F: 0.1 → 0.3", "200", "0.2"]


def test_a_unit_is_built(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        box = page.locator("#thing-unit")
        error, code = box.locator(".error"), box.locator(".code")
        for choice in ("x/2", "no shortcut", "gate on the shortcut"):
            box.get_by_role("radio", name=choice, exact=True).check(force=True)
            assert error.inner_text() == one_digit(recorded(error)), choice
        box.get_by_role("radio", name="add: x").check(force=True)
        box.get_by_role("radio", name="B: 1×1 where sizes change").check(force=True)
        assert box.locator(".network").inner_text() == "cifar_resnet20(shortcut='B')"
        assert box.locator(".weights").inner_text() == f"{9 * 64 * 128 + 9 * 128 * 128 + 64 * 128:,}"
        assert error.inner_text() == one_digit(recorded(error))
        box.get_by_role("radio", name="full pre-activation").focus()
        page.keyboard.press("Space")
        assert "x = relu(bn(x))" in code.inner_text(), "a projection shares the first activation"
        assert box.locator(".branch .box").all_inner_texts() == ["conv 3×3", "BN", "ReLU", "conv 3×3"]
        assert box.locator(".no-error").is_visible()


def test_units_are_taken_out(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file) as page:
        box = page.locator("#thing-deletion")
        error, several = box.locator(".error"), box.locator(".several-error")
        whole = error.inner_text()
        for name in ("plain-56", "residual-56"):
            box.get_by_role("radio", name=name).check(force=True)
            for unit in (1, 10, 27):
                button = box.get_by_role("button", name=f"unit {unit}", exact=True)
                if button.is_enabled():
                    button.click()
                    assert button.get_attribute("aria-pressed") == "true"
                    assert error.inner_text() == one_digit(recorded(error))
                    button.click()
            slide(box.get_by_role("slider"), 2)
            assert several.inner_text() == one_digit(recorded(several))
        assert error.inner_text() == whole, "put back, the network is whole"


def test_reads_without_a_script_and_on_paper(browser: Any, page_file: Path) -> None:
    with opened(browser, page_file, java_script_enabled=False) as page:
        assert page.locator("#thing-bottleneck .ratio").inner_text() == "16.94"
        assert page.locator("#thing-unit .branch .box").count() == 5
        assert page.locator(".hero .lead").is_visible()
        for control in page.locator("main input, main button").all():
            assert not control.is_visible()
    with opened(browser, page_file, 720, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate(CUT_OFF) == []
        assert not page.locator("main input").first.is_visible()
