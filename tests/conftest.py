"""What the tests share: one core each, real data where it is at hand, and the command as a subprocess.

No outcome of a test depends on how fast the machine is. What waits, waits for an event; PATIENCE is only there to end
what hangs, and nothing that the clock alone brings about (lines of progress, checkpoints) happens while tests run.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:  # what is slow to import, the process that only starts pytest-xdist's workers does without
    from resnetlab.data.files import Files
    from resnetlab.data.images import Data

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # for browsing.py, which import-mode importlib does not find by itself
SHARED = ROOT.parent / "shared" / "data"

PATIENCE = 3600  # seconds, after which a process that a test started counts as hung
NEVER = 1e9  # seconds


def one_core() -> None:
    """Keep this process, and those that it starts, to one core: each of pytest-xdist's workers to another.

    What is trained takes a thread for each core that it may use, and threads that wait for each other on cores that are
    busy otherwise take ten times as long.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
        os.sched_setaffinity(0, {cores[int(worker or os.getpid()) % len(cores)]})


# What tests train has the bits of a processor, where there is a GPU, too; the tests of a real one ask for it.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell has ignored by what it runs in the background


def pytest_configure(config: pytest.Config) -> None:
    """One core for what runs tests: not for the process that only starts pytest-xdist's workers."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        one_core()
        import torch

        torch.set_num_threads(1)
    # Tests of several decoding processes have them on one core, and torch would rather not.
    config.addinivalue_line("filterwarnings", "ignore:This DataLoader will create:UserWarning")


# Fixtures of a test serve all its examples: those that are used with examples hold nothing that an example changes.
settings.register_profile(
    "any-speed", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("any-speed")


@pytest.fixture(scope="session")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of CIFAR-10's official batches."""
    unpack = SHARED / "unpack.py"
    if not unpack.exists():
        pytest.skip(f"needs the real CIFAR-10: {unpack} is not there")
    folder = tmp_path_factory.mktemp("cifar10")
    subprocess.run([sys.executable, str(unpack), str(folder), "cifar10"], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured in tests is not kept in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws without a seed doesn't depend on the tests before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def nothing_by_the_clock() -> Iterator[None]:
    """What a slow machine would add (lines of progress, statuses, checkpoints) is not added in the tests' process."""
    from resnetlab.api import screen
    from resnetlab.training import log_lines, loop, session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "SECONDS_BETWEEN_LINES", NEVER)
        patch.setattr(screen, "QUIET_SECONDS", NEVER)
        patch.setattr(log_lines, "LINE_SECONDS", NEVER)
        patch.setattr(loop, "STATUS_SECONDS", NEVER)
        patch.setattr(session, "CHECKPOINT_SECONDS", NEVER)
        yield


REAL_IMAGES = {
    "hymenoptera": "hymenoptera",
    "imagenette": "imagenette-224-small",
    "imagenet-sample": "imagenet-sample-100",
}


@pytest.fixture(scope="session")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of "hymenoptera", "imagenette" or "imagenet-sample": real photographs in folders of classes."""
    dest = tmp_path_factory.mktemp("real-images")

    def unpacked(name: str) -> Path:
        folder = dest / REAL_IMAGES[name]
        unpack = SHARED / "unpack.py"
        if not unpack.exists():
            pytest.skip(f"needs the real {name}: {unpack} is not there")
        if not folder.exists():
            subprocess.run([sys.executable, str(unpack), str(dest), name], check=True, capture_output=True)
        return folder

    return unpacked


def loose_files(root: Path, classes: tuple[str, ...]) -> Files:
    """Every file in ROOT/CLASS, as it is listed."""
    from resnetlab.data.files import Files
    from resnetlab.data.source import FolderFiles, StringArray

    found = [(i, f"{c}/{f}") for i, c in enumerate(classes) for f in sorted(os.listdir(root / c))]
    found = [(i, name) for i, name in found if os.path.isfile(root / name)]
    sizes = np.array([os.path.getsize(root / name) for _, name in found], dtype=np.int64)
    labels = np.array([i for i, _ in found], dtype=np.int32)
    return Files.all_of(FolderFiles(root, StringArray(name for _, name in found), labels, sizes))


@pytest.fixture(scope="session")
def loose_data() -> Callable[[Path], Data]:
    """ROOT/train/CLASS/FILE and ROOT/val/CLASS/FILE as data, whatever the files are."""
    from resnetlab.data.images import Data

    def read(root: Path) -> Data:
        classes = tuple(sorted(os.listdir(root / "train")))
        return Data(root.name, loose_files(root / "train", classes), loose_files(root / "val", classes), classes)

    return read


FLAGS = (
    "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update "
    "disable-sync"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser, for the tests of pages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium on the path")
    with playwright.sync_playwright() as p:
        flags = [f"--{flag}" for flag in FLAGS.split()]
        started = p.chromium.launch(executable_path=chromium, args=flags, timeout=1000 * PATIENCE)
        yield started
        started.close()


@pytest.fixture(scope="session")
def python() -> Iterator[list[str]]:
    """The start of a command, in place of sys.executable, whose process has imported already (forking.py)."""
    if sys.platform != "linux":  # elsewhere what libraries have started may not survive a fork
        yield [sys.executable]
        return
    program, pipe = str(ROOT / "tests/forking.py"), subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,  # the path of a socket must be short
        subprocess.Popen(
            [sys.executable, program, "serve", address := f"{folder}/socket"], stdin=pipe, stdout=pipe, text=True
        ) as serving,
    ):
        assert serving.stdout is not None
        assert serving.stdout.readline() == "ready\n"
        yield [sys.executable, "-IS", program, "run", address]


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def resnetlab(tmp_path: Path, python: list[str]) -> Command:
    """Run the command line in an empty folder: resnetlab("train", "digits", ...)."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*python, "-m", "resnetlab", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=PATIENCE, **options)

    return run


# Values that a field of a JSON file may have by damage or by hand.
ODD: list[Any] = [
    *(None, True, -1, 0, 1.5, 101, 2**63, 10**400, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "\x00\x1b[31m\n\ud800", "a" * 10_000, [], [1, "x"], {}, {"a": 1}, [[[[]]]]),
]
_REMOVED = object()


@pytest.fixture(scope="session")
def mutations() -> Callable[[Any], Sequence[Callable[[], Any]]]:
    """mutations(value): functions that give a JSON value with one field removed, or with an odd value in its place."""

    def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        yield at
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            yield from places(inner, (*at, key))

    def changed(value: Any, at: tuple[Any, ...], new: Any) -> Any:
        whole = [copy.deepcopy(value)]
        inner: Any = whole
        last: Any = 0
        for key in at:
            inner, last = inner[last], key
        if new is _REMOVED:
            del inner[last]
        else:
            inner[last] = new
        return whole[0]

    def of(value: Any) -> list[Callable[[], Any]]:
        return [partial(changed, value, at, new) for at in places(value) for new in (*ODD, *([_REMOVED] if at else []))]

    return of
