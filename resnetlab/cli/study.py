"""`resnetlab study list | run | report | essay`."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from resnetlab.cli.options import Device, Json, Runs, WholeNumber, check
from resnetlab.errors import UserError
from resnetlab.studies.frame.text import both

if TYPE_CHECKING:
    from resnetlab.studies.frame.assignment import Assignment, Workplace
    from resnetlab.studies.frame.record import Record
    from resnetlab.studies.frame.run import Event
    from resnetlab.training.loop import Status

app = cyclopts.App(name="study", help="Test the papers' claims by measurement.")

Name = Annotated[str | None, Parameter(help="The study's name; see 'resnetlab study list'.")]
All = Annotated[bool, Parameter(negative="", help="Run all studies, one after another.")]
Scale = Annotated[
    Literal["quick", "cifar", "paper"],
    Parameter(help="quick takes minutes, on the digits; cifar uses CIFAR-10; paper uses the papers' recipes."),
]
Data = Annotated[str | None, Parameter(help="The images, cifar10:DIR; needed for cifar, paper and --weights.")]
WeightFiles = Annotated[
    tuple[str, ...],
    Parameter(help="NAME=FILE: a trained network to measure instead of training runs; can be repeated."),
]
Epochs = Annotated[
    float | None, Parameter(help="Length of the runs, if shorter than the scale's; noted in the record.")
]
Seeds = Annotated[int | None, WholeNumber, Parameter(help="Number of seeds, if fewer than the scale's.")]
Jobs = Annotated[
    int | None,
    WholeNumber,
    Parameter(help="Number of parallel trainings; default: one per core, one on a GPU."),
]
Ray = Annotated[
    str | None,
    Parameter(help="Run the trainings on Ray: local starts it here; auto or HOST:PORT joins a cluster."),
]
Results = Annotated[Path, Parameter(help="The folder for records, figures and the report.")]
Also = Annotated[
    Path | None,
    Parameter(help="Another folder of records, for the studies that --results does not have."),
]


@app.command(name="list")
def list_studies(*, json: Json = False) -> None:
    """List the studies: claim, source, and the cost of each scale."""
    from resnetlab.studies import STUDIES
    from resnetlab.studies.frame.scales import SCALES
    from resnetlab.studies.frame.study import study

    found = [study(name) for name in STUDIES]
    if json:
        rows = [{"study": s.name, "claim": str(s.claim), "source": s.source, "rule": str(s.rule)} for s in found]
        print(json_module.dumps({"studies": rows, "scales": list(SCALES)}))
        return
    for s in found:
        print(f"{s.name}\n  claim:  {s.claim}\n  source: {s.source}")
        for scale in SCALES:
            plan = s.plan(scale, None, ())
            counts = f"{len(plan.recipes)} runs, {len(plan.measurements)} measurements"
            print(f"  {scale + ':':<7} {counts}, {plan.expected}")


@app.command
def run(
    name: Name = None,
    /,
    *,
    all: All = False,
    scale: Scale = "quick",
    data: Data = None,
    weights: WeightFiles = (),
    epochs: Epochs = None,
    seeds: Seeds = None,
    jobs: Jobs = None,
    ray: Ray = None,
    runs: Runs = Path("runs"),
    results: Results = Path("reports"),
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Run one study or all of them, decide by their rules, and write records, figures and a report.

    Finished runs are reused, whichever study made them. A failed run does not stop the others; the exit code is then 1.
    """
    if (name is None) is not all:
        raise UserError("give the name of one study, or --all; 'resnetlab study list' lists the names.")
    check(jobs=jobs, seeds=seeds)
    if jobs is not None and ray is not None:
        raise UserError("--jobs can't be used with --ray: Ray runs as many trainings as there is room for.")
    from resnetlab.studies.frame.assignment import Workplace, assignments

    tasks = assignments(name, scale, data=data, weights=weights, epochs=epochs, seeds=seeds)
    records, page = _carried_out(tasks, Workplace.checked(runs, device, jobs, ray), results, quiet=json)
    if json:
        found = [_answer(r) for r in records]
        print(json_module.dumps({"studies": found, "report": str(page)} if all else found[0] | {"report": str(page)}))
    else:
        print(f"report: {page}")
    return 1 if any(r.failures for r in records) else 0


def _carried_out(
    tasks: list[Assignment], workplace: Workplace, results: Path, *, quiet: bool
) -> tuple[list[Record], Path]:
    """Run the studies one after another, keep and show their records; return them, and the report's page."""
    from resnetlab.api.screen import say
    from resnetlab.report.study_pages import write_report
    from resnetlab.storage import disk_errors

    with disk_errors(results):
        results.mkdir(parents=True, exist_ok=True)  # fails before the training, not after it
    records = []
    for task in tasks:
        record = workplace.carry_out(task, lambda task, events: _follow(task, workplace.words, events))
        if record.failures:
            total = len(task.plan.recipes) + len(task.plan.measurements)
            say(
                f"{len(record.failures)} of {total} runs and measurements failed; the same command repeats only "
                "these, each run from its last checkpoint"
            )
        record.save(results)
        if not quiet:
            _show(record)
        records.append(record)
    return records, write_report(results)


