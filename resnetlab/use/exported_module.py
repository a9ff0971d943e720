"""What is exported of a classifier: one graph from pixels to scores, and what its file says of itself."""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from resnetlab.data.cuts import CROP, TEST_SIDE
from resnetlab.data.normalisation import Normalisation
from resnetlab.nets.folding import folded
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.use.classifier import Classifier


class WithNormalisation(nn.Module):
    """A network with its normalisation before it: pixels, uint8 N C H W, -> scores before the softmax, float32 N K."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, normalise: Normalisation):
        super().__init__()
        self.net = net
        self.register_buffer("mean", normalise.mean)
        self.register_buffer("std", normalise.std)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.net((pixels.float() / 255 - self.mean) / self.std)


def exported_module(classifier: Classifier) -> WithNormalisation:
    """The classifier's network for export: batch norm folded, the normalisation within, in evaluation mode."""
    return with_normalisation(classifier.net, classifier.normalise)


def with_normalisation(net: ResNet | VGG, normalise: Normalisation) -> WithNormalisation:
    """The same of a network and a normalisation."""
    return WithNormalisation(folded(net), normalise).eval().requires_grad_(False)


def description(classifier: Classifier) -> dict[str, str]:
    """What a file says of itself, by key, each value JSON: network, classes, preprocessing, normalisation.

    Where the weights came without some of it, `assumed` says what was taken instead, e.g. numbers for classes.

    `preprocessing` is left to who runs the file: make the image upright and 8-bit RGB (of `white_of_16_bits` comes
    255, transparency stands before `background`), bring its short side to `resize_short_side`, cut out the middle,
    `crop` x `crop`, and make it of `mode`. `normalisation` is what the graph does by itself.
    """
    size, channels = classifier.size, classifier.channels
    values = {
        "network": classifier.name,
        "classes": classifier.classes,
        "preprocessing": {
            "orientation": "upright, by EXIF",
            "frame": 0,
            "colour_profile": "passed over",
            "white_of_16_bits": 65535,
            "background": [255, 255, 255],
            "mode": "RGB" if channels == 3 else "L",
            "resize_short_side": size if classifier.whole else round(size * TEST_SIDE / CROP),
            "resample": "bilinear, antialiased",
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
    return {key: json.dumps(value) for key, value in values.items()}


def noise(classifier: Classifier, images: int) -> Tensor:
    """Pixels to try a network with, the same each time: uint8 N C H W."""
    return drawn((classifier.channels, classifier.size, classifier.size), images)


def drawn(shape: tuple[int, int, int], images: int) -> Tensor:
    """The same for images of a shape, C H W."""
    return torch.randint(0, 256, (images, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(images))
