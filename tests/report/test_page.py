"""The frame of all pages: one style sheet that no page copies, one set of colours, and texts in two languages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resnetlab.report.page import TEXT
from resnetlab.studies import STUDIES
from resnetlab.studies.figures import svg
from resnetlab.studies.frame.scales import SCALES, WEIGHTS

PACKAGE = Path(__file__).resolve().parents[2] / "resnetlab"
ROOM = PACKAGE / "report"
PAGES = sorted(path for path in ROOM.rglob("*.html.j2") if path.name != "base.html.j2")


def rules(sheet: str) -> set[tuple[str, str]]:
    """Every declaration of a sheet with its selector, outside and inside @media alike."""
    found = set()
    for selectors, body in re.findall(
        r"([^{}]+)\{([^{}]*)\}", re.sub(r"\{[#%{].*?[#%}]\}|/\*.*?\*/", "", sheet, flags=re.S)
    ):
        for one in selectors.split(","):
            found |= {(one.strip(), declaration.strip()) for declaration in body.split(";") if declaration.strip()}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_stands_in_the_frame_and_copies_nothing_of_the_sheet(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r'\{% extends "(base|document|reading)\.html\.j2" %\}', text)
    assert "<style" not in text
    assert "<!doctype" not in text
    style = "".join(re.findall(r"\{% block (?:own_)?style %\}(.*?)\{% endblock %\}", text, flags=re.S))
    assert style
    style += "".join((ROOM / name).read_text(encoding="utf-8") for name in re.findall(r'include "(.*?)"', style))
    assert rules(style) & rules((ROOM / "style.css.j2").read_text(encoding="utf-8")) == set()


def test_a_copied_rule_is_found() -> None:
    assert rules("a, b { x: 1; y: 2 } @media print { c { z: 3; } }") >= {("a", "x: 1"), ("b", "y: 2")}
    assert rules("th { x: 1; }") & rules("td, th { x: 1; y: 2; }") == {("th", "x: 1")}


def test_the_page_of_the_server_has_the_same_colours_and_letters() -> None:
    """Its policy allows no style in the page, so that its sheet is a file of its own."""
    text = (PACKAGE / "use/page/style.css").read_text(encoding="utf-8")
    light, _, dark = text.partition("@media screen and (prefers-color-scheme: dark)")
    for part, colours in ((light, svg.LIGHT), (dark, svg.DARK)):
        for name in ("paper", "ink", "muted", "grid"):
            assert f"--{name}: {colours[name]};" in part
    assert f"--sans: {svg.SANS};" in light


def test_every_text_is_used_and_every_text_asked_for_is_there() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in ROOM.glob("*.py"))
    groups = {key.partition(".")[0] for key in TEXT.leaves}
    asked = set(re.findall(rf'"((?:{"|".join(groups)})\.[a-z_.]+)"', source))
    asked |= {f"studies.{name}" for name in STUDIES} | {f"scales.{name}" for name in (*SCALES, WEIGHTS)}
    asked |= {f"data.{name}" for name in ("digits", "cifar10", "cifar100")}
    asked |= {f"sample.{name}" for name in ("unknown", "one", "several")}
    assert asked == set(TEXT.leaves)
