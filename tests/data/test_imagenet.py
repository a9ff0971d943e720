"""ImageNet: the official tars, made small, and unpacked folders give the same data; what is damaged is named."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from resnetlab import storage
from resnetlab.data import imagenet, tars
from resnetlab.data.files import Files
from resnetlab.data.imagenet import DEVKIT, META, TRAIN_TAR, TRUTH, VAL_TAR, class_names
from resnetlab.data.images import Data
from resnetlab.data.open import open_data
from resnetlab.data.source import ArchiveFiles, StringArray
from resnetlab.errors import UserError

WNIDS = ["n03126707", "n01440764", "n02012849"]  # as they lie in the tar, in no order
IDS = {"n03126707": 517, "n01440764": 1, "n02012849": 9}  # ILSVRC2012_IDs, in another order than the wnids
VAL = ["n02012849", "n01440764", "n03126707", "n02012849"]  # of the validation images 1 to 4
CLASSES = ("tench", "crane bird", "crane")


def jpeg(colour: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(content, "JPEG")
    return content.getvalue() + bytes(colour)  # each of another size


def packed(files: dict[str, bytes], mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode, format=form) as tar:  # type: ignore[call-overload]
        for name, inside in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(inside), 0.5 if form == tarfile.PAX_FORMAT else 0
            tar.addfile(member, io.BytesIO(inside))
    return content.getvalue()


TRAIN_IMAGES = {w: {f"{w}_{n}.JPEG": jpeg(10 * i + n) for n in (12, 2, 7)} for i, w in enumerate(WNIDS)}
VAL_IMAGES = {f"ILSVRC2012_val_{n:08d}.JPEG": jpeg(100 + n) for n in (3, 1, 2, 4)}


def devkit_files(truth: str | None = None) -> dict[str, bytes]:
    kinds = np.dtype([("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")])
    rows = [*((n, wnid, "words", 0) for wnid, n in IDS.items()), (1001, "n00001740", "entity", 3)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)})
    truth = "".join(f"{IDS[wnid]}\n" for wnid in VAL) if truth is None else truth
    return {f"{DEVKIT}/data/{TRUTH}": truth.encode(), f"{DEVKIT}/data/{META}": meta.getvalue()}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """The three official files, of three classes."""
    folder = tmp_path / "imagenet"
    folder.mkdir()
    inner = {f"{wnid}.tar": packed(images) for wnid, images in TRAIN_IMAGES.items()}
    (folder / TRAIN_TAR).write_bytes(packed(inner))
    (folder / VAL_TAR).write_bytes(packed(VAL_IMAGES))
    (folder / f"{DEVKIT}.tar.gz").write_bytes(packed(devkit_files(), "w:gz"))
    return folder


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """The same images in folders of classes."""
    folder = tmp_path / "unpacked"
    for wnid, images in TRAIN_IMAGES.items():
        (folder / "train" / wnid).mkdir(parents=True)
        for name, content in images.items():
            (folder / "train" / wnid / name).write_bytes(content)
    for n, wnid in enumerate(VAL, 1):
        (folder / "val" / wnid).mkdir(parents=True, exist_ok=True)
        name = f"ILSVRC2012_val_{n:08d}.JPEG"
        (folder / "val" / wnid / name).write_bytes(VAL_IMAGES[name])
    return folder


def read(folder: Path) -> Data:
    return open_data(f"imagenet:{folder}")


def contents(data: Data) -> list[tuple[str, int, bytes]]:
    assert isinstance(data.train, Files)
    assert isinstance(data.test, Files)
    parts = (data.train, data.test)
    return [(part.name(i), int(part.labels[i]), part.read(i)) for part in parts for i in range(len(part))]


def test_what_crashes_the_reader_of_the_devkit_is_one_line(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As scipy's compiled one does on some damaged files (tests/fuzzing)."""
    imagenet._wnids.cache_clear()
    monkeypatch.setattr(imagenet, "_READ_META", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(UserError, match=f"its {META} is damaged \\(its reader crashes on it\\); fetch it again"):
        read(official)


def test_the_thousand_classes(real_images: Callable[[str], Path]) -> None:
    wnids, names = list(class_names()), list(class_names().values())
    assert len(wnids) == len(set(wnids)) == len(set(names)) == 1000
    assert wnids == sorted(wnids)
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdecimal() for wnid in wnids)
    assert (names[0], names[134], names[517], names[638], names[639], names[999]) == (
        "tench",
        "crane bird",
        "crane",
        "maillot",
        "maillot tank suit",
        "toilet tissue",
    )
    # 102 of them by another's list.
    for line in (real_images("imagenet-sample") / "classes.tsv").read_text().splitlines():
        label, wnid, name = line.split("\t")
        assert wnids[int(label)] == wnid
        assert names[int(label)] == name.replace("_", " ")


