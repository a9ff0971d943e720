"""What the study `sensitivity` measures: how F and H of each unit react to a small change."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from resnetlab.errors import UserError
from resnetlab.measuring.sensitivity import reactions
from resnetlab.studies.frame.measurement import MeasurementContext
from resnetlab.studies.frame.networks import checked_batch

BATCH = 100


def measure(subject: MeasurementContext) -> dict[str, Any]:
    """How each unit's F and H react to a change of its weights, and of its input."""
    x, _ = checked_batch(subject)
    found = reactions(subject.net, x.split(BATCH), subject.settings["change"], subject.seed)
    if not any(reaction.weights_F and reaction.input_F for reaction in found):
        raise UserError("F is zero in every unit: train the network first.")
    return {"units": [asdict(reaction) for reaction in found]}
