"""The report in a real browser: opened as a file, on phone and desk, light, dark and on paper, without a complaint."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from browsing import CUT_OFF, FAINT, NAMELESS, opened

from resnetlab.report.study_pages import write_report
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.record import Failure, Record
from resnetlab.studies.frame.statistics import CONTRADICTED, VERDICTS
from resnetlab.studies.frame.text import Both

COMMITTED = Path(__file__).resolve().parents[2] / "results"


def made_up(scale: str, depths: tuple[int, ...]) -> Record:
    """A record of test data that looks like the degradation study's, with every verdict."""

    def line(kind: str, depth: int, rank: int, part: str) -> Series:
        xs = [float(x) for x in range(1, 21)]
        end = depth / 2 if kind == "plain" else 4
        mean = [end + 80 * math.exp(-x / 3) + (2 if part == "test" else 0) for x in xs]
        return Series(
            f"{kind}-{depth} {part}",
            part == "training",
            rank,
            xs,
            mean,
            [m * 0.8 for m in mean],
            [m * 1.1 for m in mean],
        )

    panels = [
        Panel(
            f"{kind} nets (test data)",
            "epoch",
            "error (%)",
            [line(kind, d, i, part) for i, d in enumerate(depths) for part in ("training", "test")],
            (0.0, 100.0),
        )
        for kind in ("plain", "residual")
    ]
    rows = [
        {
            "claim": f"Test data, not a result: claim {i}",
            "paper": "8.75 % (Table 6)",
            "measured": "+52.6 [+40.2, +65.0]",
        }
        | {"verdict": verdict.word}
        for i, verdict in enumerate(VERDICTS)
    ]
    header = ["network", "training error (%)", "test error (%)", "paper, test (%)", "seeds", "seconds a run"]
    table = Table(
        "Test data.", header, [[f"residual-{d}", "52.60 ± 9.98", "57.06 ± 1.77", "–", "5", "4"] for d in depths]
    )
    return Record(
        study="degradation",
        scale=scale,
        title="A made-up study",
        claim="Made-up claim of a study.",
        source="Nowhere, section 0",
        method="Made-up method.",
        rule="Made-up rule.",
        expected="no time at all",
        verdict=CONTRADICTED.word,
        rows=rows,
        figures=[asdict(Figure("curves", "Test data: training error (dashed), test error (solid).", panels))],
        tables=[asdict(table)],
        words=Both("Test data, not a result.", "测试数据，并非结果。"),
        answer=Both("Test data, not an answer.", "测试数据，并非回答。"),
        theory=Both("Test data: $\\prod_{i=l}^{L-1} \\lambda_i$.", "测试数据：$\\prod_{i=l}^{L-1} \\lambda_i$。"),
        note="Test data, not a result.",
        machine={"processor": "Test processor", "cores": 2, "device": "cpu", "commit": "0123abc"},
        runs=30,
        training_seconds=538.5,
        measurements=0,
        measuring_seconds=0.0,
        command=f"resnetlab study run degradation --scale {scale} --data cifar10:DIR",
        date="2026-01-02T03:04:05+00:00",
        failures=[asdict(Failure(f"cifar_plain{d}", "made up, lr 0.1", 0, "run-of-a-long-name" * 9)) for d in depths],
    )


def committed(folder: Path) -> Path:
    """The pages that are committed; tests/cli/test_cli.py holds that they are those of the committed records."""
    if not (COMMITTED / "report.html").is_file():
        pytest.skip("no results of studies are committed yet")
    for path in COMMITTED.glob("*.html"):
        shutil.copy(path, folder)
    return folder / "report.html"


