"""How the shortcut h and the branch F meet: y = mix(h(x), F(x)), each rule a frozen value.

He et al. 2016, section 3 and Table 1. Calling a value evaluates its equation on tensors of one
shape (N C H W); `part` builds the module that the equation needs beside h and F, if any.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass, fields
from typing import get_args

import torch
from torch import Tensor, nn

from resnetlab.errors import UserError, as_python, did_you_mean, shown

# What ast raises for text that is not a literal, is nested too deeply, or can't be encoded.
UNREADABLE = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


def number(field: str, value: object) -> float:
    """Return `value` as a float. Raises UserError unless it is a finite number."""
    value = as_python(value)
    # Comparisons with NaN are False, and an int too large for a float is compared exactly.
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UserError(f"{field}={shown(value)} must be a finite number.")
    return float(value)


class Gate(nn.Module):
    """g(x) = σ(W·x + b): one value in (0, 1) per channel and position (He 2016, section 3.1).

    A 1x1 convolution without batch norm, strided like the unit, so that g has the shape of F(x).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, bias: float):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride)
        self.initial_bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x))


@dataclass(frozen=True)
class _Mix:
    """What all mixes have: fields that are numbers, and no module beside h and F unless they say otherwise."""

    def __post_init__(self) -> None:
        # Floats, so that equal mixes have one text: Scale(1, 2) is Scale(1.0, 2.0).
        for f in fields(self):
            object.__setattr__(self, f.name, number(f"{type(self).__name__}: {f.name}", getattr(self, f.name)))

    def part(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        return None


@dataclass(frozen=True)
class _Gated(_Mix):
    """A mix with a learned gate g(x)."""

    bias: float = -6.0

    def part(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return Gate(in_channels, out_channels, stride, self.bias)


@dataclass(frozen=True)
class Plain(_Mix):
    """y = F: no shortcut, the plain net."""

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module | None) -> Tensor:
        return F


@dataclass(frozen=True)
class Add(_Mix):
    """y = h + F: the residual unit (He 2015, eq. 1)."""

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module | None) -> Tensor:
        return h + F


@dataclass(frozen=True)
class Scale(_Mix):
    """y = a·h + b·F: constant scaling; x/2 is Scale(0.5, 1) or Scale(0.5, 0.5) (He 2016, eq. 6)."""

    a: float
    b: float

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module | None) -> Tensor:
        return self.a * h + self.b * F


@dataclass(frozen=True)
class ExclusiveGate(_Gated):
    """y = (1 − g)·h + g·F with a learned gate g(x): the highway form (He 2016, section 3.1)."""

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module) -> Tensor:
        g = part(x)
        return (1 - g) * h + g * F


@dataclass(frozen=True)
class ShortcutGate(_Gated):
    """y = (1 − g)·h + F with a learned gate g(x) on the shortcut alone (He 2016, section 3.1)."""

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module) -> Tensor:
        g = part(x)
        return (1 - g) * h + F


@dataclass(frozen=True)
class DropoutShortcut(_Mix):
    """y = dropout(h) + F (He 2016, section 3.1), rescaled by 1/(1 − p) in training as Caffe does."""

    p: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.p < 1:
            raise UserError(f"DropoutShortcut(p={self.p}): p is a probability, 0 <= p < 1.")

    def part(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        return nn.Dropout(self.p)

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module) -> Tensor:
        return part(h) + F


Mix = Plain | Add | Scale | ExclusiveGate | ShortcutGate | DropoutShortcut
MIXES: dict[str, type[Mix]] = {cls.__name__: cls for cls in get_args(Mix)}


class Mixing(nn.Module):
    """A mix in a unit: the equation and the module it needs (gate or dropout)."""

    def __init__(self, mix: Mix, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.equation = mix
        self.part = mix.part(in_channels, out_channels, stride)

    def forward(self, h: Tensor, F: Tensor, x: Tensor) -> Tensor:  # all N C H W; x: the unit's input
        return self.equation(h, F, x, self.part)  # type: ignore[arg-type]  # each mix gets its own part

    def extra_repr(self) -> str:
        return repr(self.equation)


def mix_from_node(node: ast.expr) -> Mix:
    """Read a mix from a parsed expression: `Add`, `Scale(0.5, 1)`, `ExclusiveGate(bias=-6)`."""
    text = ast.unparse(node)
    call = node if isinstance(node, ast.Call) else ast.Call(func=node, args=[], keywords=[])
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    if name not in MIXES:
        raise UserError(f"mix {shown(text)} is not known: choose one of {', '.join(MIXES)}.{did_you_mean(name, MIXES)}")
    try:
        args = [ast.literal_eval(a) for a in call.args]
        kwargs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        return MIXES[name](*args, **kwargs)
    except UNREADABLE as error:
        if isinstance(error, UserError):
            raise
        signature = ", ".join(f.name for f in fields(MIXES[name]))
        raise UserError(f"mix {shown(text)}: write {name}({signature}) with numbers.") from error


def parse_mix(text: str) -> Mix:
    """Read a mix from its text, e.g. "Scale(0.5, 1)"; the inverse of `repr`.

    Raises UserError for an unknown mix or wrong arguments.
    """
    try:
        return mix_from_node(ast.parse(text.strip(), mode="eval").body)
    except UNREADABLE as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"mix {shown(text)} can't be read: write e.g. Scale(0.5, 1).") from error
