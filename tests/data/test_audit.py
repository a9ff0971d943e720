"""The audit: every kind of file is found and named, copies and look-alikes across the sides; what the command says."""

from __future__ import annotations

import io
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_packs import write
from PIL import Image, ImageDraw

from resnetlab.cli.main import main
from resnetlab.data.audit import Audit, ClassCount, audit
from resnetlab.data.images import Data
from resnetlab.data.near_duplicates import NEAR, NEAR_FINE, difference_hash, nearest_looks
from resnetlab.data.open import open_data
from resnetlab.data.pack import pack

Read = Callable[[Path], Data]


def drawing(seed: int, width: int = 60, height: int = 44) -> Image.Image:
    """A picture like no other seed's."""
    small = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **how: Any) -> bytes:
    made = io.BytesIO()
    image.save(made, kind, **how)
    return made.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that claims 60,000 x 60,000 pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def made_up() -> dict[str, bytes]:
    """Files of every kind; each of its own picture but for the copies."""
    alpha = drawing(3).convert("RGBA")
    alpha.putalpha(128)
    palette = drawing(4).quantize(16)
    odd: dict[str, bytes] = {
        "train/a/cmyk.jpg": encoded(drawing(1).convert("CMYK")),
        "train/a/deep.png": encoded(Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60) * 18), "PNG"),
        "train/a/dark.png": encoded(Image.fromarray(np.arange(3600, dtype=np.uint16).reshape(60, 60)), "PNG"),
        "train/a/alpha.png": encoded(alpha, "PNG"),
        "train/a/palette.png": encoded(palette, "PNG", transparency=0),
        "train/a/grey.jpg": encoded(drawing(5).convert("L")),
        "train/a/grey in colour.png": encoded(drawing(6).convert("L").convert("RGB"), "PNG"),
        "train/a/turned.jpg": encoded(drawing(7), exif=turned()),
        "train/a/moving.gif": encoded(drawing(8), "GIF", save_all=True, append_images=[drawing(9)]),
        "train/a/really a.jpg": encoded(drawing(10), "PNG"),
        "train/a/cut.jpg": encoded(drawing(11))[:600],
        "train/a/garbage.jpg": bytes(range(256)) * 4,
        "train/a/empty.jpg": b"",
        "train/a/text.jpg": b"no picture",
        "train/a/bomb.png": bomb(),
        "train/a/tiny.png": encoded(drawing(12, 40, 31), "PNG"),
        "train/a/long.png": encoded(drawing(13, 300, 40), "PNG"),
        "train/a/flat.png": encoded(Image.new("RGB", (50, 50), "navy"), "PNG"),
        "train/a/" + os.fsdecode(b"caf\xe9.jpg"): encoded(drawing(14)),
        "train/a/<script>alert(1)<": encoded(drawing(15)),
    }
    a, b, c = encoded(drawing(20)), encoded(drawing(21)), encoded(drawing(22), "PNG")
    copies: dict[str, bytes] = {
        "train/a/leak.jpg": a,
        "val/a/leak.jpg": a,
        "train/a/twice 1.jpg": b,
        "train/a/twice 2.jpg": b,
        "train/a/pixels.png": c,
        "val/b/pixels.png": encoded(drawing(22), "PNG", compress_level=0),
        "train/b/torn.jpg": encoded(drawing(23)),
        "train/a/torn.jpg": encoded(drawing(23)),
        "train/b/alike.jpg": encoded(drawing(24, 240, 180)),
        "val/b/alike.jpg": encoded(drawing(24, 240, 180).resize((100, 75)), quality=60),
        "val/a/flat too.png": encoded(Image.new("RGB", (50, 50), "navy"), "PNG", compress_level=0),
    }
    return odd | copies


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, loose_data: Read) -> Data:
    root = write(tmp_path_factory.mktemp("audit") / "flowers", made_up())
    (root / "train" / "a" / "folder.jpg").mkdir()
    return loose_data(root)


@pytest.fixture(scope="module")
def found(data: Data) -> Audit:
    return audit(data, workers=1)


def names(images: tuple[Any, ...]) -> list[str]:
    return [image.name.partition("/")[2] for image in images]


