"""What the tests share: one thread each, real data where it is at hand, and the command as a subprocess."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

torch.set_num_threads(1)  # the tests run side by side, and threads that wait for each other's cores crawl


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


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def resnetlab(tmp_path: Path) -> Command:
    """Run the command line in an empty folder: resnetlab("train", "digits", ...)."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "resnetlab", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, **{"timeout": 300, **options})  # type: ignore[call-overload]

    return run
