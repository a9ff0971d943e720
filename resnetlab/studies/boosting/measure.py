"""What the study `boosting` measures: whether F steps down the loss, what the head reads out, and the size of F."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.boosting import alignments, read_outs
from resnetlab.measuring.responses import branch_shares
from resnetlab.measuring.units import stage_of
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.studies.frame.networks import checked_batch

BATCH = 25


def measure(subject: MeasurementContext) -> dict[str, Any]:
    """By unit: cosines of F with the descent direction, answers of the head from here on, ‖F‖/‖h‖."""
    x, labels = checked_batch(subject)
    batches = list(zip(x.split(BATCH), labels.split(BATCH), strict=True))
    units = [name for name, _ in subject.net.units()]
    aligned = alignments(subject.net, batches)
    if not aligned:
        raise UserError("no unit keeps its maps' size, where F has a direction to compare with: give a deeper network.")
    if all(a.own is None for a in aligned.values()):
        raise UserError("F is zero in every unit: train the network first.")
    return {
        "units": units,
        "stages": [stage_of(name) for name in units],
        "alignments": {name: asdict(a) for name, a in aligned.items()},
        "read_outs": [asdict(r) for r in read_outs(subject.net, batches)],
        "shares": branch_shares(subject.net, x.split(BATCH)),
    }
