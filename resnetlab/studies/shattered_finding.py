"""What the study `shattered` finds: its claims judged, and words on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from resnetlab.measuring.fully_connected import VARIANTS, predicted_correlation
from resnetlab.studies.frame.claims import Row, judged_row
from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.statistics import NOT_REPRODUCED, Difference, Verdict, difference, weakest
from resnetlab.studies.frame.study import Finding
from resnetlab.studies.frame.text import Both, Words, joined
from resnetlab.studies.shattered_results import KINDS, NOISE, Group, Key, cell, figures, mean, tables

TOLERANCE = 0.1  # of an autocorrelation: nearer than that counts as equal
QUARTER = 0.02  # how far the share of units that a pair has in common may lie from 1/4


def judge(evidence: Evidence) -> Finding:
    """Fully connected nets at the greatest depth against noise, and convolutional ones against each other."""
    grid, pairs, noise, pixels = (Group.of(evidence, name) for name in ("grid", "pairs", "noise", "pixels"))
    return Finding(
        [*_grid_rows(grid, noise), *_pixel_rows(pixels)],
        figures(grid, pairs, noise, pixels),
        tables(grid, pairs, pixels),
        _words(pairs),
        _answer(grid, noise, pixels),
    )


class _Vanished(Exception):
    """Some gradients are too small to have an autocorrelation."""


def _row(
    claim: Words, paper: Words, groups: Sequence[tuple[Group, Key]], measure: Callable[[], tuple[Words, Verdict]]
) -> Row:
    def unless_vanished() -> tuple[Words, Verdict]:
        try:
            return measure()
        except _Vanished:
            return Both("gradients have vanished, not shattered", "梯度消失了，而不是破碎"), NOT_REPRODUCED

    found = [group.found.get(key, []) for group, key in groups]
    return judged_row(claim, paper, found, [group.failed.get(key, []) for group, key in groups], unless_vanished)


def _at_lag_1(curves: Sequence[list[float] | None]) -> list[float]:
    there = [curve[1] for curve in curves if curve is not None]
    if not there or len(there) < len(curves):
        raise _Vanished
    return there


def _weakest(verdicts: Sequence[Verdict]) -> Verdict:
    return weakest(verdicts)


def _grid_rows(grid: Group, noise: Group) -> list[Row]:
    L = grid.depths[-1] if grid.depths else 0

    def net(variant: str) -> list[float]:
        return _at_lag_1(grid.at(variant, L, "acf"))

    def of_noise(kind: str) -> list[float]:
        return _at_lag_1([values[kind] for values in noise.found[NOISE]])

    def against(one: list[float], other: list[float]) -> tuple[Words, Difference]:
        gap = difference(one, other)
        return f"{cell(one)} − {cell(other)}: {gap.rounded(2)}", gap

    def whitens(variant: str) -> Callable[[], tuple[Words, Verdict]]:
        def measure() -> tuple[Words, Verdict]:
            words, gap = against(net(variant), of_noise("white"))
            return words, gap.verdict_within(TOLERANCE)

        return measure

    def stays_brown() -> tuple[Words, Verdict]:
        words, gap = against(net("resnet BN 0.1"), of_noise("brown"))
        return words, gap.verdict_within(TOLERANCE)

    def ordered() -> tuple[Words, Verdict]:
        lowest, middle, highest = (net(v) for v in ("plain BN", "resnet BN", "resnet BN 0.1"))
        gaps = [difference(middle, lowest), difference(highest, middle)]
        words = f"{cell(lowest)} < {cell(middle)} < {cell(highest)}: {', '.join(g.rounded(2) for g in gaps)}"
        return words, _weakest([g.verdict_above(0) for g in gaps])

    def stays_coloured() -> tuple[Words, Verdict]:
        words, gap = against(net("plain"), of_noise("white"))
        shared = Both("; units shared", "；共有激活单元") + f" {cell(grid.at('plain', L, 'coactive'))}"
        return words + shared, gap.verdict_above(TOLERANCE)

    depth = Both(f" (L = {L}, lag 1)", f"（L = {L}，滞后 1）")
    white = Both("resembles white noise with depth (Fig. 1, 2)", "随深度变得像白噪声（图 1、2）")
    both = [(noise, NOISE)]
    return [
        _row(
            Both("Gradients of plain nets with BN become white noise", "带 BN 的平直网络的梯度变成白噪声") + depth,
            white,
            [(grid, ("plain BN", 0)), *both],
            whitens("plain BN"),
        ),
        _row(
            Both("So do those of mean-centred plain nets", "均值中心化的平直网络亦然") + depth,
            white,
            [(grid, ("plain centred", 0)), *both],
            whitens("plain centred"),
        ),
        _row(
            Both(
                "Gradients of residual nets with β = 0.1 stay like brown noise", "β = 0.1 的残差网络的梯度仍像布朗噪声"
            )
            + depth,
            Both("near brown noise at 50 layers (Fig. 1, 2)", "50 层时接近布朗噪声（图 1、2）"),
            [(grid, ("resnet BN 0.1", 0)), *both],
            stays_brown,
        ),
        _row(
            Both(
                "Autocorrelation: plain < residual β = 1 < residual β = 0.1", "自相关：平直 < 残差 β = 1 < 残差 β = 0.1"
            )
            + depth,
            Both("Fig. 2; theorems 1 and 3", "图 2；定理 1、3"),
            [(grid, (v, 0)) for v in ("plain BN", "resnet BN", "resnet BN 0.1")],
            ordered,
        ),
        _row(
            Both(
                "A trap: plain nets without centring or BN do not whiten",
                "陷阱：既不中心化也无 BN 的平直网络不会变白",
            )
            + depth,
            Both("theorem 1 assumes that pairs share 1/4 of the units", "定理 1 假设点对共有 1/4 的激活单元"),
            [(grid, ("plain", 0)), *both],
            stays_coloured,
        ),
    ]


def _pixel_rows(pixels: Group) -> list[Row]:
    depths = pixels.depths
    if not depths:
        return []

    def curves(kind: str, depth: int) -> list[float]:
        return _at_lag_1([v["acf"] for v in pixels.found[kind, depth]])

    def residual_above() -> tuple[Words, Verdict]:
        gaps = {depth: difference(curves("resnet", depth), curves("plain", depth)) for depth in depths}
        words = "; ".join(f"{depth}: {gap.rounded(3)}" for depth, gap in gaps.items())
        return Both("by layers, residual − plain: ", "按层数，残差 − 平直：") + words, _weakest(
            [gap.verdict_above(0) for gap in gaps.values()]
        )

    def plain_falls() -> tuple[Words, Verdict]:
        low, high = depths[0], depths[-1]
        fall = difference(curves("plain", low), curves("plain", high))
        return f"{low} − {high}: {fall.rounded(3)}", fall.verdict_above(0)

    def ranks() -> tuple[Words, Verdict]:
        plain, residual = ([v["rank"] for v in pixels.found[kind, depths[-1]]] for kind in KINDS)
        if None in plain or None in residual:
            raise _Vanished
        gap = difference(plain, residual)
        return f"{cell(plain)} − {cell(residual)}: {gap.rounded(2)}", gap.verdict_above(0)

    return [
        _row(
            Both(
                "The pixels' gradients of convolutional residual nets are more correlated over the image than plain "
                "nets'",
                "卷积残差网络的像素梯度在图像上的相关性高于平直网络",
            ),
            Both("images are locally correlated, so should their gradients be", "图像局部相关，其梯度也应如此"),
            [(pixels, (kind, depth)) for kind in KINDS for depth in depths],
            residual_above,
        ),
        _row(
            Both("In plain convolutional nets that correlation falls with depth", "在平直卷积网络中该相关性随深度下降"),
            Both("gradients whiten with depth", "梯度随深度变白"),
            [(pixels, ("plain", depth)) for depth in (depths[0], depths[-1])],
            plain_falls,
        ),
        _row(
            Both(
                f"The effective rank of a batch's gradients is nearer white noise's in plain than in residual nets "
                f"({depths[-1]} layers)",
                f"平直网络一个批次梯度的有效秩比残差网络更接近白噪声（{depths[-1]} 层）",
            ),
            Both("rises with depth in plain nets, less in residual ones", "平直网络中随深度上升，残差网络中上升较少"),
            [(pixels, (kind, depths[-1])) for kind in KINDS],
            ranks,
        ),
    ]


def _words(pairs: Group) -> Words:
    """Where the theorems' assumption fails, and what the study does not show."""
    parts = [w for w in (_assumption(pairs), _third_theorem(pairs)) if w]
    return joined(
        [
            *parts,
            Both(
                "All of this is before training, and says nothing about how a net trains. Convolutional nets on "
                "images are "
                "another matter than nets on a line: an image is one point of the input, and the correlation over its "
                "pixels is not the one that the theorems are about. Why the pixels' gradients are as they are is not "
                "examined here.",
                "以上都是训练之前的情形，并不说明网络训练得如何。图像上的卷积网络与直线上的网络不是一回事："
                "一张图像只是输入空间中的一个点，其像素间的相关并非各定理所讨论的相关。"
                "像素梯度为何如此，这里没有考察。",
            ),
        ],
        "\n\n",
    )


