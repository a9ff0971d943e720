"""Two processes as one run: the same as one process, to the last bit the same again, and nothing hangs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from resnetlab.errors import UserError
from resnetlab.training.distributed import Ranks, check_share, joined, local_device

RANKS = Path(__file__).with_name("ranks.py")
TIMEOUT = 120  # seconds, after which a job is ended, and its test fails
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["-m", "resnetlab", "train", "digits", "--device", "cpu", "--threads", "1"]


@contextmanager
def started(*commands: list[str], folder: Path, env: dict[str, str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes, of which nothing is left afterwards, nor of those that they start."""
    running = []
    try:
        for rank, command in enumerate(commands):
            own = os.environ | ENVIRONMENT | env | ({"RANK": str(rank)} if len(commands) > 1 else {})
            pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            running.append(subprocess.Popen(command, cwd=folder, env=own, start_new_session=True, **pipes))
        yield running
    finally:
        for process in running:
            ending = [process.pid, *workers_of(process.pid)] if process.poll() is None else []
            for pid in ending:  # torchrun gives each worker a group of its own
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            process.communicate()


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def worker(pid: int, rank: int) -> int:
    """The process of that rank among those that torchrun started."""
    wanted = f"RANK={rank}".encode()
    return next(p for p in workers_of(pid) if wanted in Path(f"/proc/{p}/environ").read_bytes().split(b"\0"))


def torchrun(folder: Path, *arguments: str, restarts: int = 0, timeout: float = TIMEOUT) -> tuple[int, str, str]:
    """Its exit code, and what it and its workers said."""
    command = [*TORCHRUN, "--max-restarts", str(restarts), *arguments]
    with started(command, folder=folder, env={}) as (process,):
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out, err


def two_processes(folder: Path, *arguments: str) -> list[tuple[str, str]]:
    """Two processes as torchrun starts them, without its seconds; what they said."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    with started(*[[sys.executable, *arguments]] * 2, folder=folder, env=env) as running:
        said = [process.communicate(timeout=TIMEOUT) for process in running]
        assert [process.returncode for process in running] == [0, 0], said
    return said


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two ranks of ranks.py found."""
    folder = tmp_path_factory.mktemp("ranks")
    two_processes(folder, str(RANKS), str(folder))
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in (0, 1)]


Found = list[dict[str, Any]]


def test_sums_are_exact_and_a_failure_is_everyones(found: Found) -> None:
    for rank, mine in enumerate(f["exchanges"] for f in found):
        assert mine["sums"] == [2**54 - 8, 0.2, 1]
        assert mine["from first"] == {"rank": 0}
        assert mine["failure"] == ["photo.jpg: can't be read", rank == 1, True]


@pytest.mark.parametrize("case", ["plain", "batch norm"])
@pytest.mark.parametrize("batch_size", [16, 13])
def test_two_processes_step_as_one(found: Found, case: str, batch_size: int) -> None:
    """Weights and statistics after four steps in float64, of even and uneven shares, with sync_bn."""
    for mine in found:
        assert mine["gradients"][f"{case} {batch_size}"] < 1e-13
        assert mine["gradients"][f"{case} {batch_size} equal"]
        if case == "plain":
            assert mine["gradients"][f"{case} {batch_size} in parts"] < 1e-13


def test_without_sync_bn_the_firsts_statistics_are_kept(found: Found) -> None:
    for mine in (f["gradients"] for f in found):
        assert mine["without sync_bn"] > 1e-3
        assert not mine["buffers before"]
        assert mine["buffers after"]
    assert found[0]["gradients"]["buffers are the first's"]


def test_batch_norm_over_processes_equals_torchs_on_the_whole(found: Found) -> None:
    for mine in found:
        assert max(mine["batch norm"].values()) < 1e-11


def test_evaluation_counts_every_image_once(found: Found) -> None:
    for mine in found:
        for count, (images, same, loss) in mine["evaluation"].items():
            assert (images, same) == (int(count), True)
            assert loss < 1e-6


def test_a_batch_that_is_too_short_for_one_is_left_out_by_all(found: Found) -> None:
    assert [f["short shares"] for f in found] == [[75, 100], [125, 100]]


def test_fewer_than_two_images_for_each_are_refused(found: Found) -> None:
    for mine in found:
        assert mine["too small"] == ["batch_size=3: fewer than two for each of 2 processes; start fewer."]
    check_share(Ranks(), 2, 2)
    with pytest.raises(UserError, match="7 training images: fewer than two for each of 4 processes"):
        check_share(Ranks(ranks=4), 64, 7)


def test_a_seed_gives_two_processes_the_same_weights_to_the_last_bit(found: Found) -> None:
    """With everything that draws random numbers, and uneven shares."""
    a, b = (Path(found[0]["runs"][name][0]) for name in "ab")
    for file in ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl"):
        assert (a / file).read_bytes() == (b / file).read_bytes()
    assert found[0]["runs"]["a"][1:] == found[0]["runs"]["b"][1:]
    assert all(mine["runs"]["same words"] for mine in found)


