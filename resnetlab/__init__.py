"""resnetlab: every network, recipe, figure and claim of the ResNet papers as a command that runs.

net  = resnetlab.build("cifar_resnet110", mix=resnetlab.Scale(0.5, 0.5), num_classes=100)
spec = resnetlab.spec("resnet50")
net  = resnetlab.load("runs/cifar_resnet20_digits-0123456789ab")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnetlab.errors import UserError as UserError
    from resnetlab.nets.mixing import Add as Add
    from resnetlab.nets.mixing import DropoutShortcut as DropoutShortcut
    from resnetlab.nets.mixing import ExclusiveGate as ExclusiveGate
    from resnetlab.nets.mixing import Plain as Plain
    from resnetlab.nets.mixing import Scale as Scale
    from resnetlab.nets.mixing import ShortcutGate as ShortcutGate
    from resnetlab.nets.spec import NetSpec as NetSpec
    from resnetlab.nets.spec import StageSpec as StageSpec
    from resnetlab.nets.zoo import build as build
    from resnetlab.nets.zoo import names as names
    from resnetlab.nets.zoo import spec as spec
    from resnetlab.weights.hub import from_pretrained as from_pretrained
    from resnetlab.weights.hub import save_pretrained as save_pretrained
    from resnetlab.weights.load import load as load

_HOME = {
    "build": "nets.zoo",
    "names": "nets.zoo",
    "spec": "nets.zoo",
    "load": "weights.load",
    **dict.fromkeys(("save_pretrained", "from_pretrained"), "weights.hub"),
    "NetSpec": "nets.spec",
    "StageSpec": "nets.spec",
    "UserError": "errors",
    **dict.fromkeys(("Plain", "Add", "Scale", "ExclusiveGate", "ShortcutGate", "DropoutShortcut"), "nets.mixing"),
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and `resnetlab --help` should not."""
    if name not in _HOME:
        raise AttributeError(f"module 'resnetlab' has no attribute {name!r}")
    return getattr(importlib.import_module(f"resnetlab.{_HOME[name]}"), name)
