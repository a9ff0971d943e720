"""Engines: each answers as PyTorch, `auto` takes the fastest that does, and exported files are run or refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.data.images import Images, open_data
from resnetlab.data.normalisation import imagenet
from resnetlab.training.checkpoint import Card, weights_bytes
from resnetlab.training.loop import train
from resnetlab.training.recipe import recipe
from resnetlab.training.run import make_run
from resnetlab.use import engines, exported
from resnetlab.use.agreement import TOLERANCE
from resnetlab.use.classifier import Classifier
from resnetlab.use.deployed import noise
from resnetlab.use.engines import fastest, graph_of, kept_onnx, torch_scores, with_engine
from resnetlab.use.export import export
from resnetlab.use.exported import Engine, read_exported

Captured = pytest.CaptureFixture[str]
OTHERS = ("onnxruntime", "openvino")

pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_run(recipe("digits", net="cifar_resnet8", epochs=1), tmp_path_factory.mktemp("runs"))
    for _ in train(made):
        pass
    return made.folder


@pytest.fixture(scope="module")
def files(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run exported to net.onnx, and to net.xml and net.bin."""
    folder = tmp_path_factory.mktemp("exported")
    export(Classifier.open(run), folder / "net.onnx", "onnx")
    export(Classifier.open(run), folder / "net.xml", "openvino")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, test = tmp_path_factory.mktemp("pictures"), open_data("digits").test
    assert isinstance(test, Images)
    for i in range(5):
        Image.fromarray(test.pixels[i, 0].numpy()).save(folder / f"{i}.png")
    return folder


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
        pixels = noise(plain, count)
        with torch.inference_mode():
            wanted = plain.net(plain.input(pixels))
        answers.append((engine.scores(pixels), wanted))
    for got, wanted in answers:  # an engine that gives its answers a place must not write the next ones there
        assert got.dtype == torch.float32
        assert (got - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert [line.startswith(f"engine: {name} in float32; beside torch's, 16 of 16") for line in told] == (
        [True] if name in OTHERS else []
    )


@pytest.mark.parametrize("name", ["cifar_preresnet8", "cifar_resnet8(mix=ExclusiveGate(-1), se_reduction=4)"])
def test_torch_with_folded_batch_norm_and_channels_last_answers_the_same(name: str) -> None:
    net = build(name, num_classes=4, seed=0).eval()
    classifier = Classifier(net, tuple("abcd"), imagenet(3), whole=True, device="cpu")
    module = graph_of(classifier).module
    assert module
    pixels = noise(classifier, 6)
    with torch.inference_mode():
        wanted = net(classifier.input(pixels))
    assert (torch_scores(module)(pixels) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert 0 < (torch_scores(module, "bf16")(pixels) - wanted).abs().max() <= 0.05 * wanted.abs().max()


def test_the_graph_is_made_once_and_anew_for_other_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    made, right = list[int](), engines.to_onnx
    monkeypatch.setattr(engines, "to_onnx", lambda *given: made.append(1) or right(*given))
    one, other = small(), small()
    with torch.no_grad():
        other.net.get_parameter("fc.bias").add_(1)
    paths = [kept_onnx(graph_of(classifier))[0] for classifier in (one, one, other, one)]
    assert len(made) == 2
    assert paths[0] == paths[1] == paths[3] != paths[2]
    paths[0].write_bytes(b"damaged")
    for name in OTHERS:  # it is made anew, for the first of them
        assert with_engine(one, name, batch=1).engine
    assert len(made) == 3


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
        "engine: near in float32, 4 ms for a batch of 16 (torch in float32 9); beside torch's, 16"
    )
    assert [line.split(" is passed")[0] for line in told[1:]] == ["engine: off in float32", "engine: wrong in bf16"]
    assert fastest([torch_, near, half], (3, 8, 8), 16, told.append) is half
    by_name["torch"] = 1.0
    assert fastest([torch_, near, half], (3, 8, 8), 16, told.append) is torch_
    assert fastest([torch_], (3, 8, 8), 16, told.append) is torch_
    assert told[-1] == "engine: torch in float32, the only one that is installed and can run it"


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
    with pytest.raises(ValueError, match="engine=openvino: its answers are not torch's"):
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


def test_without_other_engines_auto_is_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openvino", "onnxruntime")
    told = list[str]()
    engine = with_engine(small(), "auto", batch=2, told=told.append).engine
    assert engine
    assert engine.name == "torch"
    assert told == ["engine: torch in float32, the only one that is installed and can run it"]


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
        assert main(["features", str(run), str(pictures), "--out", str(out), "--at", "layer2.0", "--engine", name]) == 0
        capsys.readouterr()
    for answers in found.values():
        assert all(answer == answers[0] for answer in answers)
    import numpy as np

    first, *others = (np.load(tmp_path / f"{name}.npz")["features"] for name in ("torch", *OTHERS))
    assert all(np.abs(other - first).max() <= TOLERANCE * np.abs(first).max() for other in others)


def test_flip_by_an_engine_is_that_of_the_network(tmp_path: Path, capsys: Captured) -> None:
    net = build("cifar_resnet8", num_classes=10, in_channels=1, input_size=8, seed=0)
    card = Card(net.spec, tuple("0123456789"), imagenet(1), {"data": "digits"})
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
        (["eval", str(run), "--data", "digits", "--flip", "--engine", "openvino"], "its mean image is not mirrored"),
        (["predict", xml, images, "--engine", "onnxruntime"], "can't run"),
        (["predict", onnx_file, images, "--engine", "torch"], "onnxruntime or openvino can"),
        (["predict", onnx_file, images, "--net", "resnet18"], "leave --net out"),
        (["predict", onnx_file, images, "--which", "best"], "leave --which out"),
        (["predict", onnx_file, images, "--image-size", "8"], "leave --image-size out"),
        (["explain", onnx_file, images], "give the run folder or weight file that it was made of"),
        (["features", onnx_file, images, "--nearest", "1"], "give the run folder or weight file that it was made of"),
        (["export", xml], "give the run folder or weight file that it was made of"),
        (["eval", xml, "--data", "digits"], "give a run folder or weight file"),
        (["predict", str(files / "none.onnx"), images], "none.onnx"),
        (["predict", str(run) + ".pt2", images], "may run any code"),
    ):
        assert main(command) == 2, command
        said = capsys.readouterr()
        assert words in said.err.splitlines()[-1], said.err
        assert said.out == ""


