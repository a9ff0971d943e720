"""The study `shattered`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from resnetlab.measuring.fully_connected import VARIANTS, predicted_correlation
from resnetlab.studies.frame.claims import Claim, Comparison, Instead, claim, less, more, rows, within
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, Metric, all_measured, measured_by
from resnetlab.studies.frame.measurement import Measured, Measurement, Weights, named
from resnetlab.studies.frame.networks import KINDS, Net, measured_networks
from resnetlab.studies.frame.scales import base, for_depth
from resnetlab.studies.frame.statistics import NOT_JUDGED
from resnetlab.studies.frame.study import Plan, StudyResult, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.shattered.figures import NAMES, at, at_lag, depths, figures, found, mean, tables
from resnetlab.studies.shattered.measure import ONE_UNIT, grid, network, noise, pairs, pixels, pixels_trained

TEXT = Catalogue.of(__name__)
NOISE, GRID, PAIRS = named(noise), named(grid), named(pairs)
PIXELS, TRAINED = named(pixels), named(pixels_trained)
DEPTHS = (2, 4, 10, 24, 50)  # Balduzzi et al. 2017, Figure 2
FALLING = DEPTHS[:-1]  # plain nets are white at 24 layers, below which nothing can fall
LAGS = 15
JUDGED = (1, 5)  # lags: neighbouring points alone would be alike in any smooth function
SEEDS = 20
TOLERANCE = 0.1  # of an autocorrelation: nearer than that counts as equal
QUARTER = 0.02  # how far the share of units that a pair has in common may lie from 1/4


@dataclass(frozen=True)
class Scale:
    """What is measured of convolutional nets."""

    depths: tuple[int, ...]
    seeds: int
    images: int  # of the mini-batch
    lags: int  # in pixels
    trained: tuple[int, ...] = ()  # depths that are also measured after training, with TRAINED_SEEDS seeds


TRAINED_SEEDS = 3
SCALES = {
    "quick": Scale((2, 4, 8, 20, 56, 110), seeds=5, images=256, lags=4, trained=(4, 8, 20, 56)),
    "cifar": Scale((2, 4, 8, 20, 56, 110), seeds=5, images=256, lags=8, trained=(20, 56)),
    "paper": Scale((2, 4, 8, 20, 32, 44, 56, 110), seeds=20, images=256, lags=8, trained=(20, 56, 110)),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Random nets on a line and at random points, noise; convolutional nets on real images, untrained and trained."""
    s, recipe = SCALES[scale], base(scale, data)
    images = recipe.data
    measurements: list[Measurement] = []
    for seed in range(SEEDS):
        measurements.append(Measurement(NOISE, {"lags": LAGS}, seed=seed))
        for variant in VARIANTS:
            net = {"variant": variant, "depths": list(DEPTHS)}
            measurements.append(Measurement(GRID, {**net, "lags": LAGS}, seed=seed))
            measurements.append(Measurement(PAIRS, net, seed=seed))
    measurements += [
        Measurement(PIXELS, {"kind": kind, "depth": depth, "images": s.images, "lags": s.lags}, data=images, seed=seed)
        for seed in range(s.seeds)
        for depth in s.depths
        for kind in KINDS.values()
    ]
    runs = [
        for_depth(recipe.override(net=network(kind, depth), seed=seed), depth)
        for seed in range(TRAINED_SEEDS)
        for depth in s.trained
        for kind in KINDS.values()
    ]
    measured = {"images": s.images, "lags": s.lags}
    measurements += [Measurement(TRAINED, measured, run=run, seed=run.seed) for run in runs]
    return planned(TEXT, scale, runs, measurements)


def judge(evidence: Evidence) -> StudyResult:
    """Compare fully connected nets at the greatest depth with noise, and convolutional nets with each other."""
    on_line, at_pairs = (measured_by(evidence, function, _variant, order=VARIANTS) for function in (GRID, PAIRS))
    of_noise = all_measured(evidence, NOISE)
    of_images, trained = measured_by(evidence, PIXELS, _net), measured_networks(evidence, TRAINED)
    return StudyResult(
        rows(TEXT, [*claims(on_line, of_noise), *pixel_claims(of_images, trained)]),
        figures(on_line, at_pairs, of_noise, of_images, trained),
        tables(on_line, at_pairs, of_images, trained),
        _words(at_pairs),
        _answer(on_line, of_noise, of_images),
    )


def _variant(measurement: Measurement) -> str:
    return str(measurement.settings["variant"])


def _net(measurement: Measurement) -> Net:
    kinds = {name: kind for kind, name in KINDS.items()}
    return Net(kinds[measurement.settings["kind"]], measurement.settings["depth"])


