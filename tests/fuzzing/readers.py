"""Every reader of files: whole files for it, how they are damaged, and how a command reads them."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import os
import pickle
import random
import struct
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mutations
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from scipy.io import savemat

import resnetlab
from resnetlab.data import imagenet, normalisation, tars
from resnetlab.data import statistics as kept
from resnetlab.data.files import Files
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.pack import INDEX, _checksum, pack, verify
from resnetlab.errors import UserError
from resnetlab.report.study_pages import write_report
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.use import features_file
from resnetlab.use.features import Features
from resnetlab.weights.interop import write_state
from resnetlab.weights.load import load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes
from resnetlab.weights.naming import NAMING_SCHEMES

RESULTS = Path(__file__).parents[2] / "results"


class Reader(NamedTuple):
    """Whole files by their names, of which one is damaged at a time, and what is done with the folder they lie in."""

    files: Callable[[], dict[str, bytes]]
    read: Callable[[Path], object]
    mutate: mutations.Mutation = mutations.of_bytes
    damaged: tuple[str, ...] = ()  # which of the files; all, unless given
    count: int = 300  # how often


def picture(seed: int, form: str = "JPEG") -> bytes:
    """A small encoded image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, form)
    return made.getvalue()


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


@contextlib.contextmanager
def as_files(files: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files, for as long as it lasts."""
    with tempfile.TemporaryDirectory() as name:
        for path, content in files.items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(content)
        yield Path(name)


def written(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


# Data sets.


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


def card_of(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors start."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def with_card(content: bytes, change: Callable[[Any], Any]) -> bytes:
    """A safetensors file whose description, JSON within its header, is changed."""
    header, end = card_of(content)
    changed = change(json.loads(header["__metadata__"]["resnetlab"]))
    header["__metadata__"]["resnetlab"] = json.dumps(changed)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + content[end:]


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


# Networks, recipes and weights.

RECIPE = b"""recipe = "cifar_paper"
net = "cifar_resnet20(mix=Scale(0.5, 1), shortcut=B)"
data = "digits"
epochs = 12.5
lr = 1e-1
schedule = "multistep"
milestones = [0.5, 0.75]
batch_size = 128
augment = 'none'
channels_last = true
"""
NETS = (
    "cifar_resnet110(mix=Scale(a=0.5, b=1.0), shortcut=C, num_classes=100)",
    "resnext50_32x4d(order=full_preact, groups=32, stages=((1, 64), (2, 128, 2)))",
    "cifar_wrn28_10(mix=ExclusiveGate(bias=-6), branch_scalar=None, zero_gamma=False)",
    "vgg16_bn(num_classes=10, batch_norm=True)",
)


def read_recipe(folder: Path) -> None:
    try:
        values = recipe(str(folder / "mine.toml"))
        make_run(values, folder / "runs")
    finally:
        assert not (folder / "runs").exists()


def read_nets(folder: Path) -> None:
    for line in (folder / "nets").read_text(errors="surrogateescape").splitlines():
        spec = resnetlab.spec(line)
        assert resnetlab.spec(spec.name).to_dict()["name"] == spec.name


@functools.cache
def net() -> resnetlab.ResNet:
    return resnetlab.build("cifar_resnet8(stages=((1, 4), (1, 8, 2)), stem_width=4)", seed=0)


def card() -> ModelMetadata:
    ones = torch.ones(3, 1, 1)
    classes = tuple(f"class {i}" for i in range(10))
    return ModelMetadata(net().spec, classes, normalisation.Normalisation(ones / 2, ones), recipe("digits").to_dict())


def weights() -> dict[str, bytes]:
    return {"weights": weights_bytes(net(), card())}


@functools.cache
def peers() -> dict[str, dict[str, torch.Tensor]]:
    """Small networks' tensors under each project's names."""
    found = {}
    for naming, about in NAMING_SCHEMES.items():
        cifar = about.stems[0] == "cifar"
        made = resnetlab.build(
            "cifar_resnet8" if cifar else "resnet50",
            stages=((2, 4), (1, 8, 2), (1, 16, 2), (1, 32, 2))[: 3 if cifar else 4],
            stem_width=4,
            shortcut="A" if "A" in about.shortcuts and cifar else "B",
            zero_pad=about.zero_pad,
            **({} if cifar else {"stride_at": about.stride_at}),
            seed=0,
        )
        found[naming] = write_state(made.state_dict(), made.spec, naming)
    return found


def torchs(**how: Any) -> dict[str, bytes]:
    made = io.BytesIO()
    torch.save({"state_dict": peers()["akamaster"], "epoch": 3, "args": {"lr": 0.1}}, made, **how)
    return {"weights": made.getvalue()}


def npz() -> dict[str, bytes]:
    made = io.BytesIO()
    np.savez(made, **{name: tensor.numpy() for name, tensor in peers()["akamaster"].items()})
    return {"weights": made.getvalue()}


def read_weights(folder: Path) -> None:
    load_with_metadata(folder / "weights")


@functools.cache
def peer_files() -> dict[str, bytes]:
    return {name: save({k: t.contiguous() for k, t in state.items()}) for name, state in peers().items()}


def other_tensors(content: bytes, rng: random.Random) -> bytes:
    """The same file with some tensors lost, renamed, or of other shapes and types."""
    from safetensors.torch import load

    state = load(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        name = rng.choice(list(state))
        tensor = state.pop(name)
        kind = rng.randrange(7)
        if kind == 0:
            continue
        if kind == 1:
            name = rng.choice([f"module.{name}", f"{name}.0", name.replace("1", "9"), name.replace("layer", ""), ""])
        elif kind == 2:
            sizes = [
                (),
                (0,),
                (1,),
                (3,),
                (2, 3),
                (0, 4, 3, 3),
                (4, 3, 7, 7),
                (1,) * 8,
                (4, 0, 1, 1),
                (99_999, 1, 1, 1),
            ]
            tensor = torch.zeros(rng.choice(sizes))
        elif kind == 3:
            tensor = tensor.to(rng.choice([torch.int64, torch.bool, torch.uint8, torch.float16, torch.complex64]))
        elif kind == 4:
            tensor = torch.full_like(
                tensor, rng.choice([0, float("nan"), float("inf")]) if tensor.is_floating_point() else 0
            )
        elif kind == 5:
            tensor = tensor[None] if rng.random() < 0.5 else tensor.flatten()
        else:
            state[f"{name}.extra"] = tensor
        state[name] = tensor.contiguous()
    return save({name: tensor.clone() for name, tensor in state.items()})


def read_peers(folder: Path) -> None:
    """Read the one that is damaged, or all."""
    whole = peer_files()
    changed = [path for path in sorted(folder.iterdir()) if path.read_bytes() != whole[path.name]]
    for path in changed or sorted(folder.iterdir()):
        plain_too = "cifar_resnet8(stages=((2, 4), (1, 8, 2), (1, 16, 2)), stem_width=4)"  # with the same names
        load_with_metadata(path, net=plain_too if path.name == "a-martyn" else None)


# What is computed and kept.


def features() -> dict[str, bytes]:
    with as_files({}) as folder:
        found = Features(("a.jpg", "b.jpg"), ("x", "y"), np.eye(2, 8, dtype=np.float32), "net last 0123")
        features_file.save(folder / "features.npz", found)
        return written(folder)


def records() -> dict[str, bytes]:
    return {"degradation-cifar.json": (RESULTS / "degradation-cifar.json").read_bytes()}


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
    "CIFAR batches": Reader(cifar, opened("cifar10")),
    "IDX": Reader(idx, opened("mnist")),
    "IDX, gzipped": Reader(lambda: idx(functools.partial(gzip.compress, mtime=0)), opened("mnist")),
    "pack": Reader(packed, read_pack),
    "index of a pack": Reader(packed, read_pack, resealed, (INDEX,)),
    "tars and devkit of ImageNet": Reader(official, read_imagenet),
    "ground truth of ImageNet": Reader(unpacked, read_imagenet, damaged=(imagenet.TRUTH,)),
    "meta.mat of ImageNet": Reader(unpacked, read_imagenet, damaged=(imagenet.META,), count=20),
    "index of a tar": Reader(indexed, read_index, damaged=("a.tar.index.safetensors",)),
    "split file": Reader(split, opened("folder"), mutations.of_json, ("resnetlab-split.json",)),
    "split file, as bytes": Reader(split, opened("folder"), damaged=("resnetlab-split.json",)),
    "kept statistics": Reader(statistics, read_statistics, mutations.of_json),
    "recipes": Reader(lambda: {"mine.toml": RECIPE}, read_recipe, mutations.of_text),
    "names of networks": Reader(lambda: {"nets": "\n".join(NETS).encode()}, read_nets, mutations.of_text),
    "safetensors": Reader(weights, read_weights),
    "description of weights": Reader(
        weights, read_weights, lambda c, rng: with_card(c, lambda card: mutations.mutated(card, rng))
    ),
    "torch, zipped": Reader(torchs, read_weights),
    "torch, before 1.6": Reader(lambda: torchs(_use_new_zipfile_serialization=False), read_weights),
    "npz": Reader(npz, read_weights),
    "weights of others": Reader(peer_files, read_peers, other_tensors, count=200),
    "features": Reader(features, lambda folder: features_file.read(folder / "features.npz")),
    "records of studies": Reader(records, write_report, mutations.of_json, count=60),
    "records of studies, as bytes": Reader(records, write_report, count=100),
    "forms over HTTP": Reader(form, read_form),
}
