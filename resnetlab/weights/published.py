"""torchvision's trained networks: their files with hashes, the accuracies that torchvision states, and preprocessing.

Read off torchvision/models/resnet.py and vgg.py (the table of weights of each network). Nothing is known here of the
files on the Hugging Face hub: the hub itself is asked for their hashes, and a repository's config.json for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.data.normalisation import KNOWN
from resnetlab.data.resizing import CROP_SIDE, TEST_SIDE, Interpolation, Resizing
from resnetlab.weights.metadata import Preprocessing

ADDRESS = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class TorchvisionFile:
    """A file of weights, and its top-1 accuracy on the 50,000 validation images of ImageNet, one crop each."""

    name: str
    top1: float  # %, as torchvision states it
    short_side: int = TEST_SIDE  # to which it resizes images before the crop
    crop: int = CROP_SIDE
    interpolation: Interpolation = "bilinear"

    @property
    def preprocessing(self) -> Preprocessing:
        """How torchvision prepares images for it."""
        resizing = Resizing.to_side(self.short_side, self.crop, self.interpolation)
        return Preprocessing(*KNOWN["imagenet"], self.crop, resizing)

    @property
    def sha256(self) -> str:
        """The first digits of its SHA-256, which its name holds."""
        return self.name.removesuffix(".pth").rpartition("-")[2]


# NAME is torchvision's IMAGENET1K_V1, NAME.v2 its IMAGENET1K_V2, by a longer recipe. All take ImageNet's mean and
# deviation, and know its 1,000 classes in their usual order.
TORCHVISION: dict[str, TorchvisionFile] = {
    "resnet18": TorchvisionFile("resnet18-f37072fd.pth", 69.758),
    "resnet34": TorchvisionFile("resnet34-b627a593.pth", 73.314),
    "resnet50": TorchvisionFile("resnet50-0676ba61.pth", 76.130),
    "resnet50.v2": TorchvisionFile("resnet50-11ad3fa6.pth", 80.858, 232),
    "resnet101": TorchvisionFile("resnet101-63fe2227.pth", 77.374),
    "resnet101.v2": TorchvisionFile("resnet101-cd907fc2.pth", 81.886, 232),
    "resnet152": TorchvisionFile("resnet152-394f9c45.pth", 78.312),
    "resnet152.v2": TorchvisionFile("resnet152-f82ba261.pth", 82.284, 232),
    "resnext50_32x4d": TorchvisionFile("resnext50_32x4d-7cdf4587.pth", 77.618),
    "resnext50_32x4d.v2": TorchvisionFile("resnext50_32x4d-1a0047aa.pth", 81.198, 232),
    "resnext101_32x8d": TorchvisionFile("resnext101_32x8d-8ba56ff5.pth", 79.312),
    "resnext101_32x8d.v2": TorchvisionFile("resnext101_32x8d-110c445d.pth", 82.834, 232),
    "resnext101_64x4d": TorchvisionFile("resnext101_64x4d-173b62eb.pth", 83.246, 232),
    "wide_resnet50_2": TorchvisionFile("wide_resnet50_2-95faca4d.pth", 78.468),
    "wide_resnet50_2.v2": TorchvisionFile("wide_resnet50_2-9ba9bcbe.pth", 81.602, 232),
    "wide_resnet101_2": TorchvisionFile("wide_resnet101_2-32ee1156.pth", 78.848),
    "wide_resnet101_2.v2": TorchvisionFile("wide_resnet101_2-d733dc28.pth", 82.510, 232),
    "vgg16": TorchvisionFile("vgg16-397923af.pth", 71.592),
    "vgg16_bn": TorchvisionFile("vgg16_bn-6c64b313.pth", 73.360),
    "vgg19": TorchvisionFile("vgg19-dcbb9e9d.pth", 72.376),
    "vgg19_bn": TorchvisionFile("vgg19_bn-c79401a0.pth", 74.218),
}
