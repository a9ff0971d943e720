"""The audit's page: names are text and never markup, pictures are capped; in a real browser on phone and desk."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import FAINT, opened
from PIL import Image

from resnetlab.data.audit import audit
from resnetlab.data.images import Data
from resnetlab.errors import UserError
from resnetlab.report.audit_page import SHOWN, html, write_page
from resnetlab.studies.figures import svg

Read = Callable[[Path], Data]
HOSTILE = "<script>alert(1)<"  # in a file's name "/" can't stand
QUOTES = "\"><img src=x onerror=alert(2)>'{{ 7 * 7 }}.jpg"

NAMELESS = """() => [...document.querySelectorAll("figure, table, nav, section, img")]
  .filter((e) => !(e.ariaLabel || e.alt || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent))
  .map((e) => e.outerHTML.slice(0, 80))"""


def encoded(seed: int, width: int = 60, height: int = 44) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(made, "JPEG")
    return made.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, loose_data: Read) -> Data:
    """Data with something in every section, hostile names, and more copies than are shown."""
    root = tmp_path_factory.mktemp("page") / "<b>flowers"
    files = {f"train/<i>a/{i}.jpg": encoded(i) for i in range(SHOWN + 6)}
    files |= {f"val/<i>a/{i}.jpg": encoded(i) for i in range(SHOWN + 6)}
    files |= {
        f"train/b/{HOSTILE}": encoded(100),
        f"val/<i>a/{HOSTILE}": encoded(100),
        f"train/b/{HOSTILE}.jpg": b"",
        f"train/b/{QUOTES}": b"no picture",
        "train/b/tiny.png": encoded(101, 20, 30),
        "train/b/long.jpg": encoded(102, 600, 40),
        "train/b/" + "w" * 200 + ".jpg": b"",
        "train/b/alike.jpg": encoded(103, 240, 180),
        "train/b/twice 1.jpg": encoded(104),
        "train/b/twice 2.jpg": encoded(104),
        "train/b/torn.jpg": encoded(105),
        "train/<i>a/torn.jpg": encoded(105),
    }
    made = io.BytesIO()
    Image.open(io.BytesIO(encoded(103, 240, 180))).resize((120, 90)).save(made, "JPEG", quality=60)
    files["val/b/alike.jpg"] = made.getvalue()
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return loose_data(root)


@pytest.fixture(scope="module")
def page(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "audit.html"
    write_page(audit(data, workers=1), data, path)
    assert [p.name for p in path.parent.iterdir()] == ["audit.html"]
    return path


def test_names_are_text(page: Path) -> None:
    text = page.read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "<b>flowers" not in text
    assert "&lt;script&gt;alert(1)&lt;" in text
    assert "{{ 7 * 7 }}" in text
    assert set(re.findall(r'(?:src|href)="([^"#]{5})', text)) == {"data:"}


def test_a_section_shows_so_many_and_tells_the_number(page: Path) -> None:
    text = page.read_text()
    section = text[text.index('<section id="across"') :].partition("</section>")[0]
    assert f"The first {SHOWN} of {SHOWN + 7} are shown" in section
    assert section.count("<img ") == 2 * SHOWN
    assert text[text.index('<section id="unreadable"') :].partition("</section>")[0].count("no picture") >= 2
    for name in ("near", "contradictory", "within", "mismatched", "tiny", "stretched", "classes", "formats"):
        assert f'<section id="{name}"' in text, name
    assert "1 of 2 has fewer than 20." in " ".join(text.split())


def test_copies_are_counted_as_in_the_summary_and_shown_with_their_other_class(
    tmp_path: Path, loose_data: Read
) -> None:
    files = {f"train/{name}.jpg": encoded(1) for name in ("a/1", "a/2", "b/3")}
    files |= {f"train/a/same {i}.jpg": encoded(2) for i in range(3)}
    files |= {name: encoded(3) for name in ("train/a/4.jpg", "val/a/5.jpg", "val/b/6.jpg")}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    data = loose_data(tmp_path)
    found = audit(data, workers=1)
    assert (found.leaked, found.contradictory, found.within("train")) == (2, 6, 4)
    text = html(found, data)
    for title in (
        "Test images among the training images: 2",
        "Images with conflicting labels: 3",
        "Duplicates: 2",
    ):
        assert f">{title}</h2>" in text
    section = text[text.index('<section id="contradictory"') :].partition("</section>")[0]
    assert re.findall(r"<b>(.*?)</b>", section) == ["a/1.jpg", "b/3.jpg"]


def test_colours_and_letters_are_those_of_the_study_report(page: Path) -> None:
    text = page.read_text()
    light, dark = text[: text.index("@media screen")], text[text.index("@media screen") :]
    for part, colours in ((light, svg.LIGHT), (dark, svg.DARK)):
        for name in ("paper", "ink", "muted", "grid", "c0", "c4"):
            assert f"--{name}: {colours[name]};" in part
    assert f"--sans: {svg.SANS};" in light


def test_an_image_that_is_gone_by_now_has_no_picture(tmp_path: Path, loose_data: Read) -> None:
    for side in ("train", "val"):
        (tmp_path / "x" / side / "a").mkdir(parents=True)
        (tmp_path / "x" / side / "a" / "1.jpg").write_bytes(encoded(1))
    data = loose_data(tmp_path / "x")
    found = audit(data, workers=1)
    assert html(found, data).count("<img ") == 2
    (tmp_path / "x" / "val" / "a" / "1.jpg").unlink()
    assert html(found, data).count("<img ") == 1


def test_a_page_that_cannot_be_written_is_told(data: Data, tmp_path: Path) -> None:
    found = audit(data, workers=1)
    with pytest.raises(UserError, match="can't be written; give a file in an existing folder"):
        write_page(found, data, tmp_path / "nowhere" / "x.html")


@pytest.mark.parametrize(
    "width", [390, pytest.param(768, marks=pytest.mark.slow), pytest.param(1280, marks=pytest.mark.slow)]
)
def test_nothing_is_cut_off_and_pairs_stand_side_by_side(browser: Any, page: Path, width: int) -> None:
    with opened(browser, page, width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        over = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        assert tab.evaluate(f"{over}.map(e => e.outerHTML.slice(0, 80))") == []
        first, second = (f.bounding_box() for f in tab.locator("#across .pictures").first.locator("figure").all())
        assert first["y"] == second["y"]
        assert first["x"] < second["x"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_faint_and_every_picture_is_drawn(browser: Any, page: Path, scheme: str) -> None:
    with opened(browser, page, color_scheme=scheme) as tab:
        assert tab.evaluate(FAINT) == []
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(251, 250, 247)", "dark": "rgb(21, 23, 27)"}[scheme]
        sizes = tab.evaluate("[...document.images].map(i => Math.max(i.naturalWidth, i.naturalHeight))")
        assert sizes
        assert 0 < min(sizes) <= max(sizes) <= 96


def test_landmarks_headings_and_names(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        assert tab.locator("html").get_attribute("lang") == "en"
        assert tab.get_by_role("main").count() == tab.locator("h1").count() == 1
        assert tab.locator("h1").inner_text() == "<b>flowers"
        levels = tab.evaluate("() => [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])")
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
        assert tab.evaluate(NAMELESS) == []
        links = [link.get_attribute("href") for link in tab.locator("nav a").all()]
        assert [tab.locator(link).count() for link in links] == [1] * len(links)
