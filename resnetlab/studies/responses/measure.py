"""What the study `responses` measures: how far each layer's response spreads, and how large F is beside h(x)."""

from __future__ import annotations

from typing import Any

from resnetlab.measuring.responses import branch_shares, response_stds
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.studies.frame.networks import checked_batch

BATCH = 100


def measure(subject: MeasurementContext) -> dict[str, Any]:
    """The deviation of each layer's response, the stem's first; of a residual net also ‖F‖/‖h‖ of each unit."""
    x, _ = checked_batch(subject)
    stds = response_stds(subject.net, x.split(BATCH))
    shares = {} if subject.net.spec.is_plain else branch_shares(subject.net, x.split(BATCH))
    return {"layers": list(stds), "stds": list(stds.values()), "units": list(shares), "shares": list(shares.values())}
