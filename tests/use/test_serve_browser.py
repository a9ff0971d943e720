"""The server's page in a real browser: with pointer and with keys, on phone and desk, light and dark."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsing import FAINT
from PIL import Image

from resnetlab import build
from resnetlab.data.normalisation import Normalisation
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

NOISE = (500, 300)  # height, width of the picture: upright, as phones' are

NAMELESS = """() => [...document.querySelectorAll("table, input, select, img, section, button")]
  .filter((e) => e.checkVisibility() && !(e.ariaLabel || e.alt || e.labels?.[0]?.textContent.trim()
    || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent)).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory, noise: Callable[..., bytes]) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "picture.jpg"
    path.write_bytes(noise(0, *NOISE, format="JPEG"))
    return path


@contextlib.contextmanager
def opened(
    browser: Any, server: Any, width: int = 1280, refusals: int = 0, what: str = "cifar_resnet8, 10 classes", **how: Any
) -> Iterator[Any]:
    """The page; afterwards: only the server was asked, and the console tells of so many refusals and nothing else."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 844}, **how)
    context.set_default_timeout(120_000)
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((server.url, "blob:", "data:")) else complaints.append(r.url))
    page.goto(server.url)
    page.get_by_text(what).first.wait_for()
    page.locator("#known").wait_for()
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
        assert page.get_by_role("status").inner_text() == " ".join(rows[0])
        widths = [float(bar.get_attribute("width")) for bar in page.locator(".bar rect").all()]
        assert widths == [pytest.approx(100 * found["probability"]) for found in wanted]
        assert page.get_by_label("for the class").input_value() == rows[0][0]
        assert page.get_by_label("at the unit").input_value() == "layer3.0"


def test_the_answer_is_what_one_sees_first(browser: Any, server: Any, picture: Path) -> None:
    for width in (390, 1440):
        with opened(browser, server, width) as page:
            choose(page, picture)
            size = "(e) => parseFloat(getComputedStyle(e).fontSize)"
            largest = max(page.locator("body *:visible").evaluate_all(f"(all) => all.map({size})"))
            status = page.get_by_role("status")
            assert status.evaluate(size) == largest
            assert (
                page.locator("body *:visible").evaluate_all(
                    f"(all) => all.filter((e) => ({size})(e) == {largest}).length"
                )
                == 2
            )
            box, photo = status.bounding_box(), page.locator("#frame").bounding_box()
            assert box["y"] + box["height"] < photo["y"] < 844 / 2, "answer and photograph without scrolling"


def test_the_heat_lies_on_the_crop_of_the_photograph(browser: Any, server: Any, picture: Path) -> None:
    crop = server.ask("POST", "/predict", "image/jpeg", picture.read_bytes()).json()["crop"]
    assert list(crop.values()) == pytest.approx([0.0, 0.2, 1.0, 0.6], abs=0.02)
    with opened(browser, server) as page:
        choose(page, picture)
        boxes = {name: page.locator(f"#{name}").bounding_box() for name in ("photo", "heat")}
        photo, heat = boxes["photo"], boxes["heat"]
        assert photo["width"] / photo["height"] == pytest.approx(300 / 500, abs=0.01)
        for side, start, length in (("left", "x", "width"), ("top", "y", "height")):
            assert heat[start] - photo[start] == pytest.approx(crop[side] * photo[length], abs=2)
            assert heat[length] == pytest.approx(crop[length] * photo[length], abs=2)
        assert page.evaluate("['photo', 'heat'].map((id) => document.getElementById(id).naturalWidth)") == [300, 32]
        assert page.get_by_text("The faded part is cropped away: the network does not see it.").is_visible()
        assert page.locator("#crop").evaluate("(e) => getComputedStyle(e).boxShadow") != "none"
        colours = server.ask("GET", "/health").json()["heat_colours"]
        shown = page.locator("#scale").evaluate("(e) => getComputedStyle(e).backgroundImage.match(/rgb[^)]*/g)")
        rgb = ["rgb(" + ", ".join(str(int(c[i : i + 2], 16)) for i in (1, 3, 5)) for c in colours]
        assert shown == rgb


def test_where_all_is_seen_nothing_is_faded(browser: Any, server: Any, noise: Callable[..., bytes]) -> None:
    square = {"name": "x.png", "mimeType": "image/png", "buffer": noise(0, 64, 64)}
    with opened(browser, server) as page:
        choose(page, square)
        assert page.get_by_text("The network sees the whole picture.").is_visible()
        assert page.locator("#crop").evaluate("(e) => getComputedStyle(e).boxShadow") == "none"
        assert page.locator("#photo").evaluate("(e) => getComputedStyle(e).imageRendering") == "pixelated"


def test_the_strength_of_the_colours_follows_the_slider(browser: Any, server: Any, picture: Path) -> None:
    with opened(browser, server, reduced_motion="reduce") as page:  # so that no colour is still on its way
        choose(page, picture)
        slider = page.get_by_label("strength")
        for keys, strength in (([], 0.6), (["ArrowRight"], 0.65), (["Home"], 0.1), (["End"], 1.0)):
            for key in keys:
                slider.press(key)
            assert float(page.locator("#heat").evaluate("(e) => getComputedStyle(e).opacity")) == pytest.approx(
                strength
            )
            assert slider.get_attribute("aria-valuetext") == f"{100 * strength:.0f} %"


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
        assert page.get_by_text(f"What the network used for “{other}”, at layer1.0 (Grad-CAM).").is_visible()
        page.get_by_label("Show where the network looked").uncheck()
        assert heat.is_hidden()
        assert page.locator("#legend").is_hidden()
        assert page.get_by_text("The faded part is cropped away: the network does not see it.").is_visible()
        page.get_by_label("Show where the network looked").check()
        assert heat.is_visible()


def in_format(image: bytes, format: str, **how: Any) -> bytes:
    written = io.BytesIO()
    Image.open(io.BytesIO(image)).save(written, format, **how)
    return written.getvalue()


XMP = b"""http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"
tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""


