"""The report of an evaluation: its files say the same, names are text, and the page reads on phone and desk."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browsing import FAINT, opened
from PIL import Image

from resnetlab import build
from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.normalisation import imagenet
from resnetlab.data.source import FolderFiles, StringArray
from resnetlab.errors import UserError
from resnetlab.measuring.intervals import wilson
from resnetlab.measuring.predictions import Predictions
from resnetlab.report import evaluation_report
from resnetlab.report.evaluation_report import (
    CONFUSIONS_SHOWN,
    MATRIX,
    MISTAKES_SHOWN,
    check_report,
    html,
    numbers,
    predictions,
    summary,
    write_report,
)
from resnetlab.studies.figures import svg
from resnetlab.training.classes import Matched
from resnetlab.training.evaluate import Evaluation, Member

HOSTILE = "<script>alert(1)</script>{{ 7 * 7 }}\"'"
Made = Callable[..., tuple[Evaluation, Data]]

NAMELESS = """() => [...document.querySelectorAll("figure, table, nav, section, img, [role]")]
  .filter((e) => !(e.ariaLabel || e.alt || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent))
  .map((e) => e.outerHTML.slice(0, 80))"""

CUT_OFF = """() => [...document.querySelectorAll("main *")].filter((e) => !e.closest(".scroll")
  && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """made(classes, images, in_files): answers that are right now and then, to noise."""
    folder, net = tmp_path_factory.mktemp("made"), build("cifar_resnet8", seed=0)

    def answers(classes: int, images: int, *, in_files: bool = False, sure: float = 2.0) -> tuple[Evaluation, Data]:
        generator = torch.Generator().manual_seed(classes)
        labels = torch.randint(0, classes, (images,), generator=generator)
        scores = torch.randn(images, classes, generator=generator, dtype=torch.float64)
        scores[torch.arange(images), labels] += sure
        found = Predictions.of(scores.log_softmax(1), labels)
        names = tuple(f"class {i}" for i in range(classes - 1)) + (HOSTILE,)
        test: Images | Files = Images(torch.zeros(images, 3, 8, 8, dtype=torch.uint8), labels)
        if in_files:
            paths = StringArray(f"a/{i}.png" for i in range(images))
            (folder / "a").mkdir(exist_ok=True)
            noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
            for i in range(images):
                Image.fromarray(noise).save(folder / f"a/{i}.png")
            sizes = np.ones(images, dtype=np.int64)
            test = Files.all_of(FolderFiles(folder, paths, labels.numpy().astype(np.int32), sizes))
        matched = Matched(names, tuple(range(classes)), HOSTILE)
        member = Member(HOSTILE, net, imagenet(), "0123abcd", "torchvision", "from the file", matched)
        done = Evaluation((member,), (found.accuracy,), found, "1-crop", False, names, test)
        return done, Data("noise", test, test, names)

    return answers


def test_the_three_files_say_the_same(made: Made, tmp_path: Path) -> None:
    found, data = made(7, 50, in_files=True)
    check_report(tmp_path / "deep" / "report")
    write_report(found, data, tmp_path / "deep" / "report", text="folder:x", which="last", device="cpu")
    files = {path.name: path.read_text() for path in (tmp_path / "deep" / "report").iterdir()}
    assert set(files) == {"evaluation.html", "evaluation.json", "predictions.csv"}
    said = json.loads(files["evaluation.json"])
    rows = list(csv.DictReader(files["predictions.csv"].splitlines()))
    assert [row["image"] for row in rows] == [f"a/{i}.png" for i in range(50)]
    right = sum(row["label"] == row["predicted"] for row in rows)
    assert right == said["correct"] == sum(c["right"] for c in said["classes"]) == found.accuracy.top1_correct
    assert said["top1"] == 2 * right
    assert said["top1_interval"][0] < said["top1"] < said["top1_interval"][1]
    assert said["top5_interval"][0] < said["top5"] < said["top5_interval"][1]
    assert said["top5"] > said["top1_interval"][1]
    for c in said["classes"]:
        for name, of in (("recall", c["images"]), ("precision", c["predicted"])):
            assert c[name] == pytest.approx(c["right"] / of if of else None)
            assert c[f"{name}_interval"] == pytest.approx(wilson(c["right"], of))
    assert sum(c["predicted"] for c in said["classes"]) == 50
    assert sum(c["images"] for c in said["classes"]) == sum(c["images"] for c in said["confusion"]) == 50
    pairs = {(c["label"], c["predicted"]): c["images"] for c in said["confusion"]}
    assert sum(pairs.get((i, i), 0) for i in range(7)) == right
    assert sum(b["images"] for b in said["calibration"]) == 50
    weighted = sum(b["images"] * abs(b["accuracy"] - b["confidence"]) for b in said["calibration"]) / 50
    assert said["ece"] == pytest.approx(weighted)
    assert said["data"]["name"] == "folder:x"
    assert said["sources"][0]["weights_sha256"] == "0123abcd"
    assert f"{said['top1']:.2f}" in files["evaluation.html"]


def test_scores_that_are_not_finite_leave_a_report(made: Made) -> None:
    found, data = made(3, 2)
    lost = Predictions.of(torch.full((2, 3), torch.nan, dtype=torch.float64), found.answers.labels)
    broken = replace(found, accuracies=(lost.accuracy,), answers=lost)
    said = numbers(broken, data, text="noise", which="last", device="cpu")
    assert json.loads(json.dumps(said, allow_nan=False))["loss"] is None
    assert [cell["predicted"] for cell in said["confusion"]] == [-1] * len(said["confusion"])
    assert summary(broken)["top1"] == 0
    assert [row["predicted"] for row in csv.DictReader(predictions(broken).splitlines())] == ["", ""]
    assert "Of 2 test images, 0 are classified correctly" in html(broken, data, "noise")


def test_nothing_is_overwritten(made: Made, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text("mine")
    with pytest.raises(UserError, match=r"evaluation.json: already exists; remove it, or choose another"):
        check_report(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file: can't write \(File exists\)"):
        check_report(tmp_path / "file")
    with pytest.raises(UserError, match=r"below: can't write \(Not a directory\)"):
        check_report(tmp_path / "file" / "below")


def test_a_report_that_is_interrupted_leaves_nothing_in_the_way(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = evaluation_report.write_atomically

    def interrupted(path: Path, content: bytes, *, new: bool) -> None:
        if path.suffix == ".json":
            raise KeyboardInterrupt
        write(path, content, new=new)

    monkeypatch.setattr(evaluation_report, "write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(*made(2, 4), tmp_path, text="digits", which="last", device="cpu")
    check_report(tmp_path)


def test_a_report_that_cannot_be_finished_leaves_nothing(made: Made, tmp_path: Path) -> None:
    (tmp_path / "evaluation.html").write_text("of another command, at the same time")
    with pytest.raises(UserError, match=r"can't write \(File exists\)"):
        write_report(*made(3, 30), tmp_path, text="folder:x", which="last", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.html"]


def test_a_class_name_that_is_no_unicode_is_escaped(made: Made, tmp_path: Path) -> None:
    """As of a weight file; an evaluation of hours must not end without its report."""
    found, data = made(3, 30)
    found = replace(found, classes=(*found.classes[:2], "\ud800"))
    write_report(found, data, tmp_path, text="noise", which="last", device="cpu")
    assert "\\ud800" in (tmp_path / "predictions.csv").read_text()


def test_names_are_text_and_nothing_comes_from_outside(made: Made) -> None:
    text = html(*made(3, 30), "folder:<b>")
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in text
    assert "<b>&lt;script&gt;" in text
    assert "folder:&lt;b&gt;" in text
    assert set(re.findall(r'(?:src|href)="([^"#]{5})', text)) == {"data:"}
    light, dark = text[: text.index("@media screen")], text[text.index("@media screen") :]
    for part, colours in ((light, svg.LIGHT), (dark, svg.DARK)):
        for name in ("paper", "ink", "muted", "grid", "c0", "c1", "c4"):
            assert f"--{name}: {colours[name]};" in part


@pytest.mark.parametrize("classes", [2, MATRIX, MATRIX + 1, 1000])
def test_what_is_shown_of_few_classes_and_of_many(made: Made, classes: int) -> None:
    text = html(*made(classes, 400), "noise")
    confusions = text[text.index('<section id="confusions"') :].partition("</section>")[0]
    if classes <= MATRIX:
        assert confusions.count("<td class") == classes**2
    else:
        assert confusions.count("<tr>") == 1 + CONFUSIONS_SHOWN
    assert text[text.index('<section id="classes"') :].partition("</section>")[0].count("<tr>") == 1 + min(classes, 50)
    assert text.count("<img ") == MISTAKES_SHOWN
    assert ("top-5, %" in text) == (classes > 5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (1, "1 of 1,000 classes is shown, the one that has test images;"),
        (12, " of 1,000 classes are shown, those that have test images;"),
        (400, "50 of 1,000 classes are shown, those of the lowest and of the highest recall;"),
    ],
)
def test_which_of_many_classes_are_shown(made: Made, images: int, words: str) -> None:
    assert words in html(*made(1000, images), "noise")


def test_one_image_is_no_images(made: Made) -> None:
    assert "Of 1 test image, 1 is classified correctly: 100.00" in html(*made(4, 1, sure=99.0), "noise")


def test_without_a_mistake(made: Made) -> None:
    text = html(*made(4, 30, sure=99.0), "noise")
    assert "No image was predicted as another class." in text
    assert 'id="mistakes"' not in text
    assert "#mistakes" not in text


@pytest.mark.parametrize(
    ("wrong", "shown", "mistakes"),
    [
        (1, "The only one.", "The one wrong answer."),
        (2, "All 2, the most frequent first.", "All 2 wrong answers, the most confident first."),
        (35, "The 30 most frequent of 35;", "The wrong answers with the highest probability, 24 of 35."),
    ],
)
def test_how_many_confusions_and_mistakes_there_are(made: Made, wrong: int, shown: str, mistakes: str) -> None:
    found, data = made(40, 40, sure=99.0)
    labels = torch.arange(40)
    scores = torch.zeros(40, 40, dtype=torch.float64)
    scores[labels, (labels + (labels < wrong)) % 40] = 9.0
    answers = Predictions.of(scores.log_softmax(1), labels)
    text = html(replace(found, accuracies=(answers.accuracy,), answers=answers), data, "noise")
    assert f'<p class="words">{shown}' in text
    assert mistakes in text


def test_one_wrong_answer_among_scores_that_are_not_finite(made: Made) -> None:
    found, data = made(3, 4)
    scores = torch.full((4, 3), torch.nan, dtype=torch.float64)
    scores[0] = torch.tensor([9.0, 0.0, 0.0])
    answers = Predictions.of(scores.log_softmax(1), torch.tensor([1, 1, 1, 1]))
    text = html(replace(found, accuracies=(answers.accuracy,), answers=answers), data, "noise")
    assert "The wrong answers with the highest probability, 1 of 4." in text


@pytest.fixture(scope="module", params=[10, 1000], ids=["10 classes", "1,000 classes"])
def page(request: pytest.FixtureRequest, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "evaluation.html"
    path.write_text(html(*made(request.param, 300, in_files=True), "folder:" + "long" * 40))
    return path


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "light"),
        pytest.param(768, "dark", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_cut_off_or_faint(browser: Any, page: Path, width: int, scheme: str) -> None:
    with opened(browser, page, width, color_scheme=scheme) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate(CUT_OFF) == []
        assert tab.evaluate(FAINT) == []
        sizes = tab.evaluate("[...document.images].map(i => Math.max(i.naturalWidth, i.naturalHeight))")
        assert set(sizes) == {96}


def test_landmarks_headings_and_names(browser: Any, page: Path) -> None:
    with opened(browser, page) as tab:
        assert tab.locator("html").get_attribute("lang") == "en"
        assert tab.get_by_role("main").count() == tab.locator("h1").count() == 1
        levels = tab.evaluate("() => [...document.querySelectorAll('h1, h2, h3, h4')].map((h) => +h.tagName[1])")
        assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
        assert tab.evaluate(NAMELESS) == []
        links = [link.get_attribute("href") for link in tab.locator("nav a").all()]
        assert [tab.locator(link).count() for link in links] == [1] * len(links)
