"""The study `shattered`: its plan, its claims, and what it says of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from resnetlab.measuring.fully_connected import VARIANTS, predicted_correlation
from resnetlab.studies.frame.claims import Claim, Instead, claim, less, more, rows, within
from resnetlab.studies.frame.evidence import Evidence, Group, Groups, measured_by
from resnetlab.studies.frame.measurement import Measured, Measurement, Weights, named
from resnetlab.studies.frame.networks import KINDS, Net
from resnetlab.studies.frame.scales import base
from resnetlab.studies.frame.statistics import NOT_REPRODUCED
from resnetlab.studies.frame.study import Finding, Plan, planned, stated
from resnetlab.studies.frame.text import Catalogue, Words, joined
from resnetlab.studies.shattered import measure
from resnetlab.studies.shattered.figures import at, at_lag, depths, figures, found, mean, tables

TEXT = Catalogue.of(__name__)
NOISE, GRID, PAIRS, PIXELS = (named(f) for f in (measure.noise, measure.grid, measure.pairs, measure.pixels))
DEPTHS = (2, 4, 10, 24, 50)  # Balduzzi et al. 2017, Figure 2
LAGS = 15
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


SCALES = {
    "quick": Scale((8, 20, 56, 110), seeds=5, images=256, lags=4),
    "cifar": Scale((8, 20, 56, 110), seeds=5, images=256, lags=8),
    "paper": Scale((8, 20, 32, 44, 56, 110), seeds=20, images=256, lags=8),
}


def plan(scale: str, data: str | None, weights: tuple[Weights, ...] = ()) -> Plan:
    """Random nets on a line and at random points, noise, and convolutional nets on real images."""
    s, images = SCALES[scale], base(scale, data).data
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
    return planned(TEXT, scale, measurements=measurements)


def judge(evidence: Evidence) -> Finding:
    """Fully connected nets at the greatest depth against noise, and convolutional ones against each other."""
    grid, pairs = (measured_by(evidence, function, _variant, order=VARIANTS) for function in (GRID, PAIRS))
    noise = measured_by(evidence, NOISE, lambda _: "noise")["noise"]
    pixels = measured_by(evidence, PIXELS, _net)
    return Finding(
        rows(TEXT, [*claims(grid, noise), *pixel_claims(pixels)]),
        figures(grid, pairs, noise, pixels),
        tables(grid, pairs, pixels),
        _words(pairs),
        _answer(grid, noise, pixels),
    )


def _variant(measurement: Measurement) -> str:
    return str(measurement.settings["variant"])


def _net(measurement: Measurement) -> Net:
    kinds = {name: kind for kind, name in KINDS.items()}
    return Net(kinds[measurement.settings["kind"]], measurement.settings["depth"])


def claims(grid: Groups[str], noise: Group[str]) -> Iterator[Claim]:
    """What becomes of the gradients along a line, of fully connected nets at the greatest depth."""
    L = max(depths(grid), default=0)
    plain, plain_bn, centred = (at(grid[name], L) for name in ("plain", "plain BN", "plain centred"))
    residual, small = (at(grid[name], L) for name in ("resnet BN", "resnet BN 0.1"))
    white, brown = (_noise(noise, kind) for kind in ("white", "brown"))
    yield claim("bn_whitens", [within(lag_1, plain_bn, of=white, by=TOLERANCE)], values={"L": L})
    yield claim("centred_whitens", [within(lag_1, centred, of=white, by=TOLERANCE)], values={"L": L})
    yield claim("stays_brown", [within(lag_1, small, of=brown, by=TOLERANCE)], values={"L": L})
    yield claim(
        "ordered",
        [more(lag_1, residual, than=plain_bn), more(lag_1, small, than=residual)],
        values={"L": L},
        cell=lambda: {"means": [statistics.fmean(net.of(lag_1)) for net in (plain_bn, residual, small)]},
    )
    yield claim(
        "stays_coloured",
        [more(lag_1, plain, than=white, by=TOLERANCE)],
        values={"L": L},
        cell=lambda: {"shared": statistics.fmean(found(plain, "coactive"))},
    )


def _noise(noise: Group[str], kind: str) -> Group[str]:
    """White or brown noise, as if it were the gradients of a net."""
    seeds = [replace(one, values={"acf": one.values[kind]}) for one in noise.done if isinstance(one, Measured)]
    return replace(noise, done=seeds)


def pixel_claims(nets: Groups[Net]) -> Iterator[Claim]:
    """What becomes of the gradients over the pixels of images, of convolutional nets."""
    plain, residual = nets.of("plain"), nets.of("residual")
    yield claim("residual_above", [more(lag_1, r, than=p) for p, r in nets.pairs()])
    yield claim("plain_falls", [less(lag_1, plain[-1], than=plain[0])])
    yield claim("ranks", [more(rank, plain[-1], than=residual[-1])], values={"depth": plain[-1].key.depth})


def lag_1(values: dict[str, Any]) -> float:
    """The autocorrelation of gradients between neighbours."""
    return float(_unless_vanished(values["acf"])[1])


def rank(values: dict[str, Any]) -> float:
    """The effective rank of a batch's gradients, in parts of that of white noise."""
    return float(_unless_vanished(values["rank"]))