def test_a_run_of_two_processes_equals_that_of_one(found: Found) -> None:
    """In float32: the same but for rounding, with weights of the same names."""
    one, two = (load_file(Path(found[0]["runs"][name][0]) / "last/weights.safetensors") for name in ("one", "sync"))
    assert list(one) == list(two)
    for name, wanted in one.items():
        torch.testing.assert_close(two[name], wanted, rtol=0.02, atol=0.02)
    assert found[0]["runs"]["one"][1] == pytest.approx(found[0]["runs"]["sync"][1], abs=0.5)
    settings = json.loads((Path(found[0]["runs"]["sync"][0]) / "run.json").read_text())
    assert settings["ranks"] == 2


def test_a_file_that_one_process_cannot_read_stops_all_with_one_line(tmp_path: Path) -> None:
    for split, count in (("train", 12), ("val", 2)):
        for name, level in (("a", 50), ("b", 200)):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (36, 36), (level, i, 0)).save(tmp_path / "data" / split / name / f"{i}.png")
    broken = tmp_path / "data/train/b/7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    options = ["--data", "folder:data", "--net", "cifar_resnet8", "--batch-size", "8", "--normalise", "imagenet"]
    code, _, said = torchrun(tmp_path, *TRAIN, *options)
    assert code != 0
    assert said.count("error: data/train/b/7.png: can't be read") == 1, said
    assert said.count("Traceback") == 1  # torchrun's own
    assert "exitcode  : 2" in said


@pytest.mark.parametrize(
    "kills",  # after which epoch which rank is killed
    [
        pytest.param([(2, 1)], id="the second"),
        pytest.param([(1, 1), (3, 0), (4, 0)], id="one after the other", marks=pytest.mark.slow),
    ],
)
def test_a_killed_process_is_started_again_and_the_run_goes_on(tmp_path: Path, kills: list[tuple[int, int]]) -> None:
    """The outcome is that of an unbroken run, to the last bit."""
    options = ["--net", "cifar_resnet8", "--epochs", "6", "--batch-size", "61", "--json"]
    (tmp_path / "unbroken").mkdir()
    (out, _), (silent, _) = two_processes(tmp_path / "unbroken", *TRAIN, *options)
    assert silent == ""
    unbroken = tmp_path / "unbroken" / json.loads(out)["run"]

    command = [*TORCHRUN, "--max-restarts", str(len(kills)), *TRAIN, *options]
    with started(command, folder=tmp_path, env={}) as (process,):
        stop = threading.Timer(2 * TIMEOUT, process.terminate)
        stop.start()
        assert process.stderr is not None
        lines = []
        for epoch, rank in kills:
            for line in process.stderr:
                lines.append(line)
                if line.startswith(f"epoch {epoch},"):
                    os.kill(worker(process.pid, rank), signal.SIGKILL)
                    break
        out, err = process.communicate(timeout=TIMEOUT)
        stop.cancel()
    said = "".join(lines) + err
    assert process.returncode == 0, said
    assert said.count("epoch 1,") == 1
    assert "Traceback" not in said
    run = tmp_path / json.loads(out)["run"]
    for file in ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl"):
        assert (run / file).read_bytes() == (unbroken / file).read_bytes()


AGAIN = """
import os, signal, sys
from resnetlab.training.distributed import joined
start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
with joined() as ranks:
    ranks.wait()
    if start < int(sys.argv[1]) and ranks.rank == start % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.wait()
    sys.stdout.write(f"through {ranks.rank} {start}\\n")  # at once: print's line and its end may mix with the other's
"""


@pytest.mark.slow
def test_twenty_restarts_in_a_row_meet_again(tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(AGAIN)
    code, out, said = torchrun(tmp_path, "again.py", "20", restarts=20, timeout=600)
    assert code == 0, said
    assert sorted(out.splitlines()) == ["through 0 20", "through 1 20"]


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as ranks:
        assert ranks == Ranks()
        assert ranks.first
        assert ranks.sums([1, 2]) == [1, 2]
        assert ranks.from_first(lambda: 3) == ranks.first_before_others(lambda: 3) == 3
        assert local_device("auto", ranks) == "auto"


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE='two' in the environment must be a whole number"), joined():
        pass


def test_each_process_of_a_machine_has_its_own_gpu() -> None:
    second = Ranks(rank=1, ranks=2, local_rank=1, local_ranks=2)
    assert local_device("cuda", second) == "cuda:1"
    assert local_device("cpu", second) == "cpu"
    with pytest.raises(UserError, match="2 processes a machine can't share it; give cuda"):
        local_device("cuda:0", second)
