"""`resnetlab study list | run | report`."""

from __future__ import annotations

import json as json_module
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.cli.train import Device, Runs, WholeNumber, find_device

if TYPE_CHECKING:
    from resnetlab.studies.runner import Event
    from resnetlab.studies.study import Plan, Record

app = cyclopts.App(name="study", help="The papers' claims, each answered by a measurement.")

Jobs = Annotated[
    int | None,
    WholeNumber,
    Parameter(help="Trainings side by side; default: one per core, one on a GPU."),
]
Ray = Annotated[
    str | None,
    Parameter(help="Hand the runs to Ray: local starts it here; auto, or HOST:PORT, joins a cluster."),
]
Results = Annotated[Path, Parameter(help="Where records, figures and the report go.")]


@app.command(name="list")
def list_studies(*, json: Json = False) -> None:
    """List the studies: claim, source, and how long each scale takes."""
    from resnetlab.studies.study import SCALES, STUDIES, study

    found = [study(name) for name in STUDIES]
    if json:
        rows = [{"study": s.name, "claim": s.claim, "source": s.source, "rule": s.rule} for s in found]
        print(json_module.dumps({"studies": rows, "scales": list(SCALES)}))
        return
    for s in found:
        print(f"{s.name}\n  claim:  {s.claim}\n  source: {s.source}")
        for scale in SCALES:
            plan = s.plan(scale, None)
            print(f"  {scale + ':':<7} {len(plan.recipes)} runs, {plan.expected}")


@app.command
def run(
    name: Annotated[str, Parameter(help="The study, as 'resnetlab study list' names it.")],
    /,
    *,
    scale: Annotated[
        Literal["quick", "cifar", "paper"], Parameter(help="quick: minutes, on the digits; cifar; paper.")
    ] = "quick",
    data: Annotated[str | None, Parameter(help="For cifar and paper: cifar10:DIR.")] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    runs: Runs = Path("runs"),
    results: Results = Path("results"),
    device: Device = "auto",
    json: Json = False,
) -> int:
    """Run what a study is missing, judge it by its rule, and write record, figures and report.

    A run that fails doesn't stop the others; the exit code is then 1.
    """
    from resnetlab.cli.screen import say
    from resnetlab.errors import UserError
    from resnetlab.studies.report import write_report
    from resnetlab.studies.runner import conclude, run_missing
    from resnetlab.studies.study import study
    from resnetlab.training.run import available_cores, disk_errors

    if jobs is not None and jobs < 1:
        raise UserError(f"jobs={jobs} must be 1 or more.")
    if jobs is not None and ray is not None:
        raise UserError("--jobs is for this machine alone: with --ray leave it out, Ray runs as many as there is room.")
    chosen = study(name)
    if scale != "quick" and data is None:
        raise UserError(f"scale {scale!r} needs the images: give --data cifar10:DIR.")
    where = device if ray is not None else find_device(device)
    with disk_errors(results):
        results.mkdir(parents=True, exist_ok=True)  # fails before the training, not after it
    plan = chosen.plan(scale, data)
    if ray is not None:
        from resnetlab.studies.cluster import run_on_ray

        events, places = run_on_ray(plan.recipes, runs, address=ray, device=where), f"on Ray ({ray})"
    else:
        jobs = jobs or (1 if where != "cpu" else available_cores())
        events, places = run_missing(plan.recipes, runs, jobs=jobs, device=where), f"{jobs} at once"
    failed = _train_all(f"{name}, {scale}", plan, places, events)
    command = f"resnetlab study run {name} --scale {scale}" + (f" --data {data.split(':')[0]}:DIR" if data else "")
    record = conclude(chosen, scale, data, runs, command, failed)
    record.save(results)
    page = write_report(results)
    if json:
        keys = ("study", "scale", "verdict", "rows", "failures")
        print(json_module.dumps({k: getattr(record, k) for k in keys} | {"report": str(page)}))
    else:
        _show(record)
        print(f"report: {page}")
    if not record.failures:
        return 0
    say(
        f"{len(record.failures)} of {len(plan.recipes)} runs failed; the same command tries only these again, from "
        "their last whole epoch"
    )
    return 1


@app.command
def report(*, results: Results = Path("results"), json: Json = False) -> None:
    """Write the report from the records that lie in a results folder."""
    from resnetlab.studies.report import write_report

    page = write_report(results)
    print(json_module.dumps({"report": str(page)}) if json else f"report: {page}")


def _train_all(title: str, plan: Plan, places: str, events: Iterator[Event]) -> dict[int, str]:
    """Show how the runs go; return why those that failed did, by their place in the plan."""
    from resnetlab.cli.screen import progress_bars, say

    labels = [f"{r.net} seed {r.seed}" for r in plan.recipes]
    failed: dict[int, str] = {}
    say(f"{title}: {len(labels)} runs, {places}; expected: {plan.expected}")
    started, finished = time.monotonic(), 0
    with progress_bars() as bars:
        overall = bars.add_task("all runs", total=len(labels), words="")
        tasks: dict[int, Any] = {}
        last: dict[int, str] = {}
        for event in events:
            label = labels[event.index]
            if event.status:
                s = event.status
                if event.index not in tasks:
                    tasks[event.index] = bars.add_task(label, words="")
                test = f", test {s.test_error:.1f} %" if s.test_error is not None else ""
                last[event.index] = f"training error {s.train_error:.1f} %{test}"
                bars.update(tasks[event.index], completed=s.step, total=s.steps, words=last[event.index])
            if event.failed:
                failed[event.index] = event.failed
                last[event.index] = f"FAILED: {event.failed}"
            if event.done or event.failed:
                finished += 1
                if event.index in tasks:
                    bars.remove_task(tasks[event.index])
                bars.update(overall, completed=finished)
                words = last.get(event.index, "was finished before")
                (bars.console.print if sys.stderr.isatty() else say)(
                    f"[{finished}/{len(labels)}] {time.monotonic() - started:4.0f} s  {label}: {words}"
                )
    return failed


def _show(record: Record) -> None:
    from rich.table import Table

    from resnetlab.cli.screen import console

    for table in record.tables:
        shown = Table(title=table["caption"], title_justify="left")
        for header in table["header"]:
            shown.add_column(header)
        for row in table["rows"]:
            shown.add_row(*row)
        console().print(shown)
    shown = Table("claim", "paper", "measured", "verdict", show_lines=True)
    for row in record.rows:
        shown.add_row(row["claim"], row["paper"], row["measured"], row["verdict"])
    console().print(shown)
    console().print(f"{record.study}, {record.scale}: {record.verdict}", style="bold")
