"""`resnetlab.study`: a study of the papers' claims, run, judged and written down."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.api import screen
from resnetlab.api.arguments import PathLike, called_from_python, check_kind, text_of, texts_of
from resnetlab.api.errors import as_user_errors
from resnetlab.api.fetching import fetch_sources
from resnetlab.api.plot import Plot
from resnetlab.api.tables import Row, Tabular
from resnetlab.errors import check_choice, check_counts, counted, in_whole_texts
from resnetlab.paths import expanded
from resnetlab.report.study_pages import figure_of, write_report
from resnetlab.storage import disk_errors
from resnetlab.studies.frame.assignment import Assignment, Workplace, assignments
from resnetlab.studies.frame.record import Record
from resnetlab.studies.frame.run import Event
from resnetlab.studies.frame.scales import SCALES
from resnetlab.studies.frame.text import both
from resnetlab.training.loop import Status


@dataclass(frozen=True)
class ClaimResult:
    """A claim of a study: what the paper says, what was measured, and the verdict by the study's rule."""

    claim: str
    paper: str
    measured: str
    verdict: str
    remark: str = ""  # to the verdict, where there is one


@dataclass(frozen=True)
class StudySummary(Tabular):
    """The findings of a study, in English; a notebook also shows its figures."""

    study: str
    scale: str
    verdict: str  # the number of its claims with each verdict, in words
    rule: str  # the rule that decided
    claims: tuple[ClaimResult, ...]
    failures: tuple[str, ...]  # runs and measurements that failed, each with the reason
    figures: tuple[Plot, ...] = field(repr=False)
    record: Path  # the JSON file that holds all of it
    report: Path  # the page of all records beside it

    def table(self) -> list[Row]:
        """A row for each claim."""
        return [asdict(claim) for claim in self.claims]

    def __str__(self) -> str:
        return f"{super().__str__()}\n{self.study}, {self.scale}: {self.verdict}"

    def _repr_html_(self) -> str:
        verdict = f"<p><b>{self.study}, {self.scale}: {self.verdict}</b></p>"
        return super()._repr_html_() + verdict + "".join(figure.svg for figure in self.figures)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the figures."""
        names = ("study", "scale", "verdict", "rule")
        values = {name: getattr(self, name) for name in names} | {"failures": list(self.failures)}
        values |= {"claims": self.table(), "record": str(self.record), "report": str(self.report)}
        whole: dict[str, Any] = in_whole_texts(values)
        return whole


@called_from_python
def study(
    name: str,
    scale: str = "quick",
    *,
    data: PathLike | None = None,
    weights: str | Sequence[str] = (),
    epochs: float | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    ray: str | None = None,
    runs: PathLike = "runs",
    results: PathLike = "reports",
    device: str = "auto",
    quiet: bool = False,
) -> StudySummary:
    """Run a study, decide by its rule, and write record and report, as `resnetlab study run` does.

        resnetlab.study("degradation")                              # minutes, on the digits
        resnetlab.study("degradation", "cifar", data="cifar10:data")

    Finished runs in the folder runs are reused, whichever study made them. A run that fails is listed in `failures`
    and does not stop the others; the same call repeats only those. The options are those of the command; quiet shows
    no progress.

    Raises UserError, with the same line, for whatever the command would refuse. After Ctrl-C or SIGTERM each run's
    last step is saved, and `training.signals.Stopped` is raised, which says so.
    """
    with as_user_errors("study run"), screen.silenced(quiet):
        check_kind(str, ray=ray, device=device)
        check_kind(float, epochs=epochs)
        check_kind(bool, quiet=quiet)
        check_choice("scale", scale, SCALES)
        check_counts(jobs=jobs, seeds=seeds)
        which, files = text_of(name, "study"), texts_of(weights, "weights")
        where = expanded(text_of(results, "results"))
        images = text_of(data, "data") if data is not None else None
        fetch_sources(*(text.rpartition("=")[2] for text in files))
        tasks = assignments(which, scale, data=images, weights=files, epochs=epochs, seeds=seeds)
        workplace = Workplace.checked(expanded(text_of(runs, "runs")), device, jobs, ray)
        ((record, path),) = carried_out(tasks, workplace, where)
        return _result(record, path, write_report(where))


def carried_out(tasks: list[Assignment], workplace: Workplace, results: Path) -> Iterator[tuple[Record, Path]]:
    """Run studies one after another, showing progress; yield the record of each, with its file."""
    with disk_errors(results):
        results.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=results).close()  # an unwritable folder fails before the training, not after it
    if len(tasks) > 1:
        screen.say(f"all studies: {workplace.budget(r for task in tasks for r in task.plan.recipes).words}")
    for task in tasks:
        if len(tasks) == 1 and task.plan.recipes:
            screen.say(f"{task.title}: {workplace.budget(task.plan.recipes).words}")
        record = workplace.carry_out(task, lambda task, events: _follow(task, workplace.words, events))
        if record.failures:
            total = len(task.plan.recipes) + len(task.plan.measurements)
            screen.say(
                f"{len(record.failures)} of {total} runs and measurements failed; the same command repeats only "
                "these, each run from its last checkpoint"
            )
        yield record, record.save(results)


def _follow(task: Assignment, places: str, events: Iterator[Event]) -> dict[int, str]:
    """Show the progress of runs and measurements; return the reasons of failures, by their index in the plan."""
    plan, failed = task.plan, dict[int, str]()
    labels = [*(f"{r.net} seed {r.seed}" for r in plan.recipes), *(m.label for m in plan.measurements)]
    counts = [counted(len(plan.recipes), "run")] if plan.recipes else []
    counts += [counted(len(plan.measurements), "measurement")] if plan.measurements else []
    screen.say(f"{task.title}: {' and '.join(counts)}, {places}; expected: {plan.expected}")
    if plan.note:
        screen.say(f"{task.title}: {plan.note}")
    started, finished = time.monotonic(), 0
    with screen.progress_bars() as bars:
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
            if event.waits:
                screen.say_beside(bars, f"{label}: another process is training it; its result is taken when that ends")
            if event.failed:
                failed[event.index] = event.failed
                last[event.index] = f"FAILED: {event.failed}"
            if event.done or event.failed:
                finished += 1
                if event.index in tasks:
                    bars.remove_task(tasks[event.index])
                bars.update(overall, completed=finished)
                words = last.get(event.index, "already finished" if event.index < len(plan.recipes) else "done")
                line = f"[{finished}/{len(labels)}] {time.monotonic() - started:4.0f} s  {label}: {words}"
                screen.say_beside(bars, line)
    return failed


def _errors_of(status: Status) -> str:
    test = f", test {status.test_error:.1f} %" if status.test_error is not None else ""
    return f"training error {status.train_error:.1f} %{test}"


def _result(record: Record, path: Path, page: Path) -> StudySummary:
    names = ("claim", "paper", "measured", "verdict", "remark")
    rows = ({name: str(both(row[name])) for name in names} for row in record.rows)
    return StudySummary(
        study=record.study,
        scale=record.scale,
        verdict=record.verdict,
        rule=str(both(record.rule)),
        claims=tuple(ClaimResult(**row) for row in rows),
        failures=tuple(f"{f['net']} seed {f['seed']}: {f['reason']}" for f in record.failures),
        figures=tuple(Plot(figure_of(figure)) for figure in record.figures),
        record=path,
        report=page,
    )
