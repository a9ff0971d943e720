"""A function over every image in processes: in order, with exceptions, and past an image that kills its process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

from resnetlab.data import workers as processes
from resnetlab.data.images import Data
from resnetlab.data.workers import CHUNK, check_workers, decoding_workers, over_images
from resnetlab.errors import UserError

# What a process can import, as it can't what is defined in a test.
MODULE = """
import os

def first_byte(files, i):
    content = files.read(i)
    if content == b"kill":
        os.abort()
    if content == b"raise":
        raise RuntimeError("as it should")
    return content
"""


@pytest.fixture
def killing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "killing_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "killing_module", raising=False)
    import killing_module  # type: ignore[import-not-found]

    return killing_module


def files(root: Path, contents: list[bytes], loose_data: Callable[[Path], Data]) -> Data:
    for side in ("train", "val"):
        (root / side / "a").mkdir(parents=True)
    for i, content in enumerate(contents):
        (root / "train" / "a" / f"{i:04d}").write_bytes(content)
    return loose_data(root)


@pytest.mark.parametrize(("images", "wanted"), [(0, 0), (1, 1), (CHUNK + 1, 2)])
def test_no_process_starts_without_images_for_it(monkeypatch: pytest.MonkeyPatch, images: int, wanted: int) -> None:
    started = []

    def thread(*work: object) -> ThreadPoolExecutor:
        monkeypatch.setattr(processes, "_work", work, raising=False)
        started.append(ThreadPoolExecutor(1))
        return started[-1]

    monkeypatch.setattr(processes, "_pool", thread)
    found = over_images(lambda _, i: i, range(images), 4)  # type: ignore[arg-type]
    assert list(found) == list(range(images))
    assert len(started) == wanted


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(
    tmp_path: Path, killing: ModuleType, loose_data: Callable[[Path], Data], workers: int
) -> None:
    contents = [str(i).encode() for i in range(10 * CHUNK + 3)]
    data = files(tmp_path / "data", contents, loose_data)
    assert list(over_images(killing.first_byte, data.train, workers)) == contents
    assert list(over_images(killing.first_byte, data.test, workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("bad", [[0], [5 * CHUNK + 3], [2, 3, 40, 67]])
def test_an_image_that_kills_is_told_and_no_other_is_lost(
    tmp_path: Path, killing: ModuleType, loose_data: Callable[[Path], Data], workers: int, bad: list[int]
) -> None:
    contents = [b"kill" if i in bad else str(i).encode() for i in range(8 * CHUNK + 4)]
    data = files(tmp_path / "data", contents, loose_data)
    found = list(over_images(killing.first_byte, data.train, workers))
    assert found == [None if content == b"kill" else content for content in contents]


def test_an_exception_is_the_callers(tmp_path: Path, killing: ModuleType, loose_data: Callable[[Path], Data]) -> None:
    data = files(tmp_path / "data", [b"1", b"raise"], loose_data)
    with pytest.raises(RuntimeError, match="as it should"):
        list(over_images(killing.first_byte, data.train, 1))


@pytest.mark.parametrize("workers", [0, -1, 10**6])
def test_senseless_numbers_are_refused(workers: int) -> None:
    with pytest.raises(UserError, match=f"workers={workers} must be 1 to"):
        check_workers(workers)
    assert check_workers(None) >= 1


def test_processes_that_cannot_start_are_no_images_fault() -> None:
    code = (
        "import os; from pathlib import Path; import numpy as np\n"
        "from resnetlab.data.files import Files; from resnetlab.data.source import *\n"
        "from resnetlab.data.workers import over_images\n"
        "one = np.zeros(1, np.int32)\n"
        "files = Files.all_of(FolderFiles(Path('.'), StringArray(['a/b']), one, one.astype(np.int64)))\n"
        "list(over_images(os.path.join, files, 1))"
    )
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, check=False)  # no file
    assert done.stderr.strip().splitlines()[-1].startswith("resnetlab.errors.UserError: the processes that decode")


@pytest.mark.parametrize(
    ("asked", "device", "in_memory", "sharing", "wanted"),
    [
        (None, "cpu", True, 1, 0),
        (7, "cuda", True, 1, 0),
        (None, "cpu", False, 1, 1),
        (None, "mps", False, 1, 1),
        (None, "cuda:1", False, 1, 12),
        (None, "cuda", False, 5, 2),
        (None, "cuda", False, 50, 1),
        (0, "cuda", False, 1, 0),
        (256, "cpu", False, 1, 256),
    ],
)
def test_a_gpu_gets_all_cores_to_decode_for_it_and_a_cpu_one_process(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, device: str, in_memory: bool, sharing: int, wanted: int
) -> None:
    monkeypatch.setattr(processes, "available_cores", lambda: 12)
    assert decoding_workers(asked, device, in_memory=in_memory, processes=sharing) == wanted


@pytest.mark.parametrize("asked", [-1, 257])
def test_no_more_processes_decode_than_anybody_has_cores_for(monkeypatch: pytest.MonkeyPatch, asked: int) -> None:
    with pytest.raises(UserError, match=f"workers={asked} must be 0 to 256"):
        decoding_workers(asked, "cpu", in_memory=True)
    monkeypatch.setattr(processes, "available_cores", lambda: 200)
    assert decoding_workers(None, "cuda", in_memory=False) == 16
