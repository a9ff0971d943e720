"""CIFAR's batches: read exactly, without executing anything, and refused in one line where damaged."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetlab.data import cifar
from resnetlab.data.cifar import read_batch
from resnetlab.data.open import open_data
from resnetlab.errors import UserError

NAMES = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
FILES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]


def pixels(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(folder: Path, protocol: int = 2) -> Path:
    """A small CIFAR-10 of 5 x 4 training and 4 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(FILES):
        batch = {b"data": pixels(i), b"labels": [i, 1, 2, 9], b"batch_label": b"x", b"filenames": [b"a.png"] * 4}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    meta = {b"label_names": NAMES, b"num_vis": 3072, b"num_cases_per_batch": 4}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=protocol))
    return folder


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_reads_what_was_written(tmp_path: Path, protocol: int) -> None:
    data = open_data(f"cifar10:{write_cifar10(tmp_path, protocol)}")
    assert data.classes == tuple(n.decode() for n in NAMES)
    assert data.shape == (3, 32, 32)
    assert (len(data.train), len(data.test)) == (20, 4)
    assert np.array_equal(data.train.pixels[4:8].numpy().reshape(4, 3072), pixels(1))
    assert data.test.labels.tolist() == [5, 1, 2, 9]


def test_reads_cifar100_fine_labels(tmp_path: Path) -> None:
    for name in ("train", "test"):
        batch = {b"data": pixels(0), b"fine_labels": [99, 0, 5, 6], b"coarse_labels": [1, 2, 3, 4]}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"class {i}".encode() for i in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({b"fine_label_names": names}, protocol=2))
    data = open_data(f"cifar100:{tmp_path}")
    assert len(data.classes) == 100
    assert data.train.labels.tolist() == [99, 0, 5, 6]


def test_finds_the_release_inside_a_folder(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "cifar-10-batches-py")
    assert len(open_data(f"cifar10:{tmp_path}").train) == 20


class _Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["data", "labels", "extra"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, place: str) -> None:
    folder, trace = write_cifar10(tmp_path / "c"), tmp_path / "trace"
    batch: dict[bytes, Any] = {b"data": pixels(0), b"labels": [0, 1, 2, 3]}
    batch[place.encode()] = _Evil(trace)
    (folder / "data_batch_3").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(UserError, match=r"data_batch_3: not a CIFAR batch, it asks to run posix\.mkdir"):
        open_data(f"cifar10:{folder}")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"labels": [0]}, "'data' should hold rows of 3,072 bytes"),
        ({b"data": pixels(0)[:, :100], b"labels": [0] * 4}, "'data' should hold rows of 3,072 bytes"),
        ({b"data": pixels(0)[:0], b"labels": []}, "'data' should hold rows of 3,072 bytes"),
        ({b"data": pixels(0).astype(np.float32), b"labels": [0] * 4}, "its images are not bytes"),
        ({b"data": pixels(0), b"labels": [0]}, "one of 'labels' per image"),
        ({b"data": pixels(0), b"labels": [0, 1, 2, 10]}, "labels should be 0 to 9"),
        ({b"data": pixels(0), b"labels": [0, 1, 2, "x"]}, "labels should be 0 to 9"),
        ([1, 2], "does not hold a dictionary"),
    ],
)
def test_wrong_content_is_named(tmp_path: Path, batch: object, message: str) -> None:
    folder = write_cifar10(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps(batch, protocol=3))
    with pytest.raises(UserError, match="test_batch: .*" + message):
        open_data(f"cifar10:{folder}")


class _Calls:
    """Pickles as the call of a function, with a state."""

    def __init__(self, *call: Any):
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_an_array_whose_content_is_a_number_asks_for_no_memory(tmp_path: Path) -> None:
    state = (1, (1, 3072), np.dtype("uint8"), False, 10**14)
    array = _Calls(np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state)
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": array}, protocol=2))
    with pytest.raises(UserError, match="batch: damaged, its images hold no bytes"):
        read_batch(path)


