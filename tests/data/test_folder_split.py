"""The split of a folder: drawn once, written down, and kept while images come and go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from made_folders import messages, names, read, write

from resnetlab import storage
from resnetlab.data.folder import DRAWN
from resnetlab.data.images import Purpose
from resnetlab.data.open import open_data
from resnetlab.data.walk import SPLIT
from resnetlab.errors import UserError


def test_the_split_is_of_a_fifth_of_each_class_and_written_down(tmp_path: Path) -> None:
    write(
        tmp_path,
        *(f"a/{i}.png" for i in range(20)),
        *(f"b/{i}.png" for i in range(2)),
        *(f"c/{i}.png" for i in range(7)),
        *(f"d/{i}.png" for i in range(8)),
    )
    first = read(tmp_path)
    assert first.test.labels.bincount().tolist() == [4, 1, 1, 2]
    assert first.train.labels.bincount().tolist() == [16, 1, 6, 6]
    assert not set(names(first.train)) & set(names(first.test))
    # Pinned: the draw is a function of the names, on every machine.
    assert [n for n in names(first.test) if n.startswith("a/")] == ["a/0.png", "a/11.png", "a/12.png", "a/5.png"]
    written = json.loads((tmp_path / SPLIT).read_text())
    assert (written["seed"], written["share"], written["test"]) == (0, 0.2, names(first.test))
    assert os.listdir(tmp_path).count(SPLIT) == 1
    assert len(os.listdir(tmp_path)) == 5  # no part of a file is left
    assert read(tmp_path).fingerprint == first.fingerprint


def test_images_that_are_added_are_trained_on(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))
    before = names(read(tmp_path).test)
    write(tmp_path, *(f"a/new{i}.png" for i in range(50)), *(f"c/{i}.png" for i in range(5)))
    (tmp_path / before[0]).unlink()
    after = read(tmp_path)
    assert [n for n in names(after.test) if not n.startswith("c/")] == before[1:]
    assert after.test.labels.bincount().tolist() == [1, 2, 1]  # a class that is new is drawn from
    assert set(before) < set(json.loads((tmp_path / SPLIT).read_text())["test"])
    again = read(tmp_path)
    assert again.fingerprint == after.fingerprint


def test_a_line_says_which_test_images_are_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(20)))
    before = names(read(tmp_path).test)
    written = (tmp_path / SPLIT).read_bytes()
    assert messages(caplog) == []
    for name in before[:2]:
        (tmp_path / name).unlink()
    for _ in range(2):  # each time, and nothing is drawn or written
        assert names(read(tmp_path).test) == before[2:]
        line = f"missing: 2 of its 8 test images, {before[0]!r}, {before[1]!r} (put them back, or delete the file to "
        line += "draw a new split)"
        assert messages(caplog) == [f"{tmp_path / SPLIT}: {line}"]
    assert (tmp_path / SPLIT).read_bytes() == written


def test_a_class_that_lost_all_test_images_is_drawn_from_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(20)))
    before = names(read(tmp_path).test)
    for name in before[:4]:
        (tmp_path / name).unlink()
    after = read(tmp_path)
    assert names(after.test)[3:] == before[4:]
    assert after.test.labels.tolist() == [0] * 3 + [1] * 4
    said = messages(caplog)
    assert "missing: 4 of its 8 test images, 'a/0.png', 'a/11.png', 'a/12.png', ..." in said[0]
    words = "no test images are left for 'a': new ones are drawn, which earlier runs may have trained on"
    assert said[1] == f"{tmp_path / SPLIT}: {words}"
    assert json.loads((tmp_path / SPLIT).read_text())["test"] == sorted({*before, *names(after.test)})
    assert read(tmp_path).fingerprint == after.fingerprint
    assert len(messages(caplog)) == 1  # what is gone; the draw is done
    write(tmp_path, *before[:4])  # put back, they are test images as before
    assert set(before) <= set(names(read(tmp_path).test))
    assert messages(caplog) == []


def test_a_class_that_lost_all_but_one_image_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(2)))
    (tmp_path / names(read(tmp_path).test)[0]).unlink()
    with pytest.raises(UserError, match="a: only one image; a class needs two"):
        read(tmp_path)


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    for name in names(read(tmp_path).test):
        (tmp_path / name).rename(tmp_path / name.replace("/", "/other"))
    with pytest.raises(UserError, match=f"{SPLIT}: none of the test images that it names exist; delete it"):
        read(tmp_path)


def test_test_images_that_are_renamed_stay_test_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As another format, and with accents as a Mac writes them: runs before have not trained on them."""
    write(tmp_path, *(f"{c}/caf\u00e9 {i}.jpg" for c in ("a", "\u00e9") for i in range(10)))
    before = names(read(tmp_path).test)
    (tmp_path / "\u00e9").rename(tmp_path / "e\u0301")
    for path in (tmp_path / "a").iterdir():
        path.rename(path.with_suffix(".PNG"))
    for path in (tmp_path / "e\u0301").iterdir():
        path.rename(path.with_name(path.name.replace("\u00e9", "e\u0301")))
    after = read(tmp_path)
    wanted = [name.replace("a/", "!/").replace("\u00e9", "e\u0301").replace("!/", "a/") for name in before]
    wanted = [name.replace("e\u0301", "\u00e9").replace(".jpg", ".PNG") if name[0] == "a" else name for name in wanted]
    assert names(after.test) == wanted
    said = messages(caplog)
    assert len(said) == 1
    assert "renamed, and still test images: 4 of its 4 images, 'a/caf\u00e9" in said[0]
    assert ".jpg' is now 'a/caf\u00e9" in said[0]
    assert "'\\xe9/caf\\xe9" in said[0], "escaped where both look the same"
    assert json.loads((tmp_path / SPLIT).read_text())["test"] == sorted({*before, *wanted})
    assert read(tmp_path).fingerprint == after.fingerprint
    assert messages(caplog) == [], "written down"
    write(tmp_path, *(name for name in before if name[0] == "a"))  # both are there: none of them is trained on
    assert set(names(read(tmp_path).test)) >= {name for name in [*before, *wanted] if name[0] == "a"}


