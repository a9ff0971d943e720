"""The study `bottleneck`: its plan, its claims, and what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resnetlab.measuring.reported import REPORTED
from resnetlab.studies.bottleneck.measure import MAP, measure_units
from resnetlab.studies.figures.figure import Figure, Table
from resnetlab.studies.frame.claims import Claim, Judged, claim, comparison, exact, holds, rows
from resnetlab.studies.frame.costs import (
    BUSY_RULE,
    Costs,
    as_long,
    cost_table,
    longer,
    measure_networks,
    sentence_of_times,
    time_panel,
    times,
)
from resnetlab.studies.frame.evidence import Evidence, Group, all_measured, value
from resnetlab.studies.frame.measurement import Measurement, Weights, named
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.study import Plan, StudyResult, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined

TEXT = Catalogue.of(__name__)
MEASURE_UNITS, MEASURE_NETWORKS = named(measure_units), named(measure_networks)
NETS = ("resnet152_v1", "vgg16", "vgg19")
WEIGHTS = {"pair-256": 1_179_648, "pair-64": 73_728, "bottleneck": 69_632, "with projection": 135_168}
SIMILAR = 1.1  # factor within which multiply-adds are called similar, and times as well
DOUBLED = (1.9, 2.1)

# (images a step of the units, their rounds, rounds of the networks)
SCALES = {"quick": (1, 15, 9), "cifar": (8, 25, 15), "paper": (32, 51, 25)}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Nothing is trained: units and networks are counted, and timed alone."""
    base(scale, data)  # refuses data that the scale doesn't take
    batch, unit_rounds, net_rounds = SCALES[scale]
    nets = {"nets": list(NETS), "batch": 1, "rounds": net_rounds, "training": False}
    measurements = (
        Measurement(MEASURE_UNITS, {"batch": batch, "rounds": unit_rounds}, alone=True),
        Measurement(MEASURE_NETWORKS, nets, alone=True),
    )
    return Plan((), TEXT("expected"), TEXT("note", batch=batch), measurements)


def judge(evidence: Evidence) -> StudyResult:
    """Compare counts exactly, and times by their ratio within one run."""
    units, nets = (all_measured(evidence, function) for function in (MEASURE_UNITS, MEASURE_NETWORKS))
    found = rows(TEXT, [*claims_of_units(units), *claims_of_nets(nets)])
    words = [*map(_words_of_units, units.values), *map(_words_of_nets, nets.values)]
    answer = [*map(_answer_of_units, units.values), *map(_answer_of_nets, nets.values)]
    return StudyResult(found, _figures(units, nets), _tables(units, nets), joined(words, "\n\n"), joined(answer))


def claims_of_units(units: Group[str]) -> Iterator[Claim]:
    """What the bottleneck saves, and what it costs beside a pair of equal cost and with a projection."""
    yield claim(
        "weights",
        [exact(value(name, "weights"), units, of=WEIGHTS[name]) for name in ("pair-256", "bottleneck")],
        values={"pair": WEIGHTS["pair-256"], "narrow": WEIGHTS["bottleneck"]},
        cell=lambda: _beside("pair-256", units.values[0]),
    )
    yield claim(
        "similar",
        [_similar(units)],
        values={"factor": SIMILAR},
        cell=lambda: _beside("pair-64", units.values[0]),
    )
    yield claim("doubled", [_doubled(units)], values={"low": DOUBLED[0], "high": DOUBLED[1]})
    yield claim("faster", [longer(units, "pair-256", than="bottleneck")])
    yield claim(
        "as_fast",
        [as_long(units, "bottleneck", as_="pair-64", factor=SIMILAR)],
        values={"factor": SIMILAR},
    )


def claims_of_nets(nets: Group[str]) -> Iterator[Claim]:
    """That 152 layers of bottlenecks cost less than VGG's 16 and 19."""
    reported = [(REPORTED[name].multiply_adds or 0) / 1e9 for name in NETS]
    yield claim("fewer", [_fewest(nets)], values={"printed": reported})
    yield claim("net_faster", [longer(nets, "vgg19", than="resnet152_v1")])