def test_unreadable_files_are_named_with_their_reasons(found: Audit) -> None:
    reasons = {image.name: image.words for image in found.unreadable}
    assert sorted(reasons) == ["a/bomb.png", "a/cut.jpg", "a/empty.jpg", "a/garbage.jpg", "a/text.jpg"]
    assert reasons["a/empty.jpg"] == "empty, 0 bytes"
    assert "89,478,485" in reasons["a/bomb.png"]
    assert all(reasons.values())
    assert found.readable == found.train + found.test - 5


def test_copies_are_found_across_and_within_and_with_other_labels(found: Audit) -> None:
    groups = {names(each.images)[0]: each for each in found.copies}
    assert set(groups) == {"leak.jpg", "twice 1.jpg", "pixels.png", "torn.jpg", "flat.png"}
    leak, pixels, torn = groups["leak.jpg"], groups["pixels.png"], groups["torn.jpg"]
    assert (leak.same, leak.across, leak.contradictory) == ("bytes", True, False)
    assert (pixels.same, pixels.across, pixels.contradictory) == ("pixels", True, True)
    assert (torn.same, torn.across, torn.contradictory) == ("bytes", False, True)
    assert [(i.side, i.class_name) for i in pixels.images] == [("train", "a"), ("test", "b")]
    assert (found.leaked, found.contradictory, found.within("train"), found.within("test")) == (3, 4, 2, 0)


def test_look_alikes_are_found_across_and_are_no_copies(found: Audit) -> None:
    (near,) = found.near
    assert (near.train.name, near.test.name) == ("b/alike.jpg", "b/alike.jpg")
    assert near.distance <= NEAR_FINE


def test_oddities(found: Audit) -> None:
    assert names(found.mismatched) == ["really a.jpg"]
    assert found.mismatched[0].words == "extension .jpg, format PNG"
    assert names(found.tiny) == ["tiny.png"]
    assert names(found.stretched) == ["long.png"]
    assert found.huge == ()
    assert found.rotated == 1
    assert found.grey == 4  # three by their mode, one by its pixels
    assert {each.name: each.words for each in found.narrow} == {
        "a/dark.png": "levels 0 to 14 of 255: perhaps 12 bits stored in 16",
        "a/flat.png": "one colour",
        "a/flat too.png": "one colour",
    }
    assert found.sizes is not None
    assert (found.sizes.shortest, found.sizes.longest) == (31, 300)
    formats = {(format, mode): count for format, mode, count in found.formats}
    expected = {("JPEG", "CMYK"), ("PNG", "I;16"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "L"), ("GIF", "P")}
    assert expected <= set(formats)
    assert sum(formats.values()) == found.readable
    said = dict(found.summary())["formats"]
    assert all(words in said for words in ("PNG 16-bit grey", "PNG RGB with alpha", "GIF palette", "JPEG CMYK"))


def test_classes(found: Audit) -> None:
    counts = {each.name: (each.train, each.test) for each in found.classes}
    assert counts == {"a": (25, 2), "b": (2, 2)}
    assert found.imbalance == 12.5
    assert found.evenness == "the largest class has 12.5 times the training images of the smallest"
    assert replace(found, imbalance=1.04).evenness == "all classes are about the same size in training"
    assert replace(found, imbalance=1.0).evenness == "all classes are the same size in training"
    assert replace(found, imbalance=None).evenness == "a class has no training images"
    assert found.few == ("b",)
    assert found.advice.startswith("The classes are uneven, 25 training images of a and 2 of b: ")
    assert "--balance class_weights" in found.advice
    assert found.to_dict()["advice"] == found.advice


@pytest.mark.parametrize(
    ("counts", "advised"), [((30, 10), True), ((29, 10), False), ((30, 0), False), ((0, 0), False)]
)
def test_weighing_classes_is_advised_from_three_times_the_smallest_on(
    found: Audit, counts: tuple[int, int], advised: bool
) -> None:
    classes = tuple(ClassCount(name, count, 5) for name, count in zip("ab", counts, strict=True))
    assert bool(replace(found, classes=classes).advice) == advised


