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
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from resnetlab.data.loading import Normalisation
from resnetlab.errors import UserError
from resnetlab.nets.zoo import Spec
from resnetlab.training.run import read_json, spec_from_dict
from resnetlab.training.schedule import ScheduleState

WEIGHTS = "weights.safetensors"


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
        """The inverse of `to_metadata`. Raises KeyError or ValueError for other content."""
        values = json.loads(metadata["resnetlab"])
        normalisation = Normalisation(torch.tensor(values["mean"]), torch.tensor(values["std"]))
        return cls(spec_from_dict(values["spec"]), tuple(values["classes"]), normalisation, values["recipe"])


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
    return tensors, header.get("__metadata__", {})


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
    files = {WEIGHTS: weights_bytes(net, card), "state.safetensors": save(momentum)}
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
    new, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
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
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(
    folder: Path, net: nn.Module, optimiser: torch.optim.Optimizer
) -> tuple[Progress, ScheduleState] | None:
    """Put FOLDER/last into the network and the optimiser; None if there is none yet.

    Raises UserError for a damaged checkpoint.
    """
    last = folder / "last"
    if not last.exists():
        last = folder / "last.old"  # a kill between the two renames of _replace_folder
    if not last.exists():
        return None
    state = read_json(last / "state.json")
    try:
        for name, checksum in state["sha256"].items():
            if hashlib.sha256((last / name).read_bytes()).hexdigest() != checksum:
                raise UserError(f"{last / name}: damaged, its checksum differs; remove {last} to start the run again.")
        progress, schedule = Progress(**state["progress"]), ScheduleState(**state["schedule"])
    except (KeyError, TypeError, OSError) as error:
        raise UserError(f"{last}: damaged checkpoint ({error}); remove it to start the run again.") from error
    net.load_state_dict(read_weights(last / WEIGHTS)[0])
    momentum, _ = read_weights(last / "state.safetensors")
    for i, p in enumerate(_parameters(optimiser)):
        if f"momentum.{i}" in momentum:
            buffer = torch.empty_like(p).copy_(momentum[f"momentum.{i}"])  # keeps the parameter's memory layout
            optimiser.state[p]["momentum_buffer"] = buffer
    return progress, schedule


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimiser.param_groups for p in group["params"]]
