"""Settling: a server goes on with the fastest engine once it is known, and gives that up where it ends before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resnetlab import build
from resnetlab.data.normalisation import imagenet
from resnetlab.use import settling as room
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import Engine, graph_of
from resnetlab.use.export import export
from resnetlab.use.exported_module import noise
from resnetlab.use.settling import settling

PATIENCE = 600  # seconds, which no test waits for unless something hangs

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this processor is fast in, here and in the process that measures: bf16's answers are not so near."""
    monkeypatch.setattr(room, "has_fast_bf16", lambda _: False)
    # Of that process alone: oneDNN would keep it for all later tests of this one.
    monkeypatch.setattr(room, "COMMAND", ("env", "ONEDNN_MAX_CPU_ISA=AVX2", *room.COMMAND))


@pytest.fixture
def classifier() -> Classifier:
    net = build("cifar_resnet8", num_classes=4, input_size=8, seed=0).eval()
    return Classifier(net, tuple("abcd"), imagenet(3), whole=True, device="cpu")


class Heard:
    """What was used and told, and when."""

    def __init__(self) -> None:
        self.used: list[Engine] = []
        self.told: list[str] = []
        self.something = threading.Event()

    def use(self, engine: Engine) -> None:
        self.used.append(engine)
        self.something.set()

    def tell(self, line: str) -> None:
        self.told.append(line)
        if "could not be tried" in line:
            self.something.set()


def test_no_module_of_the_working_folder_is_run(tmp_path: Path) -> None:
    (tmp_path / "pickle.py").write_text("open('executed', 'w')")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(room.COMMAND, cwd=tmp_path, env=environment, input=b"", capture_output=True, timeout=PATIENCE)
    assert not (tmp_path / "executed").exists()


def test_the_engine_that_is_used_answers_as_the_network(classifier: Classifier) -> None:
    heard = Heard()
    with settling(classifier, 4, heard.use, heard.tell) as start:
        assert not heard.used
        start()
        assert heard.something.wait(PATIENCE)
    (engine,) = heard.used
    assert heard.told[0].startswith(f"engine: {engine}, ")
    pixels = noise(classifier.shape, 3)
    alone = replace(classifier, engine=None).probabilities(pixels)
    assert torch.allclose(replace(classifier, engine=engine).probabilities(pixels), alone, atol=1e-4)


@pytest.mark.parametrize(("file", "fast", "wanted"), [(False, True, True), (False, False, False), (True, True, False)])
def test_one_engine_is_a_choice_where_bf16_is_fast_and_it_is_no_file(
    classifier: Classifier, file: bool, fast: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(classifier)
    if file:
        graph = replace(graph, file=SimpleNamespace(engines=("openvino",)))  # type: ignore[arg-type]
    monkeypatch.setattr(room, "find_spec", lambda package: package == "openvino" and file)
    monkeypatch.setattr(room, "has_fast_bf16", lambda _: fast)
    assert room._has_choice(graph) == wanted


def test_what_another_process_finds_is_used(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that only the engine that wins is loaded here."""
    found = {"name": "onnxruntime", "precision": "float32", "lines": ["engine: one", "engine: two"]}
    code = f"import sys; sys.stdin.buffer.read(); print({json.dumps(found)!r})"
    monkeypatch.setattr(room, "COMMAND", (sys.executable, "-c", code))
    heard = Heard()
    with settling(classifier, 4, heard.use, heard.tell) as start:
        start()
        assert heard.something.wait(PATIENCE)
    assert [(engine.name, engine.precision) for engine in heard.used] == [("onnxruntime", "float32")]
    assert heard.told == ["engine: one", "engine: two"]


def test_what_is_not_done_at_the_end_is_given_up(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that makes the graph hangs, and is killed."""
    monkeypatch.setattr(room, "COMMAND", (sys.executable, "-c", "import time; time.sleep(3600)"))
    heard = Heard()
    with settling(classifier, 4, heard.use, heard.tell) as start:
        start()
    assert (heard.used, heard.told) == ([], [])
    with settling(classifier, 4, heard.use, heard.tell):
        pass  # never started
    assert (heard.used, heard.told) == ([], [])


def test_where_the_graph_cannot_be_made_torch_goes_on(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.stdin.buffer.read(); sys.exit('MemoryError: too large')"
    monkeypatch.setattr(room, "COMMAND", (sys.executable, "-c", code))
    heard = Heard()
    with settling(classifier, 4, heard.use, heard.tell) as start:
        start()
        assert heard.something.wait(PATIENCE)
    assert not heard.used
    assert heard.told == ["engine: torch in float32; others could not be tried (MemoryError: too large)"]


def test_an_exported_file_is_served_without_heat_maps(
    classifier: Classifier, serving: Any, noise: Any, tmp_path: Path
) -> None:
    net = build("cifar_resnet8", seed=0).eval()
    whole = Classifier(net, tuple("abcdefghij"), imagenet(3), whole=True, device="cpu")
    export(whole, tmp_path / "net.onnx", "onnx")
    with serving("--engine", "onnxruntime", source=tmp_path / "net.onnx") as served:
        health = served.ask("GET", "/health").json()
        assert (health["engine"], health["precision"], health["units"]) == ("onnxruntime", "float32", [])
        assert health["classes"] == list("abcdefghij")
        probabilities = whole.probabilities(whole.prepare(noise(1))[None])[0]
        found = served.post("/predict?top=1", noise(1)).json()["classes"][0]
        assert found["class"] == whole.classes[int(probabilities.argmax())]
        assert found["probability"] == pytest.approx(float(probabilities.max()), abs=1e-4)
        answer = served.post("/explain", noise(1))
        assert answer.status == 501
        assert answer.json()["detail"].startswith("this server runs an exported file, which gives no heat maps")


def test_a_file_that_cannot_be_made_leaves_the_choice_among_the_other_engines(
    classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `auto` does elsewhere: the exporter fails where the versions of its packages don't fit each other."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fails(*_: object, **__: object) -> None:
        raise TypeError("odd")

    monkeypatch.setattr(torch.onnx, "export", fails)
    monkeypatch.setattr(room, "_step_back", lambda: None)
    graph = graph_of(classifier)
    room._make_file(graph)
    engine, lines = room._measured(graph, 2)
    assert engine.name == "torch"
    assert "onnxruntime in float32 is not used: torch's ONNX exporter fails (odd)" in lines[0]