def test_json_and_words_hold_the_same(found: Audit) -> None:
    values = json.loads(json.dumps(found.to_dict()))
    assert values["leaked"] == 3
    assert values["copies"][0]["images"][0]["side"] == "train"
    assert values["verdict"] == found.verdict
    assert found.verdict == (
        "3 test images of 4 also among the training images; 1 test image of 4 nearly identical to a training image; "
        "4 images with conflicting labels; 5 files of 31 unreadable; 3 images with few levels."
    )
    said = dict(found.summary())
    assert said["images"] == "27 training, 4 test; 26 of 31 readable"
    assert said["in training and test"] == "3 of 4 test images"
    assert said["near-duplicates"] == "1 of 4 test images, of a training image"
    assert said["conflicting labels"] == "4 images"  # two of each of two groups
    (near,) = dict(found.lists())["near-duplicates in training and test"]
    assert near == f"test b/alike.jpg and train b/alike.jpg: {found.near[0].distance} of 256 bits differ"


def test_the_number_of_processes_changes_nothing(data: Data, found: Audit) -> None:
    told: list[tuple[int, int]] = []
    assert audit(data, workers=2, progress=lambda done, total: told.append((done, total))) == found
    assert told == [(i, 31) for i in range(1, 32)]


def test_clean_data_is_called_clean(tmp_path: Path, loose_data: Read) -> None:
    files = {f"{side}/{c}/{i}.png": encoded(drawing(len(side) * 100 + ord(c) * 10 + i), "PNG")
             for side in ("train", "val") for c in "ab" for i in range(3)}  # fmt: skip
    found = audit(loose_data(write(tmp_path / "clean", files)), workers=1)
    assert found.verdict == "Every file can be read, and no test image is among the training images."
    assert found.lists() == [("classes with fewer than 20 training images", ["a", "b"])]


def test_nothing_readable_and_a_class_without_images(tmp_path: Path, loose_data: Read) -> None:
    root = write(tmp_path / "bad", {"train/a/x.jpg": b"x", "val/a/x.jpg": b"y"})
    for side in ("train", "val"):
        (root / side / "b").mkdir()
    found = audit(loose_data(root), workers=1)
    assert (found.readable, found.sizes, found.imbalance, found.few) == (0, None, None, ("a", "b"))
    assert found.summary()
    assert json.loads(json.dumps(found.to_dict()))["imbalance"] is None


