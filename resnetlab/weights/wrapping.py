"""Removes what surrounds a network in a weight file: prefixes, averages, counters, losses, other heads.

The rules, which docs/weights.md states:

1. Names of wrappers (WRAPPERS) are removed from every name, wherever they occur.
2. Counters, and tensors of a loss or a metric, are not part of a network, and are left out (`is_no_networks`).
3. A network is found by its first unit's first convolution; the text before that name is its prefix. Of several
   networks one is taken by `choose`; tensors under the prefixes of the others are skipped.
4. A last layer with a single two-dimensional weight, or a 1x1 convolution, is the fc layer, whatever its name, unless
   it makes an embedding (PROJECTIONS, MoCo's queue); anything else is another head.
5. Everything else stays, so that tensors that are not part of our network are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.weights.naming import NAMING_SCHEMES, State, renamed

# DistributedDataParallel, torch.compile, FSDP, checkpointed activations, Opacus; a training's own class.
WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_module", "model", "net"}
# By their last name: of averages (torch, LitEma, ema_pytorch), of thop, of MoCo, of trainings.
COUNTERS = {
    *("n_averaged", "num_updates", "initted", "total_ops", "total_params", "queue", "queue_ptr"),
    *("epoch", "best_acc", "best_acc1", "best_prec1"),
}
# By their first name: a loss's weights by class, a metric's sums.
LOSSES = re.compile(
    r"(\w+_)?(loss|losses|criterion|criteria|loss_fn|loss_func|loss_function|metric|metrics|acc|accuracy)(_?\d+)?"
    r"|cross_entropy|ce|(class|label|loss)_weights?|pos_weight"
)
# Where a network's averaged weights lie, beside those that were trained.
AVERAGED = re.compile(
    r"(\w+_)?(ema|swa|averaged?)(_\w+)?|(avg|mean)_(model|net|network)|(model|net|network)_(avg|mean)|shadow"
    r"|encoder_k|momentum_\w+|target_(encoder|network|net|model)|teacher(_\w+)?"
)
# Under what name trainings save the network, in the order in which one of several is taken.
TRAINED = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    "student",
)
HEADS = {"fc", "head", "heads", "cls_head", "classifier", "linear", "last_linear", "output", "logits"}
# Layers whose outputs are no classes, as self-supervised trainings and searches for similar images have them.
PROJECTIONS = re.compile(
    r"(\w+_)?(proj\w*|embed\w*|feat\w*|neck|bottleneck|predictor|prediction_head|prototypes?|mlp|gate)(_\w+)?"
)
FIRST = "|".join(dict.fromkeys("|".join(scheme.first for scheme in NAMING_SCHEMES.values()).split("|")))
CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}  # of Sequential
CHILDREN_FIRST, VGG_FIRST = r"4\.0\.conv1\.weight", r"features\.0\.weight"
A_HEAD = re.compile(r"(fc|linear|fcOut|classifier\.6)\.weight|fc\d*\.0")  # as the schemes name them, but fb


@dataclass(frozen=True)
class Unwrapped:
    """A network's tensors by its project's names, and what else the file had."""

    state: State
    left_out: tuple[str, ...] = ()  # names of counters and the like
    choice: str = ""  # which of several networks it is, in words
    # Of a network without a fully connected layer at its end: the names of what it has there instead, maybe none.
    other_head: tuple[str, ...] | None = None


def unwrapped(state: State, which: str = "last") -> Unwrapped:
    """The network among the tensors of a file, by the rules above; `which`: "ema" for its averaged weights.

    If no network is found, the tensors are returned as they are. Raises UserError for duplicate names, for several
    networks of which none can be chosen, and if averages are requested and there are none.
    """
    state = without_wrappers(state)
    firsts = re.compile(rf"(.*\.)?({FIRST}|{CHILDREN_FIRST}|{VGG_FIRST})")
    prefixes = sorted({found[1] or "" for key in state if (found := firsts.fullmatch(key))})
    no_networks = tuple(key for key, tensor in state.items() if is_no_networks(key, tensor))
    if not prefixes:
        return Unwrapped({key: tensor for key, tensor in state.items() if key not in no_networks}, no_networks)
    if which == "ema" and len(prefixes) == 1 and any(key.endswith("n_averaged") for key in no_networks):
        which = "last"  # all of it is torch's AveragedModel
    taken, choice = choose([prefix.rstrip(".") for prefix in prefixes], which)
    prefix = prefixes[taken]

    def owner(key: str) -> str | None:
        return max((p for p in prefixes if key.startswith(p)), key=len, default=None)

    left = {key: tensor for key, tensor in state.items() if key not in no_networks}
    own = {key.removeprefix(prefix): tensor for key, tensor in left.items() if owner(key) == prefix}
    beside = {key: tensor for key, tensor in left.items() if owner(key) is None}
    if any(re.fullmatch(CHILDREN_FIRST, key) for key in own):
        own = renamed(own, _of_children)
    queues = [tensor for key, tensor in state.items() if key.rpartition(".")[2] == "queue"]
    return _with_head(own, beside, prefix, queues, Unwrapped({}, no_networks, choice))


def _of_children(key: str) -> str:
    """torchvision's name for a numbered child of Sequential(*net.children()); the last ones are the head."""
    number, _, rest = key.partition(".")
    return f"{CHILDREN[number]}.{rest}" if number in CHILDREN else f"fc.{key}" if number.isdigit() else key