@pytest.fixture(
    scope="module",
    params=[
        "several",
        "a page of several",
        pytest.param("one", marks=pytest.mark.slow),
        pytest.param("committed", marks=pytest.mark.slow),
    ],
)
def any_report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "committed":
        return committed(folder)
    made_up("quick", (8, 20, 56)).save(folder)
    if "several" in request.param:
        made_up("cifar", (20, 32, 44, 56, 110)).save(folder)
    overview = write_report(folder)
    return folder / "degradation-cifar.html" if request.param.startswith("a page") else overview


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    made_up("quick", (8, 20, 56)).save(folder)
    return write_report(folder)


def look(page: Any) -> tuple[str, str, str]:
    """Computed colours of the paper, the ink and a curve."""
    return tuple(  # type: ignore[return-value]
        page.evaluate(
            """() => { const body = getComputedStyle(document.body);
            const curve = document.querySelector(".panel svg path[style*='var(--c5)']");
            return [body.backgroundColor, body.color, getComputedStyle(curve).stroke]; }"""
        )
    )


PICTURES = """() => [...document.querySelectorAll(".panel > svg")].map((e) => e.getBoundingClientRect().toJSON())"""


def test_nothing_is_cut_off(browser: Any, any_report: Path) -> None:
    with opened(browser, any_report) as page:
        for width in (390, 768, 1280, 1440):
            page.set_viewport_size({"width": width, "height": 844})
            assert page.evaluate(CUT_OFF) == [], width
            boxes = page.evaluate(PICTURES)
            assert all(box["width"] > 250 and box["height"] > 150 for box in boxes), width
            if boxes:
                side_by_side = len({box["y"] for box in boxes}) < len(boxes)
                assert side_by_side == (width > 700), "panels stand side by side where there is room"


def test_nothing_is_faint(browser: Any, any_report: Path) -> None:
    with opened(browser, any_report) as page:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate(FAINT) == [], scheme


def test_theme_follows_the_system_until_one_is_chosen_and_remembered(browser: Any, report: Path) -> None:
    with opened(browser, report, color_scheme="light") as page:
        light = look(page)
        page.emulate_media(color_scheme="dark")
        dark = look(page)
        assert all(a != b for a, b in zip(light, dark, strict=True))
        page.get_by_role("radio", name="light").check()
        assert look(page) == light
        page.reload()
        assert look(page) == light
        assert page.get_by_role("radio", name="light").is_checked()
        page.get_by_role("radio", name="light").focus()
        page.keyboard.press("ArrowLeft")  # to auto
        assert look(page) == dark
        page.keyboard.press("ArrowLeft")  # round to dark
        page.emulate_media(color_scheme="light")
        assert look(page) == dark
        page.reload()
        assert look(page) == dark


def test_language_is_the_browsers_until_one_is_chosen_and_remembered(browser: Any, report: Path) -> None:
    english, chinese = "Test data, not a result.", "测试数据，并非结果。"
    with opened(browser, report, locale="zh-CN") as page:
        assert page.get_by_text(chinese).first.is_visible()
        assert not page.get_by_text(english, exact=True).locator("visible=true").count() > 2, "the note is in English"
        assert page.locator("html").get_attribute("lang") == "zh"
        page.get_by_role("radio", name="English").check()
        assert not page.get_by_text(chinese).first.is_visible()
        page.reload()
        assert page.locator("html").get_attribute("lang") == "en"
    with opened(browser, report, locale="en-GB") as page:
        assert not page.get_by_text(chinese).first.is_visible()
        page.get_by_role("radio", name="中文").check()
        assert page.get_by_text(chinese).first.is_visible()
        assert page.evaluate(NAMELESS) == []


def test_formulas_are_shown(browser: Any, report: Path) -> None:
    with opened(browser, report) as page:
        page.get_by_text("Theory", exact=True).click()
        box = page.locator("math").first.bounding_box()
        assert box["width"] > 20
        assert box["height"] > 12


def test_works_where_storage_is_closed(browser: Any, report: Path) -> None:
    closed = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('closed'); } });"
    with opened(browser, report, color_scheme="light", before=closed) as page:
        before = look(page)
        page.get_by_role("radio", name="dark").check()
        assert look(page) != before