def _times_as_much(key: str, costs: Costs, one: str, other: str) -> float:
    """How many times as much of something one costs as the other."""
    return float(costs[one][key] / costs[other][key])


def _beside(pair: str, units: Costs) -> dict[str, Any]:
    """For a text: the weights of a pair and of the bottleneck, and how many times as much the pair needs."""
    weights, adds = (_times_as_much(key, units, pair, "bottleneck") for key in ("weights", "multiply_adds"))
    counts = {"pair": units[pair]["weights"], "narrow": units["bottleneck"]["weights"]}
    return {**counts, "times_weights": weights, "times_adds": adds}


@comparison
def _similar(units: Group[str]) -> Judged:
    """That the bottleneck and the pair on 64 channels need about as many multiply-adds."""
    adds = _times_as_much("multiply_adds", units.values[0], "pair-64", "bottleneck")
    return holds(1 / SIMILAR < adds < SIMILAR), {}


@comparison
def _doubled(units: Group[str]) -> Judged:
    """That a projection makes about twice the multiply-adds of the bottleneck."""
    costs, (low, high) = units.values[0], DOUBLED
    adds = _times_as_much("multiply_adds", costs, "with projection", "bottleneck")
    return holds(low <= adds <= high), {"weights": costs["with projection"]["weights"], "times_adds": adds}


@comparison
def _fewest(nets: Group[str]) -> Judged:
    """That the first of NETS needs the fewest multiply-adds."""
    adds = {name: nets.values[0][name]["multiply_adds"] for name in NETS}
    deep, *others = adds.values()
    return holds(deep < min(others)), {"counts": [f"{name} {count / 1e9:.2f} G" for name, count in adds.items()]}


def _figures(units: Group[str], nets: Group[str]) -> list[Figure]:
    panels = [time_panel(TEXT("figures.times.units"), costs, "pair-256") for costs in units.values]
    panels += [time_panel(TEXT("figures.times.nets"), costs, "vgg19") for costs in nets.values]
    return [Figure("times", TEXT("figures.times.caption"), panels)] if panels else []


def _tables(units: Group[str], nets: Group[str]) -> list[Table]:
    caption = TEXT("costs.units.caption", map=MAP)
    tables = [cost_table(caption, costs, TEXT("costs.units.first")) for costs in units.values]
    return tables + [cost_table(TEXT("costs.nets.caption"), costs, TEXT("costs.nets.first")) for costs in nets.values]


def _words_of_units(units: Costs) -> Words:
    saved = _times_as_much("multiply_adds", units, "pair-256", "bottleneck")
    weights, kept = (_times_as_much(key, units, "bottleneck", "pair-64") for key in ("weights", "training_bytes"))
    clock = times(units, "pair-256", "bottleneck")
    timed = "words.time_saves_less" if clock.high < saved else "words.time_saves_as_much"
    return joined(
        [
            TEXT("words.equal_cost", saved=saved, weights=weights, kept=kept),
            sentence_of_times(units, TEXT(timed, saved=saved, clock=clock)),
        ]
    )


def _words_of_nets(nets: Costs) -> Words:
    return TEXT(
        "words.nets",
        parameters=_times_as_much("parameters", nets, "vgg19", "resnet152_v1"),
        kept=_times_as_much("training_bytes", nets, "resnet152_v1", "vgg19"),
    )


def _answer_of_units(units: Costs) -> Words:
    clock, equal = times(units, "pair-256", "bottleneck"), times(units, "bottleneck", "pair-64")
    timed = TEXT("answer.unit_times", clock=clock, equal=equal)
    counted = TEXT("answer.weights", **_beside("pair-256", units))
    return joined([counted, sentence_of_times(units, timed)])


def _answer_of_nets(nets: Costs) -> Words:
    deep, vgg = (nets[name]["multiply_adds"] / 1e9 for name in ("resnet152_v1", "vgg19"))
    timed = TEXT("answer.net_times", clock=times(nets, "vgg19", "resnet152_v1"))
    return joined([TEXT("answer.nets", deep=deep, vgg=vgg), sentence_of_times(nets, timed)])


STUDY = stated(TEXT, plan=plan, judge=judge, busy=BUSY_RULE)
