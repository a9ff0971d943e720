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

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import torch
from safetensors.torch import save
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.run_files import FORMAT, WEIGHTS
from resnetlab.schema import INFINITY, Between, Positive, Seconds, Whole, trouble
from resnetlab.storage import Damaged, disk_errors, older, read_json, read_regular, remove, replace_folder
from resnetlab.training.schedule import ScheduleState
from resnetlab.training.step import Stepper
from resnetlab.weights.files import MOST_BYTES, parse_safetensors
from resnetlab.weights.fit import check_fit
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

STATE = "state.safetensors"
RANDOM, TRAINED = "rng.", "net."  # what the names of random states, and of weights beside their averages, start with
LowestError = Annotated[float, Between(0, INFINITY)]  # %; infinity before the first
RngState = dict[str, Tensor]  # states of random generators by device, "cpu" and "cuda"
_log = logging.getLogger(__name__)


@dataclass
class TrainingProgress:
    """How far a run is: what `state.json` holds beside the schedule and checksums."""

    epoch: Whole = 0  # epochs done
    step: Whole = 0  # steps done
    best_error: LowestError = float("inf")  # %, of the validation or test images
    waited: Whole = 0  # evaluations since then
    metrics_bytes: Whole = 0  # length of metrics.jsonl at this point
    seconds: Seconds = 0.0  # spent so far, over all sessions
    position: Whole = 0  # where in the epoch's order the next batch starts


@dataclass
class EpochTotals:
    """What one process has counted of the epoch that is under way; among `shares` in `state.json`."""

    seen: Whole = 0  # images
    loss: Positive = 0.0  # summed over them
    wrong: Positive = 0.0  # of them
    unreadable: Whole = 0  # images that were left out


class _State(TypedDict):
    """state.json; `progress` is a part of it, in format 2 with the only process's share in it."""

    format: NotRequired[Whole]  # format 1 had neither this nor a checksum
    progress: TrainingProgress
    schedule: ScheduleState
    shares: list[EpochTotals]
    sha256: dict[str, str]
    checksum: NotRequired[str]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on, beside the tensors that `load_checkpoint` puts where they belong."""

    progress: TrainingProgress
    schedule: ScheduleState
    # Of each process, in the order of their ranks; none at the start of an epoch:
    totals: list[EpochTotals] = field(default_factory=list)
    rng_states: list[RngState] = field(default_factory=list)


def save_checkpoint(folder: Path, stepper: Stepper, metadata: ModelMetadata, checkpoint: Checkpoint) -> None:
    """Write FOLDER/last; the one before becomes FOLDER/last.old. Raises OSError with both whole if it can't."""
    tensors = stepper.state()
    for rank, rng_state in enumerate(checkpoint.rng_states):
        tensors |= {f"{RANDOM}{rank}.{device}": t for device, t in rng_state.items()}
    if stepper.average:
        tensors |= {TRAINED + name: t for name, t in stepper.net.state_dict().items()}
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    with stepper.evaluated() as net:
        files = {WEIGHTS: weights_bytes(net, metadata), STATE: content}
    state = {
        "format": FORMAT,
        "progress": asdict(checkpoint.progress),
        "schedule": asdict(checkpoint.schedule),
        "shares": [asdict(totals) for totals in checkpoint.totals],
        "sha256": {name: sha256(content) for name, content in files.items()},
    }
    files["state.json"] = json.dumps(state | {"checksum": checksum(state)}, indent=1).encode()
    replace_folder(folder / "last", files, keep_old=True)


def checksum(state: dict[str, Any]) -> str:
    """Of what `state.json` holds beside it."""
    return sha256(json.dumps(state, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def save_best(folder: Path, net: nn.Module, metadata: ModelMetadata) -> None:
    """Write FOLDER/best in place of the one before."""
    replace_folder(folder / "best", {WEIGHTS: weights_bytes(net, metadata)}, keep_old=False)


def load_checkpoint(folder: Path, stepper: Stepper) -> Checkpoint | None:
    """Put FOLDER/last into the stepper and its network; None if there is none yet.

    Where it is damaged the one before takes its place, with a warning. Raises UserError if that one is damaged or
    missing too, and for tensors that don't fit; nothing is loaded then.
    """
    last = folder / "last"
    places = [place for place in (last, older(last)) if place.exists()]
    troubles: list[str] = []
    for place in places:
        try:
            tensors, checkpoint = _read(place)
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
                f"{checkpoint.progress.step}."
            )
        return checkpoint
    if not places:
        return None
    raise UserError(f"{'; '.join(troubles)}; remove {' and '.join(map(str, places))} to restart the run.")


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
        tensors[name] = parse_safetensors(place / name, content)[0]
    progress, schedule = TrainingProgress(**state["progress"]), ScheduleState(**state["schedule"])
    totals = [EpochTotals(**values) for values in state["shares"]]
    rng_states: list[RngState] = [{} for _ in totals]
    for rank, own in enumerate(rng_states):
        start = f"{RANDOM}{rank}." if state.get("format") == FORMAT else RANDOM
        names = [name for name in tensors[STATE] if name.startswith(start)]
        own |= {name.removeprefix(start): tensors[STATE].pop(name) for name in names}
    if not progress.position:
        return tensors, Checkpoint(progress, schedule)
    if not totals or not all(map(_is_rng_state, rng_states)):
        raise Damaged(place / STATE, "damaged, it lacks the random state")
    if any(each.wrong > each.seen for each in totals):
        raise Damaged(path, "damaged, it counts more errors than images")
    return tensors, Checkpoint(progress, schedule, totals, rng_states)


def _is_rng_state(states: RngState) -> bool:
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
    names = [f.name for f in fields(EpochTotals)]
    own = {name: progress[name] for name in names if name in progress}
    return state | {"progress": {k: v for k, v in progress.items() if k not in names}, "shares": [own]}


def _set_aside(last: Path) -> Path:
    """Move a damaged checkpoint out of the way of the whole one, which it would replace at the next save."""
    aside = last.with_name(last.name + ".damaged")
    with disk_errors(last.parent):
        remove(aside)
        last.rename(aside)
    return aside