def test_reads_without_scripts(browser: Any, report: Path) -> None:
    with opened(browser, report, java_script_enabled=False) as page:
        assert page.locator(".panel > svg").first.bounding_box()["width"] > 250
        assert page.locator(".readout").first.is_visible()
        for control in (".theme", ".scrub", ".command button"):
            assert not page.locator(control).first.is_visible()


def test_paper_is_white_and_has_no_controls(browser: Any, any_report: Path) -> None:
    with opened(browser, any_report, 720, color_scheme="dark") as page:
        page.get_by_role("radio", name="dark").check()
        page.emulate_media(media="print")
        assert look(page)[0] == "rgb(255, 255, 255)"
        for control in (".bar", ".theme", ".scrub", ".command button"):
            assert not page.locator(control).first.is_visible()
        assert page.locator(".badge").first.is_visible()
        assert page.evaluate(CUT_OFF) == []
        assert page.evaluate(FAINT) == []


def test_values_are_read_by_pointer_and_by_key(browser: Any, report: Path) -> None:
    with opened(browser, report) as page:
        figure = page.locator(".figure").first
        captions, values = figure.locator(".readout caption .at"), figure.locator(".readout td b")
        last, at_last = captions.all_inner_texts(), values.all_inner_texts()
        slider = figure.get_by_role("slider").first
        slider.focus()
        page.keyboard.press("Home")
        assert captions.all_inner_texts() == ["1", "1"], "both panels follow"
        assert slider.get_attribute("aria-valuetext") == "epoch 1"
        assert values.all_inner_texts() != at_last
        picture = figure.locator(".panel > svg").first
        box = picture.bounding_box()
        picture.hover(position={"x": box["width"] - 2, "y": box["height"] / 2})
        assert captions.all_inner_texts() == last
        assert values.all_inner_texts() == at_last
        left, top, _, bottom = map(float, picture.get_attribute("data-box").split())
        scale = box["width"] / picture.evaluate("svg => svg.viewBox.baseVal.width")
        picture.hover(position={"x": left * scale + 1, "y": (top + bottom) / 2 * scale})
        assert captions.all_inner_texts() == ["1", "1"]


def test_command_is_copied_or_at_least_selected(browser: Any, report: Path) -> None:
    command = "resnetlab study run degradation --scale quick"
    with opened(browser, report) as page:
        page.get_by_role("button", name="Copy").first.click()
        page.get_by_role("button", name="Copied").or_(page.get_by_role("button", name="Selected")).wait_for()
    without = "Object.defineProperty(navigator, 'clipboard', { value: undefined });"
    with opened(browser, report, before=without) as page:
        page.get_by_role("button", name="Copy").first.click()
        page.get_by_role("button", name="Selected").wait_for()
        assert page.evaluate("getSelection().toString()").startswith(command)


def test_landmarks_headings_and_names(browser: Any, report: Path) -> None:
    with opened(browser, report) as page:
        assert page.locator("html").get_attribute("lang") == "en"
        assert page.get_by_role("main").count() == page.locator("h1").count() == 1
        levels = page.evaluate("() => [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])")
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
        assert page.evaluate(NAMELESS) == []
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to the report"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_standalone_picture_follows_the_scheme(browser: Any, report: Path, scheme: str) -> None:
    picture = next(report.parent.glob("*.svg"))
    with opened(browser, picture, color_scheme=scheme) as page:
        fill = page.evaluate("getComputedStyle(document.querySelector('rect')).fill")
        assert fill == {"light": "rgb(251, 250, 247)", "dark": "rgb(21, 23, 27)"}[scheme]
        outside = page.evaluate(
            """() => { const s = document.documentElement.getBoundingClientRect();
            return [...document.querySelectorAll("text")].map((t) => t.getBoundingClientRect()).filter((t) =>
              t.left < s.left || t.right > s.right || t.top < s.top || t.bottom > s.bottom).length; }"""
        )
        assert outside == 0
