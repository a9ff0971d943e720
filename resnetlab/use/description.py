"""The metadata of an exported file, from which other programs can prepare images and name classes."""

from __future__ import annotations

import json
from typing import Any

from resnetlab.use.classifier import Classifier


def description(classifier: Classifier, *, int8: bool = False) -> dict[str, str]:
    """A file's metadata by key, each value as JSON: network, classes, preprocessing, normalisation.

    If the weights did not state some of it, `assumed` says what was assumed instead, e.g. numbers for classes. If the
    network's run recorded it, `accuracy` is its top-1 accuracy in % and the number of test images; not in int8, where
    it would differ.

    `preprocessing` is up to the program that runs the file: make the image upright and 8-bit RGB (the 16-bit value
    `white_of_16_bits` becomes 255, and transparency is shown on `background`), resize its short side to
    `resize_short_side` by `resample`, crop the middle, `crop` x `crop`, and convert it to `mode`. `normalisation` is
    done by the graph itself.
    """
    size, channels = classifier.size, classifier.channels
    values: dict[str, Any] = {
        "network": classifier.name,
        "classes": classifier.classes,
        "preprocessing": {
            "orientation": "upright, by EXIF",
            "frame": 0,
            "colour_profile": "passed over",
            "white_of_16_bits": 65535,
            "background": [255, 255, 255],
            "mode": "RGB" if channels == 3 else "L",
            "resize_short_side": classifier.short_side,
            "resample": f"{classifier.resizing.interpolation}, antialiased",
            "crop": size,
            "layout": "N C H W",
            "type": "uint8",
            "range": [0, 255],
        },
        "normalisation": {
            "within_the_graph": "(pixels / 255 - mean) / std",
            "mean": classifier.normalise.mean.tolist(),  # C 1 1, or C H W
            "std": classifier.normalise.std.tolist(),
        },
    }
    if classifier.assumed:
        values["assumed"] = classifier.assumed
    if classifier.accuracy and not int8:
        values["accuracy"] = classifier.accuracy.to_dict()
    return {key: json.dumps(value) for key, value in values.items()}
