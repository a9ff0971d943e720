"""What an exported file says of itself, so that other programs can prepare images and name classes."""

from __future__ import annotations

import json
from typing import Any

from resnetlab.use.classifier import Classifier


def description(classifier: Classifier, *, int8: bool = False) -> dict[str, str]:
    """What a file says of itself, by key, each value JSON: network, classes, preprocessing, normalisation.

    Where the weights came without some of it, `assumed` says what was taken instead, e.g. numbers for classes. Where
    the network's run recorded it, `accuracy` is top-1 in % on how many test images; in int8 it would be another.

    `preprocessing` is left to who runs the file: make the image upright and 8-bit RGB (of `white_of_16_bits` comes
    255, transparency stands before `background`), bring its short side to `resize_short_side` by `resample`, crop
    the middle, `crop` x `crop`, and make it of `mode`. `normalisation` is what the graph does by itself.
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
