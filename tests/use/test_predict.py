"""Prediction from files: the same answer as the evaluation gives, whatever else lies in the folder."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from resnetlab.cli.main import main
from resnetlab.data.images import Images
from resnetlab.data.open import open_data
from resnetlab.data.walk import SPLIT
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build
from resnetlab.use.classifier import Classifier
from resnetlab.use.predict import find_images, labelled_images, likeliest, predict
from resnetlab.weights.metadata import weights_bytes

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test images of the digits as files, twenty of them."""
    folder = tmp_path_factory.mktemp("digits")
    test = open_data("digits").test
    assert isinstance(test, Images)
    for i in range(20):
        Image.fromarray(test.pixels[i, 0].numpy()).save(folder / f"{i:02}.png")
    return folder


def test_files_give_what_the_evaluation_sees(run: Path, digits: Path) -> None:
    classifier = Classifier.open(run)
    test = open_data("digits").test
    assert isinstance(test, Images)
    prepared = torch.stack([classifier.prepare(path.read_bytes()) for path in find_images([str(digits)])])
    assert torch.equal(prepared, test.pixels[:20])
    found = list(predict(classifier, find_images([str(digits)]), batch=7))
    wanted = classifier.probabilities(test.pixels[:20])
    for p, row in zip(found, wanted, strict=True):
        assert p.classes[0][0] == classifier.classes[int(row.argmax())]
        assert p.classes[0][1] == pytest.approx(float(row.max()), abs=1e-5)
        assert len(p.classes) == 5


