"""The server's page in a real browser: with pointer and with keys, on phone and desk, light and dark."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")

FLAGS = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync"
)
NOISE = (500, 300)  # height, width of the picture: upright, as phones' are

# Texts whose colour stands out less than 4.5:1 from what is behind them.
FAINT = """() => {
  const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b); };
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor; if (!c.startsWith("rgba")) return c; } };
  const words = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility() && words(e)).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => x - y);
    return [(b + 0.05) / (a + 0.05), e.textContent.trim()]; }).filter(([ratio]) => ratio < 4.5); }"""

NAMELESS = """() => [...document.querySelectorAll("table, input, select, img, section, button")]
  .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.alt || e.labels?.[0]?.textContent.trim()
    || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent)).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as p:
        started = p.chromium.launch(executable_path=CHROMIUM, args=[f"--{flag}" for flag in FLAGS.split()])
        yield started
        started.close()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, noise: Callable[..., bytes]) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.jpg"
    path.write_bytes(noise(0, *NOISE, format="JPEG"))
    return path


@contextlib.contextmanager
def opened(browser: Any, server: Any, width: int = 1280, refusals: int = 0, **how: Any) -> Iterator[Any]:
    """The page; afterwards: only the server was asked, and the console tells of so many refusals and nothing else."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 844}, **how)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:", "data:")) else complaints.append(r.url))
    page.goto(server.url)
    page.get_by_text("cifar_resnet8, 10 classes").wait_for()
    yield page
    context.close()
    assert [c for c in complaints if "Failed to load resource: the server responded with" not in c] == []
    assert len(complaints) == refusals


def choose(page: Any, file: Path | dict[str, Any]) -> None:
    """Choose a picture, and wait until it is explained."""
    page.get_by_label("Choose an image").set_input_files(file)
    page.locator("#heat").wait_for()


def told(page: Any) -> list[tuple[str, str]]:
    return [tuple(row.locator("th, td").all_inner_texts()) for row in page.locator("#classes tr").all()]


def test_a_picture_is_classified_and_explained(browser: Any, server: Any, picture: Path) -> None:
    wanted = server.ask("POST", "/predict", "image/jpeg", picture.read_bytes()).json()["classes"]
    rows = [(found["class"], f"{100 * found['probability']:.1f} %") for found in wanted]
    with opened(browser, server) as page:
        assert page.locator("#result").is_hidden()
        choose(page, picture)
        assert told(page) == rows
        assert page.get_by_role("status").inner_text() == f"{rows[0][0]}, {rows[0][1]}."
        widths = [float(bar.get_attribute("width")) for bar in page.locator(".bar rect").all()]
        assert widths == [pytest.approx(100 * found["probability"]) for found in wanted]
        assert page.evaluate("['photo', 'heat'].map((id) => document.getElementById(id).naturalWidth)") == [300, 256]
        assert page.get_by_label("for the class").input_value() == rows[0][0]
        assert page.get_by_label("at the unit").input_value() == "layer3.0"


def test_another_class_and_unit_are_explained_and_the_heat_can_be_hidden(
    browser: Any, server: Any, picture: Path
) -> None:
    with opened(browser, server) as page:
        choose(page, picture)
        other = told(page)[1][0]
        for label, value in (("for the class", other), ("at the unit", "layer1.0")):
            with page.expect_response("**/explain?*") as answered:
                page.get_by_label(label).select_option(value)
            assert value in answered.value.url
        heat = page.get_by_alt_text(f"Where the network looked for {other}, at layer1.0")
        heat.wait_for()
        page.get_by_label("Show where the network looked").uncheck()
        assert heat.is_hidden()
        assert page.get_by_text("The part of your picture that the network sees.").is_visible()
        page.get_by_label("Show where the network looked").check()
        assert heat.is_visible()


def choose_by_key(page: Any, picture: Path, tries: int = 30) -> None:
    """Press the space bar on the focused input until the browser asks for a file: a busy one may lose a key."""
    from playwright.sync_api import TimeoutError

    for left in reversed(range(tries)):
        try:
            with page.expect_file_chooser(timeout=4000) as chooser:
                page.keyboard.press("Space")
        except TimeoutError:
            if not left:
                raise
        else:
            chooser.value.set_files(picture)
            return


def test_keys_alone_do_everything(browser: Any, server: Any, picture: Path) -> None:
    with opened(browser, server) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        ring = "getComputedStyle(document.querySelector('.button')).outlineStyle"
        assert page.evaluate(ring) == "solid"
        choose_by_key(page, picture)
        page.locator("#heat").wait_for()
        reached = []
        for _ in range(5):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert reached == ["show", "label", "unit", "API", "metrics"]
        page.get_by_label("Show where").focus()
        page.keyboard.press("Space")
        assert page.locator("#heat").is_hidden()
        page.get_by_label("for the class").focus()
        with page.expect_response("**/explain?*"):
            page.keyboard.press("ArrowDown")


def test_pictures_are_dropped_and_pasted(browser: Any, server: Any, picture: Path) -> None:
    give = """([kind, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "x.jpg", { type: "image/jpeg" }));
      const how = { bubbles: true, cancelable: true };
      document.body.dispatchEvent(kind === "drop"
        ? new DragEvent("drop", { dataTransfer: data, ...how })
        : new ClipboardEvent("paste", { clipboardData: data, ...how })); }"""
    for kind in ("drop", "paste"):
        with opened(browser, server) as page:
            page.evaluate(give, [kind, list(picture.read_bytes())])
            page.locator("#heat").wait_for()
            assert len(told(page)) == 5


def test_what_is_refused_is_said_and_the_next_picture_goes(browser: Any, server: Any, picture: Path) -> None:
    text = {"name": "x.txt", "mimeType": "text/plain", "buffer": b"no image"}
    large = {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": bytes(2_500_000)}
    with opened(browser, server, refusals=2) as page:
        page.get_by_label("Choose an image").set_input_files(text)
        page.get_by_role("alert").get_by_text("not an image in a supported format").wait_for()
        assert page.locator("#result").is_hidden()
        page.get_by_label("Choose an image").set_input_files(large)
        page.get_by_role("alert").get_by_text("The picture has 2.5 MB; the limit is 2.0 MB.").wait_for()
        choose(page, picture)
        assert page.get_by_role("alert").inner_text() == ""
        page.get_by_label("Choose an image").set_input_files(text)
        page.get_by_role("alert").get_by_text("not an image in a supported format").wait_for()
        assert page.locator("#result").is_hidden(), "what is shown belongs to another picture"


def test_a_server_that_is_gone_is_said(browser: Any, serving: Any, picture: Path) -> None:
    with serving() as served:
        context = browser.new_context()
        page = context.new_page()
        page.goto(served.url)
        page.get_by_text("cifar_resnet8, 10 classes").wait_for()
        served.process.kill()
        served.process.wait()
        page.get_by_label("Choose an image").set_input_files(picture)
        page.get_by_role("alert").get_by_text("The server can't be reached.").wait_for()
        context.close()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_cut_off_and_everything_has_a_name(browser: Any, server: Any, picture: Path, width: int) -> None:
    over = """[...document.querySelectorAll("main *, footer")].filter((e) => e.checkVisibility() && !e.closest(".frame")
      && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName)"""
    with opened(browser, server, width) as page:
        for with_result in (False, True):
            if with_result:
                choose(page, picture)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(over) == []
            assert page.evaluate(NAMELESS) == []
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
        assert levels == [1, 2, 2]
        photo, table = page.locator(".frame").bounding_box(), page.get_by_role("table").bounding_box()
        assert (table["y"] + table["height"] < photo["y"]) == (width < 700), "one column on a phone"
        assert photo["width"] == pytest.approx(photo["height"], abs=1)


@pytest.mark.parametrize(("scheme", "paper"), [("light", "rgb(251, 250, 247)"), ("dark", "rgb(21, 23, 27)")])
def test_nothing_is_faint(browser: Any, server: Any, picture: Path, scheme: str, paper: str) -> None:
    with opened(browser, server, color_scheme=scheme, refusals=1) as page:
        choose(page, picture)
        assert page.evaluate(FAINT) == []
        page.get_by_label("Choose an image").set_input_files(
            {"name": "x.png", "mimeType": "image/png", "buffer": b"no image"}
        )
        page.get_by_role("alert").get_by_text("not an image in a supported format").wait_for()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == paper
        assert page.evaluate(FAINT) == []
