"""Checks that tensors from a file fit, before anything is loaded, so that nothing is loaded partially."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from resnetlab.errors import UserError, first_of


def check_fit(path: Path, name: str, wanted: dict[str, Tensor], found: dict[str, Tensor], hint: str = "") -> None:
    """Raise UserError, with what `misfit` says, unless the tensors fit. hint: the end of the message."""
    if words := misfit(wanted, found):
        raise UserError(f"{path}: does not fit {name or 'the network'}: {words}. Nothing was loaded.{hint}")


def misfit(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str:
    """The first keys, shapes and number types that differ from those wanted, in words; "" if none do.

    Also numbers that are not finite, and negative variances.
    """
    missing = [f"{k} {tuple(v.shape)}" for k, v in wanted.items() if k not in found]
    surplus = [f"{k} {tuple(found[k].shape)}" for k in sorted(found) if k not in wanted]
    shapes = [
        f"{k} is {tuple(found[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in found and found[k].shape != v.shape
    ]
    values = [f"{k} {wrong}" for k, v in wanted.items() if k in found and (wrong := value_trouble(k, v, found[k]))]
    parts = []
    for words, keys in (("it lacks", missing), ("it has the extra", surplus), ("in it", shapes), ("in it", values)):
        if keys:
            parts.append(f"{words} {first_of(keys, 3)}")
    return "; ".join(parts)


def value_trouble(name: str, wanted: Tensor, found: Tensor) -> str:
    """Why a tensor's numbers can't replace those of another tensor; "" if they can."""
    if not wanted.is_floating_point():
        return f"is of {found.dtype}, not {wanted.dtype}" if found.is_complex() else ""
    if not found.is_floating_point():
        return f"is of {found.dtype}, not {wanted.dtype}"
    as_wanted = found.to(wanted.dtype)
    # If any number is not finite, the extremes are not; checking each number would take ten times as long.
    if as_wanted.numel() and not torch.stack(as_wanted.aminmax()).isfinite().all():
        return "is not finite"
    return "is negative" if name.endswith("running_var") and (as_wanted < 0).any() else ""