def test_the_rest_is_done_when_a_file_cannot_be_read(run: Path, digits: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty.jpg").touch()
    images = [str(tmp_path), str(digits / "00.png"), "missing.png"]
    assert main(["predict", str(run), *images, "--json", "--device", "cpu"]) == 1
    rows = json.loads(capsys.readouterr().out)["images"]
    assert [bool(row["error"]) for row in rows] == [True, True, False, True]
    assert sum(c["probability"] for c in rows[2]["classes"]) <= 1 + 1e-6
    assert main(["predict", str(run), *images]) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert all(name in shown.err for name in ("bad.png", "empty.jpg", "missing.png"))


@pytest.mark.parametrize("command", [["predict"], ["features", "--out", "f.npz"], ["explain"]])
def test_what_is_no_file_is_said_and_never_waited_for(
    run: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, command: list[str]
) -> None:
    """Nothing writes to the FIFO, and /dev/zero has no end."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.png")
    assert main([command[0], str(run), "fifo.png", "/dev/zero", str(digits / "00.png"), *command[1:]]) == 1
    shown = capsys.readouterr().err
    assert "fifo.png: can't be read (it is a FIFO, not a regular file)" in shown
    assert "/dev/zero: can't be read (it is a device, not a regular file)" in shown


def test_what_a_file_does_not_tell_is_said(digits: Path, tmp_path: Path, capsys: Captured) -> None:
    net = build("resnet18", num_classes=12, seed=0)
    torch.save({"state_dict": net.state_dict(), "ema": net.state_dict()}, tmp_path / "x.pth")
    image = str(digits / "00.png")
    assumed = ["names of classes (numbered from 0 instead)"]
    size = "size of images (224 pixels, unless --image-size gives another)"
    assert main(["predict", str(tmp_path / "x.pth"), image]) == 0
    assert f"x.pth: the file does not state: {assumed[0]}, {size}\n" in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "x.pth"), image, "--image-size", "32", "--json", "--which", "ema"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["assumed"] == assumed
    assert {c["class"] for c in said["images"][0]["classes"]} <= {str(i) for i in range(12)}
    explained = ["explain", str(tmp_path / "x.pth"), image, "--label", "11", "--out", str(tmp_path / "out")]
    assert main([*explained, "--image-size", "32"]) == 0
    assert "x.pth: the file does not state: names of classes" in capsys.readouterr().err


def test_features_need_no_head(digits: Path, tmp_path: Path, capsys: Captured) -> None:
    state = build("resnet18", seed=0).state_dict()
    save_file({k: t for k, t in state.items() if not k.startswith("fc.")}, tmp_path / "x.safetensors")
    ask = [str(tmp_path / "x.safetensors"), str(digits / "00.png"), "--image-size", "32"]
    assert main(["features", *ask, "--out", str(tmp_path / "x.npz")]) == 0
    assert capsys.readouterr().err == ""
    assert np.load(tmp_path / "x.npz")["features"].shape == (1, 512)
    for command in ("predict", "explain"):
        assert main([command, *ask]) == 2
        assert "x.safetensors: has no head, the fully connected layer" in capsys.readouterr().err


def test_patterns_lists_and_csv(run: Path, digits: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    given = f"{digits}/03.png\r\n\n{digits}/04.png"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode("utf-8-sig"))))
    for images, names in (([f"{digits}/0[12].png"], ["01.png", "02.png"]), ([], ["03.png", "04.png"])):
        assert main(["predict", str(run), *images, "--csv", "--top", "2"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [Path(row["file"]).name for row in rows[::2]] == names
        assert [row["rank"] for row in rows] == ["1", "2"] * 2


def test_a_folder_is_looked_through_as_training_does(
    run: Path, digits: Path, tmp_path: Path, capsys: Captured, caplog: pytest.LogCaptureFixture
) -> None:
    image, folder = (digits / "00.png").read_bytes(), tmp_path / "inbox"
    wanted = ["a-b/1.png", "ant/1.PNG", "ant/deep/2.jpg", "more/3.png"]
    passed_over = ["ant/._1.png", "ant/.x.png", "__MACOSX/ant/1.png", "Thumbs.db"]
    passed_over += [".ipynb_checkpoints/1.png", SPLIT]
    for name in [*wanted[:-1], *passed_over, "notes.txt", "../elsewhere/3.png"]:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image)
    (folder / "more").symlink_to("../elsewhere")  # a folder that is a link
    (folder / "ant" / "loop").symlink_to("..")
    found = [str(path) for path in find_images([str(folder)])]
    assert sorted(found) == [str(folder / name) for name in wanted]
    assert [str(path.relative_to(folder)) for path in map(Path, found)] == wanted, "in the order of their parts"
    assert [record.getMessage() for record in caplog.records] == [f"{folder}: 1 file skipped, not images: 'notes.txt'"]
    assert [label for _, label in labelled_images([str(folder)])] == ["a-b", "ant", "deep", "more"]
    anything = [Path(path) for path in found] + [folder / "notes.txt"]
    assert find_images([str(folder / "**" / "*.[jpP]*")]) == anything[:-1], "a pattern passes over the same"
    for pattern in ("**", "*"):
        assert find_images([str(folder / pattern)]) == anything, "each once; and other endings, if it matches them"
    assert main(["predict", str(run), str(folder), "--csv", "--top", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(wanted)
    assert main(["features", str(run), str(folder), "--out", str(tmp_path / "f.npz")]) == 0
    assert np.load(tmp_path / "f.npz")["labels"].tolist() == ["a-b", "ant", "deep", "more"]
    assert main(["explain", str(run), str(folder), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == len(wanted)


def test_a_folder_that_several_paths_lead_to_is_called_by_the_shortest(tmp_path: Path) -> None:
    """Its name is the class of its images."""
    (tmp_path / "zebra").mkdir()
    (tmp_path / "zebra" / "1.png").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "link").symlink_to("../zebra")
    assert labelled_images([str(tmp_path / "**" / "[zl]*")]) == [(tmp_path / "zebra" / "1.png", "zebra")]


def test_an_address_is_refused_as_it_was_given() -> None:
    with pytest.raises(UserError, match="^https://example.com/x.jpg: addresses are not fetched; download the picture"):
        labelled_images(["https://example.com/x.jpg"])


def test_a_folder_without_images_is_told_and_what_is_named_itself_is_taken(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "1.png").write_bytes((digits / "00.png").read_bytes())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="empty: no images in it, it is empty; images are recognised by extension"):
        find_images(["empty"])
    assert find_images(["empty", ".hidden", "._x.png"]) == [Path(".hidden/1.png"), Path("._x.png")]
    assert caplog.records[0].getMessage().startswith("empty: no images in it, it is empty; images are recognised by")
    monkeypatch.chdir(".hidden")
    assert labelled_images(["."]) == [(Path("1.png"), ".hidden")]
    assert labelled_images(["../.hidden/../.hidden"])[0][1] == ".hidden"
    with pytest.raises(UserError, match="[.][.]: no images in it, only empty folders and hidden files"):
        find_images([".."])


def test_probabilities_among_thousands_of_classes_are_printed_with_more_decimals(
    digits: Path, tmp_path: Path, capsys: Captured
) -> None:
    net = build("cifar_resnet8", num_classes=5000, seed=0)
    (tmp_path / "net.safetensors").write_bytes(weights_bytes(net, net.spec))
    assert main(["predict", str(tmp_path / "net.safetensors"), str(digits / "00.png"), "--top", "2"]) == 0
    assert re.search(r"00.png: \d+ 0\.0\d{3} %, \d+ 0\.0\d{3} %$", capsys.readouterr().out)


def test_equal_probabilities_keep_the_order_of_classes() -> None:
    assert likeliest(torch.tensor([0.2, 0.4, 0.4]), ("a", "b", "c"), 9) == (
        ("b", pytest.approx(0.4)),
        ("c", pytest.approx(0.4)),
        ("a", pytest.approx(0.2)),
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "missing", "x.png"], "missing: no such run folder or weight file"),
        (["predict", "RUN", "x.png", "--top", "0"], "top=0 must be 1 or more"),
        (["predict", "RUN", "x.png", "--json", "--csv"], "not both"),
        (["predict", "RUN", "x.png", "--which", "first"], "which='first' is not known"),
        (["predict", "RUN", "EMPTY"], "no images in it, it is empty"),
        (["predict", "RUN", "EMPTY", "--json"], "no images in it, it is empty"),
        (["predict", "RUN"], "no image given"),
        (["explain", "RUN", "x.png", "--label", "11"], "label='11' is not known"),
        (["explain", "RUN", "x.png", "--method", "occlusion", "--unit", "layer1.0"], "--unit works with grad_cam"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Path, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    places = {"RUN": str(run), "EMPTY": str(tmp_path)}
    assert main([places.get(a, a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_explain_writes_a_picture_for_each_image(
    run: Path, digits: Path, tmp_path: Path, capsys: Captured, method: str
) -> None:
    (tmp_path / "00.png").write_bytes((digits / "00.png").read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [str(digits / "00.png"), str(tmp_path)]
    out = tmp_path / "explained"
    assert main(["explain", str(run), *images, "--out", str(out), "--method", method, "--json"]) == 1
    said = capsys.readouterr()
    rows = json.loads(said.out)["images"]
    assert [row.get("picture") for row in rows] == [str(out / "00.png"), str(out / "00-2.png"), None]
    assert "bad.png: can't be read" in said.err
    assert rows[0]["class"] == rows[1]["class"]
    picture = np.asarray(Image.open(out / "00.png"))
    assert picture.shape == (256, 2 * 256 + 8, 3)


def test_explained_pictures_are_no_class_and_lie_among_no_others(
    run: Path, digits: Path, tmp_path: Path, capsys: Captured
) -> None:
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(2):
            (tmp_path / label / f"{i}.png").write_bytes((digits / "00.png").read_bytes())
    for _ in range(2):  # the second time it is its own
        assert main(["explain", str(run), str(digits / "00.png"), "--out", str(tmp_path / "explained")]) == 0
    assert open_data(str(tmp_path), "read").classes == ("a", "b")
    capsys.readouterr()
    assert main(["explain", str(run), str(digits / "00.png"), "--out", str(tmp_path / "a")]) == 2
    assert "a: holds other images, such as '0.png'; choose a new folder with --out" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["0.png", "1.png"]
    (tmp_path / "data").mkdir()
    (tmp_path / "a").rename(tmp_path / "data/a")
    (tmp_path / "b").rename(tmp_path / "data/b")
    for _ in range(2):
        assert main(["explain", str(run), str(digits / "00.png"), "--out", str(tmp_path / "data")]) == 0
    assert open_data(str(tmp_path / "data"), "read").classes == ("a", "b")
