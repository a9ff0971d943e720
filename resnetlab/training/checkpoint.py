"""Checkpoints: weights that describe themselves, and the rest that a run needs to go on.

    RUN/last/weights.safetensors   parameters and buffers; spec, classes, preprocessing and recipe as metadata
    RUN/last/state.safetensors     the optimiser's momentum
    RUN/last/state.json            epoch, step, schedule, checksums
    RUN/best/weights.safetensors   the same of the best epoch

Nothing here executes code on loading. A checkpoint is written beside the old one and takes its place when
it is whole, so a full disk or a kill leaves one that is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError
from resnetlab.nets.zoo import Spec
from resnetlab.training.run import read_json, spec_from_dict
from resnetlab.training.schedule import ScheduleState

WEIGHTS, MOMENTUM = "weights.safetensors", "state.safetensors"
T = TypeVar("T")


@dataclass
class Progress:
    """How far a run is: what `state.json` holds beside checksums."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done
    best_error: float = float("inf")  # %, of the validation or test images
    metrics_bytes: int = 0  # length of metrics.jsonl at this point
    seconds: float = 0.0  # spent so far, over all sittings


@dataclass(frozen=True)
class Card:
    """What a weight file says of itself, so that prediction needs nothing else."""

    spec: Spec
    classes: tuple[str, ...]
    normalisation: Normalisation
    recipe: dict[str, Any]

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata: one key, because the order of several is not fixed."""
        values = {
            "spec": self.spec.to_dict(),
            "classes": list(self.classes),
            "mean": self.normalisation.mean.tolist(),  # float32 -> decimal -> float32 loses nothing
            "std": self.normalisation.std.tolist(),
            "recipe": self.recipe,
        }
        return {"resnetlab": json.dumps(values)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> Card:
        """The inverse of `to_metadata`. Raises ValueError for other content."""
        try:
            values = json.loads(metadata["resnetlab"])
            spec = spec_from_dict(values["spec"])
            mean, std = (torch.tensor(values[key], dtype=torch.float32) for key in ("mean", "std"))
            classes, recipe = values["classes"], values["recipe"]
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from error
        except (TypeError, AttributeError, RuntimeError, OverflowError) as error:  # RecursionError is a RuntimeError
            raise ValueError(str(error)) from error
        image = (spec.in_channels, spec.input_size, spec.input_size)
        for key, t in (("mean", mean), ("std", std)):
            if t.ndim != 3 or any(have not in (1, want) for have, want in zip(t.shape, image, strict=True)):
                raise ValueError(f"its {key} of shape {tuple(t.shape)} does not fit images of {image}")
            if not t.isfinite().all() or (key == "std" and not t.all()):
                raise ValueError(f"its {key} is not finite or is 0")
        if not isinstance(classes, list) or len(classes) != spec.num_classes:
            raise ValueError(f"its classes should be {spec.num_classes} names")
        if not isinstance(recipe, dict):
            raise ValueError("its recipe should be fields with values")
        return cls(spec, tuple(map(str, classes)), Normalisation(mean, std), recipe)


def weights_bytes(net: nn.Module, card: Card) -> bytes:
    """A weight file's content."""
    return save({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, card.to_metadata())


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata.

    Raises UserError for a file that is missing, truncated or of another kind.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}).") from error
    return tensors, header.get("__metadata__") or {}


def save_checkpoint(
    folder: Path,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    card: Card,
    progress: Progress,
    schedule: ScheduleState,
) -> None:
    """Write FOLDER/last in place of the one before. Raises OSError with the old one whole if it can't."""
    momentum = {}
    for i, p in enumerate(_parameters(optimiser)):
        buffer = optimiser.state.get(p, {}).get("momentum_buffer")
        if buffer is not None:
            momentum[f"momentum.{i}"] = buffer.detach().cpu().contiguous()
    files = {WEIGHTS: weights_bytes(net, card), MOMENTUM: save(momentum)}
    state = {
        "progress": asdict(progress),
        "schedule": asdict(schedule),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }
    files["state.json"] = json.dumps(state, indent=1).encode()
    _replace_folder(folder / "last", files)


def save_best(folder: Path, net: nn.Module, card: Card) -> None:
    """Write FOLDER/best in place of the one before."""
    _replace_folder(folder / "best", {WEIGHTS: weights_bytes(net, card)})


def _replace_folder(target: Path, files: dict[str, bytes]) -> None:
    new, old = target.with_name(target.name + ".new"), _old(target)
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if target.exists():  # else the old one is the only one, and stays until the new one is in its place
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _old(target: Path) -> Path:
    return target.with_name(target.name + ".old")


def whole_folder(target: Path) -> Path:
    """RUN/last or RUN/best, or where a kill between the two renames of `_replace_folder` left it."""
    return _old(target) if not target.exists() and _old(target).exists() else target


def load_checkpoint(
    folder: Path, net: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, ScheduleState] | None:
    """Put FOLDER/last into the network and the optimiser; None if there is none yet.

    Raises UserError for a damaged checkpoint.
    """
    last = whole_folder(folder / "last")
    if not last.exists():
        return None
    state = read_json(last / "state.json")
    try:
        for name in (WEIGHTS, MOMENTUM):
            if hashlib.sha256((last / name).read_bytes()).hexdigest() != state["sha256"][name]:
                raise UserError(f"{last / name}: damaged, its checksum differs; remove {last} to start the run again.")
        progress, schedule = _counts(Progress, state["progress"]), _counts(ScheduleState, state["schedule"])
    except (KeyError, TypeError, OSError) as error:
        raise UserError(f"{last}: damaged checkpoint ({error}); remove it to start the run again.") from error
    net.load_state_dict(read_weights(last / WEIGHTS)[0])
    momentum, _ = read_weights(last / MOMENTUM)
    for i, p in enumerate(_parameters(optimiser)):
        if f"momentum.{i}" in momentum:
            buffer = torch.empty_like(p).copy_(momentum[f"momentum.{i}"])  # keeps the parameter's memory layout
            optimiser.state[p]["momentum_buffer"] = buffer
    return progress, schedule


def _counts(kind: type[T], values: dict[str, Any]) -> T:
    """A Progress or ScheduleState from its JSON values. Raises TypeError unless they are such numbers, 0 or more."""
    made = kind(**values)
    for name, hint in get_type_hints(kind).items():
        value = getattr(made, name)
        if isinstance(value, bool) or not isinstance(value, (int, float) if hint is float else hint):
            raise TypeError(f"{name} should be a number")
        if value is not None and not (0 <= value < 2**53 or value == float("inf")):
            raise TypeError(f"{name} is out of range")
    return made


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]
