"""Engines: a network is run by PyTorch, ONNX Runtime or OpenVINO; `auto` takes the fastest whose answers agree."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from resnetlab.cache import keep, kept
from resnetlab.data.images import Data
from resnetlab.data.loading import evaluation_batch
from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError, check_choice
from resnetlab.machine import find_device
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.training.precision import autocast, has_fast_bf16
from resnetlab.use.classifier import Classifier
from resnetlab.use.exported import (
    RUNNERS,
    Engine,
    ExportedFile,
    check_runner,
    checked,
    file_engine,
    installed,
    suffix_of,
)
from resnetlab.use.exported_module import WithNormalisation, exported_module, noise
from resnetlab.use.onnx_graph import OPSET, to_onnx
from resnetlab.use.parity import TOLERANCE, Scores, compare

ENGINES = ("torch", *RUNNERS)
NAMES = ("auto", *ENGINES)
COMPARED = 16  # number of noise images on which answers are compared
BF16_TOLERANCE = 0.02  # for bf16, as TOLERANCE is for float32
MOMENT = 0.5  # seconds of measuring per engine; the last round is completed
ROUNDS = 7  # maximum number of rounds


@dataclass(frozen=True)
class Graph:
    """What an engine runs: a network with its normalisation, in float32 on the CPU, or an exported file."""

    shape: tuple[int, int, int]  # of an image, C H W
    module: WithNormalisation | None = None
    file: ExportedFile | None = None
    marks: str = ""  # identifies `module` together with its weights

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that can run it, installed or not; the others are compared with the first."""
        return self.file.engines if self.file else ENGINES


@dataclass(frozen=True)
class Tried:
    """The comparison of an engine with the reference engine."""

    engine: Engine
    same: int  # number of COMPARED images with the same likeliest class
    greatest_difference: float  # of scores
    greatest_score: float

    @property
    def agrees(self) -> bool:
        """Whether all likeliest classes are the same, and scores differ no more than the precision explains."""
        return self.same == COMPARED and self.greatest_difference <= self.allowed

    @property
    def allowed(self) -> float:
        """The greatest difference that the precision explains."""
        return self.greatest_score * (TOLERANCE if self.engine.precision != "bf16" else BF16_TOLERANCE)

    def __str__(self) -> str:
        return (
            f"{self.same} of {COMPARED} answers to noise are the same, and scores differ by at most "
            f"{self.greatest_difference:.2g}, where the largest is {self.greatest_score:.4g}"
        )


def graph_of(classifier: Classifier) -> Graph:
    """The graph of a classifier, for an engine to run."""
    if classifier.file:
        return Graph(classifier.shape, file=classifier.file)
    module = exported_module(classifier.net, classifier.normalise)
    return Graph(classifier.shape, module, marks=str(classifier.net.spec.to_dict()))


def engine_device(source: str | None, device: str, engine: str | None) -> str:
    """The device; `auto` is the CPU for engines other than torch, and for an exported file.

    source: a source that may be an exported file; None if none is accepted.
    """
    if device == "auto" and (engine in RUNNERS or (source is not None and suffix_of(source))):
        return "cpu"
    return find_device(device)


def with_engine(
    classifier: Classifier, name: str | None, *, batch: int, told: Callable[[str], object] = lambda _: None
) -> Classifier:
    """The classifier, run by an engine of NAMES; told is called with a line that says which, and why.

    name: None is torch, or the engine of an exported file. batch: the batch size that `auto` measures. Raises
    UserError for an engine that is not installed, can't run it, or answers differently.
    """
    if name is None and classifier.engine:
        return classifier
    name = name or "torch"
    check_device(classifier.device, name)
    if classifier.device != "cpu":
        return classifier
    return replace(classifier, engine=chosen(graph_of(classifier), name, batch=batch, told=told))


def check_device(device: str, name: str) -> None:
    """Raise UserError for an engine that is not among NAMES, or doesn't run on the device."""
    check_choice("engine", name, NAMES)
    if device != "cpu" and name not in ("auto", "torch"):
        raise UserError(f"engine={name} runs on the CPU: use --device cpu, or --engine torch.")


def chosen(graph: Graph, name: str, *, batch: int, told: Callable[[str], object] = lambda _: None) -> Engine:
    """The engine of that name, or for `auto` the fastest, as `with_engine` says."""
    if name == "auto":
        return fastest(candidates(graph, told), graph.shape, batch, told)
    if name not in graph.engines:
        raise UserError(
            f"engine={name} can't run {graph.file.path if graph.file else 'it'}: {' or '.join(graph.engines)} can."
        )
    engine, first = made(graph, name), next(filter(is_installed, graph.engines))
    if name != first:
        tried = compared(made(graph, first), engine, graph.shape)
        told(f"engine: {engine}; compared with {first}, {tried}")
        if not tried.agrees:
            raise UserError(f"engine={name}: its answers differ from {first}'s ({tried}); use --engine {first}.")
    return engine


def candidates(graph: Graph, told: Callable[[str], object]) -> list[Engine]:
    """The engines that `auto` measures: all installed ones, also in bf16 if this processor multiplies that faster.

    told is called with a line for each that can't be made. Raises UserError if none can be.
    """
    names = [name for name in graph.engines if is_installed(name)]
    wanted = [(name, "float32") for name in names or graph.engines[:1]]
    if graph.file is None and has_fast_bf16("cpu"):
        wanted += [(name, "bf16") for name in ("torch", "openvino") if name in names]
    found: list[Engine] = []
    for name, precision in wanted:
        try:
            found.append(made(graph, name, precision))
        except UserError as error:
            if not found and (name, precision) == wanted[-1]:
                raise
            told(f"engine: {name} in {precision} is not used: {error}")
    return found


