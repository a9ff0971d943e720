"""The table of data sets: every row is whole, and a row is all that a new data set needs."""

from __future__ import annotations

import io
import json
import pkgutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from resnetlab.cli.main import main
from resnetlab.data.images import Data, Images
from resnetlab.data.open import DATA_NAMES, READERS, Reader, data_names, is_in_memory, open_data
from resnetlab.errors import UserError
from resnetlab.use.classifier import Classifier

SIZE = 16


def read_stripes(kind: str, folder: Path, *_: object) -> Data:
    """A made-up data set: stripes that lie or stand, as many images as the file in its folder says."""
    count = int((folder / "count.txt").read_text())
    labels = torch.arange(count) % 2
    lying = (torch.arange(SIZE) % 2 * 255).to(torch.uint8)[:, None].expand(SIZE, SIZE)
    one = torch.where(labels[:, None, None] == 0, lying, lying.T)  # N H W
    images = Images(one[:, None].expand(-1, 3, -1, -1).contiguous(), labels)
    return Data(kind, images[: count // 2], images[count // 2 :], ("lying", "standing"))


@pytest.fixture
def stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The made-up data set in the table, and a folder of it."""
    row = Reader(f"{__name__}:read_stripes", "the folder with its count", in_memory=True)
    monkeypatch.setitem(READERS, "stripes", row)
    (tmp_path / "count.txt").write_text("32")
    return f"stripes:{tmp_path}"


def test_a_row_of_the_table_is_all_that_a_new_data_set_needs(
    tmp_path: Path, stripes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--net", "cifar_resnet8", "--iterations", "2", "--threads", "1", "--runs", str(tmp_path / "runs")]
    assert main(["train", "digits", "--data", stripes, *options, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    run = trained["run"]
    assert main(["eval", run, "--data", stripes, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert (evaluated["images"], evaluated["top1"]) == (16, 100 - trained["test_error"])
    classifier = Classifier.open(run)
    assert classifier.classes == ("lying", "standing")
    assert (classifier.whole, classifier.seen, classifier.short_side) == (True, 1.0, SIZE), "no middle crop"
    image = open_data(stripes).test.pixels[0]
    encoded = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(encoded, "PNG")
    assert torch.equal(classifier.prepare(encoded.getvalue()), image), "shown as it was in training"


def test_messages_and_names_are_by_the_table(tmp_path: Path, stripes: str) -> None:
    assert "stripes:DIR" in data_names()
    with pytest.raises(UserError, match=r"write stripes:DIR, where DIR is the folder with its count\.$"):
        open_data("stripes")
    with pytest.raises(UserError, match=r"give digits, .*stripes:DIR or just DIR, .*Did you mean stripes"):
        open_data("strips:x")
    with pytest.raises(UserError, match=r"count.txt: can't be read \(No such file"):
        open_data(f"stripes:{tmp_path / 'none'}")


def test_a_row_that_is_not_as_its_reader_is_found_out(stripes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "stripes", Reader(READERS["stripes"].read, "its folder", in_memory=False))
    with pytest.raises(AssertionError, match="in_memory of 'stripes'"):
        open_data(stripes)


@pytest.mark.parametrize("kind", READERS)
def test_every_row_is_whole(kind: str) -> None:
    row = READERS[kind]
    assert kind in DATA_NAMES
    assert callable(pkgutil.resolve_name(row.read))
    archives = [file for file in row.published.files if file.unpacks_to] if row.published else []
    assert bool(row.missing) == bool(archives), "what an archive unpacks to can be held to its list"
    assert not row.missing or callable(pkgutil.resolve_name(row.missing))


def test_what_is_in_memory_is_told_by_the_name_alone() -> None:
    assert [kind for kind in READERS if is_in_memory(f"{kind}:there")] == [
        "digits",
        "cifar10",
        "cifar100",
        "mnist",
        "fashion_mnist",
    ]
    assert not is_in_memory("flowers")
    assert not is_in_memory("")
