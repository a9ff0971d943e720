"""The networks as a table: the cost of each, the error that its paper reports, and its available weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from resnetlab.errors import UserError, did_you_mean, shown
from resnetlab.measuring.complexity import costs
from resnetlab.measuring.reported import reported
from resnetlab.nets.zoo import Spec, names, spec
from resnetlab.weights import packaged
from resnetlab.weights.published import TORCHVISION


@dataclass(frozen=True)
class NamedWeights:
    """Published weights with a name, and their accuracy: measured by us, or as their project states it."""

    source: str  # e.g. "pretrained:cifar_resnet20"
    data: str  # whose test images: "cifar10" or "imagenet"
    top1: float  # %, one crop


@dataclass(frozen=True)
class NetworkRow:
    """A network of the zoo."""

    name: str
    depth: int
    input: tuple[int, int, int]  # C H W
    parameters: int
    multiply_adds: int  # for one image, as the papers count
    paper_error: float | None  # %; CIFAR-10, or ImageNet's top-1 with 10 crops
    paper: str  # the paper, and the place in it; "" if none reports an error
    weights: tuple[NamedWeights, ...]

    @property
    def top1(self) -> float | None:
        """The best accuracy of its weights, in %."""
        return max((w.top1 for w in self.weights), default=None)


# The orders of a table: smallest first, for accuracy best first; rows without a value come last.
ORDERS: dict[str, Callable[[NetworkRow], tuple[bool, float | str]]] = {
    "name": lambda row: (False, row.name),
    "depth": lambda row: (False, row.depth),
    "parameters": lambda row: (False, row.parameters),
    "multiply-adds": lambda row: (False, row.multiply_adds),
    "error": lambda row: (row.paper_error is None, row.paper_error or 0),
    "accuracy": lambda row: (row.top1 is None, -(row.top1 or 0)),
}


def network_rows(pattern: str | None = None, order: str | None = None) -> list[NetworkRow]:
    """The networks whose name matches, in the order of the zoo or of ORDERS.

    A pattern with "*", "?" or "[" has to match the whole name, any other a part of it. The name of a network that isn't
    in the list, such as cifar_resnet68, matches that network. Raises UserError if nothing matches.
    """
    rows = [_row(spec(name)) for name in _matching(pattern)]
    return sorted(rows, key=ORDERS[order]) if order else rows


def named_weights(name: str) -> tuple[NamedWeights, ...]:
    """The weights of a network that come with the package, and those that torchvision publishes."""
    found = []
    if name in packaged.names():
        measured = packaged.stated(name).measured
        found.append(NamedWeights(f"pretrained:{name}", measured["data"], measured["top1"]))
    for published, file in TORCHVISION.items():
        if published.removesuffix(".v2") == name:
            found.append(NamedWeights(f"torchvision:{published}", "imagenet", file.top1))
    return tuple(found)


def _matching(pattern: str | None) -> Iterable[str]:
    if pattern is None:
        return names()
    wild = any(c in pattern for c in "*?[")
    found = [name for name in names() if (fnmatchcase(name, pattern) if wild else pattern in name)]
    if found:
        return found
    if wild:
        raise UserError(f"no network's name matches {shown(pattern)}.{did_you_mean(pattern.strip('*'), names())}")
    return [spec(pattern).name]  # raises UserError with the nearest names


def _row(net: Spec) -> NetworkRow:
    parameters, multiply_adds = costs(net)
    printed = reported(net)
    error = printed[1].error if printed else None
    return NetworkRow(
        name=net.name,
        depth=net.depth,
        input=net.image_shape,
        parameters=parameters,
        multiply_adds=multiply_adds,
        paper_error=error,
        paper=printed[1].source if printed and error else "",
        weights=named_weights(net.name),
    )
