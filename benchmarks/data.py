"""Data: decoding and cropping beside Pillow's, from files and from a pack; CIFAR's augmentation; memory and start-up.

python -m benchmarks.data [--json] [--record FILE] [--runs N] [--data DIR]

DIR: where ../shared/data/unpack.py puts its data, or any folder of JPEGs. The peer is the pipeline of torchvision's
reference script written out, Pillow and torch alone, since torchvision's wheel does not import beside a CPU torch.
"""

from __future__ import annotations

import argparse
import io
import math
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

import resnetlab
from benchmarks.timing import Row, keep, medians, options, run, show
from benchmarks.training import PLAIN, users_step
from resnetlab.data.augmentation import resized_crop_box
from resnetlab.data.crops import CROPS
from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Augmentation, Loader
from resnetlab.data.pack import pack, read_pack
from resnetlab.data.seeds import uniform
from resnetlab.data.source import FolderFiles, StringArray
from resnetlab.data.statistics import measure
from resnetlab.data.streaming import ReadPlan, read_ahead
from resnetlab.data.turbojpeg import Box, Jpeg, JpegError
from resnetlab.errors import UserError

SIZE, BATCH = 224, 128
RESIZED_CROP = CROPS["resized_crop_flip"]
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def files_of(paths: Sequence[Path]) -> Files:
    """Files in one list, all of one class."""
    root = Path("/")
    names = StringArray(str(path.resolve().relative_to(root)) for path in paths)
    sizes = np.array([path.stat().st_size for path in paths], np.int64)
    return Files.all_of(FolderFiles(root, names, np.zeros(len(paths), np.int32), sizes))


def ours(files: Files, epoch: int = 0) -> list[Tensor]:
    """Our pipeline over all files, as a worker does it: batches of uint8 N 3 224 224."""
    reading = ReadPlan(files, torch.arange(len(files)), RESIZED_CROP, SIZE, seed=0, epoch=epoch)
    spans = [(a, min(a + BATCH, len(files))) for a in range(0, len(files), BATCH)]
    return [read.pixels for read in read_ahead(reading, spans)]


