"""Engines: each answers as PyTorch, `auto` takes the fastest that does, and exported files are run or refused."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.use import engines, exported
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import fastest, graph_of, kept_onnx, torch_scores, with_engine
from resnetlab.use.exported import Engine
from resnetlab.use.exported_module import noise
from resnetlab.use.onnx_graph import import_trouble
from resnetlab.use.parity import TOLERANCE
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

Captured = pytest.CaptureFixture[str]
OTHERS = ("onnxruntime", "openvino")

pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this processor is fast in: `auto` tries no bf16, whose answers are not so near."""
    monkeypatch.setattr(engines, "has_fast_bf16", lambda _: False)


def small(**changes: Any) -> Classifier:
    net = build("cifar_resnet8", num_classes=4, input_size=8, seed=0, **changes).eval()
    return Classifier(net, tuple("abcd"), imagenet(net.spec.in_channels), whole=True, device="cpu")


@pytest.mark.parametrize("name", engines.ENGINES)
def test_every_engine_answers_as_the_network_to_batches_of_any_size(name: str, run: Path) -> None:
    plain, told = Classifier.open(run), list[str]()
    engine = with_engine(plain, name, batch=4, told=told.append).engine
    assert engine
    assert (engine.name, engine.precision) == (name, "float32")
    answers = []
    for count in (1, 5, 3):
        pixels = noise(plain.shape, count)
        with torch.inference_mode():
            wanted = plain.net(plain.input(pixels))
        answers.append((engine.scores(pixels), wanted))
    for got, wanted in answers:  # an engine that gives its answers a place must not write the next ones there
        assert got.dtype == torch.float32
        assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert [line.startswith(f"engine: {name} in float32; compared with torch, 16 of 16") for line in told] == (
        [True] if name in OTHERS else []
    )


