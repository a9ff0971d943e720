"""Confidence intervals of a share, such as an accuracy."""

from __future__ import annotations

import math
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)  # of 95 %


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of count/total, both ends 0 to 1 (Wilson 1927); of nothing counted, (0, 1).

    It holds for small counts too, where count/total plus and minus 1.96 standard errors does not, and never leaves 0
    to 1. It says how far the share may lie from that of all images like these; not how much another training differs.
    scipy's binomtest gives the same interval, as the tests check; but importing it takes half as long
    as importing torch, for every `resnetlab eval`, and each interval takes it milliseconds, for each class of a report.
    """
    if not 0 <= count <= total:
        raise ValueError(f"{count} of {total}")
    if not total:
        return 0.0, 1.0
    share, z2 = count / total, Z**2
    middle = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z / (1 + z2 / total) * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (0.0 if count == 0 else middle - half), (1.0 if count == total else middle + half)