def _answer(record: Record) -> dict[str, Any]:
    """What a program wants of a record: texts in English."""
    rows = [{k: str(both(v)) for k, v in row.items()} for row in record.rows]
    return {"study": record.study, "scale": record.scale, "verdict": record.verdict, "rows": rows} | {
        "failures": record.failures
    }


@app.command
def report(*, results: Results = Path("reports"), json: Json = False) -> None:
    """Write the report from the records in a results folder."""
    from resnetlab.report.study_pages import write_report

    page = write_report(results)
    print(json_module.dumps({"report": str(page)}) if json else f"report: {page}")


@app.command
def essay(*, results: Results = Path("reports"), also: Also = None, json: Json = False) -> None:
    """Write the essay: one page that answers the questions about residual networks by what was measured.

    It is the front page of the report, as one file to send, and needs no network.
    """
    from resnetlab.report.essay.page import terminal
    from resnetlab.report.study_pages import write_essay

    page, library = write_essay(results, also)
    lines = [str(line) for line in terminal(library)]
    if json:
        print(json_module.dumps({"essay": str(page), "result": lines}))
        return
    for line in lines:
        print(line)
    print(f"essay: {page}\nopen it in a browser: {page.resolve().as_uri()}")


def _follow(task: Assignment, places: str, events: Iterator[Event]) -> dict[int, str]:
    """Show how the runs and measurements go; return why those that failed did, by their place in the plan."""
    from resnetlab.api.screen import progress_bars, say

    plan, failed = task.plan, dict[int, str]()
    labels = [*(f"{r.net} seed {r.seed}" for r in plan.recipes), *(m.label for m in plan.measurements)]
    counts = [f"{len(plan.recipes)} runs"] if plan.recipes else []
    counts += [f"{len(plan.measurements)} measurements"] if plan.measurements else []
    say(f"{task.title}: {' and '.join(counts)}, {places}; expected: {plan.expected}")
    started, finished = time.monotonic(), 0
    with progress_bars() as bars:
        overall = bars.add_task("all runs", total=len(labels), words="")
        tasks: dict[int, Any] = {}
        last: dict[int, str] = {}
        for event in events:
            label = labels[event.index]
            if event.status:
                if event.index not in tasks:
                    tasks[event.index] = bars.add_task(label, words="")
                last[event.index] = _errors_of(event.status)
                done, total = event.status.step, event.status.steps
                bars.update(tasks[event.index], completed=done, total=total, words=last[event.index])
            if event.failed:
                failed[event.index] = event.failed
                last[event.index] = f"FAILED: {event.failed}"
            if event.done or event.failed:
                finished += 1
                if event.index in tasks:
                    bars.remove_task(tasks[event.index])
                bars.update(overall, completed=finished)
                words = last.get(event.index, "already finished" if event.index < len(plan.recipes) else "done")
                (bars.console.print if sys.stderr.isatty() else say)(
                    f"[{finished}/{len(labels)}] {time.monotonic() - started:4.0f} s  {label}: {words}"
                )
    return failed


def _errors_of(status: Status) -> str:
    test = f", test {status.test_error:.1f} %" if status.test_error is not None else ""
    return f"training error {status.train_error:.1f} %{test}"


ROWS_WIDTH = 72  # columns below which sentences side by side can't be read


def _show(record: Record) -> None:
    from rich.markup import escape
    from rich.table import Table

    from resnetlab.api.screen import console, fits, print_listed

    for table in record.tables:
        caption, headers = str(both(table["caption"])), [str(both(header)) for header in table["header"]]
        rows = [[str(both(cell)) for cell in row] for row in table["rows"]]
        if not fits(headers, rows):
            console().print(caption, markup=False, highlight=False)
            print_listed(headers, rows)
            continue
        shown = Table(*map(escape, headers), title=escape(caption), title_justify="left")
        for row in rows:
            shown.add_row(*map(escape, row))
        console().print(shown)
    headers = ["claim", "paper", "measured", "verdict"]
    rows = [[str(both(row[k])) for k in headers] for row in record.rows]
    if console().width >= ROWS_WIDTH:
        shown = Table(*headers, show_lines=True)
        for row in rows:
            shown.add_row(*map(escape, row))
        console().print(shown)
    else:
        print_listed(headers, rows)
    console().print(f"{record.study}, {record.scale}: {record.verdict}", style="bold")