def _unless_vanished(value: Any) -> Any:
    if value is None:
        raise Instead(TEXT("vanished"), NOT_REPRODUCED)
    return value


def _words(pairs: Groups[str]) -> Words:
    """Where the theorems' assumption fails, and what the study does not show."""
    return joined([_assumption(pairs), *_third_theorem(pairs), TEXT("words.scope")], "\n\n")


def _assumption(pairs: Groups[str]) -> Words:
    off = []
    for net in (net for net in pairs.values() if net.done):
        shares = {L: statistics.fmean(found(at(net, L), "coactive")) for L in depths(pairs)}
        if far := [L for L, share in shares.items() if abs(share - 0.25) > QUARTER]:
            off.append(f"{net} ({shares[far[-1]]:.2f}, L = {far[-1]})")
    return TEXT("words.no_quarter", nets=off) if off else TEXT("words.quarter")


def _third_theorem(pairs: Groups[str]) -> list[Words]:
    """The theorem's number, and ours, beside what was measured; nothing if nothing was."""
    L = max(depths(pairs), default=0)
    measured = mean(found(at(pairs["resnet BN"], L), "correlation"))
    if measured is None:
        return []
    stated, centred = (predicted_correlation(VARIANTS["resnet BN"], L, centred=c) for c in (False, True))
    nearer = abs(measured - centred) < abs(measured - stated)
    key = "words.centred_nearer" if nearer else "words.centred_farther"
    return [TEXT(key, L=L, stated=stated, found=measured, centred=centred)]


def _answer(grid: Groups[str], noise: Group[str], pixels: Groups[Net]) -> Words:
    L, depth = max(depths(grid), default=0), max(net.depth for net in pixels)
    plain, residual = (found(pixels[Net(kind, depth)], "acf") for kind in KINDS)

    def line(variant: str) -> str:
        return at_lag(1, found(at(grid[variant], L), "acf"))

    return TEXT(
        "answer",
        L=L,
        depth=depth,
        plain_bn=line("plain BN"),
        plain_centred=line("plain centred"),
        plain=line("plain"),
        residual_bn=line("resnet BN"),
        residual_bn_small=line("resnet BN 0.1"),
        white=at_lag(1, found(noise, "white")),
        brown=at_lag(1, found(noise, "brown")),
        plain_pixels=at_lag(1, plain, 3),
        residual_pixels=at_lag(1, residual, 3),
    )


STUDY = stated(TEXT, plan=plan, judge=judge, tolerance=TOLERANCE)
