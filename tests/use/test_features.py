"""Features: what the network computes, in files that anybody can read, and the nearest of them."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.use.classifier import Classifier
from resnetlab.use.features import Features, embed, nearest, network_mark
from resnetlab.use.features_file import read, save
from resnetlab.weights.metadata import weights_bytes

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = build("cifar_resnet8", num_classes=4, seed=0)
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    path.write_bytes(weights_bytes(net, net.spec))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in folders of two classes; within a class they are nearly alike."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label in ("dots", "stripes"):
        (folder / label).mkdir()
        pattern = random.integers(0, 256, (32, 32, 3))
        for i in range(3):
            pixels = (pattern + random.integers(-9, 10, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


def test_the_last_features_are_what_the_head_takes() -> None:
    net = build("cifar_preresnet8", num_classes=4).eval()
    assert isinstance(net, ResNet)
    x = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(net.fc(embed(net, x)), net(x))
        pooled = net.features(x)[1].mean((2, 3))
    assert torch.allclose(embed(net, x, "layer2.0"), pooled, atol=1e-6)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    vgg = build("vgg16", num_classes=4, input_size=32).eval()
    assert embed(vgg, torch.randn(1, 3, 32, 32)).shape == (1, 4096)


def test_features_of_other_preprocessing_are_of_another_network(weights: Path) -> None:
    ours = Classifier.open(weights)
    others = [
        ours,
        replace(ours, normalise=replace(ours.normalise, mean=ours.normalise.mean + 0.1)),
        replace(ours, normalise=replace(ours.normalise, std=ours.normalise.std * 2)),
        replace(ours, whole=not ours.whole),
        replace(ours, resizing=Resizing(1.0, "bicubic")),
        Classifier.open(weights, image_size=40),
    ]
    marks = [network_mark(other, unit) for other in others for unit in (None, "layer2.0")]
    assert len(set(marks)) == len(marks)
    assert network_mark(Classifier.open(weights), None) == marks[0]


def test_files_hold_the_same_and_the_rest_is_done(
    weights: Path, images: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    outs = [tmp_path / "made.npz", tmp_path / "made.parquet"]
    for out in outs:
        named = [str(images), str(tmp_path / "bad.png"), str(images / "dots" / "1.png")]
        assert main(["features", str(weights), *named, "--out", str(out), "--batch-size", "2"]) == 1
        said = capsys.readouterr()
        assert "bad.png: can't be read" in said.err
        assert said.out == f"{out}: 7 images, 64 features each\n"
    found = np.load(outs[0])
    assert found["features"].shape == (7, 64)
    assert found["features"].dtype == np.float32
    assert found["labels"].tolist() == ["dots"] * 3 + ["stripes"] * 3 + [""]
    assert found["files"][0] == str(images / "dots" / "0.png")
    assert np.allclose(found["features"][6], found["features"][1], atol=1e-5)
    table = pq.read_table(outs[1])
    assert table["file"].to_pylist() == found["files"].tolist()
    assert table["label"].to_pylist() == found["labels"].tolist()
    assert np.array_equal(np.array(table["features"].to_pylist(), np.float32), found["features"])
    assert table.schema.metadata[b"network"].decode() == str(found["network"])


def test_nearest_images_are_of_the_same_class(weights: Path, images: Path, tmp_path: Path, capsys: Captured) -> None:
    made = tmp_path / "made.npz"
    assert main(["features", str(weights), str(images), "--out", str(made), "--nearest", "2", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["images"], answer["dimensions"], answer["unreadable"]) == (6, 64, [])
    for row in answer["nearest"]:
        others = row["nearest"]
        assert [other["label"] for other in others] == [Path(row["file"]).parent.name] * 2
        assert row["file"] not in [other["file"] for other in others]
        assert 1 + 1e-6 > others[0]["cosine"] >= others[1]["cosine"]
    query = str(images / "stripes" / "2.png")
    assert main(["features", str(weights), query, "--nearest", "9", "--among", str(made)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{query}: {query} 1.000, ")
    assert line.count(".png") == 1 + 6


def test_nearest_by_hand() -> None:
    values = np.array([[1, 0], [3, 0], [1, 1], [0, 0], [-2, 0]], np.float32)
    made = Features(tuple("abcde"), ("",) * 5, values, "net")
    found = nearest(made, made, 3)
    assert [[other.file for other in row] for row in found][:3] == [list("bcd"), list("acd"), list("abd")]
    assert [other.cosine for other in found[0]] == pytest.approx([1, 0.5**0.5, 0])
    assert all(len(row) == 3 for row in found)
    with pytest.raises(UserError, match="features of other can't be compared with those of net"):
        nearest(made, Features(made.files, made.labels, values, "other"), 1)
    with pytest.raises(UserError, match="features of 3 numbers can't be compared with those of 2"):
        nearest(made, Features(made.files, made.labels, np.ones((5, 3), np.float32), "net"), 1)


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    made = Features(("a b.png", "ü.png"), ("x", ""), np.eye(2, 5, dtype=np.float32), "net last 0")
    save(tmp_path / "made.npz", made)
    found = read(tmp_path / "made.npz")
    assert (found.files, found.labels, found.network) == (made.files, made.labels, made.network)
    assert np.array_equal(found.values, made.values)


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(value) for name, value in arrays.items()})
    return buffer.getvalue()


WHOLE = npz(files=["a"], labels=["b"], features=np.zeros((1, 2), np.float32), network="net")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        WHOLE[:200],
        npz(files=["a"]),
        npz(files=["a", "b"], labels=["b"], features=np.zeros((1, 2), np.float32), network="net"),
        npz(files=["a"], labels=["b"], features=np.zeros((1, 2)), network="net"),
        npz(files=[1], labels=["b"], features=np.zeros((1, 2), np.float32), network="net"),
        npz(files=np.array(["a", None]), labels=["b"], features=np.zeros((1, 2), np.float32), network="net"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "made.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match="made.npz: (not an npz|can't be read)"):
        read(path)


def test_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Every image would be as near as any other."""
    values = np.full((1, 2), np.nan, np.float32)
    (tmp_path / "made.npz").write_bytes(npz(files=["a"], labels=["b"], features=values, network="net"))
    with pytest.raises(UserError, match="made.npz: damaged, its features are not all finite"):
        read(tmp_path / "made.npz")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give --out FILE, --nearest K, or both"),
        (["--out", "made.csv"], "made.csv: the name must end in .npz or .parquet"),
        (["--out", "there.npz"], "there.npz: already exists"),
        (["--out", "nowhere/made.npz"], "there is no folder nowhere"),
        (["--nearest", "0"], "nearest=0 must be 1 or more"),
        (["--nearest", "1.5"], "'1.5' must be a whole number"),
        (["--out", "made.npz", "--among", "there.npz"], "--among works with --nearest"),
        (["--nearest", "1", "--among", "missing.npz"], "missing.npz: can't be read"),
        (["--nearest", "1", "--among", "t.parquet"], "t.parquet: a table for other programs; search in the .npz"),
        (["--nearest", "1", "--among", "there.npz"], "features of net can't be compared"),
        (["--out", "made.npz", "--at", "layer9.0"], "unit 'layer9.0' is not one of this network's"),
        (["bad.png", "--out", "made.npz"], "no image can be read, e.g. bad.png: "),
        (["empty", "--out", "made.npz"], "empty: no images in it, it is empty"),
    ],
)
def test_what_cannot_be_is_one_line(
    weights: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
    options: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.npz").write_bytes(WHOLE)
    Path("bad.png").write_bytes(b"no image")
    Path("empty").mkdir()
    named = [] if options and not options[0].startswith("-") else [str(images)]
    assert main(["features", str(weights), *named, *options]) == 2
    *notes, said = capsys.readouterr().err.splitlines()
    assert words in said
    assert all("the file does not state: normalisation" in note for note in notes)
    assert Path("there.npz").read_bytes() == WHOLE
    assert not Path("made.npz").exists()


def test_without_pyarrow_one_line_names_the_extra(
    weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert main(["features", str(weights), str(images), "--out", str(tmp_path / "made.parquet")]) == 2
    assert "pip install 'resnetlab[parquet]'" in capsys.readouterr().err


def test_an_unreadable_image_is_no_failure_where_it_may_be_left_out(
    weights: Path, images: Path, tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    ask = ["features", str(weights), str(images), str(tmp_path / "bad.png"), "--nearest", "1", "--json"]
    said = []
    for options, code in (([], 1), (["--unreadable", "skip"], 0)):
        assert main([*ask, *options]) == code
        shown = capsys.readouterr()
        assert "bad.png: can't be read" in shown.err
        said.append(json.loads(shown.out))
    assert said[0] == said[1]
    assert (said[0]["images"], len(said[0]["unreadable"])) == (6, 1)


def test_many_queries_have_the_neighbours_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their similarities are computed some rows at a time."""
    names = tuple(map(str, range(40)))
    images = Features(names, names, np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32), "net")
    at_once = [[found.file for found in own] for own in nearest(images, images, 5)]
    monkeypatch.setattr("resnetlab.use.features.ROWS", 7)
    assert [[found.file for found in own] for own in nearest(images, images, 5)] == at_once
    assert all(name not in own for name, own in zip(names, at_once, strict=True))
