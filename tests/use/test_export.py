"""Export: the file answers as PyTorch, says what it needs, and is not there when something is wrong."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.data.images import Images
from resnetlab.data.normalisation import imagenet
from resnetlab.data.open import open_data
from resnetlab.data.resizing import Resizing
from resnetlab.use import export as export_room
from resnetlab.use.classifier import Classifier
from resnetlab.use.export import FORMATS, export
from resnetlab.use.exported_module import noise
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

Captured = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def onnx_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "digits.onnx"
    export(Classifier.open(run), out, "onnx")
    return out


def untrained(folder: Path, name: str, **changes: int) -> Path:
    """A weight file of ours that says its network and nothing else."""
    net = build(name, **{"num_classes": 4, **changes})
    path = folder / "net.safetensors"
    path.write_bytes(weights_bytes(net, net.spec))
    return path


def test_onnx_answers_as_pytorch_on_all_test_images(run: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "digits.onnx"
    assert main(["export", str(run), "--out", str(out), "--data", "digits", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert said.err.startswith("10 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9; 1,797 images, 360 tested; 8 pixels; ")
    assert found["understood"]["tested"] == 360
    assert [check["batch"] for check in found["checks"]] == [1, 2, 7]
    assert all(0 < c["greatest_difference"] < 1e-4 * c["greatest_score"] for c in found["checks"])
    agreed = found["agreement"]
    assert agreed["same_predictions"] == agreed["images"] == len(open_data("digits").test)
    assert agreed["exported_top1"] == agreed["pytorch_top1"] > 50
    assert (found["opset"], found["precision"], found["bytes"]) == (18, "float32", out.stat().st_size)


def test_the_guide_states_the_versions_of_a_file(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    (operators,) = model.opset_import
    stated = f"opset {operators.version} and IR version {model.ir_version},"
    assert stated in (ROOT / "docs" / "using.md").read_text(encoding="utf-8")


def test_the_file_is_whole_the_same_each_time_and_tells_no_path(run: Path, onnx_file: Path, tmp_path: Path) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node}.isdisjoint({"BatchNormalization"})
    assert str(ROOT).encode() not in onnx_file.read_bytes()
    assert b".py" not in onnx_file.read_bytes()
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["classes"] == [str(i) for i in range(10)]
    wanted = {"mode": "L", "resize_short_side": 8, "crop": 8, "layout": "N C H W", "type": "uint8", "range": [0, 255]}
    pixels = {"background": [255, 255, 255], "white_of_16_bits": 65535, "colour_profile": "passed over", "frame": 0}
    rest = {"resample": "bilinear, antialiased", "orientation": "upright, by EXIF"}
    assert told["preprocessing"] == wanted | pixels | rest
    again = tmp_path / "again.onnx"
    export(Classifier.open(run), again, "onnx")
    assert again.read_bytes() == onnx_file.read_bytes()


def documented_lines() -> str:
    """The lines of docs/using.md that run an exported file."""
    lines = re.search(r"```python\n(import json.*?)```", (ROOT / "docs" / "using.md").read_text(), re.DOTALL)
    assert lines
    assert "resnetlab" not in lines[1]
    return lines[1]


def test_the_documented_lines_run_the_file_without_us(
    run: Path, onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The lines of docs/using.md, as they stand there, give the class that `predict` gives."""
    (tmp_path / "network.onnx").write_bytes(onnx_file.read_bytes())
    test = open_data("digits").test
    assert isinstance(test, Images)
    monkeypatch.chdir(tmp_path)
    for i in range(5):
        Image.fromarray(test.pixels[i, 0].numpy()).resize((11, 8)).save("image.png")
        exec(compile(documented_lines(), "docs/using.md", "exec"), {})
        told = capsys.readouterr().out.split()[0]
        assert main(["predict", str(run), "image.png", "--top", "1"]) == 0
        assert capsys.readouterr().out.split()[1] == told