def test_an_image_that_kills_the_decoder_is_named(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "import os\nfrom resnetlab.data.source import FolderFiles\n\nclass Killing(FolderFiles):\n"
    module += (
        "    def read(self, row):\n        return os.abort() if 'grey.' in self.names[row] else super().read(row)\n"
    )
    (tmp_path / "killing_source.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "killing_source", raising=False)
    from killing_source import Killing  # type: ignore[import-not-found]

    source = data.train.source
    killing = Killing(source.folder, source.names, source.labels, source.sizes)
    found = audit(replace(data, train=replace(data.train, source=killing)), workers=2)
    (killed,) = (image for image in found.unreadable if "crashes" in image.words)
    assert killed.name == "a/grey.jpg"
    assert len(found.unreadable) == 6


def test_data_in_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", "digits"]) == 2
    assert "only data sets of image files can be audited" in capsys.readouterr().err


# Hashes of what pictures look like


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((image.width // 2, image.height // 2)),
        lambda image: Image.open(io.BytesIO(encoded(image, quality=50))),
        lambda image: image.convert("L").convert("RGB"),
        lambda image: image.point(lambda v: min(int(v * 1.1), 255)),
    ],
)
def test_a_changed_copy_looks_alike_and_another_picture_does_not(change: Callable[[Image.Image], Image.Image]) -> None:
    originals = [drawing(seed, 240, 180) for seed in range(30)]
    hashes = np.stack([difference_hash(np.asarray(image))[0] for image in originals])
    changed = np.stack([difference_hash(np.asarray(change(image)))[0] for image in originals])
    nearest, distance = nearest_looks(changed, hashes)
    assert sum(nearest == np.arange(30)) >= 27
    assert set(nearest[nearest != np.arange(30)]) <= {-1}
    assert (distance[nearest >= 0] <= NEAR_FINE).all()


def test_flat_pictures_have_no_look() -> None:
    drawn = Image.new("RGB", (40, 40), "white")
    ImageDraw.Draw(drawn).rectangle((0, 0, 20, 40), fill="black")
    assert not difference_hash(np.asarray(drawn))[1]
    assert difference_hash(np.full((40, 40, 3), 200, np.uint8))[1]
    for levels, flat in ((12, True), (40, False)):
        ramp = np.linspace(100, 100 + levels, 40).astype(np.uint8)[None, :, None].repeat(40, 0).repeat(3, 2)
        assert difference_hash(ramp)[1] == flat


@pytest.mark.parametrize(("coarse", "fine", "near"), [(4, 30, True), (5, 30, False), (4, 31, False)])
def test_hashes_that_differ_in_few_bits_are_near(coarse: int, fine: int, near: bool) -> None:
    """Of 64 bits 4, and of 256 bits 30."""
    bits = np.zeros((1, 320), np.uint8)
    bits[0, :coarse], bits[0, 64 : 64 + fine] = 1, 1
    nearest, _ = nearest_looks(np.packbits(bits, axis=1).view(np.uint64), np.zeros((1, 5), np.uint64))
    assert nearest.tolist() == [0 if near else -1]


def test_the_nearest_are_those_that_comparing_all_finds() -> None:
    random = np.random.default_rng(0)
    among = random.integers(0, 2**64, (300, 5), dtype=np.uint64)
    asked = among[random.integers(0, 300, 200)].copy()
    for row in asked:
        for _ in range(random.integers(0, 8)):
            row[0] ^= np.uint64(1) << np.uint64(random.integers(64))
        for _ in range(random.integers(0, 45)):
            row[1 + random.integers(4)] ^= np.uint64(1) << np.uint64(random.integers(64))
    among[7] = among[200]  # the first of two that are equal
    nearest, distance = nearest_looks(asked, among)
    for k, row in enumerate(asked):
        bits = [[int(a ^ b).bit_count() for a, b in zip(row, other, strict=True)] for other in among]
        fits = [(sum(b[1:]), i) for i, b in enumerate(bits) if b[0] <= NEAR and sum(b[1:]) <= NEAR_FINE]
        assert (nearest[k], distance[k]) == (min(fits)[::-1] if fits else (-1, NEAR_FINE + 1))
    assert 50 < sum(nearest >= 0) < 200


# The command


def test_the_command_prints_a_table_json_and_a_page(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(data, tmp_path / "packed", workers=1)
    command = ["data", "audit", f"pack:{tmp_path / 'packed'}", "--workers", "1"]
    page = tmp_path / "audit.html"
    assert main([*command, "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "5 files of 31 unreadable" in said
    assert "train a/empty.jpg: empty, 0 bytes" in said
    assert page.read_text().startswith("<!doctype html>")
    assert main([*command, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["train"], values["test"], len(values["unreadable"])) == (27, 4, 5)
    assert main([*command, "--html", str(page), "--json"]) == 0  # its own page is replaced
    capsys.readouterr()
    page.write_text("my notes")
    assert main([*command, "--html", str(page)]) == 2
    assert "already exists and is not the page of an audit" in capsys.readouterr().err
    assert page.read_text() == "my notes"
    assert main([*command, "--html", str(tmp_path / "nowhere" / "x.html")]) == 2
    assert "can't be written; give a file in an existing folder" in capsys.readouterr().err


def test_names_that_are_no_text_are_printed(
    loose_data: Read, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"\xe9\x1b[31m\n.jpg")
    root = write(tmp_path / "odd", {f"train/a/{odd}": b"", "val/a/1.png": encoded(drawing(1), "PNG")})
    pack(loose_data(root), tmp_path / "packed", workers=1)
    assert main(["data", "audit", f"pack:{tmp_path / 'packed'}", "--workers", "1"]) == 0
    assert r"train a/\xe9\x1b[31m\n.jpg: empty" in capsys.readouterr().out


def test_real_photos(real_images: Callable[[str], Path]) -> None:
    found = audit(open_data(f"folder:{real_images('hymenoptera')}"), workers=1)
    assert (found.train, found.test, found.readable) == (245, 153, 398)
    assert (found.near, found.leaked, found.grey) == ((), 0, 1)