def test_exported_files_predict_as_the_run(run: Path, files: Path, pictures: Path, capsys: Captured) -> None:
    said = []
    for source, options in (
        (run, []),
        (files / "net.onnx", []),
        (files / "net.xml", []),
        (files / "net.onnx", ["auto"]),
    ):
        engine = ["--engine", *options] if options else []
        assert main(["predict", str(source), str(pictures), "--csv", *engine]) == 0
        rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
        said.append([(file, rank, name, round(float(probability), 4)) for file, rank, name, probability, _ in rows])
    for other in said[1:]:
        assert [row[:3] for row in other] == [row[:3] for row in said[0]]
        assert all(abs(a[3] - b[3]) < 2e-4 for a, b in zip(other, said[0], strict=True))


def test_what_a_file_says_is_read_back(files: Path, run: Path) -> None:
    classifier = Classifier.open(run)
    for name in ("net.onnx", "net.xml"):
        file = read_exported(files / name)
        assert (file.network, file.classes, file.shape) == ("cifar_resnet8", classifier.classes, (1, 8, 8))
        assert (file.whole, file.precision) == (True, "float32")
        assert torch.equal(file.normalise.mean, classifier.normalise.mean)
        opened = Classifier.open(files / name)
        assert (opened.size, opened.short_side, opened.seen) == (8, 8, 1.0)


def test_int8_of_openvino_is_near_the_same_each_time_and_says_what_it_is(
    run: Path, pictures: Path, tmp_path: Path, capsys: Captured
) -> None:
    made = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.xml"
        ask = ["export", str(run), "--to", "openvino", "--int8", "--calibrate", "digits", "--out", str(out), "--json"]
        assert main(ask) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["precision"], found["format"]) == ("int8", "openvino")
        assert abs(found["agreement"]["exported_top1"] - found["agreement"]["pytorch_top1"]) < 3
        made.append((out.read_bytes(), out.with_suffix(".bin").read_bytes()))
        assert found["bytes"] == sum(map(len, made[-1]))
    assert made[0] == made[1]
    assert str(Path.cwd()).encode() not in made[0][0]
    assert b'element_type="i8"' in made[0][0]
    assert Classifier.open(out).file.precision == "int8"  # type: ignore[union-attr]
    assert main(["predict", str(out), str(pictures), "--engine", "auto"]) == 0
    assert "engine: openvino in int8" in capsys.readouterr().err
    assert main(ask) == 2
    assert "is there already" in capsys.readouterr().err
    out.unlink()
    assert main(ask) == 2
    assert "b.bin: is there already" in capsys.readouterr().err


