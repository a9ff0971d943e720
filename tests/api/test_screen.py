"""What people see on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from resnetlab.api import screen


def test_brackets_in_names_and_reasons_are_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, highlight=False, width=200)
    monkeypatch.setattr(screen, "has_bars", lambda: True)
    monkeypatch.setattr(screen, "errors", lambda: terminal)
    with screen.progress_bars() as bars:
        bars.add_task("[/a].zip", total=1.0, words="[/b]")
        screen.say_beside(bars, "net seed 0: FAILED: data [/c] is gone")
    assert isinstance(terminal.file, io.StringIO)
    shown = terminal.file.getvalue()
    assert "[/a].zip" in shown
    assert "[/b]" in shown
    assert "FAILED: data [/c] is gone" in shown


def test_a_line_is_one_whatever_the_names_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    screen.say("classes (\x1b[31mred, line\nbreak, 蜜蜂)")
    assert capsys.readouterr().err == "classes (\\x1b[31mred, line\\nbreak, 蜜蜂)\n"
