"""`--match order`: pairs a file's tensors with a network's by their order and shapes, whatever the file's names are.

The rules, which docs/weights.md states:

1. Tensors belong to one layer if their names differ only in the last part. A batch norm directly after a convolution
   with as many channels is paired with it, if that holds for every batch norm of the file, as it does in the network.
2. The k-th layer of a shape in the file is the network's k-th layer of that shape.
3. If the file's names mark as many convolutions as the network has projections (SHORTCUT), marked ones are paired with
   projections only.
4. An ambiguous file is refused: shapes that occur in branches and shortcuts, if the names mark neither; a layer that
   would belong to a later unit than the next layer in the file; names whose numbers decrease.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.nets import zoo
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec
from resnetlab.weights.naming import State
from resnetlab.weights.wrapping import is_no_networks, without_wrappers

SHORTCUT = re.compile(r"short_?cut|down_?sample|skip|proj|identity", re.IGNORECASE)
UNIT = re.compile(r"layer\d+\.\d+")


@dataclass(frozen=True)
class Layer:
    """A convolution, a batch norm or a fully connected layer: the tensors of one module, by their last names."""

    name: str
    tensors: State

    @property
    def weight(self) -> Tensor:
        """Its weight, or whatever its first tensor is."""
        return self.tensors.get("weight", next(iter(self.tensors.values())))

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.weight.ndim == 4

    @property
    def channels(self) -> int:
        """How many maps it gives."""
        return len(self.weight)

    @property
    def is_norm(self) -> bool:
        """Whether it is a batch norm."""
        return "running_mean" in self.tensors


Block = tuple[Layer, ...]  # a layer, or a convolution with its batch norm


@dataclass(frozen=True)
class Matched:
    """A network's tensors under our names, and the pairs of layers."""

    spec: zoo.Spec
    state: State
    pairs: tuple[tuple[Layer, Layer], ...]  # the file's, ours
    left_out: tuple[str, ...]  # names of what is no part of a network

    def table(self) -> list[str]:
        """The pairs in lines."""
        width = max(len(theirs.name) for theirs, _ in self.pairs)
        shapes = ["x".join(map(str, theirs.weight.shape)) for theirs, _ in self.pairs]
        return [f"{t.name:<{width}} -> {o.name} ({shape})" for (t, o), shape in zip(self.pairs, shapes, strict=True)]


def match_order(state: State, net: str | None) -> Matched:
    """The tensors of a file, in its order, as those of the network called `net`.

    Unless `net` states them, the file decides the number of classes, and whether shortcuts of option A become
    projections. Raises UserError if no network is named, and if layers can't be paired, or in more than one way.
    """
    if not net:
        raise UserError("--match order needs the network's name: give --net")
    state = without_wrappers(state)
    left_out = tuple(key for key, tensor in state.items() if is_no_networks(key, tensor))
    theirs = layers_of({key: tensor for key, tensor in state.items() if key not in left_out})
    _check_order([layer.name for layer in theirs])
    spec = _fitted(net, theirs)
    made = zoo.on_meta(spec)
    if not isinstance(made, ResNet):
        raise UserError(f"--match order is for residual and plain networks, and {net} is neither")
    pairs = paired(theirs, layers_of(made.state_dict()), net, in_blocks=made.spec.order == "post")
    found = {f"{ours.name}.{last}": tensor for layer, ours in pairs for last, tensor in layer.tensors.items()}
    return Matched(spec, found, tuple(pairs), left_out)


def layers_of(state: State) -> list[Layer]:
    """The layers in the order of their first tensors; a last 1x1 convolution becomes a fully connected layer."""
    groups: dict[str, State] = defaultdict(dict)
    for key, tensor in state.items():
        name, _, last = key.rpartition(".")
        groups[name][last] = tensor
    layers = [Layer(name, tensors) for name, tensors in groups.items()]
    if layers and layers[-1].is_conv and tuple(layers[-1].weight.shape[2:]) == (1, 1):
        flat = {last: t.flatten(1) if t.ndim == 4 else t for last, t in layers[-1].tensors.items()}
        layers[-1] = Layer(layers[-1].name, flat)
    return layers


