"""The table of faults: what was promised of each command, what was seen; printed at the end, and kept as JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from commands import file_server, local_source, make_sources
from injecting import Fault

Prepared = Callable[[Fault], Fault]
Promised = Callable[[str, str, str], "contextlib.AbstractContextManager[Row]"]


@dataclass
class Row:
    """A fault, the command it was injected into, what is promised, and what was seen."""

    fault: str
    command: str
    promise: str
    seen: str = ""
    kept: bool = False


ROWS: list[Row] = []


@pytest.fixture
def promised() -> Promised:
    """with promised(fault, command, promise) as row: ...; the promise is kept unless an error leaves the block."""

    @contextlib.contextmanager
    def row(fault: str, command: str, promise: str) -> Iterator[Row]:
        ROWS.append(made := Row(fault, command, promise))
        try:
            yield made
        except BaseException as error:
            made.seen = " ".join(str(error).split())[:300] or type(error).__name__
            raise
        made.kept = True

    return row


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network and a folder of images."""
    folder = tmp_path_factory.mktemp("faults") / "source"
    folder.mkdir()
    make_sources(folder)
    return folder


@pytest.fixture(scope="session")
def after_install(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    """A fault that comes on top of what `data fetch` needs here: a server on this machine."""
    with file_server(tmp_path_factory.mktemp("server") / "files") as port:
        yield lambda fault: lambda: (local_source(port)(), fault())


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--faults-json", type=Path, help="Where the table of injected faults goes, as JSON.")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not ROWS:
        return
    from resnetlab.machine import machine

    terminalreporter.section("injected faults")
    for row in ROWS:
        terminalreporter.write_line(f"{'kept  ' if row.kept else 'BROKEN'}  {row.fault} x {row.command}")
        terminalreporter.write_line(f"        promised: {row.promise}")
        terminalreporter.write_line(f"        seen:     {row.seen}")
    if path := config.getoption("--faults-json", None):
        table = {"machine": machine(), "faults": [asdict(row) for row in ROWS]}
        path.parent.mkdir(parents=True, exist_ok=True)  # after ten minutes
        path.write_text(json.dumps(table, indent=1) + "\n")
