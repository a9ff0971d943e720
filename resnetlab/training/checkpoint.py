"""Checkpoints: weights that describe themselves, and the rest that a run needs to go on.

    RUN/last/weights.safetensors   parameters and buffers; spec, classes, preprocessing and recipe as metadata
    RUN/last/state.safetensors     the stepper's tensors (momentum); within an epoch each process's random state as
                                   rng.RANK.*; where the weights are averages, those that are trained as net.*
    RUN/last/state.json            epoch, step, position, schedule, checksums; each process's sums within an epoch
    RUN/last.old/                  the checkpoint before, should the last one be damaged
    RUN/best/weights.safetensors   the same of the best epoch

Nothing here executes code on loading. A checkpoint is written beside the old one and takes its place when
it is whole, so a full disk or a kill leaves one that is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError
from resnetlab.nets.zoo import Spec
from resnetlab.schema import INFINITY, Between, Positive, Seconds, Whole, trouble
from resnetlab.storage import Damaged, disk_errors, read_json, read_regular, remove
from resnetlab.training.fit import check_fit
from resnetlab.training.run import spec_from_dict
from resnetlab.training.run_files import FORMAT
from resnetlab.training.schedule import ScheduleState
from resnetlab.training.step import Stepper

WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
RANDOM, TRAINED = "rng.", "net."  # what the names of random states, and of weights beside their averages, start with
MOST_BYTES = 16 * 2**30  # of a file of tensors; the largest ResNet file in use has below 2
LowestError = Annotated[float, Between(0, INFINITY)]  # %; infinity before the first
Random = dict[str, Tensor]  # random states by device, "cpu" and "cuda"
_log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run is: what `state.json` holds beside the schedule and checksums."""

    epoch: Whole = 0  # epochs done
    step: Whole = 0  # steps done
    best_error: LowestError = float("inf")  # %, of the validation or test images
    waited: Whole = 0  # evaluations since then
    metrics_bytes: Whole = 0  # length of metrics.jsonl at this point
    seconds: Seconds = 0.0  # spent so far, over all sittings
    position: Whole = 0  # where in the epoch's order the next batch starts


@dataclass
class Share:
    """What one process has of the epoch that is under way."""

    seen: Whole = 0  # images
    loss: Positive = 0.0  # summed over them
    wrong: Positive = 0.0  # of them
    unreadable: Whole = 0  # images that were left out


class _State(TypedDict):
    """state.json; `progress` is a part of it, in format 2 with the only process's share in it."""

    format: NotRequired[Whole]  # format 1 had neither this nor a checksum
    progress: Progress
    schedule: ScheduleState
    shares: list[Share]
    sha256: dict[str, str]
    checksum: NotRequired[str]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on, beside the tensors that `load_checkpoint` puts where they belong."""

    progress: Progress
    schedule: ScheduleState
    # Of each process, in the order of their ranks; none at the start of an epoch:
    shares: list[Share] = field(default_factory=list)
    random: list[Random] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """What a weight file says of itself, so that prediction needs nothing else."""

    spec: Spec
    classes: tuple[str, ...] | None  # their names; None where they are not known
    normalisation: Normalisation
    recipe: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "classes": None if self.classes is None else list(self.classes),
            "mean": self.normalisation.mean.tolist(),  # float32 -> decimal -> float32 loses nothing
            "std": self.normalisation.std.tolist(),
            "recipe": self.recipe,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Card:
        """The inverse of `to_dict`. Raises ValueError for other content.

        Without a recipe, numbers from 0 in the place of names are none: earlier versions wrote them into files that
        they made of others' weights.
        """
        try:
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
        if classes is not None and (not isinstance(classes, list) or len(classes) != spec.num_classes):
            raise ValueError(f"its classes should be {spec.num_classes} names")
        if not isinstance(recipe, dict):
            raise ValueError("its recipe should be fields with values")
        names = None if classes is None else tuple(map(str, classes))
        if not recipe and names == tuple(map(str, range(spec.num_classes))):
            names = None
        return cls(spec, names, Normalisation(mean, std), recipe)


def weights_bytes(net: nn.Module, told: Card | Spec) -> bytes:
    """A weight file's content: what it says of itself, or just the network where nothing else is known."""
    values = told.to_dict() if isinstance(told, Card) else {"spec": told.to_dict()}
    metadata = {"resnetlab": json.dumps(values)}  # one key, because the order of several is not fixed
    return save({k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}, metadata)


