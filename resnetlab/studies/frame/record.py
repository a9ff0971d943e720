"""The record of a study: made from everything that finished of its plan, written, and read again."""

from __future__ import annotations

import datetime
import json
import os
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from resnetlab.errors import UserError, out_of_memory
from resnetlab.machine import machine
from resnetlab.run_files import read_begun, read_epochs
from resnetlab.schema import Seconds, Whole, trouble
from resnetlab.storage import Damaged, disk_errors, read_json, write_json
from resnetlab.studies import STUDIES
from resnetlab.studies.figures.figure import Figure, Table
from resnetlab.studies.frame.claims import Row
from resnetlab.studies.frame.evidence import Evidence, RunResult
from resnetlab.studies.frame.measurement import Measurement, measure_or_cached, opened
from resnetlab.studies.frame.scales import SCALES, WEIGHTS
from resnetlab.studies.frame.statistics import CONTRADICTED, Verdict
from resnetlab.studies.frame.study import Plan, Study, StudyResult
from resnetlab.studies.frame.text import SHARED, Words
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.runs import MEASURED

RECORD_FORMAT = 2
SHORTENED = "-shortened"
LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class Failure:
    """A run or measurement that failed, in words, with the reason in one line."""

    net: str
    recipe: str
    seed: int
    reason: str


@dataclass(frozen=True)
class RecordedRow:
    """A claim's row as a record keeps it."""

    claim: Words
    paper: Words
    measured: Words
    verdict: str  # a verdict's word
    remark: Words = ""  # on the verdict; older records have none


@dataclass(frozen=True)
class Record:
    """The result of a study: enough to draw its page again on any machine."""

    study: str
    scale: str
    title: Words
    claim: Words
    source: str
    method: Words
    rule: Words  # the rule that was applied, whatever the study states today
    expected: Words
    verdict: str  # in words, the number of claims with each verdict; in older records the weakest verdict's word
    rows: list[dict[str, Any]]
    figures: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    words: Words
    answer: Words
    theory: Words
    note: Words
    machine: dict[str, Any]
    runs: Whole  # number of runs that finished
    training_seconds: Seconds  # summed over runs, as if they ran one after another
    measurements: Whole  # number of measurements that finished
    measuring_seconds: Seconds  # summed over measurements
    command: str
    date: str  # UTC, ISO 8601
    format: int = RECORD_FORMAT
    failures: list[dict[str, Any]] = field(default_factory=list)
    seeds: Whole = 0  # of the trained networks, else of what was measured; 0 in older records
    shortened: str = ""  # the options that made it smaller than its scale, if any

    @property
    def name(self) -> str:
        """The name of its page and files; a shortened record never replaces a full one."""
        return f"{self.study}-{self.scale}{SHORTENED if self.shortened else ''}"

    @property
    def file_name(self) -> str:
        """Name of the record's file in a results folder."""
        return f"{self.name}.json"

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of its claims. Raises ValueError for an unknown word."""
        return [Verdict.of(row["verdict"]) for row in self.rows]

    @property
    def fullness(self) -> int:
        """How complete it is: 2 for a whole scale with several seeds, 1 with one seed, 0 if shortened."""
        if self.shortened or (not self.seeds and re.search(r" --(epochs|seeds) ", self.command)):  # older ones
            return 0
        return 1 if self.seeds == 1 else 2

    @property
    def whole_runs(self) -> bool:
        """Whether its runs are as long as its scale demands, however few seeds there are."""
        return "--epochs " not in (self.shortened if self.seeds else self.command)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def save(self, folder: Path) -> Path:
        """Write the record into a results folder; return its path."""
        path = folder / self.file_name
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, self.to_dict())
        return path


# The types of a record's fields that are kept as JSON values.
_INNER: dict[str, Any] = {
    "rows": list[RecordedRow],
    "figures": list[Figure],
    "tables": list[Table],
    "failures": list[Failure],
}


def read_records(folder: Path) -> list[Record]:
    """The records in a results folder, in the order of STUDIES and scales.

    Raises UserError if there are none, or, naming the file, if one is damaged or of another version.
    """
    scales = (*SCALES, WEIGHTS)
    names = {f"{name}-{scale}{s}.json" for name in STUDIES for scale in scales for s in ("", SHORTENED)}
    try:
        paths = [p for p in sorted(folder.glob("*.json")) if p.name in names]
    except OSError as error:
        raise UserError(f"{str(folder)[:80]}: can't be read ({error.strerror}).") from error
    if not paths:
        raise UserError(f"{folder}: no results of studies; run one first, e.g. resnetlab study run degradation.")
    records = []
    for path in paths:
        values = read_json(path)
        if values.get("format") != RECORD_FORMAT:
            raise UserError(f"{path}: a record of another version; run the study again.")
        inner = (trouble(values.get(key, []), kind, key) for key, kind in _INNER.items())
        if wrong := next(filter(None, [trouble(values, Record), *inner]), ""):
            raise Damaged(path, f"a damaged record, {wrong}", "run the study again")
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise Damaged(path, "a damaged record, it has an incomplete character", "run the study again") from error
        records.append(Record(**values))
        if records[-1].file_name != path.name:
            raise UserError(f"{path}: holds the record that belongs in {records[-1].file_name}; move it there.")
    return sorted(records, key=lambda r: (STUDIES.index(r.study), scales.index(r.scale), bool(r.shortened)))


def fullest(records: Sequence[Record]) -> list[Record]:
    """The most complete records of each study: shortened ones, or those of one seed, only if there is no fuller one."""
    most = {name: max(r.fullness for r in records if r.study == name) for name in {r.study for r in records}}
    return [record for record in records if record.fullness == most[record.study]]


def reason(error: Exception, runs: Path) -> str:
    """Why something failed, in one line, without the path of the runs' folder."""
    return one_line(error).replace(f"{runs}{os.sep}", "")


