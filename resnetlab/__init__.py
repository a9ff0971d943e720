"""The networks, recipes, figures and claims of the ResNet papers, from Python as from the command line.

Networks:

    net = resnetlab.build("cifar_resnet110", mix=resnetlab.Scale(0.5, 0.5), num_classes=100)
    spec = resnetlab.spec("resnet50")                       # what a network is, as a frozen value
    net = resnetlab.load("runs/cifar_resnet20_digits-0123456789ab")     # a run folder or a weight file

Work, each the same as the command of its name (evaluate is `eval`, plot_runs is `runs plot`):

    run = resnetlab.train("digits", net="cifar_resnet20", epochs=5)
    resnetlab.evaluate(run, "digits")
    resnetlab.predict("runs/my-flowers", "garden/*.jpg")
    resnetlab.plot_runs(run)                                # error curves, as the papers draw them
    resnetlab.study("degradation")                          # a claim of the papers, tested

Each returns a frozen dataclass: `print` and notebooks show it as a table, `.table()` gives its rows and `.to_dict()`
JSON values. What can't be done raises `UserError`, a ValueError with the line that the command prints.

Guide: docs/python.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnetlab.api.evaluate import EvaluationResult as EvaluationResult
    from resnetlab.api.evaluate import evaluate as evaluate
    from resnetlab.api.plot import Plot as Plot
    from resnetlab.api.plot import plot_runs as plot_runs
    from resnetlab.api.predict import PredictionResult as PredictionResult
    from resnetlab.api.predict import predict as predict
    from resnetlab.api.study import StudySummary as StudySummary
    from resnetlab.api.study import study as study
    from resnetlab.api.train import TrainingResult as TrainingResult
    from resnetlab.api.train import train as train
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
    from resnetlab.training.recipe import Recipe as Recipe
    from resnetlab.training.recipes import recipe as recipe
    from resnetlab.weights.hub import from_pretrained as from_pretrained
    from resnetlab.weights.hub import save_pretrained as save_pretrained
    from resnetlab.weights.load import load as load

_HOME = {
    **dict.fromkeys(("train", "TrainingResult"), "api.train"),
    **dict.fromkeys(("evaluate", "EvaluationResult"), "api.evaluate"),
    **dict.fromkeys(("predict", "PredictionResult"), "api.predict"),
    **dict.fromkeys(("study", "StudySummary"), "api.study"),
    **dict.fromkeys(("plot_runs", "Plot"), "api.plot"),
    "Recipe": "training.recipe",
    "recipe": "training.recipes",
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


def __dir__() -> list[str]:
    """The public names, and no others."""
    return sorted(__all__)
