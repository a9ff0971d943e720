"""Which engine runs a network: whether its answers agree, how its time is taken, and what a GPU leaves to choose."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from resnetlab import build
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.use import engines
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import Tried, fastest, graph_of, with_engine
from resnetlab.use.exported import RUNNERS, Engine


def small() -> Classifier:
    net = build("cifar_resnet8", num_classes=4, input_size=8, seed=0).eval()
    return Classifier(net, tuple("abcd"), imagenet(), whole=True, device="cpu")


def answering(name: str, precision: str = "float32") -> Engine:
    """An engine whose scores are the means of the channels."""
    return Engine(name, precision, lambda pixels: pixels.float().mean((2, 3)))


@pytest.mark.parametrize(
    ("precision", "same", "difference", "agrees"),
    [
        ("float32", 16, 2e-4, True),
        ("float32", 16, 2.1e-4, False),
        ("float32", 15, 0.0, False),
        ("bf16", 16, 0.04, True),
        ("bf16", 16, 0.041, False),
        ("int8", 16, 0.001, False),
    ],
)
def test_an_engine_agrees_if_scores_differ_by_rounding_and_no_class_does(
    precision: str, same: int, difference: float, agrees: bool
) -> None:
    """Of the largest score, which is 2 here: 0.01 % in float32, 2 % in bf16."""
    assert Tried(answering("one", precision), same, difference, 2.0).agrees == agrees


def test_an_engine_that_cannot_be_compared_with_is_an_error() -> None:
    def cannot_run(pixels: Tensor) -> Tensor:
        raise UserError("net.onnx: can't be run (odd).")

    bad, near, told = Engine("bad", "float32", cannot_run), answering("near"), list[str]()
    with pytest.raises(UserError, match="net.onnx: can't be run"):
        fastest([bad, near], (3, 8, 8), 2, lambda _: None)
    assert fastest([near, bad], (3, 8, 8), 2, told.append) is near
    assert told == [
        "engine: bad in float32 is not used: net.onnx: can't be run (odd).",
        "engine: near in float32, the only installed one that can run it",
    ]


def test_a_time_is_the_least_of_rounds_that_take_half_a_second_each(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(engines, "time", clock)
    seconds = {"a": [9.0, 0.25, 0.125, 0.5, 9.0], "b": [9.0, 0.25, 0.375, 0.25, 9.0]}  # the first is not counted

    def engine(name: str) -> Engine:
        def scores(pixels: Tensor) -> Tensor:
            clock.now += seconds[name].pop(0)
            return pixels

        return Engine(name, "float32", scores)

    assert engines.measured([engine("a"), engine("b")], torch.zeros(1)) == [125, 250]
    assert seconds == {"a": [9.0], "b": [9.0]}, "after three rounds, which took more than a second"


@pytest.mark.parametrize("file", [False, True])
def test_auto_tries_bf16_where_the_processor_is_faster_in_it(monkeypatch: pytest.MonkeyPatch, file: bool) -> None:
    graph = graph_of(small())
    if file:
        graph = replace(graph, file=SimpleNamespace(engines=tuple(RUNNERS)))  # type: ignore[arg-type]
    monkeypatch.setattr(engines, "has_fast_bf16", lambda _: True)
    monkeypatch.setattr(engines, "is_installed", lambda name: True)
    monkeypatch.setattr(engines, "made", lambda _, name, precision: answering(name, precision))
    found = [(engine.name, engine.precision) for engine in engines.candidates(graph, lambda _: None)]
    in_float32 = [(name, "float32") for name in (RUNNERS if file else engines.ENGINES)]
    assert found == (in_float32 if file else [*in_float32, ("torch", "bf16"), ("openvino", "bf16")])


def test_where_no_engine_can_be_made_the_last_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object, name: str, precision: str) -> Engine:
        raise UserError(f"{name} is odd.")

    told = list[str]()
    monkeypatch.setattr(engines, "has_fast_bf16", lambda _: False)
    monkeypatch.setattr(engines, "is_installed", lambda name: True)
    monkeypatch.setattr(engines, "made", fails)
    with pytest.raises(UserError, match=f"{engines.ENGINES[-1]} is odd"):
        engines.candidates(graph_of(small()), told.append)
    assert told == [f"engine: {name} in float32 is not used: {name} is odd." for name in engines.ENGINES[:-1]]


@pytest.mark.parametrize(
    ("source", "device", "engine", "wanted"),
    [
        ("run", "auto", None, "cuda"),
        ("run", "auto", "torch", "cuda"),
        ("run", "auto", "openvino", "cpu"),
        (None, "auto", "onnxruntime", "cpu"),
        ("net.onnx", "auto", None, "cpu"),
        ("net.onnx", "cuda", None, "cuda"),
    ],
)
def test_auto_is_the_cpu_for_what_runs_there_alone(
    monkeypatch: pytest.MonkeyPatch, source: str | None, device: str, engine: str | None, wanted: str
) -> None:
    monkeypatch.setattr(engines, "find_device", {"auto": "cuda", "cuda": "cuda"}.__getitem__)
    assert engines.engine_device(source, device, engine) == wanted


def test_on_a_gpu_torch_runs_the_network_itself() -> None:
    on_gpu, told = replace(small(), device="cuda"), list[str]()
    for name in (None, "auto", "torch"):
        assert with_engine(on_gpu, name, batch=1, told=told.append) is on_gpu
        assert engines.evaluation_engine(name, "cuda", None, told.append) is None  # type: ignore[arg-type]
    for call in (
        lambda: with_engine(on_gpu, "openvino", batch=1),
        lambda: engines.evaluation_engine("openvino", "cuda", None),  # type: ignore[arg-type]
    ):
        with pytest.raises(UserError, match="engine=openvino runs on the CPU: use --device cpu, or --engine torch"):
            call()
    assert told == []
