"""`resnetlab runs`: list, show, compare, plot, remove."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from resnetlab.cli.options import Json, Runs, print_json
from resnetlab.errors import UserError, counted, printable, some

if TYPE_CHECKING:
    from resnetlab.training.runs import RunSummary

app = cyclopts.App(name="runs", help="List the runs in a folder; show, compare, plot or remove some of them.")

OneRun = Annotated[
    str, Parameter(help="A run: its folder, its name inside --runs, or the name or hash alone; the newest that fits.")
]


@app.command
def show(run: OneRun, /, *, runs: Runs = Path("runs"), json: Json = False) -> None:
    """Show a run: network, data, state, errors, length, machine, and the fields of its recipe that aren't default."""
    from resnetlab.api.screen import console
    from resnetlab.training.run_details import details
    from resnetlab.training.runs import find_run

    found = details(find_run(run, runs))
    if json:
        print_json(found.to_dict())
        return
    for what, words in found.facts():
        console().print(f"{what:<18} {words}", soft_wrap=True)


@app.command
def compare(
    run: OneRun,
    other: OneRun,
    /,
    *more: Annotated[str, Parameter(help="More runs.")],
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Show runs side by side: the settings in which they differ, and their errors.

    Finished runs that differ in their seed alone are also put together: means ± standard deviations, and the difference
    of test errors from the first settings given, with a 95 % interval (Welch's t).
    """
    from rich import box

    from resnetlab.api.screen import print_table
    from resnetlab.api.seeds import over_seeds, seeds_table
    from resnetlab.training.run_details import compare_runs
    from resnetlab.training.runs import find_run

    found = compare_runs([find_run(name, runs) for name in (run, other, *more)])
    groups = over_seeds(found)
    if json:
        print_json(found.to_dict() | {"over_seeds": [group.to_dict() for group in groups]})
        return
    for headers, rows in (found.table(), *([seeds_table(groups)] if groups else [])):
        print_table(headers, rows, left=headers, box=box.SIMPLE_HEAD)


@app.command
def remove(
    run: OneRun,
    /,
    *more: Annotated[str, Parameter(help="More runs to remove.")],
    yes: Annotated[bool, Parameter(negative="", help="Remove without asking.")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Remove runs with their weights and metrics. Asks first; refuses runs in progress and folders that are not runs.

    Exits with code 1 if the answer is not yes.
    """
    from resnetlab.training.run_details import check_removable, remove_run
    from resnetlab.training.runs import find_run, summary

    folders = list(dict.fromkeys(find_run(name, runs) for name in (run, *more)))
    for folder in folders:
        check_removable(folder)  # all of them, before the first one is gone
    found = [summary(folder) for folder in folders]
    lines = [printable(_told(r)) for r in found]
    if not yes and not _agreed(lines):
        print("nothing was removed", file=sys.stderr)
        return 1
    for folder in folders:
        remove_run(folder)
        if not json:
            print(printable(f"removed {folder}"))
    if json:
        print_json({"removed": [str(folder) for folder in folders]})
    return 0


def _told(r: RunSummary) -> str:
    """A run to be removed, with its epochs or, if these can't be read, what is damaged."""
    known = r.epochs or r.state != "damaged"
    return f"{r.folder}: {r.state}" + (f", {counted(r.epochs, 'epoch')}" if known else f": {r.words}")


def _agreed(lines: list[str]) -> bool:
    """Whether the person at the terminal wants it. Raises UserError where there is none to ask."""
    if not sys.stdin.isatty():
        raise UserError("there is no terminal to ask on; give --yes to remove without asking.")
    print("\n".join(lines), file=sys.stderr)
    print(f"remove {'it' if len(lines) == 1 else f'these {len(lines)} runs'}? [y/N] ", end="", file=sys.stderr)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@app.default
def list_them(*, runs: Runs = Path("runs"), json: Json = False) -> None:
    """List the runs in a folder, the latest last: network, data, state, errors, epochs and time of the last change."""
    from resnetlab.training.runs import list_runs

    found, others = list_runs(runs)
    if json:
        print_json({"runs": [r.to_dict() for r in found], "others": [str(p) for p in others]})
        return
    if found:
        _show(found)
    else:
        print(f"{runs}: no runs yet; create one with resnetlab train.")
    if others:
        words = "1 folder that is not a run" if len(others) == 1 else f"{len(others)} folders that are not runs"
        print(f"{words}: {some(printable(p.name) for p in others)}")


@app.command
def plot(
    run: OneRun,
    /,
    *more: Annotated[str, Parameter(help="More runs to draw in the same plot.")],
    out: Annotated[Path, Parameter(help="The file to write: .svg, .png or .pdf.")] = Path("curves.svg"),
    runs: Runs = Path("runs"),
    json: Json = False,
) -> None:
    """Plot training error (dashed) and test error (bold) by iteration, as in the papers.

    A plot that this command wrote earlier is replaced; any other existing file is an error.
    """
    from resnetlab.api.plot import plot_runs

    folders = plot_runs(run, *more, out=out, root=runs).runs
    if json:
        print_json({"written": str(out), "runs": [str(folder) for folder in folders]})
    else:
        print(f"{out}: errors of {len(folders)} run{'s' if len(folders) > 1 else ''}")


BROKEN = 14  # columns for a network or a state, which may be broken into several lines


def _show(found: list[RunSummary]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from resnetlab.api.screen import console, fits, print_listed

    headers = ("run", "network", "data", "state", "epochs", "train %", "test %", "best %", "written")
    rows = [_cells(r) for r in found]
    if fits(headers, [(name, net[:BROKEN], data, state[:BROKEN], *more) for name, net, data, state, *more in rows]):
        table = Table(box=box.SIMPLE_HEAD)
        for header in headers:
            right = header == "epochs" or header.endswith("%")
            whole = header not in ("network", "state")  # a name that is broken can't be copied
            table.add_column(header, justify="right" if right else "left", overflow="fold", no_wrap=whole)
        for row in rows:
            table.add_row(*map(Text, row))
        console().print(table)
        return
    print_listed(headers, rows, width=12)  # a narrow terminal would cut the names


def _cells(r: RunSummary) -> tuple[str, ...]:
    errors = [f"{e:.2f}" if e is not None else "" for e in (r.train_error, r.test_error, r.best_error)]
    when = r.when() if r.written else None
    state = f"{r.state}: {r.words}" if r.words else r.state
    return (
        printable(r.folder.name),
        r.net or "",
        r.data or "",
        state,
        str(r.epochs or ""),
        *errors,
        f"{when:%Y-%m-%d %H:%M}" if when else "",
    )