def test_quantising_reports_to_nobody() -> None:
    """NNCF tells its makers how it is used, unless it is told not to before it is imported."""
    code = (
        "import sys, torch; from resnetlab.use.openvino_graph import *; from resnetlab.use.onnx_graph import *\n"
        "import openvino as ov, numpy as np, openvino.opset13 as op\n"
        "x = op.parameter([-1, 3, 8, 8], np.uint8, name='pixels'); y = op.convert(x, 'f32')\n"
        "y = op.convolution(y, np.ones((4, 3, 3, 3), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])\n"
        "content = written(ov.Model([y], [x]))\n"
        "quantised(content, iter([torch.ones(2, 3, 8, 8, dtype=torch.uint8)]))\n"
        "from nncf.telemetry import telemetry; print(type(telemetry).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("Mock"), done.stdout + done.stderr


def damaged(files: Path, folder: Path, kind: str) -> Path:
    """A copy of the exported files with something wrong."""
    contents = {suffix: (files / f"net{suffix}").read_bytes() for suffix in (".onnx", ".xml", ".bin")}
    name = ".onnx" if kind.startswith("onnx") else ".xml"
    if kind.endswith("empty"):
        contents[name] = b""
    elif kind.endswith("cut"):
        contents[name] = contents[name][: len(contents[name]) // 2]
    elif kind.endswith("other"):
        contents[name] = b"not a network" * 100
    elif kind == "xml without bin":
        del contents[".bin"]
    elif kind == "xml with short bin":
        contents[".bin"] = contents[".bin"][:100]
    elif kind == "xml with odd JSON":
        contents[".xml"] = contents[".xml"].replace(b"&quot;cifar_resnet8&quot;", b"cifar")
    elif kind == "xml of other shape":
        contents[".xml"] = contents[".xml"].replace(b"&quot;crop&quot;: 8", b"&quot;crop&quot;: 9")
    else:
        model = onnx.load_from_string(contents[".onnx"])
        told = {entry.key: entry for entry in model.metadata_props}
        if kind == "onnx of others":
            del model.metadata_props[:]
        elif kind == "onnx without a class":
            told["classes"].value = json.dumps(["0"])
        elif kind == "onnx with odd classes":
            told["classes"].value = json.dumps([0, 1])
        elif kind == "onnx with odd means":
            told["normalisation"].value = json.dumps({"mean": ["x"], "std": [1]})
        elif kind == "onnx of two outputs":
            model.graph.output.append(model.graph.output[0])
            model.graph.output[1].name = model.graph.node[0].output[0]
        contents[".onnx"] = model.SerializeToString()
    for suffix, content in contents.items():
        (folder / f"bad{suffix}").write_bytes(content)
    return folder / f"bad{name}"


DAMAGES = {
    **{f"{name}, {kind}": "damaged" for name in ("onnx", "xml") for kind in ("empty", "cut", "other")},
    "xml without bin": "bad.bin",
    "xml with short bin": "damaged",
    "xml with odd JSON": "not JSON",
    "xml of other shape": "says otherwise",
    "onnx of others": "does not say its network, classes, preprocessing, normalisation; export",
    "onnx without a class": "says otherwise",
    "onnx with odd classes": "classes[0] is 0",
    "onnx with odd means": "its normalisation is none",
    "onnx of two outputs": "damaged",
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_or_foreign_file_is_one_line(
    files: Path, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    path = damaged(files, tmp_path, kind)
    assert main(["predict", str(path), str(pictures)]) == 2
    said = capfd.readouterr()
    assert DAMAGES[kind] in said.err
    assert "bad." in said.err
    assert len(said.err.splitlines()) == 1, said.err
    assert said.out == ""