def theirs(files: Files, epoch: int = 0) -> list[Tensor]:
    """The peer's over all files: open, convert, crop, resize, flip, to a tensor, stack; the same crops and flips."""
    count = len(files)
    crops = uniform("cut", 0, epoch, 0, count, RESIZED_CROP.draws).tolist()
    flips = uniform("flip", 0, epoch, 0, count, 1)[:, 0].tolist()
    found = []
    for i in range(count):
        with open(files.place(i), "rb") as file:
            image = Image.open(file).convert("RGB")
        top, left, height, width = resized_crop_box(crops[i], image.height, image.width)
        image = image.crop((left, top, left + width, top + height)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if flips[i] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found.append(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())
    return [torch.stack(found)]


def decode_alone(files: Files, scale: int = 1) -> None:
    """The limit: libjpeg-turbo decodes each whole image, and nothing else is done."""
    for i in range(len(files)):
        try:
            with Jpeg(files.read(i)) as jpeg:
                jpeg.decode(Box(0, 0, jpeg.height, jpeg.width), scale)
        except JpegError:
            Image.open(io.BytesIO(files.read(i))).convert("RGB")


def psnr(a: Tensor, b: Tensor) -> list[float]:
    """Peak signal to noise of each image of two batches, in dB; 99 where they are equal."""
    error = (a.float() - b.float()).square().mean((1, 2, 3)).tolist()
    return [99.0 if e == 0 else 10 * math.log10(255**2 / e) for e in error]


def _in_process(what: Callable[[Files, int], list[Tensor]], files: Files, epoch: int) -> None:
    torch.set_num_threads(1)
    what(files, epoch)


def compare(what: str, files: Files, peers_files: Files, runs: int, processes: int, limit_scale: int = 1) -> Row:
    """Images a second and process, ours beside the peer's, both on crops that change from run to run."""
    epochs: dict[object, int] = {}
    with ProcessPoolExecutor(processes) as pool:

        def run(of: Callable[[Files, int], list[Tensor]], its_files: Files) -> None:
            epochs[of] = epoch = epochs.get(of, -1) + 1
            list(pool.map(partial(_in_process, of, its_files), [epoch] * processes))

        ours_ms, theirs_ms, limit_ms = medians(
            [lambda: run(ours, files), lambda: run(theirs, peers_files), lambda: decode_alone(files, limit_scale)], runs
        )
    count = len(files)
    unit = "images/s" if processes == 1 else f"images/s and process, {processes} processes"
    rates = [1000 * count / ms for ms in (ours_ms, theirs_ms, limit_ms)]
    return Row(what, unit, rates[0], rates[1], "Pillow", theirs_ms / ours_ms, rates[2], runs)


def fidelity(what: str, files: Files, peers_files: Files) -> Row:
    """The median PSNR over the crops of three epochs, and the worst as the limit."""
    found = [
        v for epoch in range(3) for v in psnr(torch.cat(ours(files, epoch)), torch.cat(theirs(peers_files, epoch)))
    ]
    return Row(
        f"{what}: fidelity to Pillow, median; limit: the worst",
        "dB",
        statistics.median(found),
        None,
        None,
        None,
        min(found),
        3,
    )


def photos(paths: Sequence[Path], folder: Path, tiles: int) -> Files:
    """Photographs of 12 megapixels made of smaller ones side by side: with 1 tile soft, with 16 finer."""
    made, source = [], cycle(paths)
    for i in range(8):
        canvas = Image.new("RGB", (4000, 3000))
        side = math.isqrt(tiles)
        for k, path in enumerate(islice(source, tiles)):
            tile = Image.open(path).convert("RGB").resize((4000 // side, 3000 // side), Image.Resampling.BICUBIC)
            canvas.paste(tile, (k % side * 4000 // side, k // side * 3000 // side))
        made.append(folder / f"{tiles}-{i}.jpg")
        canvas.save(made[-1], quality=90)
    return files_of(made)


def jpeg_rows(paths: Sequence[Path], folder: Path, runs: int) -> list[Row]:
    """Decoding and cropping: the JPEGs as they are, photographs, and a pack."""
    files = files_of(paths)
    data = Data("benchmark", files, files[:2], ("all",))
    pack(data, folder / "pack", short_side=256)
    packed = read_pack("pack", folder / "pack").train
    assert isinstance(packed, Files)
    rows = []
    for processes in (1, 2):
        rows.append(compare("decode, resized crop 224, flip", files, files, runs, processes))
        rows.append(compare("the same from a pack of short side 256", packed, files, runs, processes))
    rows.append(fidelity("decode, resized crop 224", files, files))
    for words, tiles in (("photos of 12 megapixels, soft", 1), ("photos of 12 megapixels, fine", 16)):
        large = photos(paths, folder, tiles)
        rows.append(compare(words, large, large, max(3, runs // 3), 1, limit_scale=8))
        rows.append(fidelity(words, large, large))
    return rows


def per_image(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """RandomCrop(32, padding=4), RandomHorizontalFlip, ToTensor, Normalize: what torchvision does for each image."""
    found = []
    for image in pixels:  # H W C
        padded = ImageOps.expand(Image.fromarray(image), 4)
        top, left = torch.randint(0, 9, (1,)).item(), torch.randint(0, 9, (1,)).item()
        crop = padded.crop((left, top, left + 32, top + 32))
        if torch.rand(1) < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(crop, copy=True)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        x, means, stds = x.clone(), torch.as_tensor(mean), torch.as_tensor(std)
        assert not (stds == 0).any()
        found.append(x.sub_(means.view(-1, 1, 1)).div_(stds.view(-1, 1, 1)))
    return torch.stack(found)


def cifar_rows(runs: int) -> list[Row]:
    """CIFAR's augmentation in memory, beside per-image Pillow, and beside the step that it feeds."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50 * BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator)
    images = Images(pixels, torch.arange(len(pixels)) % 10)
    normalise = measure(images, 32).channel_mean_std()
    loader = Loader(normalise, 10, augmentation=Augmentation("crop_flip"))
    mean, std = normalise.mean.flatten().tolist(), normalise.std.flatten().tolist()
    one_batch = pixels[:BATCH].permute(0, 2, 3, 1).contiguous().numpy()

    def epoch() -> None:
        for _ in loader.training(images, BATCH, 0, 0):
            pass

    net = resnetlab.build("cifar_resnet20")
    step = users_step(net, torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10, PLAIN)
    plain = torch.empty(BATCH, 3, 32, 32)
    epoch_ms, theirs_ms, step_ms, write_ms = medians(
        [
            epoch,
            lambda: per_image(one_batch, mean, std),
            step,
            lambda: [plain.copy_(pixels[:BATCH]) for _ in range(50)],
        ],
        runs,
    )
    ms, limit = epoch_ms / 50, write_ms / 50
    return [
        Row("CIFAR: a batch of 128 padded, cropped, flipped, normalised; limit: bytes to floats", "ms", ms, theirs_ms,
            "Pillow", theirs_ms / ms, limit, runs),
        Row("CIFAR: the same beside a training step of cifar_resnet20", "ms", ms, step_ms, "the step", step_ms / ms,
            limit, runs),
    ]  # fmt: skip


OPEN_AND_READ = """
import sys, time
started = time.perf_counter()
import torch, resnetlab
from resnetlab.data.open import open_data
imported = time.perf_counter()
data = open_data("pack:" + sys.argv[1])
data.fingerprint
content = data.train.read(len(data.train) - 1)
print(1000 * (time.perf_counter() - imported), len(data.train))
"""


def memory_rows(folder: Path, runs: int) -> list[Row]:
    """The index of 100,000 small files in a pack: its memory, and the time until the first image is there."""
    count = 100_000
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    raw = folder / "raw"
    paths = [raw / f"{i % 100:04d}" / f"image_{i:08d}.jpg" for i in range(count)]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True)
    for path in paths:
        path.write_bytes(buffer.getvalue())
    names = StringArray(str(path.relative_to(raw)) for path in paths)
    labels = np.array([int(path.parent.name) for path in paths], np.int32)
    files = Files.all_of(FolderFiles(raw, names, labels, np.full(count, len(buffer.getvalue()), np.int64)))
    pack(Data("benchmark", files, files[:2], tuple(f"{i:04d}" for i in range(100))), folder / "many")
    times = []
    for _ in range(runs):
        command = [sys.executable, "-c", OPEN_AND_READ, str(folder / "many")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        times.append(float(done.stdout.split()[0]))
    tracemalloc.start()
    kept = read_pack("pack", folder / "many")
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return [
        Row("100,000 images in a pack: the index; limit: what was asked for", "bytes an image", held / len(kept.train),
            None, None, None, 100, 1),
        Row("100,000 images in a pack: open, fingerprint, first image; limit: what was asked for", "ms",
            statistics.median(times), None, None, None, 2000, runs),
    ]  # fmt: skip


def jpegs_in(folder: Path) -> list[Path]:
    """The JPEGs below a folder, of ImageNet's sample where it is there."""
    sample = folder / "imagenet-sample-100"
    found = sorted((sample if sample.is_dir() else folder).rglob("*"))
    return [path for path in found if path.suffix.lower() in (".jpg", ".jpeg")]


def main() -> None:
    """Measure, print and record."""
    parser = options(__doc__ or "", runs=9)
    parser.add_argument("--data", type=Path, help="a folder of JPEGs; unset: unpacked from ../shared/data")
    chosen: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = chosen.data
        if source is None and (SHARED / "unpack.py").exists():
            source = folder / "data"
            unpack = [sys.executable, str(SHARED / "unpack.py"), str(source), "imagenet-sample"]
            subprocess.run(unpack, check=True, capture_output=True)
        paths = jpegs_in(source) if source else []
        if chosen.data and not paths:
            raise UserError(f"{chosen.data}: there is no JPEG in it.")
        rows = jpeg_rows(paths, folder, chosen.runs) if paths else []
        if not rows:
            print("no JPEGs: give --data DIR", file=sys.stderr)
        rows += cifar_rows(chosen.runs) + memory_rows(folder, 3)
        show(rows, as_json=chosen.json)
        keep(rows, chosen.record)


if __name__ == "__main__":
    started = time.perf_counter()
    run(main)
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
