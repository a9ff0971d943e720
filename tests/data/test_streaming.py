"""Images from files: the same batches whatever the workers, resumed anywhere; bad files are named or counted."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_files import AS_IS, files_at

from resnetlab.data import streaming
from resnetlab.data.crops import Crop
from resnetlab.data.files import Files
from resnetlab.data.loading import Augmentation, Loader
from resnetlab.data.source import FolderFiles
from resnetlab.data.streaming import BadImages, ReadPlan, read_ahead
from resnetlab.errors import UserError


def seen(
    files: Files, start: int = 0, epoch: int = 1, augment: str = "resized_crop_flip", **options: int
) -> list[tuple[int, torch.Tensor]]:
    how = Augmentation(augment=augment, policy="trivialaugment", erasing=0.25)
    loader = Loader(AS_IS, len(files), size=16, augmentation=how, **options)  # type: ignore[arg-type]
    batches = loader.training(files, 8, seed=3, epoch=epoch, start=start)
    return [(int(label), image) for x, labels, *_ in batches for label, image in zip(labels, x, strict=True)]


def equal(a: list[tuple[int, torch.Tensor]], b: list[tuple[int, torch.Tensor]]) -> bool:
    return [i for i, _ in a] == [i for i, _ in b] and all(
        torch.equal(x, y) for (_, x), (_, y) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("augment", ["resized_crop_flip", "crop_alternating_flip"])
def test_an_epoch_is_the_same_whatever_the_workers_and_ranks(pictures: Files, augment: str) -> None:
    whole = seen(pictures, augment=augment)
    assert sorted(i for i, _ in whole) == list(range(37))
    assert not equal(whole, seen(pictures, epoch=2, augment=augment))
    for workers in (0, 1, 2):
        assert equal(whole, seen(pictures, workers=workers, augment=augment))
        parts = [seen(pictures, workers=workers, augment=augment, rank=rank, ranks=2) for rank in (0, 1)]
        assert equal(sorted(whole, key=lambda p: p[0]), sorted(parts[0] + parts[1], key=lambda p: p[0]))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [1, 8, 21, 36])
def test_an_epoch_goes_on_at_any_sample_without_those_before(
    pictures: Files, workers: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = seen(pictures)
    before = {i for i, _ in whole[:start]}

    def read(self: FolderFiles, row: int) -> bytes:
        assert row not in before, "an image before the start was read"
        return Path(self.place(row)).read_bytes()

    monkeypatch.setattr(FolderFiles, "read", read)
    rest = seen(pictures, start, workers=workers)
    assert equal(rest, whole[start:] if start < 36 else [])  # one image alone is no training batch


KILLED = """
import sys, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
from made_files import AS_IS, files_at
from resnetlab.data.loading import Augmentation, Loader
torch.set_num_threads(1)
folder, workers, rank, ranks = Path(sys.argv[1]), *map(int, sys.argv[2:])
files = files_at(folder, sorted(p.name for p in folder.iterdir()))
loader = Loader(AS_IS, len(files), size=16, augmentation=Augmentation("resized_crop_flip"), workers=workers, rank=rank,
    ranks=ranks)
for x, labels, *_ in loader.training(files, 8, seed=3, epoch=0):
    print(*labels.tolist(), flush=True)
    sys.stdin.readline()  # so that the test decides where it is killed
