"""Packs: what goes in comes out, the same bytes each time; a pack is whole or not there."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from made_packs import Read, picture, write
from PIL import Image

from resnetlab.cli.main import main
from resnetlab.data import pack as packing
from resnetlab.data.decoding import decode, read_header
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.pack import INDEX, PART, encode_jpeg, pack, read_index, read_pack, verify
from resnetlab.errors import UserError
from resnetlab.storage import try_lock


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
    (folder / "val" / "b" / "1.jpg").write_bytes(picture(1, 20, 20)[:300])  # too small to be made smaller
    data, dest = loose_data(folder), tmp_path / "packed"
    with pytest.raises(UserError, match=r"train/a/1\.jpg: .*--unreadable skip"):
        pack(data, dest, short_side=24, workers=1)
    assert not list(dest.iterdir())
    contents, _ = pack(data, dest, short_side=24, unreadable="skip", workers=1)
    assert [(s.side, s.name) for s in contents.skipped] == [
        ("train", "a/1.jpg"),
        ("train", "b/2.jpg"),
        ("test", "b/0.jpg"),
        ("test", "b/1.jpg"),
    ]
    assert all(s.reason for s in contents.skipped)
    assert (contents.train, contents.test) == (10, 2)
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
    assert pack(loose_data(folder), packed, quality=50, workers=1)[1], "files that are copied have no quality"
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


def test_what_was_cut_short_goes_before_another_process_may_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed, free = packing._remove_shards, []

    def watched(folder: Path) -> None:
        with (folder / PART).open("rb") as other:
            free.append(try_lock(other))
        removed(folder)

    monkeypatch.setattr(packing, "_remove_shards", watched)
    with pytest.raises(KeyboardInterrupt), packing._started(tmp_path / "packed"):
        raise KeyboardInterrupt
    assert free == [False, False]


def test_a_pack_is_not_begun_in_a_file_that_another_process_has_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(file: BinaryIO) -> bool:
        (tmp_path / "packed" / PART).unlink()
        return try_lock(file)

    monkeypatch.setattr(packing, "try_lock", late)
    with pytest.raises(UserError, match="another process is packing"), packing._started(tmp_path / "packed"):
        raise AssertionError("it was begun")


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
    whole = (dest / "train-00000.tar").read_bytes()
    (dest / "train-00000.tar").write_bytes(whole[:-512])
    assert main(command) == 2
    assert "when it was packed; remove " in capsys.readouterr().err
    (dest / "train-00000.tar").write_bytes(whole)
    assert main(["data", "verify", str(dest)]) == 0
    assert "all shards and images are undamaged" in capsys.readouterr().out
    path = dest / "test-00000.tar"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert main(["data", "verify", str(dest)]) == 2
    out, err = capsys.readouterr()
    assert "test-00000.tar: damaged" in out
    assert "a damaged pack, 1 fault; remove it and pack" in err
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
