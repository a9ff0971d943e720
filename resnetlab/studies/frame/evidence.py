"""The evidence that a study is judged by: what finished and what failed of its plan; grouped, e.g. by network."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from resnetlab.studies.frame.measurement import Measured, Measurement
from resnetlab.studies.frame.statistics import Sample
from resnetlab.studies.frame.text import Words
from resnetlab.training.recipe import Recipe

K = TypeVar("K", bound=Any)  # the key of a group, e.g. a depth, a name, or a dataclass
Metric = Callable[[dict[str, Any]], float]  # a number from the result of a run, or from a measurement's values


def value(*keys: str) -> Metric:
    """The number under these keys, each inside the one before."""

    def metric(values: Any) -> float:
        for key in keys:
            values = values[key]
        return float(values)

    return metric


train_error, test_error = value("train_error"), value("test_error")  # of a finished run, in %


@dataclass(frozen=True)
class RunResult:
    """A finished run: its recipe, its result, and its metrics by epoch."""

    recipe: Recipe
    result: dict[str, Any]
    epochs: list[dict[str, Any]]
    machine: dict[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What finished of a study's plan, and what failed. Each may be empty."""

    scale: str  # one of SCALES, or WEIGHTS
    outcomes: list[RunResult] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    failed: list[Recipe | Measurement] = field(default_factory=list)


@dataclass(frozen=True)
class Group(Generic[K]):
    """The runs, or the measurements, with one key: those that finished, one per seed, and those that failed."""

    key: K
    done: Sequence[RunResult | Measured] = ()
    failed: Sequence[Recipe | Measurement] = ()

    def __str__(self) -> str:
        return str(self.key)

    @property
    def values(self) -> list[dict[str, Any]]:
        """The results of the runs, or what was measured, by seed."""
        return [one.result if isinstance(one, RunResult) else one.values for one in self.done]

    @property
    def runs(self) -> list[RunResult]:
        """The runs, with their epochs."""
        return [one for one in self.done if isinstance(one, RunResult)]

    @property
    def whole(self) -> bool:
        """Whether something finished, and nothing failed."""
        return bool(self.done) and not self.failed

    def of(self, metric: Metric) -> list[float]:
        """The metric of each seed."""
        return [metric(values) for values in self.values]

    def mean(self, metric: Metric) -> float:
        """The metric's mean over seeds."""
        return statistics.fmean(self.of(metric))

    def cell(self, metric: Metric, form: str = ".2f") -> str:
        """The metric's mean ± standard deviation for a table; a dash if nothing finished."""
        return format(Sample(self.of(metric)), form) if self.done else "–"

    def called(self, name: Words) -> Group[Any]:
        """The same group under another key, the name that rules and cells use."""
        return Group(name, self.done, self.failed)


class Groups(dict[K, Group[K]]):
    """Groups by key, of everything planned. Asking for another key gives an empty group, which is not added."""

    def __missing__(self, key: K) -> Group[K]:
        return Group(key)

    def of(self, kind: str) -> list[Group[K]]:
        """Networks of a kind, "plain" or "residual", shallow ones first, whether or not their runs failed."""
        return [group for key, group in self.items() if key.kind == kind]

    def done(self, kind: str) -> list[Group[K]]:
        """Networks of a kind of which at least one seed finished."""
        return [group for group in self.of(kind) if group.done]

    def pairs(self) -> list[tuple[Group[K], Group[K]]]:
        """Plain and residual networks of one depth, shallow ones first."""
        plain, residual = self.of("plain"), self.of("residual")
        return [(net, twin) for net in plain for twin in residual if net.key.depth == twin.key.depth]

    def whole_pairs(self) -> list[tuple[Group[K], Group[K]]]:
        """Those pairs of which every seed of both finished."""
        return [(plain, residual) for plain, residual in self.pairs() if plain.whole and residual.whole]

    def all(self, *keys: K) -> list[Group[K]]:
        """The groups of these keys, or an empty list if one was not planned."""
        return [self[key] for key in keys] if all(key in self for key in keys) else []


def together(key: K, groups: Sequence[Group[Any]]) -> Group[K]:
    """Several groups as one, seed by seed: its values are {"parts": [the values of each group]}."""
    parts = zip(*(group.done for group in groups), strict=False)
    done = [
        replace(first, values={"parts": [one.values for one in seed]})
        for seed in parts
        if isinstance(first := seed[0], Measured)
    ]
    return Group(key, done, [one for group in groups for one in group.failed])


def runs_by(evidence: Evidence, key: Callable[[Recipe], K], order: Iterable[K] = ()) -> Groups[K]:
    """The runs, grouped by a key of their recipes; sorted by key, or in the given order."""
    lost = [r for r in evidence.failed if isinstance(r, Recipe)]
    return _grouped([(key(o.recipe), o) for o in evidence.outcomes], [(key(r), r) for r in lost], order)


def measured_by(
    evidence: Evidence, function: str, key: Callable[[Measurement], K], order: Iterable[K] = ()
) -> Groups[K]:
    """The measurements of a function, grouped by a key; sorted by key, or in the given order."""
    done = [(key(m.measurement), m) for m in evidence.measured if m.measurement.function == function]
    lost = [(key(m), m) for m in evidence.failed if isinstance(m, Measurement) and m.function == function]
    return _grouped(done, lost, order)


def all_measured(evidence: Evidence, function: str) -> Group[str]:
    """All measurements of a function, as one group."""
    return measured_by(evidence, function, lambda _: function)[function]


def _grouped(
    done: Sequence[tuple[K, RunResult | Measured]], lost: Sequence[tuple[K, Recipe | Measurement]], order: Iterable[K]
) -> Groups[K]:
    there = {key for key, _ in (*done, *lost)}
    keys = [key for key in order if key in there] or sorted(there)
    return Groups(
        {key: Group(key, [one for k, one in done if k == key], [one for k, one in lost if k == key]) for key in keys}
    )