"""


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_in_mid_epoch_the_sequence_goes_on(python: list[str], pictures: Files, workers: int, ranks: int) -> None:
    assert isinstance(pictures.source, FolderFiles)
    code = KILLED.format(tests=str(Path(__file__).parent))

    def start(*arguments: int) -> subprocess.Popen[str]:
        command = [*python, "-c", code, str(pictures.source.folder), *map(str, arguments)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    for rank in range(ranks):
        loader = Loader(AS_IS, 37, size=16, augmentation=Augmentation("resized_crop_flip"), rank=rank, ranks=ranks)
        unbroken = [batch.labels.tolist() for batch in loader.training(pictures, 8, seed=3, epoch=0)]
        broken = start(workers, rank, ranks)
        assert broken.stdin is not None
        assert broken.stdout is not None
        done = []
        for _ in range(2):
            done.append([int(i) for i in broken.stdout.readline().split()])
            broken.stdin.write("\n")
            broken.stdin.flush()
        os.killpg(broken.pid, signal.SIGKILL)
        broken.communicate()
        resumed = replace(loader, workers=workers).training(pictures, 8, seed=3, epoch=0, start=16)  # 2 batches of 8
        assert done + [batch.labels.tolist() for batch in resumed] == unbroken
        assert len(unbroken) == 5


def test_evaluation_counts_every_image_once_over_the_ranks(pictures: Files) -> None:
    for ranks in (1, 2, 3):
        loaders = [Loader(AS_IS, 37, size=16, rank=r, ranks=ranks, workers=ranks % 2) for r in range(ranks)]
        labels = [i for loader in loaders for _, batch in loader.evaluation(pictures, 5) for i in batch.tolist()]
        assert labels == list(range(37))


def test_the_callers_random_numbers_are_left_alone(pictures: Files) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for workers in (0, 1):
        seen(pictures, workers=workers)
        assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def with_bad_ones(pictures: Files, tmp_path: Path) -> Files:
    """Ten pictures, then a truncated, an empty and a missing one, a folder and a text."""
    good = [pictures.read(i) for i in range(10)]
    for i, content in enumerate(good):
        (tmp_path / f"{i}.img").write_bytes(content)
    (tmp_path / "truncated.jpg").write_bytes(good[0][: len(good[0]) // 2])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "gone.jpg").touch()
    (tmp_path / "folder.jpg").touch()
    bad = ("truncated.jpg", "empty.jpg", "text.png", "gone.jpg", "folder.jpg")
    files = files_at(tmp_path, [*(f"{i}.img" for i in range(10)), *bad])
    (tmp_path / "gone.jpg").unlink()
    (tmp_path / "folder.jpg").unlink()
    (tmp_path / "folder.jpg").mkdir()
    return files


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_files_are_named_or_counted(with_bad_ones: Files, workers: int) -> None:
    def labels(unreadables: BadImages, evaluate: bool = False) -> list[int]:
        loader = Loader(AS_IS, 15, size=16, workers=workers, unreadables=unreadables)
        if evaluate:
            return [i for _, batch in loader.evaluation(with_bad_ones, 4) for i in batch.tolist()]
        return [i for batch in loader.training(with_bad_ones, 4, 0, 0) for i in batch.labels.tolist()]

    with pytest.raises(UserError, match=r"(truncated|empty|text|gone|folder)\.\w+: can't be read \(.+\); repair"):
        labels(BadImages())
    skipping = BadImages(skip=True, limit=5)
    assert sorted(labels(skipping, evaluate=True)) == list(range(10))
    assert skipping.count == 5
    skipping.count = 0
    found = labels(skipping)
    assert set(found) <= set(range(10))
    assert len(found) == len(set(found)) >= 8  # a batch with one image left is no training batch
    with pytest.raises(UserError, match="exceeds unreadable_limit=4"):
        labels(BadImages(skip=True, limit=4))


def _die(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    if content == b"deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((size, size, 3), np.uint8)


def test_a_worker_that_is_killed_is_reported_with_its_file(deadly: Files) -> None:
    with pytest.raises(UserError, match=r"5\.jpg: a process that decoded images was killed"):
        read_by(deadly, _die)


def _crash(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    if content == b"deadly":
        os._exit(3)
    return np.zeros((size, size, 3), np.uint8)


def _no_memory(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    raise MemoryError


def _no_memory_in_torch(content: bytes, draws: Sequence[float], size: int) -> np.ndarray:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1048576 bytes.")


@pytest.fixture
def deadly(tmp_path: Path) -> Files:
    for i in range(8):
        (tmp_path / f"{i}.jpg").write_bytes(b"deadly" if i == 5 else b"fine")
    return files_at(tmp_path, [f"{i}.jpg" for i in range(8)])


def read_by(files: Files, crop: Callable[[bytes, Sequence[float], int], np.ndarray]) -> None:
    for _ in read_ahead(ReadPlan(files, torch.arange(8), Crop(crop, 0, False), 4), [(0, 3), (3, 6), (6, 8)], workers=2):
        pass


def test_a_worker_that_crashes_is_told_from_one_that_is_killed(deadly: Files) -> None:
    with pytest.raises(UserError, match=r"5\.jpg: the process that decoded it died; the file may crash the decoder"):
        read_by(deadly, _crash)


def test_a_worker_that_the_system_killed_for_memory_is_told_so(deadly: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter((3, 4))
    monkeypatch.setattr(streaming, "killings_for_memory", lambda: next(counts))
    with pytest.raises(UserError, match=r"5\.jpg: memory ran out, and the system killed .*; use fewer --workers"):
        read_by(deadly, _die)


@pytest.mark.parametrize(
    ("crop", "what"), [(_no_memory, "memory is full"), (_no_memory_in_torch, "1 MiB more did not")]
)
def test_a_worker_without_memory_says_so(
    deadly: Files, crop: Callable[[bytes, Sequence[float], int], np.ndarray], what: str
) -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match=f"out of memory in a process that decodes images: .*{what}.* --workers or"):
        read_by(deadly, crop)
    assert set(multiprocessing.active_children()) == before, "its workers have ended"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What is said for want of shared memory, as if nothing had been said before."""
    monkeypatch.setattr(streaming, "_said", [])
    return lambda: [record.message for record in caplog.records]


