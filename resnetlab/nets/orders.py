"""The kinds of branch and the activation orders, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BranchName = Literal["single", "basic", "bottleneck"]
OrderName = Literal["post", "bn_after_add", "relu_before_add", "relu_preact", "full_preact"]

CONVS: dict[str, int] = {"single": 1, "basic": 2, "bottleneck": 3}  # convolutions in a branch
EXPANSION: dict[str, int] = {"single": 1, "basic": 1, "bottleneck": 4}  # output channels / stage width


@dataclass(frozen=True)
class Order:
    """Where batch norm (b) and ReLU (r) are placed: around each convolution (c), and after the sum."""

    each: str  # around every convolution but the last
    last: str  # around the last convolution
    postact: str  # after the sum: f

    @property
    def preact(self) -> str:
        """The pre-activation: the layers before the first convolution ("" in post-activation orders)."""
        return self.each[: self.each.index("c")]


# He 2016, Figure 4 (a) to (e).
ORDERS: dict[str, Order] = {
    "post": Order("cbr", "cb", "r"),
    "bn_after_add": Order("cbr", "c", "br"),
    "relu_before_add": Order("cbr", "cbr", ""),
    "relu_preact": Order("rcb", "rcb", ""),
    "full_preact": Order("brc", "brc", ""),
}