@pytest.mark.parametrize("name", [b"_codecs\nencode", b"numpy\nndarray"])
def test_a_state_for_a_function_or_a_class_is_refused(tmp_path: Path, name: bytes) -> None:
    """(None, {"__defaults__": ("utf8",)}) as the state of what _codecs.encode names."""
    state = pickle.dumps((None, {"__defaults__": ("utf8",)}), protocol=2)[2:-1]
    (tmp_path / "batch").write_bytes(b"\x80\x02c" + name + b"\n" + state + b"b.")
    with pytest.raises(UserError, match="asks to run __setstate__ of a .*nothing was executed"):
        read_batch(tmp_path / "batch")
    assert cifar._encode.__defaults__ == ("latin1",)


def test_keys_and_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(pickle.dumps({16**5000: 1, b"a": 2}, protocol=2))
    assert read_batch(tmp_path / "batch") == {"a": 2}
    folder = write_cifar10(tmp_path)
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [16**5000] * 10}, protocol=2))
    with pytest.raises(UserError, match="batches.meta: damaged, it should hold 10 names"):
        open_data(f"cifar10:{folder}")


def test_a_fortran_ordered_array_keeps_its_meaning(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps({b"data": np.asfortranarray(pixels(7))}, protocol=2))
    assert np.array_equal(read_batch(path)["data"], pixels(7))


@settings(max_examples=60)
@given(share=st.floats(0, 0.999))
def test_a_truncated_batch_is_refused(tmp_path: Path, share: float) -> None:
    whole = pickle.dumps({b"data": pixels(0), b"labels": [0, 1, 2, 3]}, protocol=2)
    cut = whole[: int(len(whole) * share)]
    (tmp_path / "batch").write_bytes(cut)
    # A cut right behind a dot looks like an end, and may leave half a name, which nothing official holds.
    message = "truncated or damaged|not a CIFAR batch" if cut.endswith(b".") else "truncated or damaged"
    with pytest.raises(UserError, match=message):
        read_batch(tmp_path / "batch")


def test_a_cut_in_a_name_is_not_taken_for_another_name(tmp_path: Path) -> None:
    whole = pickle.dumps({b"data": pixels(0), b"labels": [0, 1, 2, 3]}, protocol=2)
    (tmp_path / "batch").write_bytes(whole[: whole.index(b"_reconstruct") + 6])
    with pytest.raises(UserError, match="truncated or damaged .its end is missing"):
        read_batch(tmp_path / "batch")


@settings(max_examples=200)
@given(place=st.integers(0, 400), value=st.integers(0, 255), tail=st.booleans())
def test_damage_anywhere_is_a_user_error_or_harmless(tmp_path: Path, place: int, value: int, tail: bool) -> None:
    content = bytearray(pickle.dumps({b"data": pixels(0, 1), b"labels": [3]}, protocol=2))
    content[-1 - place if tail else place] = value
    (tmp_path / "batch").write_bytes(content)
    with contextlib.suppress(UserError):
        assert isinstance(read_batch(tmp_path / "batch"), dict)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar10:{}/nowhere", "nowhere: no such folder"),
        ("cifar10:{}", "not a cifar10 folder, it lacks data_batch_1"),
        ("cifar10", "does not name a folder"),
        ("cifar10:", "does not name a folder"),
        ("cifer10:{}", "Did you mean cifar10"),
        ("digits:{}", "write only 'digits'"),
        ("", "can't be read"),
        ("cifar10:" + "a" * 5000, r"a: can't be read \(File name too long\)"),
        ("mnist:" + "a" * 5000, r"a: can't be read \(File name too long\)"),
        ("cifar10:~nosuchuser/x", "no home folder is known for '~nosuchuser'; write the whole path"),
    ],
)
def test_data_that_is_not_there_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(text.format(tmp_path))


@pytest.mark.slow
def test_the_real_cifar10(cifar10: Path) -> None:
    data = open_data(f"cifar10:{cifar10}")
    assert (len(data.train), len(data.test)) == (50_000, 10_000)
    assert data.train.labels.bincount().tolist() == [5_000] * 10
    assert data.test.labels.bincount().tolist() == [1_000] * 10
    # The first test image is a cat; its pixels follow the 15 labels' bytes in the published file as they are.
    assert data.classes[int(data.test.labels[0])] == "cat"
    raw = (cifar10 / "cifar-10-batches-py" / "test_batch").read_bytes()
    assert data.test.pixels[0].numpy().tobytes() in raw
    assert hashlib.md5(raw, usedforsecurity=False).hexdigest() == "40351d587109b95175f43aff81a1287e"  # as published
