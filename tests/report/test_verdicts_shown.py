"""What pages say of verdicts: counts, remarks, and which records stand in the overview."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from resnetlab.report.study_pages import write_report
from resnetlab.studies.frame.record import Record
from resnetlab.studies.frame.statistics import DIRECTION, NOT_TESTED, REPRODUCED, VERDICTS
from resnetlab.studies.frame.text import SHARED


def record(**changes: Any) -> dict[str, Any]:
    words = ("title", "claim", "source", "method", "rule", "expected", "verdict", "words", "theory", "note", "answer")
    values = Record(
        **dict.fromkeys(words, ""),
        study="degradation",
        scale="quick",
        rows=[{"claim": "c", "paper": "p", "measured": "m", "verdict": REPRODUCED.word}],
        figures=[],
        tables=[],
        machine={},
        runs=1,
        training_seconds=1.0,
        measurements=0,
        measuring_seconds=0.0,
        command="resnetlab study run degradation --scale quick",
        date="2026-01-02T03:04:05+00:00",
    ).to_dict()
    return values | changes


def written(folder: Path, *records: dict[str, Any]) -> str:
    for values in records:
        (folder / f"{values['study']}-{values['scale']}.json").write_text(json.dumps(values))
    return write_report(folder).read_text()


def counted(part: str) -> list[tuple[str, str]]:
    """The verdicts that a part of a page counts, and how many claims have each."""
    return re.findall(r'class="badge ([a-z-]+)">.*?</svg>(\d+) ', part, re.DOTALL)


def appendix(page: str) -> dict[str, str]:
    """The studies that stand in the appendix: what is shown of each, by its page."""
    return dict(re.findall(r'<details class="fold study" id="study-([^"]+)">(.*?)</details>', page, re.DOTALL))


def test_a_page_counts_verdicts_and_shows_remarks(tmp_path: Path) -> None:
    row = {"claim": "c", "paper": "p", "measured": "m"}
    rows = [row | {"verdict": verdict.word, "remark": f"remark {verdict.name}"} for verdict in (*VERDICTS, REPRODUCED)]
    counts = [(v.name.lower().replace("_", "-"), "2" if v is REPRODUCED else "1") for v in VERDICTS]
    page = written(tmp_path, record(rows=rows))
    assert counted(page[page.index('aria-label="Verdicts"') : page.index('aria-label="The verdicts"')]) == counts
    assert len(re.findall(r'data-label="measured"[^>]*>m<p class="remark">remark [A-Z_]+</p></td>', page)) == len(rows)
    assert all(str(SHARED(f"meaning.{verdict.name}")).replace("'", "&#39;") in page for verdict in VERDICTS)
    front = written(tmp_path, record(rows=rows, scale="paper"))
    studies = appendix(front)
    assert list(studies) == ["degradation-quick", "degradation-paper"]
    for study in studies.values():
        assert counted(study) == counts
        assert len(re.findall(r'<p class="remark">remark [A-Z_]+</p>', study)) == len(rows)
    left_open = front[front.index('id="part-open"') : front.index('<section id="appendix"')]
    remarks = re.findall(r'<p class="remark">remark ([A-Z_]+)</p>', left_open)
    assert remarks == [v.name for v in VERDICTS if v not in (REPRODUCED, DIRECTION, NOT_TESTED)]


def test_in_the_appendix_stand_the_fullest_records_of_a_study(tmp_path: Path) -> None:
    """One that is shortened or of one seed keeps its page, and is linked where a fuller one stands."""
    shortened = record(claim="shortened claim", seeds=1, shortened="--seeds 1")
    (tmp_path / "degradation-quick-shortened.json").write_text(json.dumps(shortened))
    front = written(tmp_path, record(claim="claim of one", scale="cifar", seeds=1), record(claim="full claim", seeds=3))
    assert list(appendix(front)) == ["degradation-quick"]
    assert "full claim" in front
    assert "shortened claim" not in front
    assert "claim of one" not in front
    linked = front[front.index('<p class="aside-records">') :]
    for name, kind in (("cifar", "one seed"), ("quick-shortened", "one seed")):
        scale = name.partition("-")[0]
        link = f'<a href="degradation-{name}.html"><span lang="en">degradation, {scale}</span>'
        assert link in linked
        assert f'</a><span lang="en"> ({kind})</span>' in linked
        assert f'<span lang="en"> ({kind})</span>' in (tmp_path / f"degradation-{name}.html").read_text()
    (tmp_path / "degradation-quick.json").unlink()
    assert list(appendix(write_report(tmp_path).read_text())) == ["degradation-cifar"], "less than that is there"
    (tmp_path / "degradation-cifar.json").unlink()
    assert "shortened claim" in write_report(tmp_path).read_text()


def test_an_older_record_tells_by_its_command_that_it_is_shortened(tmp_path: Path) -> None:
    old = record(claim="old and short", scale="cifar", command="resnetlab study run degradation --epochs 1 --seeds 1")
    assert "old and short" in written(tmp_path, old)
    assert "old and short" not in written(tmp_path, old, record())


def test_a_record_from_before_the_rule_had_two_sides_is_read(tmp_path: Path) -> None:
    rows = [{"claim": "c", "paper": "p", "measured": "m", "verdict": "not reproduced"}]
    old = record(rows=rows, verdict="not reproduced")
    for key in ("seeds", "shortened"):
        del old[key]
    page = written(tmp_path, old)
    assert '<span class="badge not-reproduced">' in page
    assert "did not distinguish undecided from contradicted" in page
