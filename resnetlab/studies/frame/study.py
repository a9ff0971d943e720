"""A study as it is stated before it runs: claim, method and rule, the plan for each scale, and how it is judged."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from resnetlab.errors import UserError, did_you_mean, shown
from resnetlab.studies import STUDIES
from resnetlab.studies.figures.figure import Figure, Table
from resnetlab.studies.frame.budget import length, total_epochs
from resnetlab.studies.frame.claims import Row, in_words
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measurement, Weights
from resnetlab.studies.frame.scales import CIFAR_EPOCHS
from resnetlab.studies.frame.text import SHARED, Both, Catalogue, Words, both, joined
from resnetlab.training.recipe import Recipe


@dataclass(frozen=True)
class Scale:
    """The choices of most studies for a scale: the depths of their networks, and the number of seeds."""

    depths: tuple[int, ...]
    seeds: int


@dataclass(frozen=True)
class Plan:
    """The work of a study at one scale: runs, then measurements (of their networks, or of none); and what to expect."""

    recipes: tuple[Recipe, ...]
    expected: Words  # how long it takes, and on which hardware
    note: Words = ""  # what a reader must know about this scale: seeds, what it can't show
    measurements: tuple[Measurement, ...] = ()
    shortened: str = ""  # the options that made it smaller than its scale, if any

    def limited(self, epochs: float | None, seeds: int | None) -> Plan:
        """The plan with shorter runs and only the seeds below `seeds`; its note says so if that makes it smaller."""

        def shorter(one: Recipe) -> Recipe:
            return one if epochs is None or length(one) <= epochs else one.override(epochs=epochs)

        def kept(seed: int) -> bool:
            return seeds is None or seed < seeds

        options = " ".join(f"--{k} {v:g}" for k, v in (("epochs", epochs), ("seeds", seeds)) if v is not None)
        less = replace(
            self,
            recipes=tuple(shorter(r) for r in self.recipes if kept(r.seed)),
            measurements=tuple(replace(m, run=m.run and shorter(m.run)) for m in self.measurements if kept(m.seed)),
        )
        if less == self:
            return self
        return replace(less, note=self.note + SHARED("less", options=options), shortened=options)


def planned(
    text: Catalogue, scale: str, recipes: Sequence[Recipe] = (), measurements: Sequence[Measurement] = ()
) -> Plan:
    """The plan of a scale; what to expect of it and its note are in the study's catalogue."""
    note = text(f"scales.{scale}.note", epochs=CIFAR_EPOCHS)
    return Plan(tuple(recipes), expected(text, f"scales.{scale}.expected", recipes), note, tuple(measurements))


def expected(text: Catalogue, key: str, recipes: Sequence[Recipe]) -> Words:
    """How long a scale takes, as the catalogue states; if it states nothing, how much is trained."""
    return text(key) if key in text else SHARED("expected.training", epochs=total_epochs(recipes))


@dataclass(frozen=True)
class StudyResult:
    """The findings of a study: claims with verdicts, figures, tables, and words that explain them."""

    rows: list[Row]
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    words: Words = ""  # paragraphs, separated by empty lines
    answer: Words = ""  # the answer to the study's question, in one short paragraph for the overview

    @property
    def verdict(self) -> Both:
        """The number of its claims with each verdict, in words."""
        return in_words(row.verdict for row in self.rows)


@dataclass(frozen=True)
class Study:
    """A study: claim, source, method and the rule of its verdict, all stated before it runs."""

    name: str
    title: Words
    claim: Words
    source: str
    method: Words
    rule: Words
    # (scale, place of the data, others' networks) -> plan; the networks are given only if it takes_weights
    plan: Callable[[str, str | None, tuple[Weights, ...]], Plan]
    judge: Callable[[Evidence], StudyResult]
    theory: Words = ""  # derivations: paragraphs, separated by empty lines, with LaTeX between $ and $
    takes_weights: bool = False

    def rule_of(self, plan: Plan, scale: str) -> Both:
        """The rule, with the conditions for each claim of a plan to be reproduced; known before anything runs."""
        nothing = Evidence(scale, failed=[*plan.recipes, *plan.measurements])
        claims = [f"({i}) " + both(row.rule) for i, row in enumerate(self.judge(nothing).rows, 1)]
        return joined([self.rule, SHARED("rules.claims", claims=claims), SHARED("failed_rule")])


# Sentences on how an interval becomes a verdict, for use in a study's rule.
_RULES = {name: SHARED(f"rules.{name}") for name in ("by_interval", "by_ratio")}


def stated(
    text: Catalogue,
    *,
    plan: Callable[[str, str | None, tuple[Weights, ...]], Plan],
    judge: Callable[[Evidence], StudyResult],
    takes_weights: bool = False,
    **values: Any,
) -> Study:
    """The study whose title, claim, source, method, rule and theory are in its catalogue, filled with these values."""
    return Study(
        name=text.path.parent.name,
        title=text("title", **values),
        claim=text("claim", **values),
        source=str(text("source", **values)),
        method=text("method", **values),
        rule=text("rule", **_RULES, **values),
        plan=plan,
        judge=judge,
        theory=text("theory") if "theory" in text else "",
        takes_weights=takes_weights,
    )


def study(name: str) -> Study:
    """Return a study by name. Raises UserError, with the nearest names, if there is none."""
    if name not in STUDIES:
        raise UserError(
            f"study {shown(name)} is not known: choose one of {', '.join(STUDIES)}.{did_you_mean(name, STUDIES)}"
        )
    found: Study = importlib.import_module(f"resnetlab.studies.{name}").STUDY
    return found
