"""Checkpoints: weights that describe themselves, and everything else that a run needs to resume.

    RUN/last/weights.safetensors   parameters and buffers; spec, classes, preprocessing and recipe as metadata
    RUN/last/state.safetensors     the stepper's tensors (momentum); within an epoch each process's random state as
                                   rng.RANK.*; if the weights are averages, the trained ones as net.*
    RUN/last/state.json            epoch, step, position, schedule, checksums; each process's sums within an epoch
    RUN/last.old/                  the previous checkpoint, in case the last one is damaged
    RUN/best/weights.safetensors   the weights of the best epoch

Loading executes no code. A checkpoint is written beside the old one and replaces it when it is complete, so that a full
disk or a kill always leaves a complete one.
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
from resnetlab.weights.files import MOST_BYTES, check_fit, parse_safetensors
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

STATE = "state.safetensors"
RANDOM, TRAINED = "rng.", "net."  # prefixes of the names of random states, and of weights saved beside their averages
LowestError = Annotated[float, Between(0, INFINITY)]  # %; infinity before the first
RngState = dict[str, Tensor]  # states of random generators by kind of device, "cpu", "cuda" and "mps"
_log = logging.getLogger(__name__)


@dataclass
class TrainingProgress:
    """How far a run is: the part of `state.json` besides the schedule and the checksums."""

    epoch: Whole = 0  # epochs done
    step: Whole = 0  # steps done
    best_error: LowestError = float("inf")  # %, of the validation or test images
    waited: Whole = 0  # evaluations since the best one
    metrics_bytes: Whole = 0  # length of metrics.jsonl at this point
    seconds: Seconds = 0.0  # spent so far, over all sessions
    position: Whole = 0  # index in the epoch's order at which the next batch starts


@dataclass
class EpochTotals:
    """One process's totals of the current epoch so far; an item of `shares` in `state.json`."""

    seen: Whole = 0  # images
    loss: Positive = 0.0  # summed over these images
    wrong: Positive = 0.0  # number of them that were classified wrongly
    unreadable: Whole = 0  # images that were left out


class _State(TypedDict):
    """state.json; in formats 1 and 2 `progress` also held the totals of the only process."""

    format: NotRequired[Whole]  # format 1 had neither this nor a checksum
    progress: TrainingProgress
    schedule: ScheduleState
    shares: list[EpochTotals]
    sha256: dict[str, str]
    checksum: NotRequired[str]


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to resume, apart from the tensors, which `load_checkpoint` restores itself."""

    progress: TrainingProgress
    schedule: ScheduleState
    # One for each process, in the order of their ranks; empty at the start of an epoch:
    totals: list[EpochTotals] = field(default_factory=list)
    rng_states: list[RngState] = field(default_factory=list)


def save_checkpoint(folder: Path, stepper: Stepper, metadata: ModelMetadata, checkpoint: Checkpoint) -> None:
    """Write FOLDER/last; the previous one becomes FOLDER/last.old. Raises OSError if it can't, leaving both intact."""
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
    """The SHA-256 of the other values of `state.json`."""
    return sha256(json.dumps(state, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def save_best(folder: Path, net: nn.Module, metadata: ModelMetadata) -> None:
    """Write FOLDER/best in place of the previous one."""
    replace_folder(folder / "best", {WEIGHTS: weights_bytes(net, metadata)}, keep_old=False)


def load_checkpoint(folder: Path, stepper: Stepper) -> Checkpoint | None:
    """Load FOLDER/last into the stepper and its network; return None if there is none yet.

    If it is damaged, the previous one is loaded instead, with a warning. Raises UserError, with nothing loaded, if that
    is damaged or missing too, or if tensors don't fit.
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
    """A checkpoint's tensors by file, and the rest. Raises Damaged, or UserError for a file that is not safetensors."""
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
    """Whether generators accept these states; a GPU's is only checked for its form, since there may be no GPU."""
    try:
        torch.Generator().set_state(states["cpu"])
    except (KeyError, TypeError, RuntimeError):
        return False
    return all(t.dtype == torch.uint8 and t.ndim == 1 for t in states.values())


def _of_this_format(state: dict[str, Any]) -> dict[str, Any]:
    """state.json as this format has it: formats 1 and 2 kept the totals of their only process in `progress`."""
    progress = state.get("progress")
    if state.get("format") == FORMAT or not isinstance(progress, dict):
        return state
    names = [f.name for f in fields(EpochTotals)]
    own = {name: progress[name] for name in names if name in progress}
    return state | {"progress": {k: v for k, v in progress.items() if k not in names}, "shares": [own]}


def _set_aside(last: Path) -> Path:
    """Move a damaged checkpoint aside: at the next save it would replace the intact previous one."""
    aside = last.with_name(last.name + ".damaged")
    with disk_errors(last.parent):
        remove(aside)
        last.rename(aside)
    return aside