def test_what_the_browser_cannot_show_or_turns_otherwise_is_shown_by_the_server(
    browser: Any, server: Any, noise: Callable[..., bytes]
) -> None:
    jpeg = noise(0, *NOISE, format="JPEG")
    turned = jpeg[:2] + b"\xff\xe1" + (len(XMP) + 2).to_bytes(2, "big") + XMP + jpeg[2:]  # which browsers pass over
    for kind, image in (("tiff", in_format(jpeg, "TIFF")), ("jpeg", turned)):
        with opened(browser, server) as page:
            page.get_by_label("Choose an image").set_input_files(
                {"name": "x", "mimeType": f"image/{kind}", "buffer": image}
            )
            page.get_by_text("This browser can't show the picture itself; this is what the network sees").wait_for()
            assert page.locator("#photo").evaluate("(e) => e.decode().then(() => e.naturalWidth)") == 256
            assert page.locator("#heat").is_hidden(), "it has the colours already"
            assert page.get_by_label("strength").is_disabled()
            other = told(page)[1][0]
            page.get_by_label("for the class").select_option(other)
            page.get_by_alt_text(f"Where the network looked for {other}, at layer3.0").wait_for()
            choose(page, {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": jpeg})
            assert page.get_by_label("strength").is_enabled()


def test_classes_and_accuracy_are_named(browser: Any, server: Any, serving: Any, run: Path, tmp_path: Path) -> None:
    with opened(browser, server) as page:
        assert page.get_by_text("The file does not name its 10 classes: they are numbered from 0.").is_visible()
        assert page.get_by_text("The accuracy of this network is not recorded.").is_visible()
    with serving(source=run) as served, opened(browser, served) as page:
        accuracy = served.ask("GET", "/health").json()["accuracy"]
        low, high = accuracy["interval"]
        assert page.locator("#accuracy").inner_text() == (
            f"The network classified {accuracy['top1']:.1f} % of {accuracy['images']} test images correctly "
            f"(95 % interval: {low:.1f} to {high:.1f} %)."
        )
        assert page.get_by_text("It tells apart 10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.").is_visible()


def test_many_classes_are_a_list_that_opens(browser: Any, serving: Any, tmp_path: Path) -> None:
    names = [f"class {i}" for i in range(1, 31)]
    net = build("cifar_resnet8", num_classes=30, seed=0)
    metadata = ModelMetadata(net.spec, tuple(names), Normalisation(torch.zeros(3, 1, 1), torch.ones(3, 1, 1)), {})
    (tmp_path / "x.safetensors").write_bytes(weights_bytes(net, metadata))
    with serving(source=tmp_path / "x.safetensors") as served, opened(browser, served, what="30 classes") as page:
        assert page.get_by_text("It tells apart 30 classes, such as class 1; class 2; class 3.").is_visible()
        page.get_by_text("Show all classes").press("Enter")
        page.get_by_text("class 30").wait_for()
        assert page.locator("#all li").all_inner_texts() == names


@pytest.mark.slow
def test_an_exported_file_gives_classes_and_no_heat(browser: Any, serving: Any, files: Path, picture: Path) -> None:
    with serving("--engine", "onnxruntime", source=files / "net.onnx") as served, opened(browser, served) as page:
        assert page.locator("#accuracy").inner_text().startswith("The network classified ")
        page.get_by_label("Choose an image").set_input_files(picture)
        page.get_by_text("This server runs an exported file, which gives classes but no heat maps.").wait_for()
        assert len(told(page)) == 5
        for name in ("heat", "legend", "looking"):
            assert page.locator(f"#{name}").is_hidden()


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
        for _ in range(6):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert reached == ["show", "strength", "label", "unit", "API", "metrics"]
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


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_nothing_is_cut_off_and_everything_has_a_name(browser: Any, server: Any, picture: Path, width: int) -> None:
    over = """[...document.querySelectorAll("main *, footer")].filter((e) => e.checkVisibility() && !e.closest("#frame")
      && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.tagName)"""
    with opened(browser, server, width) as page:
        for with_result in (False, True):
            if with_result:
                choose(page, picture)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(over) == []
            assert page.evaluate(NAMELESS) == []
        levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map((h) => +h.tagName[1])")
        assert levels == [1, 2, 2, 2, 2]
        photo, table = page.locator("#frame").bounding_box(), page.get_by_role("table").bounding_box()
        assert (photo["y"] + photo["height"] < table["y"]) == (width < 700), "one column on a phone"


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