def fastest(
    engines: Sequence[Engine], shape: tuple[int, int, int], batch: int, told: Callable[[str], object]
) -> Engine:
    """The fastest engine for a batch, of the first and those that agree with it."""
    tried: list[Tried] = []
    for engine in engines if len(engines) > 1 else ():
        try:
            tried.append(compared(engines[0], engine, shape))
        except UserError as error:
            if engine is engines[0]:
                raise
            told(f"engine: {engine} is not used: {error}")
    if len(tried) < 2:
        told(f"engine: {engines[0]}, the only installed one that can run it")
        return engines[0]
    agreeing = [one for one in tried if one.agrees]
    times = measured([one.engine for one in agreeing], noise(shape, batch))
    (least, best), *others = sorted(zip(times, agreeing, strict=True), key=lambda timed: timed[0])
    slower = f" ({', '.join(f'{one.engine} {taken:.3g}' for taken, one in others)})" if others else ""
    beside = f"; compared with {engines[0].name}, {best}" if best.engine is not engines[0] else ""
    told(f"engine: {best.engine}, {least:.3g} ms for a batch of {batch}{slower}{beside}")
    for one in tried:
        if not one.agrees:
            why = f"compared with {engines[0].name}, {one}, and {one.allowed:.2g} is allowed"
            told(f"engine: {one.engine} is not used: {why}")
    return best.engine


def compared(reference: Engine, engine: Engine, shape: tuple[int, int, int]) -> Tried:
    """Compare an engine's answers with another's, on COMPARED images of noise."""
    pixels = noise(shape, COMPARED)
    wanted, got = reference.scores(pixels), engine.scores(pixels)
    check = compare(lambda _: wanted, lambda _: got, pixels)
    same = int((wanted.argmax(1) == got.argmax(1)).sum())
    return Tried(engine, same, check.greatest_difference, check.greatest_score)


def measured(engines: Sequence[Engine], pixels: Tensor) -> list[float]:
    """The shortest time of each for the batch, in milliseconds; measured in turn, for MOMENT seconds each or ROUNDS."""
    for engine in engines:
        engine.scores(pixels)  # the first pass of a size allocates and chooses kernels
    least, began = [float("inf")] * len(engines), time.perf_counter()
    for _ in range(ROUNDS):
        for i, engine in enumerate(engines):
            started = time.perf_counter()
            engine.scores(pixels)
            least[i] = min(least[i], 1000 * (time.perf_counter() - started))
        if time.perf_counter() - began > MOMENT * len(engines):
            break
    return least


def is_installed(name: str) -> bool:
    """Whether an engine can be imported."""
    return name == "torch" or installed(name)


def evaluation_engine(
    engine: str | None, device: str, data: Data, told: Callable[[str], object] = lambda _: None
) -> Callable[[ResNet | VGG, Normalisation], Scores] | None:
    """A function that makes an engine of a network, if one is asked for; None: the network itself, on any device.

    told is called with a line for each network that says which engine runs it. Raises UserError.
    """
    if engine is not None:
        check_device(device, engine)
    if engine in (None, "torch") or device != "cpu":
        return None
    batch = min(evaluation_batch(data.test), len(data.test))

    def run(net: ResNet | VGG, normalise: Normalisation) -> Scores:
        graph = Graph(net.spec.image_shape, exported_module(net, normalise), marks=str(net.spec.to_dict()))
        return chosen(graph, str(engine), batch=batch, told=told).scores

    return run


def made(graph: Graph, name: str, precision: str = "float32") -> Engine:
    """The engine of that name. Raises UserError if its package is missing."""
    if graph.file:
        return file_engine(graph.file, name, precision)
    assert graph.module is not None
    if name == "torch":
        return Engine(name, precision, torch_scores(graph.module, precision))
    check_runner(name)
    path, content = kept_onnx(graph)
    scores = RUNNERS[name].scores((content,), precision)
    return Engine(name, precision, checked(path, scores))


def torch_scores(module: nn.Module, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """PyTorch itself, in the layout that is fastest on a CPU, channels last; batch norm is folded already."""
    laid = copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = {"float32": "fp32"}.get(precision, precision)  # the recipe's names

    @torch.inference_mode()
    def scores(pixels: Tensor) -> Tensor:
        with autocast(kind, "cpu"):
            return laid(pixels.contiguous(memory_format=torch.channels_last)).float()

    return scores


def kept_onnx(graph: Graph) -> tuple[Path, bytes]:
    """The network as an ONNX file, from the cache if it is there and whole; making it takes seconds."""
    assert graph.module is not None
    hashed = hashlib.sha256(f"{graph.marks} {graph.shape} {OPSET} {torch.__version__}".encode())
    for key, tensor in sorted(graph.module.state_dict().items()):
        hashed.update(f"{key} {tuple(tensor.shape)}".encode() + tensor.cpu().contiguous().numpy().tobytes())
    stem = f"engine-{hashed.hexdigest()[:24]}"
    if found := kept(stem, ".onnx"):
        return found
    content = to_onnx(graph.module, noise(graph.shape, 2), {})
    path, _ = keep(stem, ".onnx", content)
    return path, content
