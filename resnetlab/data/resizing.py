"""How a test image becomes a square: its short side is resized, and the middle is cropped."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from resnetlab.schema import Between, trouble

# Short sides as the papers have them, for crops of 224; for other crops they grow with the crop.
CROP_SIDE = 224
TEST_SIDE = 256  # He 2015, section 3.4, after AlexNet

Interpolation = Literal["bilinear", "bicubic"]  # both antialiased, as Pillow's
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
LEAST_SHARE = 0.25  # of the crop; published networks have 0.8 to 1
_ROUNDING = 1e-6  # pixels, so that 224 / (224 / 232) is 232


@dataclass(frozen=True)
class Resizing:
    """How a test image is resized before its middle is cropped; the default is the papers', and resnetlab's own."""

    # The crop's side as a share of the resized short side, as timm's crop_pct; None: 224/256, rounded to the nearest.
    crop_share: Annotated[float, Between(LEAST_SHARE, 1)] | None = None
    interpolation: Interpolation = "bilinear"

    @classmethod
    def to_side(cls, short_side: int, crop: int, interpolation: Interpolation = "bilinear") -> Resizing:
        """The resizing with this short side before a crop of `crop` x `crop` pixels."""
        usual = short_side == cls().short_side(crop)
        return cls(None if usual else crop / short_side, interpolation)

    @classmethod
    def from_dict(cls, values: Any) -> Resizing:
        """The inverse of `to_dict`. Raises ValueError for other content."""
        if wrong := trouble(values, Resizing, "resizing"):
            raise ValueError(wrong)
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def short_side(self, size: int) -> int:
        """The short side before a crop of `size` x `size` pixels; for a stated share it is rounded down, as in timm."""
        if self.crop_share is None:
            return round(size * TEST_SIDE / CROP_SIDE)
        return math.floor(size / self.crop_share + _ROUNDING)

    def words(self, size: int) -> str:
        """For a line."""
        return f"centre crop, from a short side of {self.short_side(size)}, {self.interpolation}"


USUAL = Resizing()