def test_a_split_file_is_the_same_in_every_locale(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/\u00e9{i}.png" for c in ("\u871c", "b") for i in range(5)))
    first = read(tmp_path)
    written = (tmp_path / SPLIT).read_bytes()
    code = f"from resnetlab.data.open import open_data; print(open_data({str(tmp_path)!r}).fingerprint)"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (first.fingerprint, "")
    assert (tmp_path / SPLIT).read_bytes() == written


def test_a_split_file_that_was_edited_elsewhere_is_read(tmp_path: Path) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(5)))
    first = read(tmp_path)
    (tmp_path / SPLIT).write_text((tmp_path / SPLIT).read_text(), encoding="utf-8-sig")
    assert read(tmp_path).fingerprint == first.fingerprint


def test_a_folder_that_cannot_be_written_is_split_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, *(f"{c}/{i}.png" for c in "ab" for i in range(10)))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "flush_to_disk", refuse)
        unwritten = read(tmp_path)
    assert not (tmp_path / SPLIT).exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / SPLIT}: the split can't be saved (Permission denied); it stays the same as long as the images do"
    ]
    now = read(tmp_path)
    assert now.fingerprint == unwritten.fingerprint
    assert (unwritten.part, now.part) == (DRAWN, f"by {SPLIT}"), "no file is named that is not there"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"seed": 0, "share": 0.2}',
        b'{"seed": 0, "share": 0.2, "test": []}',
        b'{"seed": 0, "share": 0.2, "test": [1]}',
        b'{"seed": 0, "share": 0.2, "test": "a/1.png"}',
        b'{"seed": 1, "share": 0.2, "test": ["a/1.png"]}',
        b"\xff\xfe\x00",
        b"[" * 100_000,
    ],
)
def test_a_damaged_split_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    (tmp_path / SPLIT).write_bytes(content)
    for purpose in get_args(Purpose):
        with pytest.raises(UserError, match=f"{SPLIT}: damaged.*; restore it, or delete it") as caught:
            read(tmp_path, purpose)
    assert len(str(caught.value)) < 500
    assert (tmp_path / SPLIT).read_bytes() == content


def test_a_fifo_in_place_of_the_split_is_named(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(b"")
    os.mkfifo(tmp_path / SPLIT)
    with pytest.raises(
        UserError, match=r"resnetlab-split.json: damaged, it is a FIFO, not a regular file; restore it"
    ) as said:
        read(tmp_path)
    assert str(said.value).count("damaged") == 1


def test_an_evaluation_names_a_class_without_a_test_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / f"{i}.png").write_bytes(b"")
    read(tmp_path)
    for path in (tmp_path / "a").iterdir():
        path.rename(path.with_name(f"new-{path.name}"))
    caplog.clear()
    found = open_data(f"folder:{tmp_path}", "evaluate")
    assert {int(label) for label in found.test.labels} == {1}
    assert "no test images are left for 'a', whose other images may be training images" in caplog.messages[-1]