@pytest.mark.parametrize("name", ["cifar_preresnet8", "cifar_resnet8(mix=ExclusiveGate(-1), se_reduction=4)"])
def test_torch_with_folded_batch_norm_and_channels_last_answers_the_same(name: str) -> None:
    net = build(name, num_classes=4, seed=0).eval()
    classifier = Classifier(net, tuple("abcd"), imagenet(3), whole=True, device="cpu")
    module = graph_of(classifier).module
    assert module
    pixels = noise(classifier.shape, 6)
    with torch.inference_mode():
        wanted = net(classifier.input(pixels))
    assert (torch_scores(module)(pixels) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert 0 < (torch_scores(module, "bf16")(pixels) - wanted).abs().max() <= 0.05 * wanted.abs().max()


@pytest.mark.slow
def test_the_graph_is_made_once_and_anew_for_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # where no other test has put the same graph
    made, right = list[int](), engines.to_onnx
    monkeypatch.setattr(engines, "to_onnx", lambda *given: made.append(1) or right(*given))
    one, other = small(), small()
    with torch.no_grad():
        other.net.get_parameter("fc.bias").add_(1)
    paths = [kept_onnx(graph_of(classifier))[0] for classifier in (one, one, other, one)]
    assert len(made) == 2
    assert paths[0] == paths[1] == paths[3] != paths[2]
    same_weights = replace(graph_of(one), marks="another network with tensors of the same names")
    assert kept_onnx(same_weights)[0] != paths[0]
    made.pop()
    whole = paths[0].read_bytes()
    half = len(whole) // 2
    damages = (b"damaged", whole[:half], whole[:half] + bytes(400) + whole[half + 400 :])
    for count, (damaged, name) in enumerate(zip(damages, itertools.cycle(OTHERS)), 3):
        paths[0].write_bytes(damaged)
        assert with_engine(one, name, batch=1).engine
        assert len(made) == count


def answering(name: str, change: Callable[[Tensor], Tensor], precision: str = "float32") -> Engine:
    """An engine whose scores are a function of a sum over each image."""
    return Engine(
        name,
        precision,
        lambda pixels: change(pixels.float().mean((2, 3)) * torch.tensor([1.0, 1.3, 1.1])[: pixels.shape[1]]),
    )


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What engines are taken to need, whatever the machine's speed."""
    taken: dict[str, float] = {}
    monkeypatch.setattr(engines, "measured", lambda found, pixels: [taken[engine.name] for engine in found])
    return taken


def test_auto_takes_the_fastest_whose_answers_agree(by_name: dict[str, float]) -> None:
    by_name |= {"torch": 9.0, "near": 4.0, "off": 1.0, "half": 2.0, "wrong": 1.0}
    torch_, near = answering("torch", lambda s: s), answering("near", lambda s: s * (1 + 1e-6))
    off = answering("off", lambda s: s * 1.001)  # the same classes, and more than rounding
    half = answering("half", lambda s: s * 1.001, "bf16")
    wrong = answering("wrong", lambda s: s.flip(1), "bf16")
    told = list[str]()
    assert fastest([torch_, near, off, wrong], (3, 8, 8), 16, told.append) is near
    assert told[0].startswith(
        "engine: near in float32, 4 ms for a batch of 16 (torch in float32 9); compared with torch, 16"
    )
    assert [line.split(" is not used")[0] for line in told[1:]] == ["engine: off in float32", "engine: wrong in bf16"]
    largest = float(told[1].split("the largest is ")[1].split(",")[0])
    assert told[1].endswith(f", and {engines.TOLERANCE * largest:.2g} is allowed")
    assert fastest([torch_, near, half], (3, 8, 8), 16, told.append) is half
    by_name["torch"] = 1.0
    assert fastest([torch_, near, half], (3, 8, 8), 16, told.append) is torch_
    assert fastest([torch_], (3, 8, 8), 16, told.append) is torch_
    assert told[-1] == "engine: torch in float32, the only installed one that can run it"


def test_measuring_gives_a_time_for_each() -> None:
    calls = list[str]()

    def engine(name: str) -> Engine:
        return Engine(name, "float32", lambda pixels: calls.append(name) or pixels)

    times = engines.measured([engine("a"), engine("b")], torch.zeros(1))
    assert all(0 < t < float("inf") for t in times)
    assert calls[:4] == ["a", "b", "a", "b"]
    assert len(calls) <= 2 * (engines.ROUNDS + 1)


def test_an_engine_that_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = exported.RUNNERS["openvino"]
    wrong = runner._replace(
        scores=lambda content, precision: lambda pixels: 2 * runner.scores(content, precision)(pixels)
    )
    monkeypatch.setitem(exported.RUNNERS, "openvino", wrong)
    with pytest.raises(ValueError, match="engine=openvino: its answers differ from torch's"):
        with_engine(small(), "openvino", batch=1)


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("missing", "command", "words"),
    [
        ("openvino", ["predict", "RUN", "PICTURES", "--engine", "openvino"], "pip install 'resnetlab[openvino]'"),
        ("onnxruntime", ["eval", "RUN", "--data", "digits", "--engine", "onnxruntime"], "'resnetlab[export]'"),
        ("openvino", ["export", "RUN", "--to", "openvino", "--out", "new.xml"], "pip install 'resnetlab[openvino]'"),
        ("nncf", ["export", "RUN", "--to", "openvino", "--int8", "--calibrate", "digits"], "'resnetlab[openvino]'"),
        ("openvino", ["predict", "FILES/net.xml", "PICTURES"], "pip install 'resnetlab[openvino]'"),
    ],
)
def test_what_is_not_installed_is_named(
    run: Path,
    files: Path,
    pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: Captured,
    missing: str,
    command: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    without(monkeypatch, missing)
    places = {"RUN": str(run), "PICTURES": str(pictures), "FILES/net.xml": str(files / "net.xml")}
    assert main([places.get(word, word) for word in command]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_auto_does_without_an_engine_that_fails(
    by_name: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is made, e.g. since the exporter's packages don't fit each other, and where it runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fails(*_: object, **__: object) -> Tensor:
        raise TypeError("odd")

    monkeypatch.setattr(torch.onnx, "export", fails)
    told = list[str]()
    engine = with_engine(small(), "auto", batch=2, told=told.append).engine
    assert engine
    assert engine.name == "torch"
    assert told[0].startswith("engine: onnxruntime in float32 is not used: torch's ONNX exporter fails (odd); do the")
    with pytest.raises(UserError, match=r"torch's ONNX exporter fails \(odd\)"):
        with_engine(small(), "onnxruntime", batch=2)

    def cannot_run(pixels: Tensor) -> Tensor:
        raise UserError("net.onnx: can't be run (odd).")

    by_name |= {"torch": 9.0, "near": 4.0}
    right = [answering(name, lambda s: s) for name in by_name]
    bad = Engine("bad", "float32", cannot_run)
    told.clear()
    assert fastest([right[0], bad, right[1]], (3, 8, 8), 2, told.append) is right[1]
    assert told[0] == "engine: bad in float32 is not used: net.onnx: can't be run (odd)."
    assert fastest([right[0], bad], (3, 8, 8), 2, told.append) is right[0]


def test_a_package_that_fails_at_its_import_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_engine.py").write_text("raise RuntimeError('built for another numpy')")
    monkeypatch.syspath_prepend(tmp_path)
    assert import_trouble("broken_engine") == " (built for another numpy)"
    assert import_trouble("json") == ""
    runner = exported.RUNNERS["openvino"]._replace(package="broken_engine")
    monkeypatch.setitem(exported.RUNNERS, "openvino", runner)
    with pytest.raises(UserError, match=r"openvino can't be imported \(built for another numpy\): pip install"):
        with_engine(small(), "openvino", batch=1)


def test_without_other_engines_auto_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino", "onnxruntime")
    told = list[str]()
    engine = with_engine(small(), "auto", batch=2, told=told.append).engine
    assert engine
    assert engine.name == "torch"
    assert told == ["engine: torch in float32, the only installed one that can run it"]


def test_commands_answer_alike_by_every_engine(run: Path, pictures: Path, tmp_path: Path, capsys: Captured) -> None:
    found: dict[str, list[Any]] = {"predict": [], "eval": [], "features": []}
    for name in engines.NAMES:
        assert main(["predict", str(run), str(pictures), "--json", "--engine", name]) == 0
        predicted = json.loads(capsys.readouterr().out)["images"]
        found["predict"].append([(row["file"], row["classes"][0]["class"]) for row in predicted])
        assert main(["eval", str(run), "--data", "digits", "--json", "--engine", name]) == 0
        said = capsys.readouterr()
        found["eval"].append(json.loads(said.out)["top1"])
        assert ("engine: " in said.err) == (name != "torch")
        out = tmp_path / f"{name}.npz"
        assert (
            main(
                [
                    "features",
                    str(run),
                    str(pictures),
                    "--out",
                    str(out),
                    "--at",
                    "layer2.0",
                    "--engine",
                    name,
                ]
            )
            == 0
        )
        capsys.readouterr()
    for answers in found.values():
        assert all(answer == answers[0] for answer in answers)
    import numpy as np

    first, *others = (np.load(tmp_path / f"{name}.npz")["features"] for name in ("torch", *OTHERS))
    assert all(np.abs(other - first).max() <= TOLERANCE * np.abs(first).max() for other in others)


def test_flip_by_an_engine_is_that_of_the_network(tmp_path: Path, capsys: Captured) -> None:
    net = build("cifar_resnet8", num_classes=10, in_channels=1, input_size=8, seed=0)
    card = ModelMetadata(net.spec, tuple("0123456789"), imagenet(1), {"data": "digits"})
    path = tmp_path / "net.safetensors"
    path.write_bytes(weights_bytes(net, card))
    for flip in ([], ["--flip"]):
        said = []
        for name in ("torch", "openvino"):
            assert main(["eval", str(path), "--data", "digits", "--json", "--engine", name, *flip]) == 0
            said.append(json.loads(capsys.readouterr().out)["top1"])
        assert said[0] == said[1]


def test_what_an_engine_cannot_do_is_one_line(run: Path, files: Path, pictures: Path, capsys: Captured) -> None:
    xml, onnx_file, images = str(files / "net.xml"), str(files / "net.onnx"), str(pictures)
    for command, words in (
        (
            ["eval", str(run), "--data", "digits", "--flip", "--engine", "openvino"],
            "its mean image is not mirrored",
        ),
        (["predict", xml, images, "--engine", "onnxruntime"], "can't run"),
        (["predict", onnx_file, images, "--engine", "torch"], "onnxruntime or openvino can"),
        (["predict", onnx_file, images, "--net", "resnet18"], "leave --net out"),
        (["predict", onnx_file, images, "--which", "best"], "leave --which out"),
        (["predict", onnx_file, images, "--image-size", "8"], "leave --image-size out"),
        (["explain", onnx_file, images], "the run folder or weight file that it was exported from"),
        (["features", onnx_file, images, "--nearest", "1"], "the run folder or weight file that it was exported from"),
        (["export", xml], "the run folder or weight file that it was exported from"),
        (["eval", xml, "--data", "digits"], "give a run folder or weight file"),
        (["predict", str(files / "none.onnx"), images], "none.onnx"),
        (["predict", str(run) + ".pt2", images], "can run any code"),
        (["features", str(run) + ".pt2", images, "--nearest", "1"], "or to predict and serve a file written by export"),
    ):
        assert main(command) == 2, command
        said = capsys.readouterr()
        assert words in said.err.splitlines()[-1], said.err
        assert said.out == ""


def test_a_signal_is_handled_after_engines_came_and_went() -> None:
    """OpenVINO by itself leaves a freed signal stack behind: the next signal that is handled would end the process."""
    script = """
import os, signal
import openvino.opset13 as op, openvino as ov, numpy as np
from resnetlab.use.openvino_graph import openvino_scores, written

pixels = op.parameter([-1, 3], np.float32)
network = written(ov.Model([op.relu(pixels)], [pixels]))
first, second = openvino_scores(network), openvino_scores(network)
del first
del second
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (found.returncode, found.stdout) == (0, "handled\n"), found.stderr