def paired(theirs: Sequence[Layer], ours: Sequence[Layer], net: str, *, in_blocks: bool) -> list[tuple[Layer, Layer]]:
    """Each layer of the file with its counterpart in the network, in the file's order.

    in_blocks: whether the network's batch norms belong to the convolutions before them, as in the post-activation
    order. Raises UserError as `match_order`.
    """
    projections = sum(layer.is_conv and _is_shortcut(layer) for layer in ours)
    marked = projections == sum(layer.is_conv and _is_shortcut(layer) for layer in theirs)
    left, right = (blocks_of(theirs), blocks_of(ours)) if in_blocks else (None, None)
    if not left or not right:
        left, right = [(layer,) for layer in theirs], [(layer,) for layer in ours]
    groups: dict[tuple[object, ...], tuple[list[Block], list[Block]]] = defaultdict(lambda: ([], []))
    for side, blocks in enumerate((left, right)):
        for block in blocks:
            shapes = (tuple(layer.weight.shape) for layer in block)
            groups[marked and _is_shortcut(block[0]), *shapes][side].append(block)
    for many, few in groups.values():
        _check_group(many, few, net)
    found = {id(a): b for many, few in groups.values() for a, b in zip(many, few, strict=True)}
    shared = {id(a) for many, _ in groups.values() if len(many) > 1 for a in many}
    _check_units([(a[0], found[id(a)][0]) for a in left if id(a) in shared], ours, net)
    return [pair for a in left for pair in zip(a, found[id(a)], strict=True)]


def blocks_of(layers: Sequence[Layer]) -> list[Block] | None:
    """Each convolution with the batch norm right behind it, other layers alone; None if a batch norm stands alone."""
    blocks: list[Block] = []
    for layer in layers:
        if not layer.is_norm:
            blocks.append((layer,))
        elif blocks and len(blocks[-1]) == 1 and blocks[-1][0].is_conv and blocks[-1][0].channels == layer.channels:
            blocks[-1] = (*blocks[-1], layer)
        else:
            return None
    return blocks


def _is_shortcut(layer: Layer) -> bool:
    """Whether its name says that it belongs to a shortcut; ours are called downsample."""
    return bool(SHORTCUT.search(layer.name))


def _check_group(theirs: list[Block], ours: list[Block], net: str) -> None:
    """Raise UserError unless the file has as many layers of a shape as the network, and their roles are clear."""
    if len(theirs) != len(ours):
        shape = "x".join(map(str, (theirs or ours)[0][0].weight.shape))
        example = f"e.g. {(theirs or ours)[0][0].name}" if theirs and ours else (theirs or ours)[0][0].name
        raise UserError(
            f"does not fit {net}: {len(theirs)} of its layers have weights of {shape} ({example}), but {len(ours)} of "
            "the network's"
        )
    shortcuts, others = ([b[0].name for b in ours if _is_shortcut(b[0]) == kind] for kind in (True, False))
    if shortcuts and others:
        raise UserError(
            f"its order is ambiguous for {net}: {others[0]} and {shortcuts[0]} have the same shape, and its names do "
            "not say which layers are shortcuts"
        )


def _check_units(pairs: Sequence[tuple[Layer, Layer]], ours: Sequence[Layer], net: str) -> None:
    """Raise UserError unless layers whose shape others have too follow each other unit by unit, as the network's do."""
    places: dict[str, int] = {}  # of the network's layers, by unit; before the first one and after the last one, too
    for number, (_, layers) in enumerate(groupby(ours, _unit)):
        places |= {layer.name: number for layer in layers}
    for (first, before), (second, after) in pairwise(pairs):
        if places[after.name] < places[before.name]:
            raise UserError(
                f"its order is ambiguous for {net}: {second.name} would be {after.name}, but comes after {first.name}, "
                f"which would be {before.name}"
            )


def _unit(layer: Layer) -> str:
    """The unit that a layer of ours belongs to; "" outside of units."""
    found = UNIT.match(layer.name)
    return found[0] if found else ""


def _check_order(names: list[str]) -> None:
    """Raise UserError where a number in the names falls below one before it, as where unit 10 comes before unit 2."""
    highest: dict[str, tuple[int, str]] = {}  # by what stands before the number
    for name in names:
        for digits in re.finditer(r"\d{1,9}", name):
            before, number = name[: digits.start()], int(digits[0])
            if number < (found := highest.get(before, (0, "")))[0]:
                raise UserError(f"its order is ambiguous: {name} comes after {found[1]}, as if sorted by name")
            highest[before] = number, name


def _fitted(net: str, theirs: Sequence[Layer]) -> zoo.Spec:
    """The network of this name with the file's number of classes and channels, and projections if the file has them."""
    spec, known = zoo.spec(net), dict[str, object]()
    if theirs and theirs[0].weight.ndim == 4:
        known["in_channels"] = theirs[0].weight.shape[1]
    if theirs and theirs[-1].weight.ndim == 2:
        known["num_classes"] = len(theirs[-1].weight)
    if isinstance(spec, NetSpec) and spec.pads_zeros and spec.zero_pad == "after":
        projecting = layers_of(zoo.on_meta(spec.override(shortcut="B")).state_dict())
        if sum(layer.is_conv for layer in projecting) == sum(layer.is_conv for layer in theirs):
            known["shortcut"] = "B"
    return zoo.spec(net, **{name: value for name, value in known.items() if name not in net})
