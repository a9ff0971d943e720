"""Exported files, read back: they predict as the run; int8 of OpenVINO; what is damaged or of others is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.use.classifier import Classifier
from resnetlab.use.exported import read_exported
from resnetlab.weights.metadata import weights_bytes

Captured = pytest.CaptureFixture[str]

pytest.importorskip("openvino", reason="OpenVINO is not installed")


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
        assert file.accuracy == classifier.accuracy
        opened = Classifier.open(files / name)
        assert (opened.size, opened.short_side, opened.seen) == (8, 8, 1.0)


def test_the_suffix_may_be_in_capitals(files: Path, tmp_path: Path) -> None:
    for name, renamed in (("net.onnx", "NET.ONNX"), ("net.bin", "NET.bin"), ("net.xml", "NET.XML")):
        shutil.copy(files / name, tmp_path / renamed)
    for name, renamed in (("net.onnx", "NET.ONNX"), ("net.xml", "NET.XML")):
        assert read_exported(tmp_path / renamed).engines == read_exported(files / name).engines
        assert Classifier.open(tmp_path / renamed).size == 8


def test_what_is_given_in_place_of_an_exported_file_is_named(files: Path, tmp_path: Path, capsys: Captured) -> None:
    for command, path, said in (
        (["predict"], files / "net.bin", "the weights of the exported network net.xml, and of no use without it"),
        (["eval", "--data", "digits"], files / "net.onnx", "an exported file, whose accuracy 'export --data' measures"),
        (["eval", "--data", "digits"], tmp_path / "absent.onnx", "no such run folder or weight file"),
    ):
        assert main([command[0], str(path), *command[1:], *(["image.png"] if command == ["predict"] else [])]) == 2
        assert f"{path}: {said}" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_of_openvino_is_near_the_same_each_time_and_says_what_it_is(
    run: Path, pictures: Path, tmp_path: Path, capsys: Captured
) -> None:
    made = []
    for name in ("a", "b"):
        out = tmp_path / f"{name}.xml"
        ask = [
            "export",
            str(run),
            "--to",
            "openvino",
            "--int8",
            "--calibrate",
            "digits",
            "--out",
            str(out),
            "--json",
        ]
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
    assert "already exists" in capsys.readouterr().err
    out.unlink()
    assert main(ask) == 2
    assert "b.bin: already exists" in capsys.readouterr().err


@pytest.mark.slow  # a process of its own, since NNCF decides when it is imported
def test_quantising_reports_to_nobody() -> None:
    """NNCF tells its makers how it is used, unless it is told not to before it is imported."""
    code = (
        "import torch; from resnetlab.use.openvino_graph import quantised, written\n"
        "import openvino as ov, numpy as np, openvino.opset13 as op\n"
        "x = op.parameter([-1, 3, 8, 8], np.uint8, name='pixels'); y = op.convert(x, 'f32')\n"
        "y = op.convolution(y, np.ones((4, 3, 3, 3), np.float32), [1, 1], [0, 0], [0, 0], [1, 1])\n"
        "content = written(ov.Model([y], [x]))\n"
        "quantised(content, iter([torch.ones(2, 3, 8, 8, dtype=torch.uint8)]))\n"
        "from nncf.telemetry import telemetry; print(type(telemetry).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("Mock"), done.stdout + done.stderr


def test_onnx_runtime_reports_to_nobody(files: Path, tmp_path: Path) -> None:
    """It would leave the number by which it knows this machine in the cache."""
    code = "import sys; from pathlib import Path; from resnetlab.use.exported import first_engine, read_exported\n"
    code += (
        "import torch; first_engine(read_exported(Path(sys.argv[1]))).scores(torch.ones(1, 1, 8, 8, dtype=torch.uint8))"
    )
    places = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    unset = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code, str(files / "net.onnx")]
    subprocess.run(command, env=unset | places, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", ["--to=openvino", pytest.param("--int8", marks=pytest.mark.slow)])
def test_a_full_folder_for_temporary_files_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, to: str
) -> None:
    """OpenVINO has an error of its own for that, which says nothing."""

    def full(*_: object, **__: object) -> None:
        if to == "--int8":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openvino.save_model", full)
    monkeypatch.setattr("onnxruntime.quantization.quantize_static", full)
    assert main(["export", str(run), to, *(["--calibrate", "digits"] if to == "--int8" else [])]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"error: {tempfile.gettempdir()}: can't write (")
    assert said.endswith("; make room there, or set TMPDIR to another folder.")
    assert list(tmp_path.iterdir()) == []


def test_where_no_folder_takes_temporary_files_it_is_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert main(["export", str(run), "--to", "openvino"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: no folder for temporary files can be written: make room on the disk")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_an_earlier_version_without_a_checksum_runs(
    files: Path, pictures: Path, tmp_path: Path, capsys: Captured
) -> None:
    model = onnx.load(files / "net.onnx")
    (place,) = (i for i, entry in enumerate(model.metadata_props) if entry.key == "checksum")
    del model.metadata_props[place]
    onnx.save(model, tmp_path / "net.onnx")
    assert main(["predict", str(tmp_path / "net.onnx"), str(pictures)]) == 0


@pytest.mark.parametrize("names", [("net.onnx",), ("net.xml", "net.bin")])
def test_the_checksum_is_what_the_guide_says(files: Path, names: tuple[str, ...]) -> None:
    content = b"".join((files / name).read_bytes() for name in names)
    (stated,) = re.findall(rb"checksum.{1,20}?([0-9a-f]{64})", content, re.DOTALL)
    assert hashlib.sha256(content.replace(stated, b"0" * 64)).hexdigest() == stated.decode()


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
    elif kind.endswith("with zeros"):  # a block of the disk that was lost
        at = ".bin" if name == ".xml" else name
        middle = len(contents[at]) // 2
        contents[at] = contents[at][:middle] + bytes(512) + contents[at][middle + 512 :]
    elif kind == "xml with the bin of others":
        weights = np.frombuffer(contents[".bin"], np.uint8).copy()
        weights[len(weights) // 2 :][:4096] ^= 1
        contents[".bin"] = weights.tobytes()
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
        elif kind == "onnx with an odd checksum":
            told["checksum"].value = "5"
        elif kind == "onnx with a checksum that is no text":
            told["checksum"].value = r'"\ud800"'  # a surrogate, which can't be encoded
        elif kind == "onnx with other classes":
            told["classes"].value = told["classes"].value.replace('"0", "1"', '"1", "0"')
        elif kind == "onnx with odd means":
            told["normalisation"].value = json.dumps({"mean": ["x"], "std": [1]})
        elif kind == "onnx of two outputs":
            model.graph.output.append(model.graph.output[0])
            model.graph.output[1].name = model.graph.node[0].output[0]
        elif kind == "onnx of the future":
            model.ir_version = 99
        contents[".onnx"] = model.SerializeToString()
    for suffix, content in contents.items():
        (folder / f"bad{suffix}").write_bytes(content)
    return folder / f"bad{name}"


def test_texts_of_a_file_from_elsewhere_can_be_printed_and_sent(files: Path, tmp_path: Path) -> None:
    odd, shown = "net\n\x1b[31m\ud800", r"net\n\x1b[31m\ud800"  # an escape code, and a surrogate, which UTF-8 lacks
    model = onnx.load(files / "net.onnx")
    told = {entry.key: entry for entry in model.metadata_props}
    told["network"].value = json.dumps(odd)
    model.metadata_props.remove(told["checksum"])
    model.metadata_props.add(key="precision", value=json.dumps(odd))
    onnx.save(model, tmp_path / "odd.onnx")
    found = Classifier.open(tmp_path / "odd.onnx")
    assert found.engine is not None
    assert (found.name, found.engine.precision) == (shown, shown)
    net = build("cifar_resnet8")
    (tmp_path / "odd.safetensors").write_bytes(weights_bytes(net, replace(net.spec, name=odd)))
    assert Classifier.open(tmp_path / "odd.safetensors").name == shown


DAMAGES = {
    **{f"{name}, {kind}": "damaged" for name in ("onnx", "xml") for kind in ("empty", "cut", "other")},
    **{f"{name} with zeros": "its checksum differs); export the run folder" for name in ("onnx", "xml")},
    "xml with the bin of others": "or bad.bin is another network's (its checksum differs)",
    "onnx with an odd checksum": "checksum is 5",
    "onnx with a checksum that is no text": "its checksum differs",
    "onnx with other classes": "changed since it was exported (its checksum differs)",
    "xml without bin": "bad.bin",
    "xml with short bin": "damaged",
    "xml with odd JSON": "not JSON",
    "xml of other shape": "are not those that it states",
    "onnx of others": "does not state its network, classes, preprocessing, normalisation; export",
    "onnx without a class": "are not those that it states",
    "onnx with odd classes": "classes[0] is 0",
    "onnx with odd means": "its normalisation is not valid",
    "onnx of two outputs": "damaged",
    "onnx of the future": "FAIL : Unsupported model IR version: 99, max supported IR version: ",
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