def described(metadata: dict[str, str]) -> tuple[Spec, Card | None]:
    """The network that a weight file of ours says it holds, and its card. Raises ValueError if that is damaged."""
    values = json.loads(metadata["resnetlab"])
    if isinstance(values, dict) and values.keys() == {"spec"}:
        try:
            return spec_from_dict(values["spec"]), None
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(str(error)) from error
    card = Card.from_dict(values)
    return card.spec, card


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: tensors by name, and its metadata.

    Raises UserError for a file that is missing, truncated or of another kind.
    """
    return _parsed(path, read_regular(path, MOST_BYTES))


def _parsed(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    # KeyError is for a kind of number that torch does not have; RuntimeError what torch says of one that does not fit.
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(f"{path}: not a complete safetensors file ({error}).") from error
    return tensors, header.get("__metadata__") or {}


def save_checkpoint(folder: Path, stepper: Stepper, card: Card, checkpoint: Checkpoint) -> None:
    """Write FOLDER/last; the one before becomes FOLDER/last.old. Raises OSError with both whole if it can't."""
    tensors = stepper.state()
    for rank, random in enumerate(checkpoint.random):
        tensors |= {f"{RANDOM}{rank}.{device}": t for device, t in random.items()}
    if stepper.average:
        tensors |= {TRAINED + name: t for name, t in stepper.net.state_dict().items()}
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    with stepper.evaluated() as net:
        files = {WEIGHTS: weights_bytes(net, card), STATE: content}
    state = {
        "format": FORMAT,
        "progress": asdict(checkpoint.progress),
        "schedule": asdict(checkpoint.schedule),
        "shares": [asdict(share) for share in checkpoint.shares],
        "sha256": {name: sha256(content) for name, content in files.items()},
    }
    files["state.json"] = json.dumps(state | {"checksum": checksum(state)}, indent=1).encode()
    _replace_folder(folder / "last", files, keep_old=True)


