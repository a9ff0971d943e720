"""What the study `shortcuts` measures: the channels that A pads, in a trained network."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from resnetlab.measuring.padding import padded_units
from resnetlab.studies.frame.measurement import MeasurementContext


def measure_padding(subject: MeasurementContext) -> dict[str, Any]:
    """The units that pad: max |h| and max |y − F| in the added channels, and the branch beside the shortcut."""
    x, _ = subject.batch(subject.settings["images"])
    return {"units": [asdict(unit) for unit in padded_units(subject.net, x)]}
