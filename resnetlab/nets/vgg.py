"""VGG-16 and VGG-19, which the papers compare with (Simonyan & Zisserman 2015, Table 1 D and E)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from resnetlab.errors import UserError, as_python, shown
from resnetlab.nets.spec import MOST_LAYERS, check_fields, check_positive, set_python_numbers

WIDTHS = (64, 128, 256, 512, 512)  # channels of the five groups of 3x3 convolutions
SMALLEST = 2 ** len(WIDTHS)  # pixels: each group halves the maps
MAP = 7  # side of the maps that the first fc layer takes: those of images of 224 pixels


@dataclass(frozen=True)
class VGGSpec:
    """The number of 3x3 convolutions in each of five groups; a 2x2 max-pool follows each group, then three fc layers.

    Raises UserError for values that make no network.
    """

    convs: tuple[int, ...]
    name: str = field(default="", compare=False)
    batch_norm: bool = False
    in_channels: int = 3
    num_classes: int = 1000
    input_size: int = 224

    init: ClassVar[str] = "he_fan_out"

    def __post_init__(self) -> None:
        set_python_numbers(self)
        if not isinstance(self.convs, tuple | list) or len(self.convs) != len(WIDTHS):
            raise UserError(f"convs={shown(self.convs)} must be {len(WIDTHS)} numbers, e.g. (2, 2, 3, 3, 3).")
        object.__setattr__(self, "convs", tuple(map(as_python, self.convs)))
        for i, count in enumerate(self.convs, 1):
            check_positive(f"convs of group {i}", count)
        for name in ("in_channels", "num_classes", "input_size"):
            check_positive(name, getattr(self, name))
        if not isinstance(self.name, str):
            raise UserError(f"name={shown(self.name)} must be text.")
        if not isinstance(self.batch_norm, bool):
            raise UserError(f"batch_norm={shown(self.batch_norm)} must be True or False.")
        if self.depth > MOST_LAYERS:
            raise UserError(f"a depth of {self.depth:,} layers is more than {MOST_LAYERS:,}: choose fewer convs.")
        if self.input_size < SMALLEST:
            raise UserError(
                f"input_size={self.input_size} is too small for a VGG net, which halves its maps {len(WIDTHS)} times: "
                f"give it images of {SMALLEST} pixels or more, or choose another network."
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C H W of an image."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def depth(self) -> int:
        """Weight layers: the convolutions and the three fc layers."""
        return sum(self.convs) + 3

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return asdict(self)

    def override(self, **changes: Any) -> VGGSpec:
        """A copy with some fields changed. Raises UserError for unknown fields, with the nearest names."""
        return replace(self, **check_fields(VGGSpec, "a VGG net", changes))


class VGG(nn.Module):
    """VGG with torchvision's parameter names; input N C H W, output N K, the scores before the softmax."""

    def __init__(self, spec: VGGSpec):
        super().__init__()
        self.spec = spec
        layers: list[nn.Module] = []
        channels = spec.in_channels
        for count, width in zip(spec.convs, WIDTHS, strict=True):
            for _ in range(count):
                layers.append(nn.Conv2d(channels, width, 3, padding=1))
                layers += [nn.BatchNorm2d(width)] if spec.batch_norm else []
                layers.append(nn.ReLU())
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(MAP)
        self.classifier = nn.Sequential(
            *(nn.Linear(channels * MAP * MAP, 4096), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()),
            nn.Linear(4096, spec.num_classes),
        )

    @property
    def fc(self) -> nn.Module:
        """The last layer, called as in a residual net."""
        return self.classifier[-1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))  # N C H W -> N 512 7 7
        return self.classifier(torch.flatten(x, 1))
