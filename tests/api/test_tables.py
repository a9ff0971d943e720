"""Tables of results: aligned text, HTML that is escaped."""

from __future__ import annotations

from pathlib import Path

from resnetlab.api.predict import PredictionResult
from resnetlab.api.tables import Row, as_html, as_text
from resnetlab.api.train import TrainingResult
from resnetlab.use.predict import Prediction

ROWS: list[Row] = [
    {"file_name": "<a>.png", "count": 1234, "share": 0.5, "why": None},
    {"file_name": "b", "count": 5, "share": 12.346, "why": "x"},
]


def test_numbers_stand_on_the_right() -> None:
    assert as_text(ROWS, {"share": ".1f"}).splitlines() == [
        "file name  count  share  why",
        "<a>.png    1,234    0.5",
        "b              5   12.3  x",
    ]


def test_html_is_escaped() -> None:
    shown = as_html(ROWS, {})
    assert '<td style="text-align: left">&lt;a&gt;.png</td>' in shown
    assert '<td style="text-align: right">12.35</td>' in shown
    assert shown.count("<tr>") == 3


def test_names_of_any_bytes_stay_in_their_row_and_can_be_written() -> None:
    found = PredictionResult((Prediction("two\nlines\udcff.png", error="x"),))
    shown = r"two\nlines\xff.png"
    assert str(found).splitlines()[1].split() == [shown, "x"]
    assert shown in found._repr_html_()
    assert found.to_dict()["images"][0]["file"] == "two\nlines\\xff.png"  # as the command writes it
    assert found[0].file == found.table()[0]["file"] == "two\nlines\udcff.png"  # which opens the file


def test_results_of_folders_of_any_bytes_are_json() -> None:
    errors = dict.fromkeys(("train_error", "test_error", "best_error", "seconds"), 1.0)
    run = TrainingResult(Path("r\udcff"), "n", "d", epochs=1, steps=1, finished_before=False, **errors)
    assert run.to_dict()["folder"] == r"r\xff"
    assert str(run).endswith(r"r\xff")
    assert Path(run) == Path("r\udcff")


def test_no_rows() -> None:
    assert as_text([], {}) == "no rows"
    assert as_html([], {}) == "<p>no rows</p>"
