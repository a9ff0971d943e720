"""The report without a browser: sound pictures, escaped words, and one clear line for a record that is not one."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from resnetlab.errors import UserError
from resnetlab.report.essay.page import SECTIONS
from resnetlab.report.page import duration
from resnetlab.report.study_pages import write_essay, write_report
from resnetlab.studies.figures import draw as figures
from resnetlab.studies.figures import svg
from resnetlab.studies.figures.figure import Figure, Panel, Series, Table
from resnetlab.studies.frame.record import Record
from resnetlab.studies.frame.statistics import NOT_JUDGED, NOT_TESTED, REPRODUCED

SVG = "{http://www.w3.org/2000/svg}"


def series(label: str, colour: int, end: float, *, dashed: bool = False) -> Series:
    mean = [90.0, 40.0, end]
    return Series(label, dashed, colour, [1.0, 2.0, 3.0], mean, [m * 0.9 for m in mean], [m * 1.1 for m in mean])


def figure(name: str = "curves", end: float = 5.0) -> Figure:
    panels = [
        Panel(
            f"{kind} nets",
            "epoch",
            "error (%)",
            [
                series(f"{kind}-{depth} {part}", i, end + depth / 9, dashed=part == "training")
                for i, depth in enumerate((8, 20, 56))
                for part in ("training", "test")
            ],
            (0.0, 100.0),
        )
        for kind in ("plain", "residual")
    ]
    return Figure(name, "Made-up curves: training error (dashed), test error (solid).", panels)


def record(**changes: Any) -> dict[str, Any]:
    values = Record(
        study="degradation",
        scale="quick",
        title="A made-up study",
        claim="Made-up claim of a study.",
        source="Nowhere, section 0",
        method="Made-up method.",
        rule="Made-up rule.",
        expected="no time at all",
        verdict=REPRODUCED.word,
        rows=[
            {"claim": "made-up claim", "paper": "1 %", "measured": "2 %", "verdict": REPRODUCED.word},
            {"claim": "another", "paper": "3 %", "measured": "nothing", "verdict": NOT_TESTED.word},
        ],
        figures=[_json(figure())],
        tables=[_json(Table("made-up table", ["network", "error (%)"], [["plain-8", "1.50 ± 0.15"], ["b", "–"]]))],
        words="First made-up words.\n\nSecond made-up words.",
        answer={"en": "Made-up answer.", "zh": "虚构的回答。"},
        theory={"en": "Made-up: $x_{l+1} = \\lambda x_l$ & more.", "zh": "虚构：$x_{l+1} = \\lambda x_l$。"},
        note="Made-up numbers.",
        machine={"processor": "Test(R) processor", "cores": 2, "device": "cpu", "torch": "2.13", "python": "3.11"},
        runs=30,
        training_seconds=538.5,
        measurements=2,
        measuring_seconds=61.5,
        command="resnetlab study run degradation --scale quick",
        date="2026-01-02T03:04:05+00:00",
    ).to_dict()
    return values | changes


def _json(value: object) -> Any:
    return json.loads(json.dumps(value, default=vars))


def written(folder: Path, *records: dict[str, Any]) -> str:
    for values in records:
        (folder / f"{values['study']}-{values['scale']}.json").write_text(json.dumps(values))
    return write_report(folder).read_text()


def contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [svg.LIGHT, svg.DARK], ids=["light", "dark"])
def test_colours_stand_out_and_rank_by_lightness(colours: dict[str, str]) -> None:
    lines = [contrast(colours["paper"], colour) for name, colour in colours.items() if name.startswith("c")]
    assert min(lines) >= 3
    assert lines == sorted(lines), "a deeper net's line stands out more"
    assert min(contrast(colours["paper"], colours[name]) for name in ("ink", "muted")) >= 4.5


@pytest.mark.parametrize("form", ["panel", "alone"])
def test_picture_is_lean_deterministic_svg(form: str) -> None:
    f = figure()
    draw: Callable[[], str] = {
        "panel": lambda: figures.draw_panel(f, f.panels[0], "p"),
        "alone": lambda: figures.draw(f, "p"),
    }[form]
    picture = draw()
    assert picture == draw()
    assert not [s for s in svg.STAND_INS.values() if s in picture]
    root = ElementTree.fromstring(picture)
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", re.sub("<style>.*</style>", "", picture))) <= (
        {f"var(--{name})" for name in svg.LIGHT} | {"none"}
    )
    assert "DejaVu" not in picture
    assert "metadata" not in picture
    texts = ["".join(t.itertext()) for t in root.iter() if t.tag.endswith("text")]
    assert {"plain-8", "plain-20", "plain-56", "epoch", "error (%)"} <= set(texts)


def test_standalone_has_its_own_colours_and_says_once_what_dashes_mean() -> None:
    root = ElementTree.fromstring(figures.draw(figure(), "p"))
    style = root.findtext(f"{SVG}style") or ""
    assert svg.LIGHT["c0"] in style
    assert re.search(r"@media \(prefers-color-scheme: dark\).*" + svg.DARK["c0"], style)
    assert root.find(f"{SVG}rect") is not None
    texts = [t.text for t in root.iter(f"{SVG}text")]
    assert texts.count("training") == texts.count("test") == 1
    assert {"plain nets", "residual nets"} <= set(texts)


def test_ids_are_unique_across_panels_and_all_refer_within() -> None:
    f = figure()
    pictures = [figures.draw_panel(f, p, f"p{i}") for i, p in enumerate(f.panels)]
    ids = re.findall(r'\bid="([^"]+)"', "".join(pictures))
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", "".join(pictures))) == set(ids)


def test_labels_do_not_overlap_where_lines_end_together() -> None:
    f = figure(end=0.0)
    root = ElementTree.fromstring(figures.draw_panel(f, f.panels[1], "p"))
    heights = sorted(float(t.get("y", "nan")) for t in root.iter("text") if (t.text or "").startswith("residual-"))
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) >= 12
    assert heights[0] > 0
    assert heights[-1] < 275


@pytest.mark.parametrize("end", [math.nan, math.inf, 1e300, -3.0])
def test_lines_without_an_end_are_drawn(end: float) -> None:
    lines = [series("a", 0, end), series("b", 1, 1.0)]
    f = Figure("f", "made up", [Panel("t", "x", "y", lines, (0.0, 10.0))])
    assert ">a</text>" in figures.draw_panel(f, f.panels[0], "p")


def test_labels_that_share_no_word_are_kept_whole() -> None:
    lines = [series("He et al.", 0, 1.0), series("theory, a $\\frac{1}{2}$ <long> one", 1, 2.0, dashed=True)]
    f = Figure("f", "made up", [Panel("t", "x", "y", [*lines, series("Xavier", 2, 3.0)])])
    assert figures.styles(f) == {}
    texts = [t.text for t in ElementTree.fromstring(figures.draw_panel(f, f.panels[0], "p")).iter("text")]
    assert {"He et al.", "Xavier", "theory, a", "<long> one"} <= set(texts)


def test_page_has_what_the_record_says(tmp_path: Path) -> None:
    page = written(tmp_path, record())
    for words in (
        "A made-up study",
        "Made-up rule.",
        "made-up claim",
        "not tested at this scale",
        "made-up table",
        "1.50 ± 0.15",
        '<p class="prose">Second made-up words.',
        "Test processor, 2 cores",
        "2 January 2026, 03:04 UTC",
        "9 min of training",
        "62 s of measuring",
        "no time at all",
        "not recorded",
    ):
        assert words in page
    assert (tmp_path / "degradation-quick-curves.svg").read_text().startswith("<svg")
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".csv", ".html", ".json", ".svg"]


def test_page_has_both_languages_and_formulas(tmp_path: Path) -> None:
    page = written(tmp_path, record(claim={"en": "A claim.", "zh": "一条论断。"}))
    assert '<span lang="en">A claim.</span><span lang="zh">一条论断。</span>' in page
    assert '<span lang="en">reproduced</span><span lang="zh">已复现</span>' in page
    assert "Made-up: <math" in page
    assert "</math> &amp; more." in page
    assert "虚构的回答。" in page, "the answer comes first"


def test_values_of_a_figure_lie_in_a_file(tmp_path: Path) -> None:
    written(tmp_path, record())
    with (tmp_path / "degradation-quick-curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (first,) = [r for r in rows if r["line"] == "plain-8 test" and r["x"] == "1.0"]
    assert first == {"panel": "plain nets", "line": "plain-8 test", "x": "1.0", "mean": "90.0", "low": "81.0"} | {
        "high": str(90.0 * 1.1)
    }
    assert len(rows) == 2 * 6 * 3


def test_logarithmic_axes_leave_out_what_they_cannot_show(tmp_path: Path) -> None:
    lines = [Series("a", False, 0, [1.0, 10.0, 100.0], [1e-9, 0.0, 1.0], [0.0, 0.0, 0.5], [1.0, 1.0, 2.0])]
    lines += [Series("b", False, 1, [1.0, 100.0], [1e-3, 1e-6], [1e-3, 1e-6], [1e-3, 1e-6], marks=True)]
    drawn = Figure("log", "made up", [Panel("t", "x", "y", lines, x_log=True, y_log=True)])
    page = written(tmp_path, record(figures=[_json(drawn)]))
    assert 'data-x="-0.04 2.04"' in page, "marks at the edges are whole"
    assert r"1\u202f\u00d7\u202f10\u207b\u2079" in page, "values of a panel stand in the page as JSON"
    assert "mathdefault" not in page, "the ticks are numbers, not formulas that nothing draws"


def test_page_is_the_same_each_time(tmp_path: Path) -> None:
    assert written(tmp_path, record()) == written(tmp_path, record())


def test_page_loads_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, record())
    assert "http:" not in page
    assert "https:" not in page
    assert not re.findall(r"(?:\bsrc=|@import|url\((?!#)|<link|<iframe|<object)", page)


def test_words_of_a_record_are_never_markup(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7*7 }}"
    drawn = _json(figure())
    drawn["caption"] = hostile
    for panel in drawn["panels"]:
        panel |= {"title": hostile, "x_label": hostile, "y_label": hostile}
        panel["series"] = [s | {"label": f"{s['label']} {hostile}"} for s in panel["series"]]
    page = written(
        tmp_path,
        record(
            rows=[dict.fromkeys(("claim", "paper", "measured"), hostile) | {"verdict": REPRODUCED.word}],
            figures=[drawn],
            tables=[{"caption": hostile, "header": [hostile], "rows": [[hostile]]}],
            words=hostile,
            note=hostile,
            command=hostile,
            machine=dict.fromkeys(("processor", "cores", "device", "torch", "python", "system", "commit"), hostile),
        ),
    )
    clean = written(tmp_path, record())
    for opening in ("<script", "<img", 'onerror=alert(1)>"'):
        assert page.count(opening) == clean.count(opening)
    assert "{{ 7*7 }}" in page
    ElementTree.fromstring((tmp_path / "degradation-quick-curves.svg").read_text())


def test_several_records_have_a_page_each(tmp_path: Path) -> None:
    overview = written(tmp_path, record(scale="cifar"), record())
    names = ("degradation-quick", "degradation-cifar")
    assert re.findall(r'<section id="([^"]+)"', overview) == [*SECTIONS, "appendix"]
    assert re.findall(r'<details class="fold study" id="study-([^"]+)"', overview) == list(names)
    for name in names:
        page = (tmp_path / f"{name}.html").read_text()
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert re.findall(r'<section id="([^"]+)"', page) == [name]
        assert f'<a href="{name}.html" aria-current="page">' in page
        assert {p for p in re.findall(r'href="([^#"]+)"', page) if not (tmp_path / p).exists()} == set()
    assert len(list(tmp_path.glob("*.svg"))) == 2


FAILURE = {"net": "cifar_plain56", "recipe": "digits, made up", "seed": 3, "reason": "its loss <is> no number"}


def test_runs_that_failed_are_shown_and_only_where_there_are_any(tmp_path: Path) -> None:
    assert "What failed" not in written(tmp_path, record())
    rows = [{"claim": "c", "paper": "p", "measured": "1 of the 5 runs it needs failed", "verdict": NOT_JUDGED.word}]
    page = written(tmp_path, record(failures=[FAILURE], rows=rows))
    for words in (
        '<h2 class="part" id="degradation-quick-failures"><span lang="en">What failed</span>',
        "1 of 33 runs and measurements failed.",
        'aria-labelledby="degradation-quick-failures"',
        '<th role="rowheader" scope="row">cifar_plain56</th>',
        "its loss &lt;is&gt; no number",
        "30 finished, and 2 measurements, 1 failed",
        '<span class="badge not-judged">',
        "A run or measurement that it needs failed",
    ):
        assert words in page


def test_a_record_from_before_failures_were_kept_is_read(tmp_path: Path) -> None:
    old = record()
    del old["failures"]
    assert written(tmp_path, old) == written(tmp_path, record())


def test_a_record_of_words_only_is_shown(tmp_path: Path) -> None:
    assert "No figures here." in written(tmp_path, record(figures=[], tables=[], words="No figures here."))


def _broken_figure(**changes: Any) -> dict[str, Any]:
    return {"figures": [_json(figure()) | changes]}


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"surplus": 1},
        {"rows": [{"claim": "c"}]},
        {"rows": [{"claim": "c", "paper": "p", "measured": "m", "verdict": "splendid"}]},
        {"verdict": None},
        {"words": None},
        {"theory": "an open $formula"},
        {"claim": {"en": "no Chinese"}},
        {"title": "half of a pair: \ud800"},
        {"machine": None},
        {"date": "yesterday"},
        {"training_seconds": "long"},
        {"runs": "many"},
        {"failures": None},
        {"failures": [{"net": "n"}]},
        {"command": None},
        {"tables": [{"caption": "c", "header": ["a", "b"], "rows": [["1"]]}]},
        {"tables": [{"caption": "c", "header": ["a"], "rows": [[1]]}]},
        _broken_figure(name="../../elsewhere"),
        _broken_figure(panels=None),
        _broken_figure(panels=[]),
        _broken_figure(panels=[{"title": "t", "x_label": "x", "y_label": "y", "series": []}]),
        _broken_figure(panels=[{"title": "\x00", "x_label": "x", "y_label": "y", "series": [vars(series("a", 0, 1))]}]),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_damaged_record_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"degradation-quick\.json: .*(damaged|another version).*run the study again"):
        written(tmp_path, record(**changes))
    assert [p.name for p in tmp_path.iterdir()] == ["degradation-quick.json"], "nothing is half written"


@pytest.mark.parametrize("write", [write_report, write_essay])
def test_lines_with_too_few_values_are_damage(tmp_path: Path, write: Callable[[Path], object]) -> None:
    values = record(**_broken_figure(panels=[_json(figure())["panels"][0]]))
    del values["figures"][0]["panels"][0]["series"][0]["mean"][0]
    (tmp_path / "degradation-quick.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"degradation-quick\.json: a damaged record .*not as many as its places"):
        write(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00"])
def test_a_file_that_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "degradation-quick.json").write_text(text)
    with pytest.raises(UserError, match=r"degradation-quick\.json: "):
        write_report(tmp_path)


@pytest.mark.parametrize("foreign", [{"study": "unheard-of"}, {"scale": "cifar"}, {"study": 3}])
def test_a_record_under_another_name_is_named(tmp_path: Path, foreign: dict[str, Any]) -> None:
    (tmp_path / "degradation-quick.json").write_text(json.dumps(record(**foreign)))
    with pytest.raises(
        UserError, match=r"quick\.json: (holds the record that belongs in|a damaged record, study is 3)"
    ):
        write_report(tmp_path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{")
    written(tmp_path, record())
    assert (tmp_path / "notes.json").read_text() == "{"


def test_a_folder_without_records_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"{re.escape(str(folder))}: no results"):
            write_report(folder)


def test_a_full_or_closed_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()  # can't be replaced by a file, by root either
    with pytest.raises(UserError, match=r"can't write the report \(.+\); the records are whole"):
        written(tmp_path, record())


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (99, "99 s"), (538.5, "9 min"), (7200, "2.0 h"), (2e5, "2.3 days")]
)
def test_duration(seconds: float, words: str) -> None:
    assert str(duration(seconds)) == words