def _assumption(pairs: Group) -> Words | None:
    off = []
    for variant, _ in pairs.found:
        shares = [(L, mean(pairs.at(variant, L, "coactive"))) for L in pairs.depths]
        far = [(L, share) for L, share in shares if share is not None and abs(share - 0.25) > QUARTER]
        if far:
            L, share = far[-1]
            off.append(f"{variant} ({share:.2f}, L = {L})")
    if not off:
        return Both(
            "Pairs of independent points share a quarter of each layer's units in all nets, as the theorems assume.",
            "在所有网络中，独立点对都共有每层四分之一的激活单元，与定理假设一致。",
        )
    return Both(
        "The theorems take pairs of points to share a quarter of each layer's units. That does not hold in: "
        f"{', '.join(off)}. There the theorem's correlation is not to be expected.",
        f"各定理假设点对共有每层四分之一的激活单元。以下网络不满足：{', '.join(off)}。在那里不应期待定理给出的相关。",
    )


def _third_theorem(pairs: Group) -> Words | None:
    L = pairs.depths[-1] if pairs.depths else 0
    found = mean(pairs.at("resnet BN", L, "correlation"))
    if found is None:
        return None
    stated, centred = (predicted_correlation(VARIANTS["resnet BN"], L, centred=c) for c in (False, True))
    nearer = abs(found - centred) < abs(found - stated)
    verdict = Both("nearer", "更接近") if nearer else Both("farther", "更远")
    return Both(
        f"Theorem 3 at β = 1 and L = {L}: {stated:.3f}, measured {found:.3f}. Counting that BN also takes the mean "
        "of the "
        f"branch away, the same derivation gives {centred:.3f}, which is {verdict.en}.",
        f"β = 1、L = {L} 时定理 3 给出 {stated:.3f}，实测 {found:.3f}。若计入 BN 还会减去分支的均值，"
        f"同样的推导给出 {centred:.3f}，{verdict.zh}。",
    )


