"""Features of images as a network sees them: embeddings, and which images are nearest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from resnetlab.data.folder import class_names
from resnetlab.data.resizing import USUAL
from resnetlab.errors import UserError
from resnetlab.nets.folding import folded
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import Graph, check_device, chosen
from resnetlab.use.explain import unit_of
from resnetlab.use.exported_module import WithNormalisation
from resnetlab.use.parity import Scores
from resnetlab.use.predict import prepared

ROWS = 1024  # number of queries whose similarities are held in memory at once


@dataclass(frozen=True)
class Features:
    """Embeddings: one row of `values`, float32 N D, for each file."""

    files: tuple[str, ...]
    labels: tuple[str, ...]  # the name of each image's folder if a folder was searched; else ""
    values: np.ndarray
    network: str  # identifies network, weights and unit; only features with the same can be compared


@dataclass(frozen=True)
class Neighbour:
    """Another image, and the cosine of the angle between the two embeddings."""

    file: str
    label: str
    cosine: float


def embed(net: ResNet | VGG, x: Tensor, unit: str | None = None) -> Tensor:
    """The input of the last fully connected layer, or a unit's output averaged over positions: N C H W -> N D.

    In a residual net, that input is the output of the global average pool. Raises UserError for an unknown unit;
    `resnetlab.use.explain.units_of` lists the units.
    """
    with torch.inference_mode():
        return _embedded(net, x, unit)


def _embedded(net: ResNet | VGG, x: Tensor, unit: str | None) -> Tensor:
    kept: list[Tensor] = []
    if unit is None:
        hook = net.fc.register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    else:
        hook = unit_of(net, unit).register_forward_hook(lambda module, inputs, output: kept.append(output.mean((2, 3))))
    with hook:
        net(x)
    return kept[0]


class Embedding(nn.Module):
    """A network as a module that returns what `embed` returns."""

    def __init__(self, net: ResNet | VGG, unit: str | None) -> None:
        super().__init__()
        self.net, self.unit = net, unit

    def forward(self, x: Tensor) -> Tensor:
        return _embedded(self.net, x, self.unit)


def embedder(
    classifier: Classifier,
    unit: str | None,
    engine: str,
    *,
    batch: int,
    told: Callable[[str], object] = lambda _: None,
) -> Scores:
    """A function from prepared images, uint8 N C H W, to features, float32 N D on the CPU; engines as in `with_engine`.

    Raises UserError for an unknown unit, and as `with_engine` does.
    """
    net = classifier.net
    if unit is not None:
        unit_of(net, unit)
    check_device(classifier.device, engine)
    if classifier.device != "cpu":
        return lambda pixels: embed(net, classifier.input(pixels), unit).float().cpu()
    module = WithNormalisation(Embedding(folded(net), unit), classifier.normalise).eval().requires_grad_(False)
    graph = Graph(classifier.shape, module, marks=f"{net.spec.to_dict()} {unit}")
    return chosen(graph, engine, batch=batch, told=told).scores


def features(
    classifier: Classifier,
    images: list[tuple[Path, str]],
    run: Scores,
    *,
    unit: str | None = None,
    batch: int = 32,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> tuple[Features, list[tuple[Path, str]]]:
    """Embeddings of the images that can be read, in order; and the unreadable ones, each with the reason.

    images: files and their labels; run: the function of `embedder` for the unit. Raises UserError if none can be read.
    """
    found: list[tuple[Path, str]] = []
    unreadable: list[tuple[Path, str]] = []
    rows: list[np.ndarray] = []
    for first in range(0, len(images), batch):
        group = images[first : first + batch]
        read = [(path, label, prepared(classifier, path)) for path, label in group]
        found += [(path, label) for path, label, pixels in read if isinstance(pixels, Tensor)]
        unreadable += [(path, pixels) for path, _, pixels in read if not isinstance(pixels, Tensor)]
        if whole := [pixels for _, _, pixels in read if isinstance(pixels, Tensor)]:
            rows.append(run(torch.stack(whole)).numpy())
        progress(first + len(group), len(images))
    if not rows:
        raise UserError(f"no image can be read, e.g. {unreadable[0][0]}: {unreadable[0][1]}.")
    files = class_names(str(path) for path, _ in found)  # bytes that are not UTF-8 become escapes
    labels = class_names(label for _, label in found)
    return Features(files, labels, np.concatenate(rows), network_mark(classifier, unit)), unreadable


def network_mark(classifier: Classifier, unit: str | None) -> str:
    """The mark of a network's features: its name, the unit, and a hash of its weights and preprocessing."""
    hashed = hashlib.sha256(f"{classifier.size} {classifier.whole}".encode())
    if classifier.resizing != USUAL:
        hashed.update(str(classifier.resizing.to_dict()).encode())
    state = classifier.net.state_dict() | {"mean": classifier.normalise.mean, "std": classifier.normalise.std}
    for name, tensor in sorted(state.items()):
        hashed.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return f"{classifier.net.spec.name} {unit or 'last'} {hashed.hexdigest()[:16]}"


def check_same_network(theirs: str, ours: str) -> None:
    """Raise UserError unless features are from the same network and unit (`network_mark`)."""
    if theirs != ours:
        raise UserError(
            f"features of {theirs} can't be compared with those of {ours}: compute them again with this one."
        )


def nearest(queries: Features, among: Features, count: int) -> list[tuple[Neighbour, ...]]:
    """The `count` images with the highest cosine for each query, highest first; ties keep their order.

    If `among` is `queries` itself, an image is not its own neighbour. Raises UserError for features of different
    networks.
    """
    check_same_network(among.network, queries.network)
    ours, theirs = queries.values.shape[1], among.values.shape[1]
    if ours != theirs:
        raise UserError(f"features of {theirs} numbers can't be compared with those of {ours}: compute them again.")
    left, right = _directions(queries.values), _directions(among.values)
    found = []
    for first in range(0, len(left), ROWS):
        cosines = left[first : first + ROWS] @ right.T  # rows N
        for row, values in enumerate(cosines, first):
            order = np.argsort(-values, kind="stable")
            order = order[order != row] if among is queries else order
            found.append(
                tuple(Neighbour(among.files[i], among.labels[i], float(values[i])) for i in order[:count].tolist())
            )
    return found


def _directions(values: np.ndarray) -> np.ndarray:
    """Each row divided by its length; a row of zeros is left as it is."""
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.finfo(np.float32).tiny)
