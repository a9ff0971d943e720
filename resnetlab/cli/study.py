"""`resnetlab study list | run | report | essay`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli.options import Device, Json, Runs, WholeNumber, check, print_json
from resnetlab.errors import UserError, counted
from resnetlab.studies.frame.text import both

if TYPE_CHECKING:
    from resnetlab.studies.frame.assignment import Assignment, Workplace
    from resnetlab.studies.frame.record import Record

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
    Parameter(
        negative="",
        show_default=False,
        help="NAME=FILE, or pretrained:NAME: a trained network to measure instead of training runs; can be repeated.",
    ),
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
DryRun = Annotated[
    bool,
    Parameter(negative="", help="Print what would run, its cost and, for one study, its rule; run nothing."),
]
Results = Annotated[Path, Parameter(help="The folder for records, figures and the report.")]
Also = Annotated[
    Path | None,
    Parameter(help="Another folder of records, for the studies that --results does not have."),
]


@app.command(name="list")
def list_studies(*, json: Json = False) -> None:
    """List the studies: claim, source, and the cost of each scale.

    The cost is the number of epochs of cifar_resnet20 that need as many multiply-adds; runs that studies share are
    counted in each. --dry-run of 'study run' estimates the hours on this machine.
    """
    from resnetlab.studies import STUDIES
    from resnetlab.studies.frame.budget import total_epochs
    from resnetlab.studies.frame.scales import SCALES
    from resnetlab.studies.frame.study import study

    found = [study(name) for name in STUDIES]
    if json:
        rows = [{"study": s.name, "claim": str(s.claim), "source": s.source, "rule": str(s.rule)} for s in found]
        print_json({"studies": rows, "scales": list(SCALES)})
        return
    for s in found:
        print(f"{s.name}\n  claim:  {s.claim}\n  source: {s.source}")
        for scale in SCALES:
            plan = s.plan(scale, None, ())
            counts = f"{counted(len(plan.recipes), 'run')}, {counted(len(plan.measurements), 'measurement')}"
            trained = f", {total_epochs(plan.recipes):,.1f} epochs of cifar_resnet20" if plan.recipes else ""
            takes = "" if scale == "cifar" and plan.recipes else f", {plan.expected}"
            print(f"  {scale + ':':<7} {counts}{trained}{takes}")


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
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Run one study or all of them, judge their claims by stated rules, and write records, figures and a report.

    Finished runs are reused, whichever study made them. The first seed of every network is trained first, so a command
    with --seeds 1, followed by the same one without it, trains nothing twice. A failed run does not stop the others;
    the exit code is then 1.
    """
    if (name is None) is not all:
        raise UserError("give the name of one study, or --all; 'resnetlab study list' lists the names.")
    check(jobs=jobs, seeds=seeds)
    from resnetlab.studies.frame.assignment import Workplace, assignments

    fetch_sources(*(text.rpartition("=")[2] for text in weights))
    tasks = assignments(name, scale, data=data, weights=weights, epochs=epochs, seeds=seeds)
    workplace = Workplace.checked(runs, device, jobs, ray)
    if dry_run:
        _show_costs(tasks, workplace, json)
        return 0
    return _carried_out(tasks, workplace, results, all=all, json=json)


def _carried_out(tasks: list[Assignment], workplace: Workplace, results: Path, *, all: bool, json: bool) -> int:
    """Run the studies, show what each found, and write the report; return the exit code.

    If they are stopped, the report has those that are done.
    """
    from resnetlab.api.study import carried_out
    from resnetlab.report.study_pages import write_report

    records = []
    try:
        for record, _ in carried_out(tasks, workplace, results):
            records.append(record)
            if not json:
                _show(record)
    except BaseException:
        if records:
            with contextlib.suppress(UserError):  # the reason of the stop is the one to tell
                write_report(results)
        raise
    page = write_report(results)
    if json:
        found = [_answer(r) for r in records]
        print_json({"studies": found, "report": str(page)} if all else found[0] | {"report": str(page)})
    else:
        print(f"report: {page}")
    return 1 if any(r.failures for r in records) else 0


def _show_costs(tasks: list[Assignment], workplace: Workplace, json: bool) -> None:
    """Print what each study would run and what it costs, and all of them together."""
    costs = {task.study.name: workplace.budget(task.plan.recipes) for task in tasks}
    together = workplace.budget(recipe for task in tasks for recipe in task.plan.recipes)
    if json:
        studies = [
            {"study": task.study.name, "scale": task.scale, "measurements": len(task.plan.measurements)}
            | asdict(costs[task.study.name])
            for task in tasks
        ]
        print_json({"studies": studies, "together": asdict(together)})
        return
    for task in tasks:
        measured = counted(len(task.plan.measurements), "measurement")
        print(f"{task.title}: {costs[task.study.name].words}; {measured}")
        for number, recipe in enumerate(task.plan.recipes if len(tasks) == 1 else (), 1):
            print(f"  {number:>3}. {recipe.net} seed {recipe.seed}")
        if len(tasks) == 1 and task.plan.note:
            print(f"  {task.plan.note}")
        if len(tasks) == 1:
            print(f"  {task.study.rule_of(task.plan, task.scale)}")
    if len(tasks) > 1:
        print(f"together, runs that studies share counted once: {together.words}")


def _answer(record: Record) -> dict[str, Any]:
    """What a program wants of a record: texts in English; "claims" counts them by their verdict."""
    from resnetlab.studies.frame.statistics import tally

    rows = [{k: str(both(v)) for k, v in row.items()} for row in record.rows]
    counts = {verdict.word: count for verdict, count in tally(record.verdicts).items()}
    about = {"study": record.study, "scale": record.scale, "verdict": record.verdict, "claims": counts}
    return about | {"rows": rows, "failures": record.failures}


@app.command
def report(*, results: Results = Path("reports"), json: Json = False) -> None:
    """Write the report from the records in a results folder."""
    from resnetlab.report.study_pages import write_report

    page = write_report(results)
    if json:
        print_json({"report": str(page)})
    else:
        print(f"report: {page}")


@app.command
def essay(*, results: Results = Path("reports"), also: Also = None, json: Json = False) -> None:
    """Write the essay: one page that answers the questions about residual networks from what was measured.

    It is the front page of the report, as one file to send, and needs no network.
    """
    from resnetlab.report.essay.page import terminal
    from resnetlab.report.study_pages import write_essay

    page, library = write_essay(results, also)
    lines = [str(line) for line in terminal(library)]
    if json:
        print_json({"essay": str(page), "result": lines})
        return
    for line in lines:
        print(line)
    print(f"essay: {page}\nopen it in a browser: {page.resolve().as_uri()}")


ROWS_WIDTH = 72  # columns below which sentences side by side can't be read


def _show(record: Record) -> None:
    from resnetlab.api.screen import console, print_table

    for table in record.tables:
        headers, *rows = ([str(both(cell)) for cell in row] for row in (table["header"], *table["rows"]))
        print_table(headers, rows, left=headers, title=str(both(table["caption"])))
    headers = ["claim", "paper", "measured", "verdict"]
    remarks = [str(both(row.get("remark", ""))) for row in record.rows]
    rows = [[str(both(row[k])) for k in headers] for row in record.rows]
    for row, remark in zip(rows, remarks, strict=True):
        row[2] += f"\n{remark}" if remark else ""
    print_table(headers, rows, left=headers, least=ROWS_WIDTH, show_lines=True)
    console().print(f"{record.study}, {record.scale}: {record.verdict}", style="bold", highlight=True)
