"""`resnetlab data fetch`."""

from __future__ import annotations

import json as json_module
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.data.names import listed
from resnetlab.data.sources import SOURCES

app = cyclopts.App(name="data", help="Data sets: fetch them.")


@app.command
def fetch(
    name: Annotated[str, Parameter(help=f"{listed(list(SOURCES))}.")],
    dest: Annotated[Path, Parameter(help="The folder to put it into.")],
    /,
    *,
    json: Json = False,
) -> None:
    """Download a data set and check it; the same command again goes on where it stopped, or finds all there."""
    from rich.filesize import decimal

    from resnetlab.cli.screen import progress_bars, say
    from resnetlab.data.fetch import fetch as fetch_data

    dest, started = dest.expanduser(), time.monotonic()
    received, was_there = 0, True
    with progress_bars() as bars:
        tasks: dict[str, Any] = {}
        tenths: dict[str, int] = {}
        for p in fetch_data(name, dest):
            received = p.received
            was_there &= p.words == "is there already"
            if p.file not in tasks:
                tasks[p.file] = bars.add_task(p.file, total=p.size, words="")
                tenths[p.file] = 10 * p.done // p.size
            amount = f"{decimal(p.done)} of {decimal(p.size)}"
            bars.update(tasks[p.file], completed=p.done, words=amount)
            if p.words:
                say(f"{p.file}: {p.words}")
            elif 10 * p.done // p.size > tenths[p.file] and not sys.stderr.isatty():
                tenths[p.file] = 10 * p.done // p.size
                say(f"{p.file}: {amount}")
    seconds = time.monotonic() - started
    if json:
        files = [file.name for file in SOURCES[name].files]
        answer = {"name": name, "folder": str(dest), "files": files, "bytes": received, "seconds": seconds}
        print(json_module.dumps(answer))
        return
    happened = "is there already" if was_there else f"is complete, {decimal(received)} fetched in {seconds:.1f} s"
    print(f"{name}: {happened}\nto train with it: --data {shlex.quote(f'{name}:{dest}')}")
