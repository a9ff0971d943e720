"""IDX files: read exactly, gzipped or not, and refused in one line where anything is wrong."""

from __future__ import annotations

import contextlib
import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetlab.cli.main import main
from resnetlab.data.idx import IMAGES, LABELS
from resnetlab.data.open import DATA_NAMES, READERS, open_data
from resnetlab.errors import UserError
from resnetlab.training.recipe import Recipe

COUNTS = {"train": 20, "t10k": 6}


def images(count: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return struct.pack(">IIII", 0x803, count, 28, 28) + pixels.tobytes()


def labels(count: int) -> bytes:
    return struct.pack(">II", 0x801, count) + bytes(i % 10 for i in range(count))


def write_idx(folder: Path, *, gzipped: bool = True) -> Path:
    """A small MNIST of 20 training and 6 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in COUNTS.items():
        for name, content in ((part + IMAGES, images(count, len(part))), (part + LABELS, labels(count))):
            if gzipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("place", ["", "raw"])
@pytest.mark.parametrize("gzipped", [True, False])
@pytest.mark.parametrize(("kind", "eighth"), [("mnist", "8"), ("fashion_mnist", "Bag")])
def test_reads_what_was_written(tmp_path: Path, kind: str, eighth: str, gzipped: bool, place: str) -> None:
    write_idx(tmp_path / place, gzipped=gzipped)
    data = open_data(f"{kind}:{tmp_path}")
    assert (data.name, data.shape, len(data.train), len(data.test)) == (kind, (1, 28, 28), 20, 6)
    assert (len(data.classes), data.classes[8]) == (10, eighth)
    assert data.train.pixels.numpy().tobytes() == images(20, len("train"))[16:]
    assert data.test.pixels.numpy().tobytes() == images(6, len("t10k"))[16:]
    assert data.train.labels.tolist() == [i % 10 for i in range(20)]


def test_a_browser_that_unpacks_but_keeps_the_name_does_no_harm(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / f"train{LABELS}.gz").write_bytes(labels(20))
    assert len(open_data(f"mnist:{tmp_path}").train) == 20


WHOLE = gzip.compress(images(20))
BOMB = gzip.compress(images(20) + bytes(50_000_000))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, labels(20), r"not the expected IDX file, it starts with 00000801 instead of 00000803"),
        (LABELS, images(20), r"not the expected IDX file, it starts with 00000803 instead of 00000801"),
        (IMAGES, b"<html>" + bytes(20), r"not the expected IDX file, it starts with 3c68746d"),
        (IMAGES, b"", r"truncated, its header has 0 bytes"),
        (IMAGES, images(20)[:15], r"truncated, its header has 15 bytes"),
        (IMAGES, images(20)[:-1], r"truncated, 15,679 of 15,680 bytes"),
        (IMAGES, images(20) + b"x", r"holds more than the 15,680 bytes that its header declares"),
        (IMAGES, struct.pack(">IIII", 0x803, 20, 28, 27) + bytes(20 * 28 * 27), r"images of 28x27 instead of 28x28"),
        (IMAGES, struct.pack(">IIII", 0x803, 2**32 - 1, 28, 28), r"declares 4,294,967,295 entries, not 1 to 60,000"),
        (IMAGES, images(0), r"declares 0 entries"),
        (LABELS, labels(20)[:-1], r"truncated, 19 of 20 bytes"),
        (LABELS, labels(21), r"21 labels, but train-images-idx3-ubyte.gz holds 20 images"),
        (LABELS, labels(20)[:-1] + b"\x0a", r"labels should be 0 to 9, but one is 10"),
        (IMAGES, WHOLE[:-9], r"truncated or damaged \(Compressed file ended"),
        (IMAGES, WHOLE[:-8] + b"\0\0\0\0" + WHOLE[-4:], r"truncated or damaged \(CRC check failed"),
        (IMAGES, WHOLE[:10] + b"\xff" + WHOLE[11:], r"truncated or damaged \(.*invalid block type"),
        (IMAGES, WHOLE + b"trailing", r"truncated or damaged \(Not a gzipped file"),
        (IMAGES, BOMB, r"holds more than the 15,680 bytes that its header declares"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,  # a gzip holds the time
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_idx(tmp_path)
    (tmp_path / f"train{name}.gz").write_bytes(content)
    wanted = f"train{name}.gz: .*{message}.*; delete the file, then fetch it again: resnetlab data fetch mnist "
    with pytest.raises(UserError, match=wanted):
        open_data(f"mnist:{tmp_path}")


def test_a_gzip_bomb_takes_no_memory(tmp_path: Path) -> None:
    write_idx(tmp_path)
    (tmp_path / f"train{IMAGES}.gz").write_bytes(BOMB)
    tracemalloc.start()
    with pytest.raises(UserError, match="holds more"):
        open_data(f"mnist:{tmp_path}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@settings(max_examples=100)
@given(place=st.integers(0, 200), value=st.integers(0, 255), gzipped=st.booleans())
def test_damage_anywhere_is_a_user_error_or_harmless(tmp_path: Path, place: int, value: int, gzipped: bool) -> None:
    content = bytearray(gzip.compress(images(20), mtime=0) if gzipped else images(20))
    content[place] = value
    write_idx(tmp_path)
    (tmp_path / f"train{IMAGES}.gz").write_bytes(content)
    with contextlib.suppress(UserError):
        assert len(open_data(f"mnist:{tmp_path}").train) == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mnist:{}/no where", r"no where: no such folder; .* resnetlab data fetch mnist '.*no where'"),
        ("mnist:{}", r"not a mnist folder, it lacks train-images-idx3-ubyte\[.gz\], train-labels.*t10k-labels"),
        ("fashion_mnist", "write fashion_mnist:DIR, where DIR is the folder with its IDX files"),
        ("minst:{}", "give digits, cifar10:DIR, .*mnist:DIR, .* or just DIR, a folder of images. Did you mean mnist"),
    ],
)
def test_data_that_is_not_there_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_data(text.format(tmp_path))


@pytest.mark.parametrize("kind", READERS)
def test_every_kind_that_is_listed_is_known(tmp_path: Path, kind: str) -> None:
    assert kind in DATA_NAMES
    assert DATA_NAMES in Recipe.__dataclass_fields__["data"].metadata["help"]
    if READERS[kind].folder:
        with pytest.raises(UserError, match=f"not an? {kind}"):
            open_data(f"{kind}:{tmp_path}")


def test_a_network_trains_on_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = f"mnist:{write_idx(tmp_path / 'mnist')}"
    options = ["--data", text, "--net", "cifar_resnet8", "--iterations", "2", "--threads", "1"]
    assert main(["train", "digits", *options, "--runs", str(tmp_path), "--json"]) == 0
    assert '"test_error"' in capsys.readouterr().out
