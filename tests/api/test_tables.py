"""Tables of results: aligned text, HTML that is escaped."""

from __future__ import annotations

from resnetlab.api.tables import Row, as_html, as_text

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


def test_no_rows() -> None:
    assert as_text([], {}) == "no rows"
    assert as_html([], {}) == "<p>no rows</p>"
