"""Runs of several seeds: their mean errors, and how far they lie from those of other settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resnetlab.errors import printable
from resnetlab.studies.frame.statistics import Difference, Sample, difference
from resnetlab.training.run_details import Comparison, in_words
from resnetlab.training.runs import RunSummary

SEED = "seed"
_ERRORS = ("train_error", "test_error", "best_error")


@dataclass(frozen=True)
class Seeds:
    """Finished runs that differ in nothing but their seed."""

    settings: dict[str, Any]  # in which they differ from the other runs that are compared
    runs: tuple[RunSummary, ...]
    from_first: Difference | None  # of their test errors from those of the first settings, in points; None for these

    def errors(self, name: str) -> Sample | None:
        """An error in % over the runs; None if one of them has none."""
        found = [error for run in self.runs if (error := getattr(run, name)) is not None]
        return Sample(found) if len(found) == len(self.runs) else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a difference of which one side is a single run has no interval."""
        samples = {name: self.errors(name) for name in _ERRORS}
        d = self.from_first
        return {
            "settings": self.settings,
            "seeds": [run.seed for run in self.runs],
            **{
                name: {"values": list(of.values), "mean": of.mean, "deviation": of.deviation} if of else None
                for name, of in samples.items()
            },
            "test_error_from_first": {"mean": d.mean, "interval": [d.low, d.high] if d.has_interval else None}
            if d
            else None,
        }


def over_seeds(compared: Comparison) -> list[Seeds]:
    """The finished runs by everything but their seed, in their order; none if no two differ in their seed alone.

    Of several runs of one seed, such as a run and its copy, which are not independent, the first counts.
    """
    names = [name for name in compared.differences if name != SEED]
    groups: dict[str, tuple[dict[str, Any], list[RunSummary]]] = {}
    for i, run in enumerate(compared.runs):
        if run.state == "finished":
            settings = {name: compared.differences[name][i] for name in names}
            runs = groups.setdefault(repr(settings), (settings, []))[1]
            if all(run.seed != other.seed for other in runs):
                runs.append(run)
    if all(len(runs) == 1 for _, runs in groups.values()):
        return []
    tests = [[run.test_error for run in runs if run.test_error is not None] for _, runs in groups.values()]
    away = [difference(test, tests[0]) if i and test and tests[0] else None for i, test in enumerate(tests)]
    return [Seeds(settings, tuple(runs), d) for (settings, runs), d in zip(groups.values(), away, strict=True)]


def seeds_table(found: list[Seeds]) -> tuple[list[str], list[list[str]]]:
    """Headers, and a row for each group: its settings, its mean errors ± their standard deviation, and its distance."""
    headers = [*found[0].settings, "seeds", "train %", "test %", "best %", "test, from the first"]
    rows = []
    for group in found:
        samples = [group.errors(name) for name in _ERRORS]
        cells = [*map(in_words, group.settings.values()), str(len(group.runs))]
        cells += [f"{sample:.2f}" if sample else "" for sample in samples]
        cells.append(group.from_first.rounded(2) if group.from_first else "")
        rows.append([printable(cell) for cell in cells])
    return headers, rows
