"""Whether tensors from a file fit a network: said before anything is loaded, so that nothing is loaded in part."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from resnetlab.errors import UserError


def check_fit(path: Path, name: str, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise UserError, naming the first that differ, unless keys, shapes and kinds of number are the wanted ones."""
    missing = [f"{k} {tuple(v.shape)}" for k, v in wanted.items() if k not in found]
    surplus = [f"{k} {tuple(found[k].shape)}" for k in sorted(found) if k not in wanted]
    shapes = [
        f"{k} is {tuple(found[k].shape)}, not {tuple(v.shape)}"
        for k, v in wanted.items()
        if k in found and found[k].shape != v.shape
    ]
    kinds = [
        f"{k} is of {found[k].dtype}, not {v.dtype}"
        for k, v in wanted.items()
        if k in found and ((v.is_floating_point() and not found[k].is_floating_point()) or found[k].is_complex())
    ]
    parts = []
    for words, keys in (("it lacks", missing), ("it has besides", surplus), ("in it", shapes), ("in it", kinds)):
        if keys:
            parts.append(f"{words} {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else ""))
    if parts:
        raise UserError(f"{path}: does not fit {name or 'the network'}: {'; '.join(parts)}. Nothing was loaded.")
