"""The paths of the study `lesion`: how many have which length, and along which the gradient comes."""

from __future__ import annotations

import statistics
from typing import Any

from resnetlab.measuring.paths import Unrolled, decay, gradient_shares, mean_length, middle, share_of_paths
from resnetlab.studies.frame.claims import Row
from resnetlab.studies.frame.measurement import Subject
from resnetlab.studies.frame.networks import Taken, checked_batch
from resnetlab.studies.frame.statistics import NOT_REPRODUCED, REPRODUCED, Verdict, difference, spread
from resnetlab.studies.frame.text import Both, Words


def measure(subject: Subject) -> dict[str, Any]:
    """The mean norm of the images' gradient along random paths, by their length from 0."""
    unrolled = Unrolled(subject.net, *checked_batch(subject))
    return {"norms": unrolled.norm_by_length(subject.settings["draws"], subject.seed)}


def arithmetic() -> Row:
    """The paper's counts of paths, by the binomial distribution."""
    short, most = 100 * share_of_paths(54, 5, 17), 100 * share_of_paths(54, 19, 35)
    holds = f"{short:.2f}" == "0.45" and most > 95
    return Row(
        Both(
            "Of the 2^54 paths of 110 layers, those of 5 to 17 units are 0.45 %, those of 19 to 35 over 95 %",
            "110 层的 2^54 条路径中，长 5–17 个单元的占 0.45 %，长 19–35 的超过 95 %",
        ),
        Both("0.45 %; over 95 % (section 5)", "0.45 %；超过 95 %（第 5 节）"),
        Both(f"by arithmetic: {short:.4f} %; {most:.1f} %", f"由计算得：{short:.4f} %；{most:.1f} %"),
        REPRODUCED if holds else NOT_REPRODUCED,
    )


def gradient(paths: Taken) -> list[Row]:
    """The claims about the gradient along single paths, of the deepest residual net."""
    residual = paths.nets("residual")[-1:]

    def falls() -> tuple[Words, Verdict]:
        fits = [decay(values["norms"]) for values in paths.values[residual[0]]]
        slopes, fit = [slope for slope, _ in fits], [r2 for _, r2 in fits]
        words = Both(
            f"log10 of the gradient per unit: {spread(slopes, 3)} (a line explains {100 * statistics.fmean(fit):.0f} "
            "%)",
            f"每单元梯度的 log10：{spread(slopes, 3)}（直线解释 {100 * statistics.fmean(fit):.0f} %）",
        )
        return words, difference(slopes, [0.0] * len(slopes)).verdict_below(0)

    def shorter() -> tuple[Words, Verdict]:
        every = [values["norms"] for values in paths.values[residual[0]]]
        units = len(every[0]) - 1
        lengths = [mean_length(norms) for norms in every]
        first, last = middle([statistics.fmean(s) for s in zip(*map(gradient_shares, every), strict=True)])
        words = Both(
            f"mean length {spread(lengths, 1)} of {units} units; 95 % of the gradient from {first} to {last}",
            f"平均长度 {spread(lengths, 1)}（共 {units} 个单元）；95 % 的梯度来自长 {first}–{last} 的路径",
        )
        return words, difference(lengths, [units / 2] * len(lengths)).verdict_below(0)

    return [
        paths.row(
            Both("A path's gradient falls exponentially with its length", "路径的梯度随其长度指数下降"),
            Both("54 units (section 5)", "54 个单元（第 5 节）"),
            residual,
            falls,
        ),
        paths.row(
            Both("So the gradient comes from paths shorter than most", "因此梯度来自比多数路径更短的路径"),
            Both("5 to 17 of 54 units, where most have 19 to 35", "54 个单元中的 5–17，多数路径则为 19–35"),
            residual,
            shorter,
        ),
    ]


THEORY = Both(
    "A residual net unrolled, $x_{l+1} = x_l + F_l(x_l)$, is a sum over paths: each of its $n$ units either passes "
    "through $F_l$ or through the shortcut, so there are $2^n$ paths, of which $\\binom{n}{k}$ have length $k$. A "
    "path drawn at random has a length of $\\mathrm{Binomial}(n, 1/2)$: mean $n/2$, deviation $\\sqrt{n}/2$. Deleting "
    "a unit takes away half of the paths of a residual net, and the only one of a plain net.\n\n"
    "The gradient unrolls alike: $\\frac{\\partial E}{\\partial x_0} = \\frac{\\partial E}{\\partial x_n} \\prod_l "
    "\\left(1 + F_l'\\right)$ is a sum of $2^n$ products. If one factor $F_l'$ makes a gradient smaller by $c$, paths "
    "of length $k$ carry $\\binom{n}{k} c^k$ of it, which is largest near $k = n \\frac{c}{1 + c}$, below $n/2$ if $c "
    "< 1$.",
    "残差网络展开后 $x_{l+1} = x_l + F_l(x_l)$ 是对路径求和：$n$ 个单元中每个或经 $F_l$，或经捷径，故共有 $2^n$ "
    "条路径，其中长度为 $k$ 的有 $\\binom{n}{k}$ 条。随机路径的长度服从 $\\mathrm{Binomial}(n, 1/2)$：均值 $n/2$，"
    "标准差 $\\sqrt{n}/2$。删除一个单元使残差网络失去一半路径，使普通网络失去唯一的一条。\n\n"
    "梯度同样可展开：$\\frac{\\partial E}{\\partial x_0} = \\frac{\\partial E}{\\partial x_n} \\prod_l \\left(1 + "
    "F_l'\\right)$ 是 $2^n$ 个乘积之和。若每经一个 $F_l'$ 梯度缩小为 $c$ 倍，则长为 $k$ 的路径共占 $\\binom{n}{k} "
    "c^k$，在 $k = n \\frac{c}{1 + c}$ 附近最大；$c < 1$ 时它小于 $n/2$。",
)