def without_wrappers(state: State) -> State:
    """The tensors by their names in what was wrapped. Raises UserError for duplicate names."""
    return renamed(state, lambda key: ".".join(part for part in key.split(".") if part not in WRAPPERS))


def is_no_networks(key: str, tensor: Tensor) -> bool:
    """Whether a tensor is not part of a network: a counter (by its name, or a single integer), a loss's, a metric's.

    Batch norm's own counter is part of the network.
    """
    first, last = key.partition(".")[0], key.rpartition(".")[2]
    counts = tensor.numel() == 1 and not tensor.is_floating_point() and not tensor.is_complex()
    return last in COUNTERS or bool(LOSSES.fullmatch(first)) or (counts and last != "num_batches_tracked")


def is_average(name: str) -> bool:
    """Whether averaged weights lie under this name."""
    return any(map(AVERAGED.fullmatch, name.split(".")))


def choose(names: Sequence[str], which: str, order: Sequence[str] = ()) -> tuple[int, str]:
    """Choose one of several networks by their names, which are keys joined with dots; also the choice in words.

    which: "ema" for the averaged one, by AVERAGED; otherwise one that is not averaged, if there is one. Of several, it
    is the one with the part of a name that comes first in `order`. Raises UserError if that leaves more than one.
    """
    averages = [i for i, name in enumerate(names) if is_average(name)]
    if which == "ema" and not averages:
        raise UserError("holds no averaged weights; leave --which ema out")
    those = averages if which == "ema" else [i for i in range(len(names)) if i not in averages] or averages

    def rank(i: int) -> int:
        return min([order.index(part) for part in names[i].split(".") if part in order], default=len(order))

    first = [i for i in those if rank(i) == min(map(rank, those))]
    if len(first) > 1:
        raise UserError(
            f"holds several networks ({', '.join(names[i] or 'one without a prefix' for i in first)}), and it is not "
            "clear which one to use; save only one of them"
        )
    taken = first[0]
    if len(names) == 1:
        return taken, f"using {names[0]}, averaged weights: it holds no others" if averages else ""
    words = f"using {names[taken] or 'those without a prefix'}" + (", averaged weights" if taken in averages else "")
    words += f"; skipped {', '.join(name or 'those without a prefix' for name in names if name != names[taken])}"
    return taken, words + ("; --which ema uses the averaged ones" if averages and taken not in averages else "")


def _flat(tensor: Tensor) -> Tensor:
    """A 1x1 convolution's weight as that of a fully connected layer; other tensors as they are."""
    return tensor.flatten(1) if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor


def _with_head(own: State, beside: State, prefix: str, queues: list[Tensor], found: Unwrapped) -> Unwrapped:
    """The network with its fc layer under that name, whatever it was called; or with another head split off.

    prefix: of its own tensors. queues: MoCo's, of embeddings.
    """
    everything = own | beside
    fb_head = any(re.fullmatch(r"\d+(\.1)?\.weight", key) and tensor.ndim == 2 for key, tensor in own.items())
    known = {key: _flat(tensor) for key, tensor in own.items() if A_HEAD.fullmatch(key)}
    embeds = any(t.ndim == 2 and len(t) == min(queue.shape, default=0) for t in known.values() for queue in queues)
    if (fb_head or known or any(re.fullmatch(VGG_FIRST, key) for key in own)) and not embeds:
        return replace(found, state=everything | known)
    body = {key.partition(".")[0] for key, tensor in everything.items() if max(tensor.shape[2:], default=1) > 1}
    heads = {
        key: _flat(tensor)
        for key, tensor in everything.items()
        if (first := key.partition(".")[0]) in HEADS
        or (PROJECTIONS.fullmatch(first) and first not in body)
        or (key in beside and _is_after(first, prefix))
    }
    if not heads:  # perhaps one with a name of its own
        layers = {key.removesuffix(".weight") for key, tensor in everything.items() if tensor.ndim == 2}
        heads = {key: t for key, t in everything.items() if key.count(".") == 1 and key.partition(".")[0] in layers}
    if any(tensor.ndim > 2 for tensor in heads.values()):
        heads = {}
    state = {key: tensor for key, tensor in everything.items() if key not in heads}
    weights = [key.removesuffix(".weight") for key, t in heads.items() if t.ndim == 2 and key.endswith(".weight")]
    is_classes = not embeds and not any(PROJECTIONS.fullmatch(key.partition(".")[0]) for key in heads)
    if is_classes and len(weights) == 1 and heads.keys() == {f"{weights[0]}.{name}" for name in ("weight", "bias")}:
        fc = {f"fc.{key.rpartition('.')[2]}": tensor for key, tensor in heads.items()}
        return replace(found, state=state | fc)
    return replace(found, state=state, other_head=tuple(heads))


def _is_after(first: str, prefix: str) -> bool:
    """Whether a child of Sequential(the network, ..., the head) comes after the network, whose prefix is given."""
    own = prefix.partition(".")[0]
    return first.isdigit() and own.isdigit() and int(first) > int(own)