def claims(on_line: Groups[str], of_noise: Group[str]) -> Iterator[Claim]:
    """How alike the gradients along a line are in fully connected nets at the greatest depth."""
    L = max(depths(on_line), default=0)
    deep = {variant: at(on_line[variant], L).called(name) for variant, name in NAMES.items()}
    plain, plain_bn, centred = deep["plain"], deep["plain BN"], deep["plain centred"]
    residual, small = deep["resnet BN"], deep["resnet BN 0.1"]
    white, brown = (_as_net(of_noise, kind) for kind in ("white", "brown"))
    falling = [at(on_line["plain BN"], depth).called(TEXT("layers", L=depth)) for depth in FALLING]
    yield claim("falls", [less(lag_1, deeper, than=net) for net, deeper in pairwise(falling)])

    def like(noise: Group[Any], net: Group[Any]) -> list[Comparison]:
        return [within(autocorrelation(lag), net, of=noise, by=TOLERANCE, lag=lag) for lag in JUDGED]

    lags = {"L": L, "lags": JUDGED}
    yield claim("bn_whitens", like(white, plain_bn), values=lags)
    yield claim("centred_whitens", like(white, centred), values=lags)
    yield claim("stays_brown", like(brown, small), values=lags)
    yield claim(
        "ordered",
        [more(lag_1, residual, than=plain_bn), more(lag_1, small, than=residual)],
        values={"L": L},
        cell=lambda: {"means": [net.mean(lag_1) for net in (plain_bn, residual, small)]},
    )
    yield claim(
        "stays_coloured",
        [more(lag_1, plain, than=white, by=TOLERANCE)],
        values={"L": L},
        cell=lambda: {"shared": statistics.fmean(found(plain, "coactive"))},
    )


def _as_net(of_noise: Group[str], kind: str) -> Group[Any]:
    """White or brown noise, as if it were the gradients of a net."""
    seeds = [replace(one, values={"acf": one.values[kind]}) for one in of_noise.done if isinstance(one, Measured)]
    return Group(TEXT(f"noise.{kind}"), seeds, of_noise.failed)


def pixel_claims(nets: Groups[Net], trained: Groups[Net]) -> Iterator[Claim]:
    """How alike the gradients at neighbouring pixels are in convolutional nets, before and after training."""
    plain, residual = nets.of("plain"), nets.of("residual")
    with_units = [(p, r) for p, r in nets.pairs() if p.key.depth >= ONE_UNIT]  # others have no shortcut
    yield claim("residual_above", [more(lag_1, r, than=p) for p, r in with_units])
    yield claim("plain_falls", [less(lag_1, plain[-1], than=plain[0])])
    yield claim("trained_above", [more(lag_1, r, than=p) for p, r in trained.pairs()])
    yield claim("ranks", [more(rank, plain[-1], than=residual[-1])], values={"depth": plain[-1].key.depth})


def autocorrelation(lag: int) -> Metric:
    """The autocorrelation of gradients at a lag, in points of the line or in pixels."""
    return lambda values: float(_unless_vanished(values["acf"])[lag])


lag_1 = autocorrelation(1)


def rank(values: dict[str, Any]) -> float:
    """The effective rank of a batch's gradients, as a share of white noise's."""
    return float(_unless_vanished(values["rank"]))


def _unless_vanished(value: Any) -> Any:
    if value is None:
        raise Instead(TEXT("vanished"), NOT_JUDGED)
    return value


def _words(at_pairs: Groups[str]) -> Words:
    """Where the theorems' assumption fails, and what the study does not show."""
    return joined([_assumption(at_pairs), *_third_theorem(at_pairs), TEXT("words.scope")], "\n\n")


def _assumption(at_pairs: Groups[str]) -> Words:
    off = []
    for net in (net for net in at_pairs.values() if net.done):
        shares = {L: statistics.fmean(found(at(net, L), "coactive")) for L in depths(at_pairs)}
        if far := [L for L, share in shares.items() if abs(share - 0.25) > QUARTER]:
            off.append(f"{net} ({shares[far[-1]]:.2f}, L = {far[-1]})")
    return TEXT("words.no_quarter", nets=off) if off else TEXT("words.quarter")


def _third_theorem(at_pairs: Groups[str]) -> list[Words]:
    """The theorem's number and the one with centred signals beside what was measured; empty if nothing was."""
    L = max(depths(at_pairs), default=0)
    measured = mean(found(at(at_pairs["resnet BN"], L), "correlation"))
    if measured is None:
        return []
    stated, centred = (predicted_correlation(VARIANTS["resnet BN"], L, centred=c) for c in (False, True))
    nearer = abs(measured - centred) < abs(measured - stated)
    key = "words.centred_nearer" if nearer else "words.centred_farther"
    return [TEXT(key, L=L, stated=stated, found=measured, centred=centred)]


def _answer(on_line: Groups[str], of_noise: Group[str], of_images: Groups[Net]) -> Words:
    L, depth = max(depths(on_line), default=0), max(net.depth for net in of_images)
    plain, residual = (found(of_images[Net(kind, depth)], "acf") for kind in KINDS)

    def line(variant: str) -> str:
        return at_lag(1, found(at(on_line[variant], L), "acf"))

    return TEXT(
        "answer",
        L=L,
        depth=depth,
        plain_bn=line("plain BN"),
        plain_centred=line("plain centred"),
        plain=line("plain"),
        residual_bn=line("resnet BN"),
        residual_bn_small=line("resnet BN 0.1"),
        white=at_lag(1, found(of_noise, "white")),
        brown=at_lag(1, found(of_noise, "brown")),
        plain_pixels=at_lag(1, plain, 3),
        residual_pixels=at_lag(1, residual, 3),
    )


STUDY = stated(TEXT, plan=plan, judge=judge)
