"""The wheel and the sdist: built from what is tracked, installed into an empty environment, run from elsewhere."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import urllib.request
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version

from resnetlab import __version__

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with both, as `make dist` makes them."""
    setuptools = pytest.importorskip("setuptools")
    if Version(setuptools.__version__) < Version("77"):
        pytest.skip(f"setuptools {setuptools.__version__} can't build the package: make installs a newer one")
    copy = tmp_path_factory.mktemp("checkout") / "resnetlab"  # building leaves folders behind
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "reports", "site")
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    code = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    return copy / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """run(*arguments): the command of an environment with the wheel, and the dependencies of this one beside it."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place / "venv", with_pip=True)
    python, elsewhere = place / "venv/bin/python", place / "elsewhere"
    elsewhere.mkdir()
    (wheel,) = built.glob("*.whl")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", wheel],
        check=True,
        capture_output=True,
    )
    (site,) = (place / "venv/lib").glob("python*/site-packages")
    packages = {Path(entry).resolve() for entry in sys.path if entry.endswith("site-packages")}
    packages.add(Path(sysconfig.get_paths()["purelib"]).resolve())
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(packages)))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(place / "venv/bin/resnetlab"), *arguments]
        done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done

    where = [python, "-c", "import resnetlab; print(resnetlab.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, capture_output=True, text=True, check=True).stdout.strip()
    assert Path(found).is_relative_to(site), "it is the wheel's, not the checkout's"
    run.folder = elsewhere  # type: ignore[attr-defined]
    return run


def test_the_sdist_has_what_tests_and_guide_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    wanted = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if wanted.returncode:
        pytest.skip("this is no checkout: what the sdist should hold is not known")
    outside = (".ci/", ".gitignore")
    there = [name for name in wanted.stdout.splitlines() if (ROOT / name).exists() and not name.startswith(outside)]
    assert not [name for name in there if name not in names]


def test_version_and_completion(installed: Run) -> None:
    assert installed("--version").stdout.strip() == __version__
    assert "_resnetlab" in installed("completion", "bash").stdout


def test_the_trained_networks_come_with_it(installed: Run, tmp_path: Path) -> None:
    from PIL import Image

    there = sorted(path.stem for path in (ROOT / "resnetlab/weights/pretrained").iterdir())
    rows = json.loads(installed("nets", "cifar_", "--json").stdout)["networks"]
    named = [w["source"] for row in rows for w in row["weights"]]
    assert sorted(source.removeprefix("pretrained:") for source in named) == there
    Image.new("RGB", (32, 32), (30, 60, 200)).save(tmp_path / "x.png")
    assert installed("predict", f"pretrained:{there[0]}", str(tmp_path / "x.png")).stdout.startswith(str(tmp_path))


def test_a_run_its_evaluation_and_its_page(installed: Run) -> None:
    done = installed("train", "digits", "--net", "cifar_resnet8", "--epochs", "1", "--json")
    run = json.loads(done.stdout)["run"]
    installed("eval", run, "--data", "digits", "--report", "report")
    folder: Path = installed.folder  # type: ignore[attr-defined]
    assert "</html>" in (folder / "report/evaluation.html").read_text()
    _serves(installed, run)


def _serves(installed: Run, run: str) -> None:
    """The page and what it shows come with the wheel."""
    folder: Path = installed.folder  # type: ignore[attr-defined]
    command = [str(folder.parent / "venv/bin/resnetlab"), "serve", run, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        killer = threading.Timer(300, server.kill)
        killer.start()
        try:
            assert server.stdout
            url = server.stdout.readline().split("http://")[1].split()[0]
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://{url}") as answer:
                assert "<html" in answer.read().decode()
        finally:
            killer.cancel()
            server.terminate()


def test_pages_of_records_and_of_an_audit(installed: Run, tmp_path: Path) -> None:
    from PIL import Image

    for record in (ROOT / "results").glob("degradation-*.json"):
        shutil.copy(record, tmp_path)
    installed("study", "report", "--results", str(tmp_path))
    assert "</html>" in (tmp_path / "report.html").read_text()
    for i, name in enumerate(f"images/{side}/{c}/{n}.png" for side in ("train", "val") for c in "ab" for n in range(2)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (30 * i, 0, 99)).save(tmp_path / name)
    installed("data", "audit", str(tmp_path / "images"), "--html", str(tmp_path / "audit.html"))
    assert "</html>" in (tmp_path / "audit.html").read_text()
