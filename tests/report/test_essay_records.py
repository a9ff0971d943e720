"""Which record the essay reads where a study has several: one draws, one judges, and each says what it is of."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from resnetlab.report.essay import unit
from resnetlab.report.essay.facts import Library
from resnetlab.report.essay.page import essay, terminal
from resnetlab.report.essay.values import Book
from resnetlab.report.study_pages import write_essay, write_report
from resnetlab.studies.degradation.study import STUDY
from resnetlab.studies.figures import draw
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.record import Record, RecordedRow, read_records

COMMITTED = Path(__file__).resolve().parents[2] / "results"

# Made up, after the first epochs of such runs on CIFAR-10: training and test error (%) by epoch.
CURVES = {
    "cifar_plain20": [(65.1, 55.2), (48.7, 44.9), (38.0, 37.7), (31.2, 31.8), (22.9, 24.6), (20.4, 22.9)],
    "cifar_plain56": [(83.4, 80.4), (73.2, 68.4), (69.0, 65.5), (66.2, 61.5), (57.3, 55.8), (54.9, 54.0)],
    "cifar_resnet20": [(58.6, 50.2), (41.0, 40.8), (32.2, 34.0), (26.9, 28.3), (18.7, 20.5), (16.4, 18.9)],
    "cifar_resnet56": [(82.3, 69.5), (59.5, 50.0), (42.7, 45.0), (33.0, 32.4), (17.9, 19.4), (14.8, 17.2)],
}


def cifar(seeds: int, **changes: Any) -> Record:
    """A record of degradation at the scale cifar, made of so many seeds as the study itself makes it."""
    plan = STUDY.plan("cifar", "cifar10:DIR", ()).limited(None, seeds)
    outcomes = [
        RunResult(
            recipe,
            {"seconds": 1500.0, **{f"{part}_error": lines[-1][f"{part}_error"] for part in ("train", "test")}},
            lines,
            {},
        )
        for recipe in plan.recipes
        for lines in [_epochs(recipe.net, recipe.seed)]
    ]
    found = STUDY.judge(Evidence("cifar", outcomes))
    options = f" --seeds {seeds}" if plan.shortened else ""
    values = {
        "study": STUDY.name,
        "scale": "cifar",
        "title": STUDY.title,
        "claim": STUDY.claim,
        "source": STUDY.source,
        "method": STUDY.method,
        "rule": STUDY.rule,
        "expected": plan.expected,
        "verdict": str(found.verdict),
        "rows": [
            asdict(RecordedRow(row.claim, row.paper, row.measured, row.verdict.word, row.remark)) for row in found.rows
        ],
        "figures": [asdict(figure) for figure in found.figures],
        "tables": [asdict(table) for table in found.tables],
        "words": found.words,
        "answer": found.answer,
        "theory": STUDY.theory,
        "note": plan.note,
        "machine": {"processor": "Test processor", "cores": 2},
        "runs": len(outcomes),
        "training_seconds": 1500.0 * len(outcomes),
        "measurements": 0,
        "measuring_seconds": 0.0,
        "command": f"resnetlab study run degradation --scale cifar --data cifar10:DIR{options}",
        "date": "2026-01-02T03:04:05+00:00",
        "seeds": seeds,
        "shortened": plan.shortened,
    }
    return Record(**json.loads(json.dumps(values | changes, default=vars)))


def _epochs(net: str, seed: int) -> list[dict[str, Any]]:
    return [
        {"epoch": i, "train_error": train + 0.4 * seed, "test_error": test + 0.4 * seed}
        for i, (train, test) in enumerate(CURVES[net], 1)
    ]


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Pictures are for tests with a browser."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "draw_panel", lambda figure, panel, name: f"<svg id='svg-{name}'></svg>")
        patch.setattr(draw, "draw", lambda figure, name: "<svg></svg>")
        yield


@pytest.fixture(scope="module")
def quick() -> Record:
    if not any(COMMITTED.glob("degradation-quick.json")):
        pytest.skip("no results of studies are committed")
    return next(r for r in read_records(COMMITTED) if r.name == "degradation-quick")


def shown(*records: Record) -> tuple[str, str, Library]:
    """The first screen, the section of the problem in English, and the library."""
    library = Library.of([Book.of(r, f"{r.name}.html") for r in records])
    page = re.sub(r'<span lang="zh">.*?</span>', "", essay(library))
    hero, _, rest = page.partition("</header>")
    return hero, rest.partition('id="part-vanishing"')[0], library


def test_one_seed_of_cifar_is_drawn_and_says_so_and_the_digits_judge(quick: Record) -> None:
    hero, section, library = shown(quick, cifar(1))
    plain = text_of(hero)
    assert "Trained on CIFAR-10, a plain network of 20 layers" in plain
    assert "on CIFAR-10. Solid: 56 layers; dashed: 20. One run of each network." in plain
    assert set(re.findall(r'data-record="([^"]+)"', hero)) == {"degradation-cifar-shortened.json"}
    plain = text_of(section)
    assert "on CIFAR-10: plain networks" in plain
    assert "One run of each network." in plain
    assert "Each network is trained once, 6 epochs on CIFAR-10" in plain
    assert "The same on the handwritten digits (8×8 pixels), with 5 seeds of each network" in plain
    assert re.search(
        r"degradation, cifar \(one seed\), measured on 2 January 2026 [^;]+; +degradation, quick", plain
    ), "the one that is drawn is first"
    assert library.records == [quick], "claims are counted by the fuller record"
    assert "CIFAR-10" in terminal(library)[0].en


def test_three_seeds_of_cifar_stand_for_the_study(quick: Record) -> None:
    full = cifar(3)
    hero, section, library = shown(quick, full)
    assert library.records == [full]
    assert "Means of 3 seeds, with their range." in text_of(hero)
    assert "The same on" not in text_of(section)


def test_shorter_runs_are_not_drawn_before_whole_ones(quick: Record) -> None:
    short = replace(cifar(1), shortened="--epochs 1 --seeds 1")
    assert shown(quick, short)[2].pictured("degradation").record is quick
    assert shown(short)[2].pictured("degradation").record is short


def test_the_report_keeps_the_fuller_record_in_front(quick: Record, tmp_path: Path) -> None:
    quick.save(tmp_path)
    cifar(1).save(tmp_path)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert re.findall(r'class="fold study" id="study-([^"]+)"', page) == ["degradation-quick"]
    aside = page.partition('class="aside-records"')[2]
    assert '<a href="degradation-cifar-shortened.html">' in aside
    assert "(one seed)" in aside
    own = text_of((tmp_path / "degradation-cifar-shortened.html").read_text(encoding="utf-8"))
    assert "CIFAR-10, one seed" in own


def test_records_of_one_name_in_two_folders_have_a_page_each(quick: Record, tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        quick.save(folder)
        cifar(3).save(folder)
    write_report(theirs)
    page = write_essay(mine, theirs)[0].read_text(encoding="utf-8")
    links = dict.fromkeys(re.findall(r'<a href="([^"]+degradation-[^"]+|degradation-[^"]+)"', page))
    assert list(links) == [
        f"{folder}degradation-{scale}.html" for folder in ("", "../theirs/") for scale in ("cifar", "quick")
    ]
    assert "degradation, cifar in ../theirs" in text_of(page)
    (theirs / "degradation-cifar.html").unlink()
    assert "../theirs/degradation-cifar.html" not in write_essay(mine, theirs)[0].read_text(encoding="utf-8")


def test_the_other_folder_may_be_called_anything(quick: Record, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    theirs = tmp_path / os.fsdecode(b'a "50%" <b> #2 \xff')
    replace(quick, study="carry").save(mine)
    quick.save(theirs)
    (theirs / "degradation-quick.html").touch()
    found: list[tuple[str, str | None]] = []
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attrs: found.extend(attrs)  # type: ignore[method-assign]
    reader.feed(write_essay(mine, theirs)[0].read_text(encoding="utf-8"))
    assert ("href", "../a%20%2250%25%22%20%3Cb%3E%20%232%20%FF/degradation-quick.html") in found
    files = {value for name, value in found if name == "data-record" and value != "carry-quick.json"}
    assert files == {'../a "50%" <b> #2 \\xff/degradation-quick.json'}


def test_errors_beside_the_unit_say_their_depth_and_data() -> None:
    records = [r for r in read_records(COMMITTED) if r.name in ("scaling-quick", "orders-quick", "mixing-quick")]
    if not records:
        pytest.skip("no results of studies are committed")
    scaling = next(r for r in records if r.study == "scaling")
    values = json.loads(json.dumps(scaling.to_dict()).replace("56 layers", "110 layers").replace("56 层", "110 层"))
    command = "resnetlab study run scaling --scale paper --data cifar10:DIR"
    deep = Record(**values | {"scale": "paper", "command": command})
    others = [r for r in records if r is not scaling]
    found = unit.choices(Library.of([Book.of(r) for r in (deep, *others)]))
    half, early = "half identity post", "add identity full_preact"
    assert found["errors"][half]["about"]["en"] == "test error, 110 layers, CIFAR-10"
    assert found["networks"][half] == "cifar_resnet110(mix=Scale(0.5, 1))"
    assert found["errors"][early]["about"]["en"] == "test error, 56 layers, the handwritten digits (8×8 pixels)"
    assert found["networks"][early] == "cifar_resnet56(order='full_preact')"
    assert unit.choices(Library({}))["networks"][half] == "cifar_resnet56(mix=Scale(0.5, 1))"


def text_of(page: str) -> str:
    """The words of a page, in English."""
    page = re.sub(r'<span lang="zh">.*?</span>|<script.*?</script>', "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