def checksum(state: dict[str, Any]) -> str:
    """Of what `state.json` holds beside it."""
    return sha256(json.dumps(state, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def save_best(folder: Path, net: nn.Module, card: Card) -> None:
    """Write FOLDER/best in place of the one before."""
    _replace_folder(folder / "best", {WEIGHTS: weights_bytes(net, card)}, keep_old=False)


def _replace_folder(target: Path, files: dict[str, bytes], *, keep_old: bool) -> None:
    new, old = target.with_name(target.name + ".new"), _old(target)
    try:
        remove(new)
        new.mkdir()
        for name, content in files.items():
            with (new / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            remove(new)
        raise
    if target.exists():  # else the old one is the only one, and stays until the new one is in its place
        remove(old)
        target.rename(old)
    elif target.is_symlink():  # that leads nowhere
        target.unlink()
    new.rename(target)
    if not keep_old:
        with contextlib.suppress(OSError):
            remove(old)


def _old(target: Path) -> Path:
    return target.with_name(target.name + ".old")


def whole_folder(target: Path) -> Path:
    """RUN/last or RUN/best, or where a kill between the two renames of `_replace_folder` left it."""
    return _old(target) if not target.exists() and _old(target).exists() else target


def load_checkpoint(folder: Path, stepper: Stepper) -> Checkpoint | None:
    """Put FOLDER/last into the stepper and its network; None if there is none yet.

    Where it is damaged the one before takes its place, with a warning. Raises UserError if that one is damaged or
    missing too, and for tensors that don't fit; nothing is loaded then.
    """
    last = folder / "last"
    there = [place for place in (last, _old(last)) if place.exists()]
    troubles: list[str] = []
    for place in there:
        try:
            tensors, found = _read(place)
        except UserError as error:
            troubles.append(str(error).rstrip("."))
            continue
        state = tensors[STATE]
        trained = {name: state.pop(name) for name in list(state) if name.startswith(TRAINED)}
        weights = {name.removeprefix(TRAINED): t for name, t in trained.items()} or tensors[WEIGHTS]
        check_fit(place / (STATE if trained else WEIGHTS), "the run's network", stepper.net.state_dict(), weights)
        try:
            stepper.restore(state)
        except UserError as error:
            raise UserError(f"{place / STATE}: does not fit the run's network: {error}. Nothing was loaded.") from error
        stepper.net.load_state_dict(weights)
        if troubles:
            aside = _set_aside(last)
            _log.warning(
                f"{troubles[0]}; it was moved to {aside}, and the run resumes from the previous checkpoint, step "
                f"{found.progress.step}."
            )
        return found
    if not there:
        return None
    raise UserError(f"{'; '.join(troubles)}; remove {' and '.join(map(str, there))} to restart the run.")


def _read(place: Path) -> tuple[dict[str, dict[str, Tensor]], Checkpoint]:
    """A checkpoint's tensors by file, and the rest. Raises Damaged, or UserError for what is no safetensors file."""
    path = place / "state.json"
    state = read_json(path)
    if "format" in state and state.get("checksum") != checksum({k: v for k, v in state.items() if k != "checksum"}):
        raise Damaged(path, "damaged, its checksum differs")
    state = _of_this_format(state)
    if wrong := trouble(state, _State):
        raise Damaged(path, f"damaged, {wrong}")
    tensors = {}
    for name in (WEIGHTS, STATE):
        content = read_regular(place / name, MOST_BYTES)
        if sha256(content) != state["sha256"].get(name):
            raise Damaged(place / name, "damaged, its checksum differs")
        tensors[name] = _parsed(place / name, content)[0]
    progress, schedule = Progress(**state["progress"]), ScheduleState(**state["schedule"])
    shares = [Share(**values) for values in state["shares"]]
    random: list[Random] = [{} for _ in shares]
    for rank, own in enumerate(random):
        start = f"{RANDOM}{rank}." if state.get("format") == FORMAT else RANDOM
        names = [name for name in tensors[STATE] if name.startswith(start)]
        own |= {name.removeprefix(start): tensors[STATE].pop(name) for name in names}
    if not progress.position:
        return tensors, Checkpoint(progress, schedule)
    if not shares or not all(map(_is_random_state, random)):
        raise Damaged(place / STATE, "damaged, it lacks the random state")
    if any(share.wrong > share.seen for share in shares):
        raise Damaged(path, "damaged, it counts more errors than images")
    return tensors, Checkpoint(progress, schedule, shares, random)


def _is_random_state(states: Random) -> bool:
    """Whether generators take them; a GPU's is only looked at from outside, since there may be no GPU."""
    try:
        torch.Generator().set_state(states["cpu"])
    except (KeyError, TypeError, RuntimeError):
        return False
    return all(t.dtype == torch.uint8 and t.ndim == 1 for t in states.values())


def _of_this_format(state: dict[str, Any]) -> dict[str, Any]:
    """state.json with what each process had of the epoch. Formats 1 and 2 knew one, its share among the progress."""
    progress = state.get("progress")
    if state.get("format") == FORMAT or not isinstance(progress, dict):
        return state
    names = [f.name for f in fields(Share)]
    own = {name: progress[name] for name in names if name in progress}
    return state | {"progress": {k: v for k, v in progress.items() if k not in names}, "shares": [own]}


def _set_aside(last: Path) -> Path:
    """Move a damaged checkpoint out of the way of the whole one, which it would replace at the next save."""
    aside = last.with_name(last.name + ".damaged")
    with disk_errors(last.parent):
        remove(aside)
        last.rename(aside)
    return aside
