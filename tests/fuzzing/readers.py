"""Every reader of files: whole files for it, how they are damaged, and how a command reads them."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path

import data_readers as data
import mutations
import numpy as np
import weight_readers as weights
from files import Reader, as_files, picture, with_card, written

from resnetlab.data import imagenet
from resnetlab.data.pack import INDEX
from resnetlab.errors import UserError
from resnetlab.report.study_pages import write_report
from resnetlab.use import features_file
from resnetlab.use.features import Features

RESULTS = Path(__file__).parents[2] / "results"


def features() -> dict[str, bytes]:
    with as_files({}) as folder:
        found = Features(("a.jpg", "b.jpg"), ("x", "y"), np.eye(2, 8, dtype=np.float32), "net last 0123")
        features_file.save(folder / "features.npz", found)
        return written(folder)


def records() -> dict[str, bytes]:
    return {"degradation-quick.json": (RESULTS / "degradation-quick.json").read_bytes()}


def form() -> dict[str, bytes]:
    head = (
        b'--edge\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    other = b'--edge\r\nContent-Disposition: form-data; name="top"\r\n\r\n5\r\n'
    return {"type": b'multipart/form-data; boundary="edge"', "body": other + head + picture(0) + b"\r\n--edge--\r\n"}


def read_form(folder: Path) -> None:
    """As the server does; what it refuses has a status below 500 and a line."""
    from fastapi import HTTPException, Request

    from resnetlab.use.forms import Refused, image_of
    from resnetlab.use.request_body import check_type

    headers = [(b"content-type", (folder / "type").read_bytes())]
    try:
        found = image_of(check_type(Request({"type": "http", "headers": headers})), (folder / "body").read_bytes())
    except (HTTPException, Refused) as error:
        status = error.status_code if isinstance(error, HTTPException) else error.status
        if status not in (400, 415, 422):
            raise
        raise UserError(str(error.detail)) from error
    assert isinstance(found, bytes)


READERS: dict[str, Reader] = {
    "CIFAR batches": Reader(data.cifar, data.opened("cifar10")),
    "IDX": Reader(data.idx, data.opened("mnist")),
    "IDX, gzipped": Reader(lambda: data.idx(functools.partial(gzip.compress, mtime=0)), data.opened("mnist")),
    "pack": Reader(data.packed, data.read_pack),
    "index of a pack": Reader(data.packed, data.read_pack, data.resealed, (INDEX,)),
    "tars and devkit of ImageNet": Reader(data.official, data.read_imagenet),
    "ground truth of ImageNet": Reader(data.unpacked, data.read_imagenet, damaged=(imagenet.TRUTH,)),
    "meta.mat of ImageNet": Reader(data.unpacked, data.read_imagenet, damaged=(imagenet.META,), count=4),
    "index of a tar": Reader(data.indexed, data.read_index, damaged=("a.tar.index.safetensors",)),
    "split file": Reader(data.split, data.opened("folder"), mutations.of_json, ("resnetlab-split.json",)),
    "split file, as bytes": Reader(data.split, data.opened("folder"), damaged=("resnetlab-split.json",)),
    "kept statistics": Reader(data.statistics, data.read_statistics, mutations.of_json),
    "recipes": Reader(lambda: {"mine.toml": weights.RECIPE}, weights.read_recipe, mutations.of_text),
    "names of networks": Reader(
        lambda: {"nets": "\n".join(weights.NETS).encode()}, weights.read_nets, mutations.of_text
    ),
    "safetensors": Reader(weights.weights, weights.read_weights),
    "description of weights": Reader(
        weights.weights, weights.read_weights, lambda c, rng: with_card(c, lambda card: mutations.mutated(card, rng))
    ),
    "torch, zipped": Reader(weights.torchs, weights.read_weights),
    "torch, before 1.6": Reader(lambda: weights.torchs(_use_new_zipfile_serialization=False), weights.read_weights),
    "npz": Reader(weights.npz, weights.read_weights),
    "weights of others": Reader(weights.peer_files, weights.read_peers, weights.other_tensors, count=18),
    "features": Reader(features, lambda folder: features_file.read(folder / "features.npz")),
    "records of studies": Reader(records, write_report, mutations.of_json, count=10),
    "records of studies, as bytes": Reader(records, write_report, count=10),
    "forms over HTTP": Reader(form, read_form),
}