def test_the_official_files_are_read_in_place(official: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = read(official)
    assert (data.name, data.classes) == ("imagenet", CLASSES)
    found = contents(data)
    assert [name for name, _, _ in found] == [
        *(f"{w}/{w}_{n}.JPEG" for w in sorted(WNIDS) for n in (12, 2, 7)),
        "n01440764/ILSVRC2012_val_00000002.JPEG",
        "n02012849/ILSVRC2012_val_00000001.JPEG",
        "n02012849/ILSVRC2012_val_00000004.JPEG",
        "n03126707/ILSVRC2012_val_00000003.JPEG",
    ]
    assert [label for _, label, _ in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 1, 2]
    for name, _, content in found:
        wnid, _, file = name.partition("/")
        assert content == {**TRAIN_IMAGES[wnid], **VAL_IMAGES}[file]
    assert isinstance(data.train, Files)
    assert isinstance(data.train.source, ArchiveFiles)
    assert data.train.place(0) == f"{official / TRAIN_TAR}: n01440764/n01440764_12.JPEG"
    assert f"{official}: 3 of ImageNet's 1,000 classes" in caplog.text


def loose_val(folder: Path) -> None:
    """Unpack the validation images as they are, flat."""
    (folder / "val").mkdir()
    for name, content in VAL_IMAGES.items():
        (folder / "val" / name).write_bytes(content)
    (folder / VAL_TAR).unlink()


def loose_devkit(folder: Path, inside: str) -> None:
    (folder / f"{DEVKIT}.tar.gz").unlink()
    (folder / inside).mkdir(parents=True, exist_ok=True)
    for path, content in devkit_files().items():
        (folder / inside / path.rpartition("/")[2]).write_bytes(content)


def pax(folder: Path) -> None:
    inner = {f"./{w}.tar": packed(images, form=tarfile.PAX_FORMAT) for w, images in TRAIN_IMAGES.items()}
    (folder / TRAIN_TAR).write_bytes(packed(inner, form=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: None,
        pax,
        loose_val,
        lambda folder: loose_devkit(folder, f"{DEVKIT}/data"),
        lambda folder: loose_devkit(folder, "."),
        lambda folder: (loose_val(folder), loose_devkit(folder, "data")),
    ],
    ids=["official", "another tar format", "flat val", "devkit unpacked", "devkit's two files", "flat val and data"],
)
def test_every_layout_is_the_same_data(official: Path, unpacked: Path, change: Callable[[Path], object]) -> None:
    change(official)
    assert contents(read(official)) == contents(read(unpacked))
    assert read(official).fingerprint == read(unpacked).fingerprint


def test_train_unpacked_and_val_in_its_tar(official: Path, unpacked: Path) -> None:
    shutil.move(unpacked / "train", official / "train")
    (official / TRAIN_TAR).unlink()
    assert len(contents(read(official))) == 13


def test_the_index_is_kept_and_made_anew(
    official: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = read(official)
    kept = official / f"{TRAIN_TAR}.index.safetensors"
    assert sorted(path.name for path in official.glob("*.index.safetensors")) == [
        kept.name,
        f"{VAL_TAR}.index.safetensors",
    ]
    assert not list(official.glob(".*"))
    with monkeypatch.context() as patched:
        patched.setattr(tars, "make_index", lambda tar: pytest.fail("the index was kept"))
        assert read(official).fingerprint == first.fingerprint
    for damage in (b"", b"\xff" * 100, kept.read_bytes()[:-8], kept.read_bytes().replace(b"format", b"farmet")):
        kept.write_bytes(damage)
        assert read(official).fingerprint == first.fingerprint
    os.utime(official / TRAIN_TAR, (1, 1))
    caplog.clear()
    assert read(official).fingerprint == first.fingerprint
    assert f"{official / TRAIN_TAR}: indexing the headers, once" in caplog.text


def test_an_index_that_points_elsewhere_is_not_used(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = official / TRAIN_TAR
    index = tars.make_index(tar)
    size, names = tar.stat().st_size, index.names
    for bad in (
        {"starts": index.starts + 10**14},
        {"starts": -index.starts},
        {"starts": index.starts[:-1]},
        {"starts": index.starts.astype(np.int32)},
        {"starts": np.full_like(index.starts, size), "sizes": index.sizes.clip(min=1)},
        {"sizes": -index.sizes},
        {"sizes": index.sizes + size},
        {"names": StringArray(names.content, names.ends[::-1].copy())},
        {"names": StringArray(names.content + b"x", names.ends)},
    ):
        monkeypatch.setattr(tars, "make_index", lambda tar, bad=bad: index._replace(**bad))
        tars.index_of(tar)  # keeps the bad one
        monkeypatch.setattr(tars, "make_index", lambda tar: index)
        found = tars.index_of(tar)
        assert [found.starts.tolist(), found.sizes.tolist()] == [index.starts.tolist(), index.sizes.tolist()]
        assert list(found.names) == list(names)
        (official / f"{TRAIN_TAR}.index.safetensors").unlink()


def test_the_index_is_kept_elsewhere_if_the_folder_cannot_be_written(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write = storage.write_atomically

    def refuse(path: Path, content: bytes) -> None:
        if path.parent == official or (tmp_path / "full").exists():
            raise PermissionError(13, "Permission denied")
        write(path, content)

    monkeypatch.setattr(storage, "write_atomically", refuse)
    first = read(official)
    assert not list(official.glob("*.index.*"))
    assert len(list((tmp_path / "cache" / "resnetlab").glob("*.index.safetensors"))) == 2
    with monkeypatch.context() as patched:
        patched.setattr(tars, "make_index", lambda tar: pytest.fail("the index was kept"))
        assert read(official).fingerprint == first.fingerprint
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "full").touch()
    assert read(official).fingerprint == first.fingerprint
    assert "its index can't be saved, neither in" in caplog.text


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def devkit(truth: str) -> Callable[[Path], object]:
    return replaced(f"{DEVKIT}.tar.gz", packed(devkit_files(truth), "w:gz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / TRAIN_TAR).unlink(), f"lacks {TRAIN_TAR} .or, unpacked, train.; found: ILSVRC2012_devkit"),
        (lambda f: [p.unlink() for p in f.iterdir()], f"lacks {TRAIN_TAR} and {VAL_TAR} .*; it is empty"),
        (
            lambda f: (f / f"{DEVKIT}.tar.gz").unlink(),
            f"{VAL_TAR}: .* their labels are missing: put {DEVKIT}.tar.gz",
        ),
        (replaced(TRAIN_TAR, b"x" * 5000), f"{TRAIN_TAR}: not a complete tar"),
        (replaced(TRAIN_TAR, b""), f"{TRAIN_TAR}: not a complete tar"),
        (replaced(VAL_TAR, b"<html>"), f"{VAL_TAR}: not a complete tar"),
        (replaced(TRAIN_TAR, packed(VAL_IMAGES)), f"{TRAIN_TAR}: not the tar of training images, which holds"),
        (replaced(TRAIN_TAR, packed({"a.tar": b"", "b.tar": b""})), f"{TRAIN_TAR}: not a complete tar"),
        (
            replaced(TRAIN_TAR, packed({f"{w}.tar": packed({"1.JPEG": b"1"}) for w in ("cat", "dog")})),
            f"{TRAIN_TAR}: 'cat' is not one of ImageNet's 1,000 WordNet ids",
        ),
        (cut(TRAIN_TAR, 100), f"{TRAIN_TAR}: not a complete tar"),
        (cut(TRAIN_TAR, 512), f"{TRAIN_TAR}: not a complete tar"),
        (cut(TRAIN_TAR, 1024), f"{TRAIN_TAR}: not a complete tar"),
        (cut(TRAIN_TAR, 5000), f"{TRAIN_TAR}: not a complete tar"),
        (cut(VAL_TAR, 2048), f"{VAL_TAR}: not a complete tar .*check its checksum, or download it again"),
        (
            replaced(VAL_TAR, packed({"a.JPEG": b""} | VAL_IMAGES)),
            "the ground truth of 4 images, but .* has 5; download",
        ),
        (devkit("1\n9\n"), "the ground truth of 2 images, but .* has 4; download"),
        (devkit("1\n9\n517\n7\n"), f"{TRUTH} is damaged, line 4 is '7', not an ILSVRC2012_ID"),
        (devkit("1\n9\n517\n1001\n"), f"{TRUTH} is damaged, line 4 is '1001'"),
        (devkit("1\n9\n517\nx\n"), f"{TRUTH} is damaged, line 4 is 'x'"),
        (replaced(f"{DEVKIT}.tar.gz", b"x"), f"{DEVKIT}.tar.gz: damaged"),
        (cut(f"{DEVKIT}.tar.gz", 200), f"{DEVKIT}.tar.gz: damaged"),
        (replaced(f"{DEVKIT}.tar.gz", packed({"x": b""}, "w:gz")), f"{DEVKIT}.tar.gz: not the devkit .*{TRUTH}"),
        (
            replaced(f"{DEVKIT}.tar.gz", packed({**devkit_files(), f"{DEVKIT}/data/{META}": b"mat"}, "w:gz")),
            f"{DEVKIT}.tar.gz: its {META} is damaged",
        ),
        (
            replaced(VAL_TAR, packed({name.replace("val", "test"): x for name, x in VAL_IMAGES.items()})),
            "ILSVRC2012_test_00000003.JPEG is not one of ILSVRC2012_val_00000001.JPEG to 00000004",
        ),
        (
            replaced(VAL_TAR, packed(dict(list(VAL_IMAGES.items())[:3]) | {f"again/{next(iter(VAL_IMAGES))}": b""})),
            "again/ILSVRC2012_val_0000000[1-4].JPEG is there twice; download it again",
        ),
        (
            replaced(TRAIN_TAR, packed({f"{w}.tar": packed(TRAIN_IMAGES[w]) for w in WNIDS[:2]})),
            "it has images of n02012849, which has no training images",
        ),
    ],
)
def test_what_is_damaged_is_named(official: Path, change: Callable[[Path], object], message: str) -> None:
    change(official)
    with pytest.raises(UserError, match=message) as caught:
        read(official)
    assert str(official) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_devkit_that_may_not_be_read_is_not_called_damaged(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = tarfile.open

    def refuse(name: Any = None, *arguments: Any, **options: Any) -> Any:
        if name == official / f"{DEVKIT}.tar.gz":
            raise PermissionError(13, "Permission denied", str(name))
        return opened(name, *arguments, **options)

    monkeypatch.setattr(tarfile, "open", refuse)
    with pytest.raises(UserError, match=rf"{DEVKIT}.tar.gz: can't be read \(Permission denied\)\.$"):
        read(official)


def test_a_tar_cut_anywhere_is_refused(official: Path) -> None:
    tar = official / TRAIN_TAR
    whole = tar.read_bytes()
    end = len(whole.rstrip(b"\0"))
    for size in range(0, end, 509):
        tar.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a complete tar"):
            tars.make_index(tar)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train/cat/1.JPEG", "'cat' is not one of ImageNet's 1,000 WordNet ids.*; for a folder of other classes"),
        ("val/cat/1.JPEG", "'cat' is not one of ImageNet's"),
        ("val/n01443537/1.JPEG", "n01443537: this class has no training images; move it away"),
        ("train/n01443537/1.txt", "n01443537: no images in it"),
    ],
)
def test_folders_that_do_not_fit_are_named(unpacked: Path, path: str, message: str) -> None:
    (unpacked / path).parent.mkdir()
    (unpacked / path).touch()
    with pytest.raises(UserError, match=message):
        read(unpacked)


def test_the_validation_images_alone_are_evaluated(official: Path, unpacked: Path) -> None:
    whole = contents(read(official))
    (official / TRAIN_TAR).unlink()
    data = open_data(f"imagenet:{official}", "evaluate")
    assert (len(data.train), len(data.test), data.part, data.shape) == (0, 4, "val alone", None)
    assert data.classes == tuple(class_names().values())  # in the tar there may be any of them
    labelled = [(name, data.classes[label], content) for name, label, content in contents(data)]
    assert labelled == [(name, CLASSES[label], content) for name, label, content in whole if "_val_" in name]
    shutil.rmtree(unpacked / "train")
    data = open_data(f"imagenet:{unpacked}", "evaluate")
    assert (data.classes, len(data.test)) == (CLASSES, 4)
    for folder in (official, unpacked):
        with pytest.raises(UserError, match=f"it lacks {TRAIN_TAR}"):
            open_data(f"imagenet:{folder}")


def test_ten_real_classes(real_images: Callable[[str], Path]) -> None:
    data = read(real_images("imagenette"))
    assert (len(data.train), len(data.test), len(data.classes)) == (1000, 400, 10)
    assert data.classes[:3] == ("tench", "English springer", "cassette player")
