"""Reading: what a user says of a source where its file does not."""

from __future__ import annotations

from typing import TypedDict

from resnetlab.nets.zoo import Spec


class Reading(TypedDict, total=False):
    """The options with which `load.load_described` reads a source, as other functions pass them on."""

    net: str | Spec | None  # the network's name or spec
    which: str  # "last" or "best" weights of a run, or "ema" of a file with both
    image_size: int | None  # pixels a side
    match: str  # how tensors find their places: by "names" or in "order"
    normalise: str | None  # as `data.normalisation.parse_normalisation` reads it
