"""Packs: what goes in comes out, the same bytes each time; whole or not there; damage and hostile values are named."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, save

from resnetlab.cli.main import main
from resnetlab.data.decoding import decode, read_header
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.pack import INDEX, Contents, encode_jpeg, index_bytes, pack, read_index, read_pack, verify
from resnetlab.errors import UserError

Read = Callable[[Path], Data]


def picture(seed: int, height: int = 40, width: int = 60, kind: str = "JPEG", **how: Any) -> bytes:
    """A smooth picture, encoded."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(made, kind, **how)
    return made.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 training and 4 test images of two classes."""
    train = {f"train/{c}/{i}.jpg": picture(i + 10 * (c == "b")) for c in "ab" for i in range(6)}
    val = {f"val/{c}/{i}.jpg": picture(50 + i + 10 * (c == "b")) for c in "ab" for i in range(2)}
    return write(tmp_path / "flowers", train | val)


@pytest.fixture
def packed(folder: Path, loose_data: Read) -> Path:
    """These images as a pack of a few shards."""
    dest = folder.parent / "packed"
    pack(loose_data(folder), dest, workers=1, shard_bytes=8000)
    return dest


def contents_of(data: Data) -> list[tuple[str, int, bytes]]:
    return [(f.name(i), int(f.labels[i]), f.read(i)) for f in (data.train, data.test) for i in range(len(f))]


def test_a_pack_of_the_files_as_they_are_is_the_same_data(folder: Path, packed: Path, loose_data: Read) -> None:
    loose, again = loose_data(folder), open_data(f"pack:{packed}")
    assert again.fingerprint == loose.fingerprint
    assert contents_of(again) == contents_of(loose)
    assert (again.name, again.classes) == (loose.name, loose.classes)
    assert [len(part) for part in again.hold_out(3)] == [9, 3]
    assert len(list(packed.glob("train-*.tar"))) > 1
    assert {path.name for path in packed.iterdir() if path.suffix != ".tar"} == {INDEX}


def test_the_shards_are_plain_tars_that_give_the_folder_back(folder: Path, packed: Path, tmp_path: Path) -> None:
    source = read_pack("pack", packed).train.source
    places = {}
    for path in packed.glob("*.tar"):
        with tarfile.open(path) as tar:
            for m in tar:
                places[path.name, m.name] = (m.offset_data, m.size, m.mtime, m.uid, m.gid, m.uname)
    for row in range(16):
        path = source.containers[source.which[row]]
        expected = (int(source.starts[row]), int(source.sizes[row]), 0, 0, 0, "")
        assert places[path.name, source.names[row]] == expected
    for side, name in (("train", "train"), ("val", "test")):
        out = tmp_path / "out" / side
        out.mkdir(parents=True)
        for path in packed.glob(f"{name}-*.tar"):
            subprocess.run(["tar", "xf", path, "-C", out], check=True)
    compared = subprocess.run(["diff", "-r", folder, tmp_path / "out"], capture_output=True, text=True)
    assert compared.stdout == ""


@pytest.mark.parametrize("short_side", [None, 24])
def test_the_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path, loose_data: Read, short_side: int) -> None:
    made = []
    for workers in (1, 2):
        dest = tmp_path / f"with{workers}"
        pack(loose_data(folder), dest, short_side=short_side, workers=workers, shard_bytes=9000)
        made.append({path.name: path.read_bytes() for path in dest.iterdir()})
    assert made[0] == made[1]


def test_larger_images_are_made_smaller_and_the_others_kept(tmp_path: Path, loose_data: Read) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    files = {
        "train/a/large.jpg": picture(1, 60, 90),
        "train/a/large.png": picture(2, 60, 90, "PNG"),
        "train/a/other.webp": picture(3, 90, 60, "WEBP"),
        "train/a/small.png": picture(4, 32, 90, "PNG"),
        "train/a/turned.jpg": picture(5, 60, 90, exif=turned),
        "val/a/x.JPEG": picture(6, 100, 100),
    }
    loose = loose_data(write(tmp_path / "data", files))
    contents, _ = pack(loose, tmp_path / "packed", short_side=32, quality=80, workers=1)
    assert (contents.short_side, contents.quality, contents.source) == (32, 80, loose.fingerprint)
    data = read_pack("pack", tmp_path / "packed")
    found = {name: content for name, _, content in contents_of(data)}
    headers = {name: read_header(content) for name, content in found.items()}
    assert {name: (h.width, h.height, h.format) for name, h in headers.items()} == {
        "a/large.jpg": (48, 32, "JPEG"),
        "a/large.png.jpg": (48, 32, "JPEG"),
        "a/other.jpg": (32, 48, "JPEG"),
        "a/small.png": (90, 32, "PNG"),
        "a/turned.jpg": (32, 48, "JPEG"),
        "a/x.JPEG": (32, 32, "JPEG"),
    }
    assert found["a/small.png"] == files["train/a/small.png"]
    with Image.open(io.BytesIO(found["a/turned.jpg"])) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.layer[0][1:3] == (2, 2), "4:2:0"
    upright = decode(files["train/a/turned.jpg"]).mean((0, 1))
    assert np.abs(decode(found["a/turned.jpg"]).mean((0, 1)) - upright).max() < 6
    assert data.fingerprint != loose.fingerprint


def test_names_of_any_bytes_and_length(tmp_path: Path, loose_data: Read) -> None:
    names = [os.fsdecode(b"caf\xe9.jpg"), "é" * 120 + ".jpg", "line\nbreak.jpg", "<b>.jpg", " "]
    root = write(tmp_path / "data", {f"train/a/{n}": picture(i) for i, n in enumerate(names)} | {"val/a/1": b"1"})
    loose = loose_data(root)
    pack(loose, tmp_path / "packed", workers=1)
    assert read_pack("pack", tmp_path / "packed").fingerprint == loose.fingerprint
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "packed" / "train-00000.tar", "-C", tmp_path / "out"], check=True)
    assert sorted(os.listdir(tmp_path / "out" / "a")) == sorted(names)


def test_a_name_that_leads_elsewhere_is_refused(folder: Path, tmp_path: Path, loose_data: Read) -> None:
    data = loose_data(folder)
    source = replace(
        data.train.source, names=type(data.train.source.names)(["../x"] * 12), paths=data.train.source.names
    )
    with pytest.raises(UserError, match="leads outside the pack"):
        pack(replace(data, train=replace(data.train, source=source)), tmp_path / "packed", workers=1)
    assert not list((tmp_path / "packed").iterdir())


def test_data_in_memory_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["data", "pack", "digits", str(tmp_path / "packed")]) == 2
    assert "digits is loaded into memory" in capsys.readouterr().err
    assert not (tmp_path / "packed").exists()


def test_unreadable_images_stop_it_or_are_left_out_and_listed(folder: Path, tmp_path: Path, loose_data: Read) -> None:
    (folder / "train" / "a" / "1.jpg").write_bytes(picture(1)[:300])
    (folder / "train" / "b" / "2.jpg").write_text("no picture")
    (folder / "val" / "b" / "0.jpg").write_bytes(b"")
    data, dest = loose_data(folder), tmp_path / "packed"
    with pytest.raises(UserError, match=r"train/a/1\.jpg: .*--unreadable skip"):
        pack(data, dest, short_side=24, workers=1)
    assert not list(dest.iterdir())
    contents, _ = pack(data, dest, short_side=24, unreadable="skip", workers=1)
    assert [(s.side, s.name) for s in contents.skipped] == [
        ("train", "a/1.jpg"),
        ("train", "b/2.jpg"),
        ("test", "b/0.jpg"),
    ]
    assert all(s.reason for s in contents.skipped)
    assert (contents.train, contents.test) == (10, 3)
    assert read_index(dest)[0] == contents
    with pytest.raises(UserError, match="another pack"):
        pack(data, dest, short_side=24, workers=1)
    pack(data, tmp_path / "as they are", workers=1)  # not decoded, so not in the way


def test_files_that_vanish_or_change_are_named(folder: Path, tmp_path: Path, loose_data: Read) -> None:
    data = loose_data(folder)
    (folder / "train" / "a" / "1.jpg").unlink()
    with pytest.raises(UserError, match=r"a/1\.jpg: No such file"):
        pack(data, tmp_path / "packed", workers=1)
    (folder / "train" / "a" / "1.jpg").write_bytes(b"longer or shorter")
    with pytest.raises(UserError, match=r"a/1\.jpg: has changed"):
        pack(data, tmp_path / "packed", workers=1)
    for path in folder.glob("val/*/*"):
        path.unlink()
    with pytest.raises(UserError, match="none of its test images can be read"):
        pack(data, tmp_path / "packed", unreadable="skip", workers=1)


def test_a_finished_pack_is_found_and_another_is_not_overwritten(folder: Path, packed: Path, loose_data: Read) -> None:
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert pack(loose_data(folder), packed, workers=1)[1]
    with pytest.raises(UserError, match="holds another pack, of flowers"):
        pack(loose_data(folder), packed, short_side=24, workers=1)
    (folder / "train" / "a" / "0.jpg").write_bytes(b"longer")
    with pytest.raises(UserError, match="holds another pack, of flowers"):
        pack(loose_data(folder), packed, workers=1)
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


@pytest.mark.parametrize("foreign", ["train-00000.tar", "notes.txt"])
def test_foreign_files_are_left_alone(folder: Path, tmp_path: Path, loose_data: Read, foreign: str) -> None:
    dest = write(tmp_path / "dest", {foreign: b"mine"})
    with pytest.raises(UserError, match=f"not empty, it holds '{foreign}'"):
        pack(loose_data(folder), dest, workers=1)
    assert [path.read_bytes() for path in dest.iterdir()] == [b"mine"]
    with pytest.raises(UserError, match="can't write"):
        pack(loose_data(folder), dest / foreign, workers=1)


def test_a_killed_pack_is_known_as_unfinished_and_made_by_the_same_command(
    folder: Path, packed: Path, tmp_path: Path, loose_data: Read
) -> None:
    dest = tmp_path / "killed"
    code = (
        "import os, sys; from pathlib import Path; from resnetlab.data.open import open_data\n"
        "from resnetlab.data.pack import pack\n"
        "die = lambda done, total: os.kill(os.getpid(), 9) if done == 14 else None\n"
        "pack(open_data('pack:' + sys.argv[1]), Path(sys.argv[2]), workers=1, progress=die, shard_bytes=8000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(packed), str(dest)], check=False)
    assert done.returncode == -9
    assert len(list(dest.glob("*.tar"))) > 1
    with pytest.raises(UserError, match="an unfinished pack; repeat the command"):
        read_pack("pack", dest)
    write(dest, {"notes.txt": b"mine"})
    with pytest.raises(UserError, match=r"holds 'notes.txt', which is not part"):
        pack(loose_data(folder), dest, workers=1)
    (dest / "notes.txt").unlink()
    assert not pack(loose_data(folder), dest, workers=1)[1]
    assert read_pack("pack", dest).fingerprint == loose_data(folder).fingerprint
    assert {path.name for path in dest.iterdir()} == {"train-00000.tar", "test-00000.tar", INDEX}


@pytest.mark.parametrize("trouble", [KeyboardInterrupt, "full"])
def test_what_is_cut_short_leaves_nothing(
    folder: Path, tmp_path: Path, loose_data: Read, monkeypatch: pytest.MonkeyPatch, trouble: Any
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 13:
            raise OSError(errno.ENOSPC, "No space left on device") if trouble == "full" else trouble

    expected, match = (UserError, "No space left.*repeat the command") if trouble == "full" else (trouble, None)
    with pytest.raises(expected, match=match):
        pack(loose_data(folder), tmp_path / "packed", workers=1, progress=stop)
    assert not list((tmp_path / "packed").iterdir())


def test_two_processes_never_write_one_pack(folder: Path, tmp_path: Path, loose_data: Read) -> None:
    dest = write(tmp_path / "packed", {f"{INDEX}.part": b""})
    with (dest / f"{INDEX}.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is packing"):
            pack(loose_data(folder), dest, workers=1)
    assert (dest / f"{INDEX}.part").exists()
    pack(loose_data(folder), dest, workers=1)


@pytest.mark.parametrize("wrong", [{"short_side": 0}, {"short_side": 5000}, {"quality": 0}, {"unreadable": "ignore"}])
def test_senseless_values_are_refused(folder: Path, tmp_path: Path, loose_data: Read, wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        pack(loose_data(folder), tmp_path / "packed", workers=1, **wrong)
    assert not (tmp_path / "packed").exists()


# Reading and checking


def test_a_missing_or_cut_shard_is_named(packed: Path) -> None:
    shard = packed / "train-00001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"train-00001.tar: has [\d,]+ bytes, but had"):
        read_pack("pack", packed)
    assert [line.startswith(str(shard)) for line in verify(packed)] == [True]
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001.tar: .*No such file"):
        read_pack("pack", packed)
    shard.mkdir()
    with pytest.raises(UserError, match=r"train-00001.tar"):
        read_pack("pack", packed)


def test_what_is_no_pack_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(UserError, match="not a pack"):
            read_pack("pack", path)


def test_a_changed_image_is_named_when_it_is_read_and_by_verify(packed: Path) -> None:
    data = read_pack("pack", packed)
    source = data.train.source
    path = source.containers[source.which[7]]
    content = bytearray(path.read_bytes())
    content[int(source.starts[7]) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="b/1.jpg: damaged"):
        data.train.read(7)
    data.train.read(6)
    lines = verify(packed)
    assert lines[0] == f"{path}: damaged, its SHA-256 differs"
    assert lines[1:] == [f"{path}: b/1.jpg: damaged, its checksum differs"]


def test_progress_of_verify_ends_at_all(packed: Path) -> None:
    told: list[tuple[int, int]] = []
    assert verify(packed, lambda done, total: told.append((done, total))) == []
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1]


def sealed(folder: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], None]) -> None:
    """Write the index anew with other values and a checksum that is right for them."""
    contents, _ = read_index(folder)
    arrays = {k: v.copy() for k, v in load((folder / INDEX).read_bytes()).items()}
    values = asdict(contents)
    change(values, arrays)
    known = Contents(**values)
    (folder / INDEX).write_bytes(index_bytes(known, arrays))


def set_to(place: str, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    """A change of one value: "labels.3", "train", "shards.0.bytes"."""

    def change(values: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        first, *path = place.split(".")
        if first in arrays and not path:
            arrays[first] = value
        elif first in arrays:
            arrays[first][int(path[0])] = value
        else:
            inside: Any = values
            keys = [int(k) if k.isdigit() else k for k in (first, *path)]
            for key in keys[:-1]:
                inside[key] = list(inside[key]) if isinstance(inside[key], tuple) else inside[key]
                inside = inside[key]
            inside[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("labels.3", 2),
        ("labels.3", -1),
        ("ends.3", 10**9),
        ("ends.0", -1),
        ("ends.15", 0),
        ("sizes.2", -1),
        ("sizes.2", 2**63 - 1),
        ("starts.2", -(2**63)),
        ("starts.2", 2**63 - 1),
        ("which.2", 99),
        ("which.2", -1),
        ("names", np.zeros(3, np.uint8)),
        ("labels", np.zeros(3, np.int32)),
        ("labels", np.zeros(16, np.float32)),
        ("labels", np.zeros((4, 4), np.int32)),
        ("train", 17),
        ("train", -1),
        ("test", 5),
        ("train", "12"),
        ("train", True),
        ("name", 5),
        ("classes", []),
        ("classes", 5),
        ("classes.1", None),
        ("shards", []),
        ("shards.0.file", "../../x"),
        ("shards.0.file", "/etc/passwd"),
        ("shards.0.file", 5),
        ("shards.0.file", "train-00001.tar"),
        ("shards.0.bytes", -1),
        ("shards.0.bytes", 2**70),
        ("shards.0.bytes", 1.5),
        ("shards.0.sha256", None),
        ("shards.0", {}),
        ("shards.0", 5),
        ("skipped", [{"side": 1, "name": 2, "reason": 3}]),
        ("short_side", "x"),
        ("source", None),
    ],
)
def test_hostile_values_are_refused_in_a_line(packed: Path, place: str, value: Any) -> None:
    sealed(packed, set_to(place, value))
    with pytest.raises(UserError, match=INDEX) as raised:
        read_pack("pack", packed)
    assert "\n" not in str(raised.value)


def test_another_format_is_told_from_damage(packed: Path) -> None:
    content = (packed / INDEX).read_bytes()
    (packed / INDEX).write_bytes(content.replace(b'\\"format\\": 1', b'\\"format\\": 7'))
    with pytest.raises(UserError, match="a pack of format 7; this version reads 1 and 2"):
        read_pack("pack", packed)


def read_all(folder: Path) -> None:
    """Everything that a reader does; only errors of the stated kinds."""
    try:
        data = read_pack("pack", folder)
    except UserError:
        return
    for files in (data.train, data.test):
        for i in range(len(files)):
            try:
                files.read(i)
            except OSError:
                files.place(i)
    data.fingerprint  # noqa: B018


def test_mutated_indexes_and_shards_never_crash(packed: Path) -> None:
    chance = random.Random(0)
    good = (packed / INDEX).read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for turn in range(2000):
        content = bytearray(good)
        for _ in range(chance.choice((1, 1, 3, 20))):
            content[chance.randrange(header if turn % 2 else len(content))] = chance.randrange(256)
        if turn % 7 == 0:
            del content[chance.randrange(len(content)) :]
        (packed / INDEX).write_bytes(content)
        read_all(packed)
    arrays = load(good)
    card = json.loads(json.loads(good[8:header])["__metadata__"]["resnetlab"])
    wild = (0, -1, 1, 2**31 - 1, -(2**31), 7, 600)
    for _ in range(1500):  # with a right checksum
        changed = {name: array.copy() for name, array in arrays.items()}
        for _ in range(chance.choice((1, 2, 5))):
            array = changed[chance.choice(list(changed))]
            array[chance.randrange(len(array))] = np.array(chance.choice(wild)).astype(array.dtype)
        index = json.loads(json.dumps(card["index"]))
        if chance.random() < 0.5:
            key = chance.choice(list(index))
            index[key] = chance.choice((None, 0, -1, "x", [], {}, [None], [[]], {"a": 1}, 2**80, 1.5, "\ud800", True))
        from resnetlab.data.pack import _checksum

        text = json.dumps({"sha256": _checksum(changed, index), "index": index})
        (packed / INDEX).write_bytes(save(changed, {"resnetlab": text}))
        read_all(packed)
    (packed / INDEX).write_bytes(good)
    shards = {path: path.read_bytes() for path in packed.glob("*.tar")}
    for _ in range(200):
        path = chance.choice(list(shards))
        content = bytearray(shards[path])
        for _ in range(5):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content)
        read_all(packed)
        path.write_bytes(shards[path])


@pytest.mark.parametrize(
    "card",
    ["", "5", "[]", "{}", '{"index": 5}', '{"index": {"format": 1}}', "[" * 100_000, "9" * 5000, '{"index": []}'],
)
def test_metadata_of_any_kind(packed: Path, card: str) -> None:
    (packed / INDEX).write_bytes(save(load((packed / INDEX).read_bytes()), {"resnetlab": card}))
    with pytest.raises(UserError, match=INDEX):
        read_pack("pack", packed)


# The command


def test_the_command_packs_finds_and_verifies(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "again"
    command = ["data", "pack", f"pack:{packed}", str(dest), "--short-side", "24", "--workers", "1"]
    assert main([*command, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer | {"seconds": 0, "bytes": 0} == {
        "folder": str(dest),
        "train": 12,
        "test": 4,
        "shards": ["train-00000.tar", "test-00000.tar"],
        "bytes": 0,
        "skipped": [],
        "seconds": 0,
        "understood": {
            "classes": 2,
            "class_names": ["a", "b"],
            "images": 16,
            "tested": 4,
            "part": "by the pack",
            "held_out": 0,
        },
    }
    assert answer["bytes"] == sum(path.stat().st_size for path in dest.glob("*.tar"))
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "already packed: 12 training and 4 test images" in said
    assert f"--data pack:{dest}" in said
    assert main(["data", "verify", str(dest)]) == 0
    assert "all shards and images are undamaged" in capsys.readouterr().out
    path = dest / "test-00000.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["data", "verify", str(dest)]) == 2
    out, err = capsys.readouterr()
    assert "test-00000.tar: damaged" in out
    assert "a damaged pack, 1 fault" in err
    assert main(["data", "verify", str(dest), "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["damage"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--quality", "80"], "without --short-side"),
        (["--short-side", "1.5"], "whole number"),
        (["--workers", "0"], "workers=0 must be"),
        (["--unreadable", "skp"], "Did you mean skip"),
    ],
)
def test_bad_options_are_one_line(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["data", "pack", f"pack:{packed}", str(tmp_path / "dest"), *arguments]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (tmp_path / "dest").exists()


def test_real_photos(tmp_path: Path, real_images: Callable[[str], Path]) -> None:
    loose = open_data(f"folder:{real_images('hymenoptera')}")
    pack(loose, tmp_path / "packed", workers=1)
    assert read_pack("pack", tmp_path / "packed").fingerprint == loose.fingerprint
    contents, _ = pack(loose, tmp_path / "small", short_side=128, workers=1)
    assert (contents.train, contents.test) == (len(loose.train), len(loose.test))
    data = read_pack("pack", tmp_path / "small")
    headers = [read_header(data.test.read(i)) for i in range(len(data.test))]
    assert {min(h.height, h.width) for h in headers} == {128}
    assert verify(tmp_path / "small") == []


def test_encoding_is_close_to_what_was_decoded() -> None:
    pixels = decode(picture(3, 64, 64, "PNG"))
    assert np.abs(decode(encode_jpeg(pixels, 90)).astype(int) - pixels).mean() < 3
    assert len(encode_jpeg(pixels, 30)) < len(encode_jpeg(pixels, 95))
