"""`resnetlab runs show`, `compare` and `remove`."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetlab.cli.options import Json, Runs
from resnetlab.errors import UserError, printable

OneRun = Annotated[
    str, Parameter(help="A run: its folder, its name inside --runs, or the name or hash alone; the newest that fits.")
]


def show(run: OneRun, /, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Show a run: network, data, state, errors, length, machine, and the fields of its recipe that aren't default."""
    from resnetlab.api.screen import console
    from resnetlab.training.run_details import details
    from resnetlab.training.runs import find_run

    found = details(find_run(run, runs))
    if json:
        print(json_module.dumps(found.to_dict()))
        return
    for what, words in found.facts():
        console().print(f"{what:<18} {words}", highlight=False, markup=False, soft_wrap=True)


def compare(
    run: OneRun,
    other: OneRun,
    /,
    *more: Annotated[str, Parameter(help="More runs.")],
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show runs side by side: the settings in which they differ, and their errors."""
    from rich import box

    from resnetlab.api.screen import print_table
    from resnetlab.training.run_details import compare_runs
    from resnetlab.training.runs import find_run

    found = compare_runs([find_run(name, runs) for name in (run, other, *more)])
    if json:
        print(json_module.dumps(found.to_dict()))
        return
    headers, rows = found.table()
    print_table(headers, rows, left=headers, box=box.SIMPLE_HEAD)


def remove(
    run: OneRun,
    /,
    *more: Annotated[str, Parameter(help="More runs to remove.")],
    yes: Annotated[bool, Parameter(negative="", help="Remove without asking.")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Remove runs with their weights and metrics. Asks first; refuses runs in progress and folders that are no runs.

    Exits with code 1 if the answer is not yes.
    """
    from resnetlab.training.run_details import check_removable, remove_run
    from resnetlab.training.runs import find_run, summary

    folders = list(dict.fromkeys(find_run(name, runs) for name in (run, *more)))
    for folder in folders:
        check_removable(folder)  # all of them, before the first one is gone
    found = [summary(folder) for folder in folders]
    lines = [printable(f"{r.folder}: {r.state}, {r.epochs} epoch{'s' * (r.epochs != 1)}") for r in found]
    if not yes and not _agreed(lines):
        print("nothing was removed", file=sys.stderr)
        return 1
    for folder in folders:
        remove_run(folder)
        if not json:
            print(printable(f"removed {folder}"))
    if json:
        print(json_module.dumps({"removed": [str(folder) for folder in folders]}))
    return 0


def _agreed(lines: list[str]) -> bool:
    """Whether the person at the terminal wants it. Raises UserError where there is none to ask."""
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; give --yes to remove without asking.")
    print("\n".join(lines), file=sys.stderr)
    print(f"remove {'it' if len(lines) == 1 else f'these {len(lines)} runs'}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