def test_too_little_shared_memory_is_said_before_and_changes_nothing(
    pictures: Files, says: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of 8 has 6 KiB here; 2 workers read 4 ahead, and 2 more may be held, of 5 in all."""
    whole = seen(pictures)
    monkeypatch.setattr(streaming, "shared_memory", lambda: 30 * 1024)
    assert equal(whole, seen(pictures, workers=2))
    assert says() == []
    monkeypatch.setattr(streaming, "shared_memory", lambda: 30 * 1024 - 1)
    monkeypatch.setattr(torch.Tensor, "share_memory_", lambda self: pytest.fail("it was used"))
    assert equal(whole, seen(pictures, workers=2))
    assert equal(whole, seen(pictures, workers=2))
    (line,) = says()
    assert line.startswith("/dev/shm has 30 KiB free, but batches that are read ahead need 30 KiB: ")
    assert "--shm-size" in line


def test_shared_memory_that_fills_up_meanwhile_changes_nothing(
    pictures: Files, says: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)  # in the workers too, which are forked
    assert equal(seen(pictures), seen(pictures, workers=2))
    (line,) = says()
    assert line.startswith("/dev/shm has no room for a batch of 6 KiB: batches pass through pipes")


def test_without_any_shared_memory_the_main_process_reads(
    pictures: Files, says: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(streaming, "RawArray", none)
    monkeypatch.setattr(streaming, "shared_memory", lambda: 0)
    assert equal(seen(pictures), seen(pictures, workers=2))
    (line,) = says()
    assert "(No space left on device, /dev/shm has 0 bytes free): the main process reads the images itself" in line


@pytest.mark.parametrize("size", ["4k", pytest.param("64k", marks=pytest.mark.slow)])
def test_a_real_shared_memory_that_is_small(pictures: Files, size: str) -> None:
    """In a namespace of its own, for which the system has to allow it."""
    assert isinstance(pictures.source, FolderFiles)
    code = KILLED.format(tests=str(Path(__file__).parent)).replace("    sys.stdin.readline()", "    #")
    command = [sys.executable, "-c", code, str(pictures.source.folder), "2", "0", "1"]
    mounted = f'mount -t tmpfs -o size={size} tmpfs /dev/shm || exit 99; exec "$@"'
    try:
        done = subprocess.run(
            ["unshare", "-m", "bash", "-c", mounted, "_", *command],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},  # torch says that two workers share a core
        )
    except FileNotFoundError:
        pytest.skip("needs the command unshare")
    if done.returncode in (1, 99) and "Traceback" not in done.stderr:
        pytest.skip("may not mount anything here")
    loader = Loader(AS_IS, 37, size=16, augmentation=Augmentation("resized_crop_flip"))
    wanted = [batch.labels.tolist() for batch in loader.training(pictures, 8, seed=3, epoch=0)]
    assert [[int(i) for i in line.split()] for line in done.stdout.splitlines()] == wanted, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("can't start processes" if size == "4k" else "/dev/shm has ")
