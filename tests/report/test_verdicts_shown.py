"""What pages say of verdicts: counts, remarks, and which records stand in the overview."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from resnetlab.report.study_pages import write_report
from resnetlab.studies.frame.record import Record
from resnetlab.studies.frame.statistics import REPRODUCED, VERDICTS
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


def test_a_page_counts_verdicts_and_shows_remarks(tmp_path: Path) -> None:
    row = {"claim": "c", "paper": "p", "measured": "m"}
    rows = [row | {"verdict": verdict.word, "remark": f"remark {verdict.name}"} for verdict in (*VERDICTS, REPRODUCED)]
    page = written(tmp_path, record(rows=rows))
    header = page[page.index('<table class="stack overview"') : page.index('aria-label="The verdicts"')]
    counts = re.findall(r'class="badge ([a-z-]+)">.*?</svg>(\d+) ', header, re.DOTALL)
    assert counts == [(v.name.lower().replace("_", "-"), "2" if v is REPRODUCED else "1") for v in VERDICTS]
    assert len(re.findall(r'<p class="remark">remark [A-Z_]+</p>', page)) == len(rows)
    assert all(str(SHARED(f"meaning.{verdict.name}")).replace("'", "&#39;") in page for verdict in VERDICTS)


def test_in_the_overview_stand_the_fullest_records_of_a_study(tmp_path: Path) -> None:
    """One that is shortened or of one seed keeps its page, and is named where a fuller one stands."""
    shortened = record(answer="shortened answer", seeds=1, shortened="--seeds 1")
    (tmp_path / "degradation-quick-shortened.json").write_text(json.dumps(shortened))
    overview = written(tmp_path, record(answer="one seed's", scale="cifar", seeds=1), record(answer="full", seeds=3))
    assert "full" in overview
    assert "shortened answer" not in overview
    assert "one seed&#39;s" not in overview
    assert overview.count('<tr role="row">\n      <th role="rowheader" scope="row"><a href=') == 1
    for name in ("degradation-cifar", "degradation-quick-shortened"):
        assert f'href="{name}.html"' in overview
        assert (tmp_path / f"{name}.html").exists()
    (tmp_path / "degradation-quick.json").unlink()
    assert "one seed&#39;s" in write_report(tmp_path).read_text(), "less than that is there"
    (tmp_path / "degradation-cifar.json").unlink()
    assert "shortened answer" in write_report(tmp_path).read_text()


def test_an_older_record_tells_by_its_command_that_it_is_shortened(tmp_path: Path) -> None:
    old = record(answer="old and short", scale="cifar", command="resnetlab study run degradation --epochs 1 --seeds 1")
    assert "old and short" in written(tmp_path, old)
    assert "old and short" not in written(tmp_path, old, record())


def test_a_record_from_before_the_rule_had_two_sides_is_read(tmp_path: Path) -> None:
    rows = [{"claim": "c", "paper": "p", "measured": "m", "verdict": "not reproduced"}]
    old = record(rows=rows, verdict="not reproduced")
    for key in ("seeds", "shortened"):
        del old[key]
    page = written(tmp_path, old)
    assert '<span class="badge not-reproduced">' in page
    assert "did not tell undecided from contradicted" in page