def _answer(grid: Group, noise: Group, pixels: Group) -> Words:
    L = grid.depths[-1] if grid.depths else 0

    def at(variant: str) -> str:
        return cell([c and c[1] for c in grid.at(variant, L, "acf")])

    def of_pixels(kind: str) -> str:
        return cell([v["acf"] and v["acf"][1] for v in pixels.found.get((kind, depth), [])], 3)

    depth = pixels.depths[-1] if pixels.depths else 0
    seeds: list[dict[str, Any]] = noise.found.get(NOISE, [])
    white, brown = (cell([v[kind] and v[kind][1] for v in seeds]) for kind in ("white", "brown"))
    return Both(
        f"Autocorrelation of df/dx between neighbouring points at L = {L}: plain with BN {at('plain BN')}, "
        "mean-centred "
        f"{at('plain centred')}, neither {at('plain')}; residual with β = 1 {at('resnet BN')}, with β = 0.1 "
        f"{at('resnet BN 0.1')}; white noise {white}, brown noise {brown}. Between neighbouring pixels of real "
        "images at "
        f"{depth} layers: plain {of_pixels('plain')}, residual {of_pixels('resnet')}.",
        f"L = {L} 时 df/dx 在相邻点间的自相关：平直带 BN {at('plain BN')}，均值中心化 {at('plain centred')}，"
        f"两者皆无 {at('plain')}；残差 β = 1 为 {at('resnet BN')}，β = 0.1 为 {at('resnet BN 0.1')}；"
        f"白噪声 {white}，布朗噪声 {brown}。{depth} 层网络在真实图像相邻像素间：平直 {of_pixels('plain')}，"
        f"残差 {of_pixels('resnet')}。",
    )
