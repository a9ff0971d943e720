"""The commands that faults are injected into: what they need, what they write, and what is right of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from injecting import run
from PIL import Image

TRAIN = ("train", "digits", "--net", "cifar_resnet8", "--epochs", "0.5", "--threads", "1", "--checkpoint-steps", "4")
PUBLISHED = bytes(range(256)) * 1200  # 307,200 bytes, what the local server has


@dataclass(frozen=True)
class MeasurementContext:
    """A command as it is run in a folder: SOURCE stands for what lies beside it, OUT for what it writes there."""

    command: tuple[str, ...]
    check: Callable[[Path], object]  # that nothing in the folder is taken for whole that isn't
    written: str  # what is the same, byte by byte, whatever happened on the way

    def arguments(self, source: Path) -> list[str]:
        return [word.replace("SOURCE", str(source)) for word in self.command]


def make_sources(folder: Path) -> None:
    """A trained network, and a folder of images."""
    for side, count in (("train", 10), ("val", 3)):
        for name, hue in (("red", 220), ("blue", 40)):
            (folder / "images" / side / name).mkdir(parents=True)
            for i in range(count):
                noise = np.random.default_rng(i + hue).integers(-30, 30, (40, 50, 3))
                pixels = (np.array([hue, 128, 255 - hue]) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / "images" / side / name / f"{i}.png")
    settings = ("--net", "cifar_resnet8", "--image-size", "32", "--batch-size", "10", "--epochs", "1", "--threads", "1")
    made = run(folder, "train", "digits", "--data", str(folder / "images"), *settings, "--workers", "0").went_well()
    (folder / "run").symlink_to(folder / made.out.splitlines()[-1])


def digest(path: Path) -> str:
    """Of a file, or of all below a folder, by their names."""
    hashed = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            hashed.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return hashed.hexdigest()


def check_run(folder: Path) -> None:
    """The list of runs knows them, none is damaged, and each is at the step that its checkpoint says."""
    from resnetlab.run_files import WEIGHTS
    from resnetlab.storage import whole_folder
    from resnetlab.training.runs import list_runs
    from resnetlab.weights.files import read_file

    if not (folder / "runs").exists():
        return
    found, _ = list_runs(folder / "runs")
    assert "damaged" not in {summary.state for summary in found}, found
    for summary in found:
        for name in ("last", "best"):
            if (place := whole_folder(summary.folder / name)).exists():
                read_file(place / WEIGHTS)


def check_pack(folder: Path) -> None:
    from resnetlab.data.pack import INDEX, verify

    if (folder / "pack" / INDEX).exists():
        assert verify(folder / "pack") == []


def check_weights(folder: Path) -> None:
    from resnetlab.weights.load import load

    if (folder / "net.safetensors").exists():
        load(folder / "net.safetensors")


def check_export(folder: Path) -> None:
    import onnx

    if (folder / "net.onnx").exists():
        onnx.checker.check_model(onnx.load(folder / "net.onnx"))


def check_features(folder: Path) -> None:
    from resnetlab.use.features_file import read

    if (folder / "features.npz").exists():
        assert len(read(folder / "features.npz").files) == 6


def check_pictures(folder: Path) -> None:
    for path in folder.glob("explained/*.png"):
        Image.open(path).load()


def check_json(folder: Path) -> None:
    """Every record, measurement and result is whole."""
    check_run(folder)
    for path in folder.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in folder.rglob("*.html"):
        assert path.read_text().rstrip().endswith("</html>"), path


def check_fetched(folder: Path) -> None:
    for path in (folder / "data").glob("*.gz"):
        assert path.read_bytes() == PUBLISHED


def local_source(port: int) -> Callable[[], None]:
    """Have `data fetch mnist` ask a server on this machine, for a file of ours."""

    def install() -> None:
        from resnetlab.data.fetch import fetch
        from resnetlab.data.open import File, Published

        file = File("published.gz", len(PUBLISHED), hashlib.sha256(PUBLISHED).hexdigest())
        assert fetch.__kwdefaults__ is not None
        fetch.__kwdefaults__["sources"] = {"mnist": Published((f"http://127.0.0.1:{port}/",), (file,))}
        os.environ["no_proxy"] = "*"

    return install


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[int]:
    """A server of PUBLISHED on this machine; its port."""
    folder.mkdir()
    (folder / "published.gz").write_bytes(PUBLISHED)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout
            yield int(server.stdout.readline().split("port ")[1].split()[0])
        finally:
            server.kill()


SUBJECTS: dict[str, MeasurementContext] = {
    "train": MeasurementContext(TRAIN, check_run, "runs"),
    "data pack": MeasurementContext(("data", "pack", "SOURCE/images", "pack", "--workers", "1"), check_pack, "pack"),
    "convert": MeasurementContext(
        ("convert", "SOURCE/run", "net.safetensors", "--to", "resnetlab"), check_weights, "net.safetensors"
    ),
    "export": MeasurementContext(("export", "SOURCE/run", "--out", "net.onnx"), check_export, "net.onnx"),
    "features": MeasurementContext(
        ("features", "SOURCE/run", "SOURCE/images/val", "--out", "features.npz"), check_features, "features.npz"
    ),
    "explain": MeasurementContext(("explain", "SOURCE/run", "SOURCE/images/val"), check_pictures, "explained"),
    "eval --report": MeasurementContext(
        ("eval", "SOURCE/run", "--data", "SOURCE/images", "--report", "report", "--workers", "0"), check_json, "report"
    ),
    "study run": MeasurementContext(
        ("study", "run", "degradation", "--seeds", "1", "--epochs", "0.02", "--jobs", "1", "--results", "results"),
        check_json,
        "results/degradation-quick-curves.csv",
    ),
    "data fetch": MeasurementContext(("data", "fetch", "mnist", "data"), check_fetched, "data"),
}
