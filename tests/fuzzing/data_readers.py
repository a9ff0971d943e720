"""Readers of data sets: whole files for each, and how it reads them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import random
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mutations
import numpy as np
import torch
from files import as_files, picture, tar_of, with_card, written
from scipy.io import savemat

from resnetlab.data import imagenet, tars
from resnetlab.data import statistics as kept
from resnetlab.data.files import Files
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.pack import _checksum, pack, verify


def every_image(data: Data) -> None:
    """Read what a data set holds; an image that can't be read is an OSError, which trainings name or count."""
    for part in (data.train, data.test):
        if isinstance(part, Files):
            for i in range(len(part)):
                with contextlib.suppress(OSError):
                    part.read(i)
        else:
            assert len(part.pixels) == len(part.labels)


def opened(kind: str) -> Callable[[Path], None]:
    return lambda folder: every_image(open_data(f"{kind}:{folder}"))


def cifar() -> dict[str, bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3072), np.uint8)
    batch = {b"data": pixels, b"labels": [3], b"batch_label": b"x", b"filenames": [b"a.png"]}
    meta = {b"label_names": [f"class {i}".encode() for i in range(10)], b"num_vis": 3072}
    names = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    files = {name: pickle.dumps(batch, protocol=2 + i % 4) for i, name in enumerate(names)}
    return files | {"batches.meta": pickle.dumps(meta, protocol=2)}


def idx(pack: Callable[[bytes], bytes] = bytes) -> dict[str, bytes]:
    images = struct.pack(">IIII", 0x803, 2, 28, 28) + bytes(range(196)) * 8
    labels = struct.pack(">II", 0x801, 2) + b"\x03\x09"
    files = {f"{part}-{kind}": images if "images" in kind else labels for part in ("train", "t10k") for kind in IDX}
    return {name + (".gz" if pack is not bytes else ""): pack(content) for name, content in files.items()}


IDX = ("images-idx3-ubyte", "labels-idx1-ubyte")


FOLDER = {f"{name}/{i}.jpg": picture(i) for name in ("a", "b") for i in range(4)}


WNIDS = ("n01440764", "n02012849")


VAL = {f"ILSVRC2012_val_{i:08d}.JPEG": picture(i) for i in (1, 2)}


def packed() -> dict[str, bytes]:
    with as_files(FOLDER) as folder, tempfile.TemporaryDirectory() as made:
        pack(open_data(str(folder)), Path(made) / "pack", workers=1)
        return written(Path(made) / "pack")


def read_pack(folder: Path) -> None:
    every_image(open_data(f"pack:{folder}"))
    verify(folder)


def resealed(content: bytes, rng: random.Random) -> bytes:
    """An index with other values and the right checksum, as someone would make it who means harm."""
    from safetensors.numpy import load

    def change(card: Any) -> Any:
        card["index"] = mutations.mutated(card["index"], rng)
        with contextlib.suppress(ValueError):  # a number that JSON doesn't know
            card["sha256"] = _checksum(load(content), json.loads(json.dumps(card["index"])))
        return card

    return with_card(content, change)


def devkit() -> dict[str, bytes]:
    kinds = np.dtype([("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")])
    made = io.BytesIO()
    savemat(made, {"synsets": np.array([(i + 1, w, "words") for i, w in enumerate(WNIDS)], dtype=kinds)})
    return {imagenet.TRUTH: b"1\n2\n", imagenet.META: made.getvalue()}


def official() -> dict[str, bytes]:
    inner = {f"{w}.tar": tar_of({f"{w}_{i}.JPEG": picture(i) for i in range(2)}) for w in WNIDS}
    files = {imagenet.TRAIN_TAR: tar_of(inner), imagenet.VAL_TAR: tar_of(VAL)}
    kit = {f"{imagenet.DEVKIT}/data/{name}": content for name, content in devkit().items()}
    return files | {f"{imagenet.DEVKIT}.tar.gz": tar_of(kit, "w:gz")}


def unpacked() -> dict[str, bytes]:
    train = {f"train/{w}/{i}.JPEG": picture(i) for w in WNIDS for i in range(2)}
    return train | {f"val/{name}": content for name, content in VAL.items()} | devkit()


def read_imagenet(folder: Path) -> None:
    try:
        opened("imagenet")(folder)
    finally:
        for index in folder.glob("*.index.safetensors"):
            index.unlink()


def indexed() -> dict[str, bytes]:
    with as_files({"a.tar": tar_of(FOLDER)}) as folder:
        tars.index_of(folder / "a.tar")
        stamp = {"a.tar": (folder / "a.tar").stat().st_mtime_ns}
        return written(folder) | {"stamp": json.dumps(stamp).encode()}


def read_index(folder: Path) -> None:
    """An index that is damaged is made anew, and nobody need hear of it."""
    stamp = json.loads((folder / "stamp").read_bytes())["a.tar"]
    os.utime(folder / "a.tar", ns=(stamp, stamp))
    found = tars.index_of(folder / "a.tar")
    size = (folder / "a.tar").stat().st_size
    assert all(0 <= start <= start + length <= size for start, length in zip(found.starts, found.sizes, strict=True))
    list(found.names)


def split() -> dict[str, bytes]:
    with as_files(FOLDER) as folder:
        open_data(str(folder))
        return written(folder)


def statistics() -> dict[str, bytes]:
    found = kept.statistics_of([torch.randint(0, 256, (2, 3, 2, 2), dtype=torch.uint8)])
    with as_files({}) as folder:
        kept.keep_statistics(folder / "statistics.json", found)
        return written(folder)


def read_statistics(folder: Path) -> None:
    if found := kept.read_statistics(folder / "statistics.json"):
        assert found.pixel_mean().mean.ndim == found.channel_mean_std().mean.ndim == 3