def one_line(error: BaseException) -> str:
    """Why something failed, in one line; for errors other than UserError, which are bugs, also where."""
    words = " ".join(str(error).split())
    if not isinstance(error, UserError) and (lack := out_of_memory(error)):
        words = f"out of memory: {lack}; try fewer --jobs, or a machine with more memory."
    elif not isinstance(error, UserError):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        words = f"{type(error).__name__}: {words[:LONGEST_REASON]}{where}"
    return words if len(words) <= LONGEST_REASON else f"{words[:LONGEST_REASON]}..."


def outcome(run: Run) -> RunResult:
    """The result of a finished run. Raises UserError if it is not finished, or its folder is damaged."""
    result = run.result()
    if result is None:
        raise UserError(f"{run.folder}: is not finished.")
    settings, epochs = read_begun(run.folder), read_epochs(run.folder)
    return RunResult(run.recipe, result, epochs, settings["machine"] | {"threads": settings["threads"]})


def failure(one: Recipe | Measurement, reason: str) -> Failure:
    """A failed run or measurement in words; the place of its data is left out, as it tells a reader nothing."""
    if isinstance(one, Measurement):
        return Failure(one.label, "measurement", one.seed, reason)
    length = f"{one.epochs:g} epoch{'s' * (one.epochs != 1)}" if one.epochs is not None else f"{one.iterations:,} steps"
    words = f"{one.data.split(':')[0]}, {length}, batches of {one.batch_size}, lr {one.lr:g}"
    if one.warmup != "none":
        words += f", warm-up {one.warmup}"
    return Failure(one.net, words, one.seed, reason)


def make_record(
    study: Study,
    scale: str,
    plan: Plan,
    runs: Path,
    command: str,
    failed: Mapping[int, str] = MappingProxyType({}),
    device: str = "cpu",
) -> Record:
    """Judge everything that finished of a study's plan; return the record.

    `failed` says why runs and measurements failed, by index; those that can't be read count as failed too.
    """
    evidence, failures = _gathered(scale, plan, runs, failed, device)
    finding = _judged(study, evidence, runs)
    machines = [*(o.machine for o in evidence.outcomes), *(m.machine for m in evidence.measured)]
    made_on = machines[-1] if machines else machine()
    others = sum(_differ(one, made_on) for one in machines)
    return Record(
        study=study.name,
        scale=scale,
        title=study.title,
        claim=study.claim,
        source=study.source,
        method=study.method,
        rule=study.rule_of(plan, scale),
        expected=plan.expected,
        verdict=str(finding.verdict),
        rows=[_recorded(row, scale) for row in finding.rows],
        figures=[asdict(figure) for figure in finding.figures],
        tables=[asdict(table) for table in finding.tables],
        words=finding.words,
        answer=finding.answer,
        theory=study.theory,
        note=plan.note + SHARED("mixed", others=others) if others else plan.note,
        machine=made_on,
        runs=len(evidence.outcomes),
        training_seconds=round(sum(o.result["seconds"] for o in evidence.outcomes), 1),
        measurements=len(evidence.measured),
        measuring_seconds=round(sum(m.seconds for m in evidence.measured), 1),
        command=command,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        failures=[asdict(f) for f in failures],
        # Of the trained networks; measurements of noise may have more.
        seeds=len({o.recipe.seed for o in evidence.outcomes} or {m.measurement.seed for m in evidence.measured}),
        shortened=plan.shortened,
    )


def _recorded(row: Row, scale: str) -> dict[str, Any]:
    """A row as a record keeps it; for a contradicted claim, with other possible reasons."""
    remark = row.remark or (SHARED(f"otherwise.{scale}") if row.verdict == CONTRADICTED else "")
    about = RecordedRow(row.claim, row.paper, row.measured, row.verdict.word, remark)
    return asdict(about)


def _gathered(
    scale: str, plan: Plan, runs: Path, failed: Mapping[int, str], device: str
) -> tuple[Evidence, list[Failure]]:
    """The parts of a plan that finished, and those that failed."""
    evidence, failures = Evidence(scale), []
    work: tuple[Recipe | Measurement, ...] = (*plan.recipes, *plan.measurements)
    for index, one in enumerate(work):
        try:
            if index in failed:
                raise UserError(failed[index])
            if isinstance(one, Recipe):
                evidence.outcomes.append(outcome(make_run(one, runs, opened(one.data))))
            else:
                evidence.measured.append(measure_or_cached(one, runs, device))
        except UserError as error:
            evidence.failed.append(one)
            failures.append(failure(one, reason(error, runs)))
    return evidence, failures


def _judged(study: Study, evidence: Evidence, runs: Path) -> StudyResult:
    """The study's result. Raises UserError if cached measurements without a checksum have another form."""
    try:
        return study.judge(evidence)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if all(m.checked for m in evidence.measured):
            raise  # a bug
        raise UserError(
            f"{runs / MEASURED}: a measurement there, kept by an older version without a checksum, is not what "
            f"{study.name} needs ({error!r}); remove the folder, and they are made again."
        ) from error


def _differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results were made on different machines or by different code; the number of threads may differ."""
    return {**one, "threads": 0} != {**other, "threads": 0}
