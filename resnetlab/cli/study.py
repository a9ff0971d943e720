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
from resnetlab.paths import expanded
from resnetlab.studies.frame.text import both

if TYPE_CHECKING:
    from resnetlab.studies.frame.measurement import Weights
    from resnetlab.studies.frame.record import Record
    from resnetlab.studies.frame.run import Event
    from resnetlab.studies.frame.study import Plan, Study

app = cyclopts.App(name="study", help="Test the papers' claims by measurement.")

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
    name: Annotated[str | None, Parameter(help="The study's name; see 'resnetlab study list'.")] = None,
    /,
    *,
    all: Annotated[bool, Parameter(negative="", help="Run all studies, one after another.")] = False,
    scale: Annotated[
        Literal["quick", "cifar", "paper"],
        Parameter(help="quick takes minutes, on the digits; cifar uses CIFAR-10; paper uses the papers' recipes."),
    ] = "quick",
    data: Annotated[
        str | None, Parameter(help="The images, cifar10:DIR; needed for cifar, paper and --weights.")
    ] = None,
    weights: Annotated[
        tuple[str, ...],
        Parameter(help="NAME=FILE: a trained network to measure instead of training runs; can be repeated."),
    ] = (),
    epochs: Annotated[
        float | None, Parameter(help="Length of the runs, if shorter than the scale's; noted in the record.")
    ] = None,
    seeds: Annotated[int | None, WholeNumber, Parameter(help="Number of seeds, if fewer than the scale's.")] = None,
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
    from resnetlab.errors import UserError
    from resnetlab.report.study_pages import write_report
    from resnetlab.storage import disk_errors
    from resnetlab.studies import STUDIES
    from resnetlab.studies.frame.scales import WEIGHTS
    from resnetlab.studies.frame.study import study

    if (name is None) is not all:
        raise UserError("give the name of one study, or --all; 'resnetlab study list' lists the names.")
    for option, value in (("jobs", jobs), ("seeds", seeds)):
        if value is not None and value < 1:
            raise UserError(f"{option}={value} must be 1 or more.")
    if jobs is not None and ray is not None:
        raise UserError("--jobs can't be used with --ray: Ray runs as many trainings as there is room for.")
    chosen = [study(n) for n in STUDIES] if name is None else [study(name)]
    files = _weights(weights)
    if files:
        chosen = [s for s in chosen if s.takes_weights]
        scale_name = WEIGHTS
        if not chosen:
            raise UserError(
                f"{name}: can't measure networks from other projects, it has to train its own; leave out --weights."
            )
    else:
        scale_name = scale
    if scale_name != "quick" and data is None:
        raise UserError(f"scale {scale_name!r} needs the images: give --data cifar10:DIR.")
    where = device if ray is not None else find_device(device)
    with disk_errors(results):
        results.mkdir(parents=True, exist_ok=True)  # fails before the training, not after it
    plans = [s.plan(scale_name, data, files).limited(epochs, seeds) for s in chosen]
    records = []
    for one, plan in zip(chosen, plans, strict=True):
        command = ["resnetlab study run", one.name, *([] if files else ["--scale", scale])]
        command += [f"--data {data.split(':')[0]}:DIR"] if data else []
        command += [f"--weights {w.net}=FILE" for w in files]
        command += [f"--{k} {v:g}" for k, v in (("epochs", epochs), ("seeds", seeds)) if v is not None]
        records.append(_run_one(one, scale_name, plan, " ".join(command), runs, where, jobs, ray))
        records[-1].save(results)
        if not json:
            _show(records[-1])
    page = write_report(results)
    if json:
        found = [_answer(r) for r in records]
        print(json_module.dumps({"studies": found, "report": str(page)} if all else found[0] | {"report": str(page)}))
    else:
        print(f"report: {page}")
    return 1 if any(r.failures for r in records) else 0


def _answer(record: Record) -> dict[str, Any]:
    """What a program wants of a record: texts in English."""
    rows = [{k: str(both(v)) for k, v in row.items()} for row in record.rows]
    return {"study": record.study, "scale": record.scale, "verdict": record.verdict, "rows": rows} | {
        "failures": record.failures
    }


def _weights(texts: tuple[str, ...]) -> tuple[Weights, ...]:
    """What --weights names. Raises UserError."""
    from resnetlab.errors import UserError
    from resnetlab.nets.zoo import spec
    from resnetlab.studies.frame.measurement import Weights

    found = []
    for text in texts:
        net, equals, file = text.partition("=") if "(" not in text else text.rpartition("=")
        if not (equals and net and file):
            raise UserError(f"weights {text!r}: write NAME=FILE, e.g. cifar_resnet20=resnet20.pt.")
        spec(net)
        path = expanded(file)
        if not path.is_file():
            raise UserError(f"{path}: no such weight file.")
        found.append(Weights(net, path))
    return tuple(found)


def _run_one(
    chosen: Study, scale: str, plan: Plan, command: str, runs: Path, device: str, jobs: int | None, ray: str | None
) -> Record:
    """Run what is missing of one study, showing how it goes; return its record."""
    from resnetlab.cli.screen import say
    from resnetlab.machine import available_cores
    from resnetlab.studies.frame.record import conclude
    from resnetlab.studies.frame.run import run_plan

    jobs = jobs or (1 if device not in ("cpu", "auto") else available_cores())
    trainings, places = None, f"{jobs} at once"
    if ray is not None:
        from resnetlab.studies.frame.cluster import run_on_ray

        trainings, places = run_on_ray(plan.recipes, runs, address=ray, device=device), f"on Ray ({ray})"
        device = "cpu" if device == "auto" else device  # where what is trained is measured: here
    failed = _follow(
        f"{chosen.name}, {scale}", plan, places, run_plan(plan, runs, jobs=jobs, device=device, trainings=trainings)
    )
    record = conclude(chosen, scale, plan, runs, command, failed, device)
    if record.failures:
        say(
            f"{len(record.failures)} of {len(plan.recipes) + len(plan.measurements)} runs and measurements failed; the "
            "same command repeats only these, each run from its last checkpoint"
        )
    return record


@app.command
def report(*, results: Results = Path("reports"), json: Json = False) -> None:
    """Write the report from the records in a results folder."""
    from resnetlab.report.study_pages import write_report

    page = write_report(results)
    print(json_module.dumps({"report": str(page)}) if json else f"report: {page}")


def _follow(title: str, plan: Plan, places: str, events: Iterator[Event]) -> dict[int, str]:
    """Show how the runs and measurements go; return why those that failed did, by their place in the plan."""
    from resnetlab.cli.screen import progress_bars, say

    labels = [*(f"{r.net} seed {r.seed}" for r in plan.recipes), *(m.label for m in plan.measurements)]
    failed: dict[int, str] = {}
    counts = [f"{len(plan.recipes)} runs"] if plan.recipes else []
    counts += [f"{len(plan.measurements)} measurements"] if plan.measurements else []
    say(f"{title}: {' and '.join(counts)}, {places}; expected: {plan.expected}")
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
                words = last.get(event.index, "already finished" if event.index < len(plan.recipes) else "done")
                (bars.console.print if sys.stderr.isatty() else say)(
                    f"[{finished}/{len(labels)}] {time.monotonic() - started:4.0f} s  {label}: {words}"
                )
    return failed


ROWS_WIDTH = 72  # columns below which sentences side by side can't be read


def _show(record: Record) -> None:
    from rich.markup import escape
    from rich.table import Table

    from resnetlab.cli.screen import console, fits, print_listed

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