def every_kind_of_image() -> Iterator[tuple[str, bytes]]:
    """One picture in the formats and modes in which images come, with what they are called."""
    y, x = np.mgrid[0:60, 0:90]
    image = Image.fromarray(np.stack([x * 255 // 90, y * 255 // 60, 128 + 0 * x], 2).astype(np.uint8))
    grey, alpha = image.convert("L"), Image.fromarray((x * 255 // 90).astype(np.uint8))
    deep = np.maximum(np.asarray(grey).astype(np.uint16), 1) * np.uint16(257) - np.uint16(100)
    palette, turned = image.quantize(64), Image.Exif()
    turned[0x0112] = 6

    def encoded(image: Image.Image, name: str = "PNG", **how: Any) -> bytes:
        made = io.BytesIO()
        image.save(made, name, **how)
        return made.getvalue()

    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield mode, encoded(image.convert(mode))
    for mode in ("RGBA", "LA"):
        clear = image.convert(mode)
        clear.putalpha(alpha)
        yield f"{mode} with transparency", encoded(clear)
    yield "palette with a transparent entry", encoded(palette, transparency=3)
    yield "palette with levels of transparency", encoded(palette, transparency=bytes(range(0, 256, 4)))
    yield "grey with a transparent level", encoded(grey, transparency=int(np.asarray(grey)[30, 45]))
    yield "16-bit PNG", encoded(Image.fromarray(deep))
    yield "16-bit TIFF", encoded(Image.fromarray(deep), "TIFF")
    yield "16-bit PGM", b"P5 90 60 65535\n" + deep.astype(">u2").tobytes()
    yield "turned JPEG", encoded(image, "JPEG", exif=turned)
    yield "turned PNG", encoded(image, exif=turned)
    yield "CMYK JPEG", encoded(image.convert("CMYK"), "JPEG")
    yield "CMYK TIFF", encoded(image.convert("CMYK"), "TIFF")
    yield "YCbCr TIFF", encoded(image.convert("YCbCr"), "TIFF")
    yield "moving GIF", encoded(image, "GIF", save_all=True, append_images=[image.rotate(180)])
    yield "WebP", encoded(image, "WEBP")


@pytest.mark.parametrize(
    ("name", "changes", "resizing"),
    [
        ("cifar_resnet8", {}, None),
        pytest.param("cifar_resnet8", {"in_channels": 1}, None, marks=pytest.mark.slow),
        ("cifar_resnet8", {}, Resizing(0.95, "bicubic")),
        pytest.param("resnet18", {"input_size": 64}, None, marks=pytest.mark.slow),
    ],
)
def test_the_documented_lines_prepare_every_image_as_predict_does(
    name: str, changes: dict[str, int], resizing: Resizing | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a level, since grey is rounded before or after it is resized, and two where the kernel sharpens."""
    torch.manual_seed(0)
    classifier = Classifier.open(untrained(tmp_path, name, **changes))
    if resizing:
        classifier = replace(classifier, whole=False, resizing=resizing)
    export(classifier, tmp_path / "network.onnx", "onnx")
    monkeypatch.chdir(tmp_path)
    lines = compile(documented_lines(), "docs/using.md", "exec")
    for kind, content in every_kind_of_image():
        Path("image.png").write_bytes(content)
        found: dict[str, Any] = {}
        exec(lines, found)
        wanted = classifier.prepare(content)[None]
        difference = np.abs(found["pixels"].astype(int) - wanted.numpy().astype(int))
        assert found["pixels"].dtype == np.uint8, kind
        assert difference.max() <= (2 if resizing else 1), kind
        ours = classifier.probabilities(wanted)[0].numpy()
        theirs = torch.from_numpy(found["scores"]).softmax(1)[0].numpy()
        assert np.abs(ours - theirs).max() < 0.02, kind


KINDS = [
    pytest.param("cifar_preresnet8", {}, marks=pytest.mark.slow),
    ("cifar_resnet8(mix=ExclusiveGate(-1), se_reduction=4)", {}),
    *(
        pytest.param(name, {}, marks=pytest.mark.slow)
        for name in ("resnet50", "resnext50_32x4d", "resnet18(stem=deep)")
    ),
    pytest.param("vgg16_bn", {"input_size": 64}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "changes"), KINDS)
def test_every_kind_of_network_can_be_exported(tmp_path: Path, name: str, changes: dict[str, int]) -> None:
    classifier = Classifier.open(untrained(tmp_path, name, **changes))
    found = export(classifier, tmp_path / "net.onnx", "onnx")
    assert all(check.is_rounding for check in found.checks)


def test_what_differs_is_refused_and_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter that is a thousandth wrong."""
    right = FORMATS["torch"]

    def wrong(module: torch.nn.Module, *rest: object) -> bytes:
        with torch.no_grad():
            module.get_parameter("net.fc.weight").mul_(1.001)
        return right.content(module, *rest)

    monkeypatch.setitem(export_room.FORMATS, "torch", right._replace(content=wrong))
    out = tmp_path / "net.pt2"
    with pytest.raises(ValueError, match="not written, since at batch 1 its scores differ from PyTorch's by"):
        export(Classifier.open(run), out, "torch")
    assert list(tmp_path.iterdir()) == []


def test_torch_program_runs_any_batch_and_carries_the_description(run: Path, tmp_path: Path) -> None:
    classifier, out = Classifier.open(run), tmp_path / "digits.pt2"
    export(classifier, out, "torch")
    told = {"classes.json": "", "preprocessing.json": ""}
    program = torch.export.load(out, extra_files=told)
    assert json.loads(told["classes.json"]) == list(classifier.classes)
    assert json.loads(told["preprocessing.json"])["crop"] == 8
    pixels = noise(classifier.shape, 5)
    with torch.inference_mode():
        wanted = classifier.net(classifier.input(pixels))
    assert torch.allclose(program.module()(pixels), wanted, atol=1e-4)
    assert str(ROOT).encode() not in out.read_bytes()


def test_int8_is_near_keeps_the_description_and_is_the_same_each_time(
    run: Path, tmp_path: Path, capsys: Captured
) -> None:
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for out in files:
        command = ["export", str(run), "--out", str(out), "--int8", "--calibrate", "digits"]
        assert main([*command, "--json"]) == 0
        said = capsys.readouterr()
        assert "calibrating on 512 of 1,437 training images of digits" in said.err.splitlines()
        assert "and comparing it with PyTorch, which can take a minute" in said.err, "before the silence"
        found = json.loads(said.out)
        assert found["precision"] == "int8"
        assert abs(found["agreement"]["exported_top1"] - found["agreement"]["pytorch_top1"]) < 2
    assert files[0].read_bytes() == files[1].read_bytes()
    model = onnx.load(files[0])
    onnx.checker.check_model(model, full_check=True)
    assert {"classes", "preprocessing", "network"} <= {entry.key for entry in model.metadata_props}
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    sources = {node.output[0]: node for node in model.graph.node}
    for conv in convs:
        weight = sources[conv.input[1]]
        assert weight.op_type == "DequantizeLinear"
        assert kinds[weight.input[0]] == onnx.TensorProto.INT8


def test_in_int8_batch_norm_after_a_sum_stays_float32(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    classifier = Classifier.open(untrained(tmp_path, "cifar_preresnet8", num_classes=10, in_channels=1, input_size=8))
    export(classifier, tmp_path / "net.onnx", "onnx", calibrate=open_data("digits"))
    graph = onnx.load(tmp_path / "net.onnx").graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 3
    assert all(kinds[name] == onnx.TensorProto.FLOAT for node in norms for name in node.input[1:])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_compiled_package_runs_any_batch_and_carries_the_description(run: Path, tmp_path: Path) -> None:
    from torch._inductor import aoti_load_package

    classifier, out = Classifier.open(run), tmp_path / "digits.pt2"
    found = export(classifier, out, "aoti")
    assert all(check.is_rounding for check in found.checks)
    package = aoti_load_package(str(out))
    assert json.loads(package.get_metadata()["classes"]) == list(classifier.classes)
    assert package(noise(classifier.shape, 5)).shape == (5, 10)


def test_a_missing_compiler_or_package_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    from torch._inductor import config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    assert main(["export", str(run), "--to", "aoti"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: AOTInductor needs a C++ compiler")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(run)]) == 2
    understood, *_, said = capsys.readouterr().err.splitlines()
    assert understood.startswith("10 classes: 0, 1, 2")
    assert "pip install 'resnetlab[export]'" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--to", "coreml"], "coreml"),
        (["--int8"], "needs --calibrate DATA"),
        (["--int8", "--calibrate", "digits", "--to", "torch"], "--int8 quantises ONNX"),
        (["--calibrate", "digits"], "--calibrate works with --int8"),
        (["--out", "x.pt"], "x.pt: the name must end in .onnx"),
        (["--out", "there.onnx"], "there.onnx: already exists"),
        (["--out", "nowhere/x.onnx"], "there is no folder nowhere"),
        (["--which", "first"], "which='first' is not known"),
        (["--data", "cifar11:x"], "can't be read"),
        (["--data", "COLOURS"], "images of shape (3, 8, 8), but the network takes (1, 8, 8)."),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, options: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.onnx").write_bytes(b"mine")
    for name in ("colours/red/1.png", "colours/red/2.png", "colours/blue/1.png", "colours/blue/2.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), Path(name).parent.name).save(name)
    assert main(["export", str(run), *(o.replace("COLOURS", "colours") for o in options)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert Path("there.onnx").read_bytes() == b"mine"


def test_images_that_cannot_be_read_are_left_out_of_int8_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Of a folder of other names, whose classes are told; test images are calibrated on where there are no others."""
    monkeypatch.chdir(tmp_path)
    for label, colour in (("rot", "red"), ("blau", "blue")):
        for i in range(3):
            Path("farben", label).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), colour).save(f"farben/{label}/{i}.png")
    Path("farben/rot/0.png").write_bytes(b"")
    net = build("cifar_resnet8", num_classes=2, input_size=8, seed=0)
    Path("net").write_bytes(weights_bytes(net, ModelMetadata(net.spec, ("red", "blue"), imagenet(), {"seed": 0})))
    ask = ["export", "net", "--int8", "--calibrate", "farben", "--out", "x.onnx"]
    assert main(ask) == 2
    assert "trained on the classes red, blue; farben has blau, rot, which are not among them" in capsys.readouterr().err
    ask += ["--classes", "rot=red,blau=blue"]
    assert main(ask) == 2
    assert "farben/rot/0.png: can't be read (the file is empty); " in capsys.readouterr().err
    assert not Path("x.onnx").exists()
    assert main([*ask, "--unreadable", "skip", "--json"]) == 0
    said = capsys.readouterr()
    few = "calibrating on 6 of 6 test images of farben; 32 or more would show the ranges of values better"
    assert few in said.err.splitlines()
    assert "testing: left out 1 that cannot be read" in said.err
    found = json.loads(said.out)
    assert (found["agreement"]["images"], found["agreement"]["unreadable"], found["calibration_unreadable"]) == (
        5,
        1,
        1,
    )
    assert found["taken_for"] == {"blau": "blue", "rot": "red"}
    labels = torch.tensor([1, 1, 1, 0, 0])
    pixels = torch.stack([torch.tensor([0, 0, 255])] * 3 + [torch.tensor([255, 0, 0])] * 2)[:, :, None, None]
    with torch.inference_mode():
        right = net.eval()(imagenet()(pixels.expand(-1, -1, 8, 8).byte())).argmax(1) == labels
    assert found["agreement"]["pytorch_correct"] == int(right.sum())
    assert {path.name for path in Path("farben").iterdir()} == {"rot", "blau"}
    for path in Path("farben").rglob("*.png"):
        path.write_bytes(b"")
    Path("x.onnx").unlink()
    assert main([*ask, "--unreadable", "skip"]) == 2
    assert "none of 6 calibration images can be read; see 'resnetlab data audit'" in capsys.readouterr().err
    assert not Path("x.onnx").exists()


def test_a_network_that_diverged_is_told(tmp_path: Path) -> None:
    net = build("cifar_resnet8", num_classes=4)
    with torch.no_grad():
        net.get_parameter("fc.bias").fill_(float("nan"))
    path = tmp_path / "net.safetensors"
    path.write_bytes(weights_bytes(net, net.spec))
    with pytest.raises(ValueError, match="not finite"):
        export(Classifier.open(path), tmp_path / "net.pt2", "torch")
    assert not (tmp_path / "net.pt2").exists()
