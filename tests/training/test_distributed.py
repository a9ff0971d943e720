"""Two processes as one run: the same as one process, to the last bit the same again, and nothing hangs."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from resnetlab.errors import UserError
from resnetlab.storage import whole_folder
from resnetlab.training.distributed import Distributed, check_share, joined, local_device
from resnetlab.training.loop import train as train_run
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

RANKS, ENDED = (Path(__file__).with_name(name) for name in ("ranks.py", "ended.py"))
TIMEOUT = 3600  # seconds, after which a job counts as hung
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(TIMEOUT)}
PATIENT = f"join_timeout={TIMEOUT},read_timeout={TIMEOUT},keep_alive_max_attempt={TIMEOUT // 5}"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TORCHRUN += ["--rdzv-conf", PATIENT]
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


def torchrun(folder: Path, *arguments: str, restarts: int = 0) -> tuple[int, str, str]:
    """Its exit code, and what it and its workers said."""
    command = [*TORCHRUN, "--max-restarts", str(restarts), *arguments]
    with started(command, folder=folder, env={}) as (process,):
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out, err


def two_processes(python: list[str], folder: Path, *arguments: str, code: int = 0) -> list[tuple[str, str]]:
    """Two processes as torchrun starts them, without its seconds; what they said. Both have to end with the code."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    env = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    with started(*[[*python, *arguments]] * 2, folder=folder, env=env) as running:
        said = [process.communicate(timeout=TIMEOUT) for process in running]
        assert [process.returncode for process in running] == [code, code], said
    return said


@pytest.fixture(scope="module")
def found(python: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two ranks of ranks.py found."""
    folder = tmp_path_factory.mktemp("ranks")
    two_processes(python, folder, str(RANKS), str(folder))
    return [json.loads((folder / f"found{rank}.json").read_text()) for rank in (0, 1)]


Reports = list[dict[str, Any]]


def test_sums_are_exact_and_a_failure_is_everyones(found: Reports) -> None:
    for rank, mine in enumerate(f["exchanges"] for f in found):
        assert mine["stopped by"] == signal.SIGTERM
        assert mine["at first"] == ([0, 2] if rank == 0 else [])
        assert mine["sums"] == [2**54 - 8, 0.2, 1]
        assert mine["from first"] == {"rank": 0}
        assert mine["failure"] == ["photo.jpg: can't be read", rank == 1, True]


@pytest.mark.parametrize("case", ["plain", "batch norm"])
@pytest.mark.parametrize("batch_size", [16, 13])
def test_two_processes_step_as_one(found: Reports, case: str, batch_size: int) -> None:
    """Weights and statistics after four steps in float64, of even and uneven shares, with sync_bn."""
    for mine in found:
        assert mine["gradients"][f"{case} {batch_size}"] < 1e-13
        assert mine["gradients"][f"{case} {batch_size} equal"]
        if case == "plain":
            assert mine["gradients"][f"{case} {batch_size} in parts"] < 1e-13


def test_all_processes_have_as_many_parts_of_a_batch(found: Reports) -> None:
    assert all(mine["gradients"]["many parts"] for mine in found)


def test_without_sync_bn_the_firsts_statistics_are_kept(found: Reports) -> None:
    for mine in (f["gradients"] for f in found):
        assert mine["without sync_bn"] > 1e-3
        assert not mine["buffers before"]
        assert mine["buffers after"]
    assert found[0]["gradients"]["buffers are the first's"]


def test_batch_norm_over_processes_equals_torchs_on_the_whole(found: Reports) -> None:
    for mine in found:
        assert max(mine["batch norm"].values()) < 1e-11


def test_evaluation_counts_every_image_once(found: Reports) -> None:
    for mine in found:
        for count, (images, same, loss) in mine["evaluation"].items():
            assert (images, same) == (int(count), True)
            assert loss < 1e-6


def test_a_batch_that_is_too_short_for_one_is_left_out_by_all(found: Reports) -> None:
    assert [f["short shares"] for f in found] == [[75, 100], [125, 100]]


def test_fewer_than_two_images_for_each_are_refused(found: Reports) -> None:
    for mine in found:
        assert mine["too small"] == ["batch_size=3: fewer than two for each of 2 processes; start fewer processes."]
    check_share(Distributed(), 2, 2)
    with pytest.raises(UserError, match="7 training images: fewer than two for each of 4 processes"):
        check_share(Distributed(world_size=4), 64, 7)


def test_a_seed_gives_two_processes_the_same_weights_to_the_last_bit(found: Reports) -> None:
    """With everything that draws random numbers, and uneven shares."""
    a, b = (Path(found[0]["runs"][name][0]) for name in "ab")
    assert outcome(a) == outcome(b)
    assert found[0]["runs"]["a"][1:] == found[0]["runs"]["b"][1:]
    assert all(mine["runs"]["same words"] for mine in found)


def test_a_stop_during_an_evaluation_gives_it_up(found: Reports) -> None:
    """Asked of one process; the run goes on to the same bits."""
    assert [mine["runs"]["stopped at"] for mine in found] == [22, 22]
    assert outcome(Path(found[0]["runs"]["c"][0])) == outcome(Path(found[0]["runs"]["a"][0]))


def test_a_run_of_two_processes_equals_that_of_one(found: Reports) -> None:
    """In float32: the same but for rounding, with weights of the same names."""
    one, two = (load_file(Path(found[0]["runs"][name][0]) / "last/weights.safetensors") for name in ("one", "sync"))
    assert list(one) == list(two)
    for name, wanted in one.items():
        torch.testing.assert_close(two[name], wanted, rtol=0.02, atol=0.02)
    assert found[0]["runs"]["one"][1] == pytest.approx(found[0]["runs"]["sync"][1], abs=0.5)
    settings = json.loads((Path(found[0]["runs"]["sync"][0]) / "run.json").read_text())
    assert settings["ranks"] == 2


def test_two_processes_fine_tune_from_one_source(found: Reports) -> None:
    """What is frozen keeps every bit."""
    before, after = (load_file(Path(found[0]["runs"][name][0]) / "last/weights.safetensors") for name in ("a", "fine"))
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == name.startswith(("conv1", "bn1", "layer1")), name


def test_a_file_that_one_process_cannot_read_stops_all_with_one_line(python: list[str], tmp_path: Path) -> None:
    pictures(tmp_path / "data", 12)
    broken = tmp_path / "data/train/b/7.png"
    broken.write_bytes(broken.read_bytes()[:60])
    options = ["--data", "folder:data", "--net", "cifar_resnet8", "--batch-size", "8", "--normalise", "imagenet"]
    said = str(two_processes(python, tmp_path, *TRAIN, *options, code=2))
    assert said.count("error: data/train/b/7.png: can't be read") == 1, said
    assert "Traceback" not in said


def test_a_share_that_is_too_short_is_no_part_of_the_statistics(python: list[str], tmp_path: Path) -> None:
    """After the last step they are estimated over the next epoch's batches, whose images may be unreadable."""
    pictures(tmp_path / "data", 12)
    for path in sorted((tmp_path / "data/train").rglob("*.png"))[::3]:
        path.write_bytes(path.read_bytes()[:60])
    options = ["--data", "folder:data", "--net", "cifar_resnet8", "--batch-size", "8", "--normalise", "imagenet"]
    options += ["--iterations", "1", "--bn-reestimate", "10", "--unreadable", "skip"]
    two_processes(python, tmp_path, *TRAIN, *options)
    (weights,) = (tmp_path / "runs").glob("*/last/weights.safetensors")
    statistics = {name: t for name, t in load_file(weights).items() if "running" in name}
    assert max(float(t.abs().max()) for t in statistics.values()) < 10


SHORT_OF_MEMORY = """
import os, sys
from resnetlab.cli.main import main
from resnetlab.nets.net import ResNet
from resnetlab.training import distributed
forward, passes = ResNet.forward, 0

def limited(net, x):
    global passes
    passes += net.training
    if os.environ["RANK"] == "1" and passes == 3:  # the first one is of no step
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1024 bytes.")
    return forward(net, x)

ResNet.forward, distributed._tell = limited, lambda *_: os._exit(9)
sys.exit(main(sys.argv[1:]))
"""


def test_one_that_lacks_memory_in_a_step_does_not_wait_for_the_others(python: list[str], tmp_path: Path) -> None:
    """They wait for its gradients, until it ends: it can tell them nothing."""
    options = ["--net", "cifar_resnet8", "--iterations", "3", "--batch-size", "8"]
    said = two_processes(python, tmp_path, "-c", SHORT_OF_MEMORY, *TRAIN[2:], *options, code=2)
    assert "out of memory in step 2: 1 KiB more did not fit into memory; there was no checkpoint yet." in said[1][1]
    assert "error: another process of this run ended" in said[0][1]
    assert "Traceback" not in str(said)


FILES = ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors", "metrics.jsonl")


def outcome(run: Path) -> dict[str, bytes]:
    return {file: (run / file).read_bytes() for file in FILES}


def state(run: Path) -> dict[str, Any]:
    return json.loads((whole_folder(run / "last") / "state.json").read_text())


def options(fields: dict[str, Any]) -> list[str]:
    return [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def killed(folder: Path, seed: int, kills: int, *command: str) -> Path:
    """Train with SIGKILLs at random places; torchrun starts again, but not after the last one. The run's folder."""
    arguments = [str(ENDED), "kill", str(seed), str(kills), *TRAIN[2:], *command, "--runs", "killed"]
    code, _, err = torchrun(folder, *arguments, restarts=kills - 1)
    assert code == 1
    assert err.count("(exitcode: -9)") == kills, err
    (run,) = (folder / "killed").iterdir()
    return run


def finish(python: list[str], folder: Path, *command: str) -> None:
    """Give the same command in peace."""
    said = two_processes(python, folder, *TRAIN, *command)
    assert "Traceback" not in str(said)


@pytest.mark.slow
def test_killed_processes_go_on_from_any_step_and_end_as_unbroken_ones(
    python: list[str], found: Reports, tmp_path: Path
) -> None:
    """With dropout, mixup, averaged weights, accumulation, a plateau schedule, and shares of uneven size."""
    runs = found[0]["runs"]
    command = [*options(runs["fields"]), "--checkpoint-steps", "3"]
    run = killed(tmp_path, 3, 2, *command)
    assert len(state(run)["shares"]) == 2, "the last kill was to be within an epoch"
    finish(python, tmp_path, *command, "--runs", "killed")
    assert outcome(run) == outcome(Path(runs["a"][0]))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_however_often_they_are_killed(python: list[str], found: Reports, tmp_path: Path, seed: int) -> None:
    runs = found[0]["runs"]
    command = [*options(runs["fields"]), "--checkpoint-steps", "2"]
    run = killed(tmp_path, seed, 6, *command)
    finish(python, tmp_path, *command, "--runs", "killed")
    assert outcome(run) == outcome(Path(runs["a"][0]))


def pictures(folder: Path, count: int) -> None:
    """Two classes of noise, for training and validation."""
    random = np.random.default_rng(0)
    for split, images in (("train", count), ("val", 2)):
        for place in (folder / split / name for name in "ab"):
            place.mkdir(parents=True)
            for i in range(images):
                Image.fromarray(random.integers(0, 256, (36, 36, 3), np.uint8)).save(place / f"{i}.png")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
def test_so_do_those_that_read_files(python: list[str], tmp_path: Path, workers: str) -> None:
    """Some can't be read, and more of one process's than of the other's."""
    pictures(tmp_path / "data", 40)
    for i in (3, 4, 5, 6, 7):
        (tmp_path / "data/train/a" / f"{i}.png").write_bytes(b"damaged")
    fields = {"data": "folder:data", "net": "cifar_resnet8(mix=DropoutShortcut(0.3))", "augment": "resized_crop_flip"}
    fields |= {"image-size": 16, "cutmix": 1.0, "unreadable": "skip", "normalise": "imagenet"}
    command = [*options(fields | {"batch_size": 8, "epochs": 4}), "--workers", workers]
    code, _, err = torchrun(tmp_path, *TRAIN, *command)
    assert code == 0, err
    (unbroken,) = (tmp_path / "runs").iterdir()
    assert b'"unreadable": 5' in (unbroken / "metrics.jsonl").read_bytes()
    run = killed(tmp_path, 1, 3, *command, "--checkpoint-steps", "2")
    finish(python, tmp_path, *command, "--runs", "killed")
    assert outcome(run) == outcome(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("whom", ["torchrun", "rank"])
def test_a_signal_to_one_stops_all_after_the_same_step(
    python: list[str], found: Reports, tmp_path: Path, number: int, whom: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The step is saved. The same number of processes goes on to the same bits; another one goes on, and says so."""
    fields = found[0]["runs"]["fields"]
    train = [*TRAIN[2:], *options(fields)]
    code, _, said = torchrun(tmp_path, str(ENDED), "stop", str(int(number)), whom, "10", *train)
    assert code == 1, "torchrun's own, whatever its processes end with"
    name = signal.Signals(number).name
    assert said.count(f"stopped by {name} after step 10, which is saved; to resume: the same torchrun") == 1
    if whom == "rank":  # else torchrun does not say
        assert said.count(f"exitcode  : {75 if number == signal.SIGTERM else 130}") == 2, said
    (run,) = (tmp_path / "runs").iterdir()
    saved = state(run)
    assert saved["progress"]["step"] == 10
    assert [share["seen"] for share in saved["shares"]] == [310, 320]

    shutil.copytree(tmp_path / "runs", tmp_path / "one")
    finish(python, tmp_path, *options(fields))
    assert outcome(run) == outcome(Path(found[0]["runs"]["a"][0]))

    alone = make_run(recipe("digits", **fields), tmp_path / "one")
    with caplog.at_level(logging.WARNING):
        statuses = list(train_run(alone, threads=1))
    (warning,) = caplog.messages
    assert "resumes from step 10, which was saved by 2 processes; now there are 1" in warning
    first = next(status for status in statuses if status.epochs_done == 1)
    wrong = first.train_error / 100 * (1437 - fields["validation_images"])
    assert wrong == pytest.approx(round(wrong)), "all images of the epoch are counted, those of both processes"
    assert statuses[-1].epochs_done == fields["epochs"]


AGAIN = """
import os, signal, sys
from resnetlab.training.distributed import joined
start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
with joined() as distributed:
    distributed.wait()
    if start < int(sys.argv[1]) and distributed.rank == start % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    distributed.wait()
    # At once: print's line and its end may mix with the other's.
    sys.stdout.write(f"through {distributed.rank} {start}\\n")
"""


@pytest.mark.slow
def test_twenty_restarts_in_a_row_meet_again(tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(AGAIN)
    code, out, said = torchrun(tmp_path, "again.py", "20", restarts=20)
    assert code == 0, said
    assert sorted(out.splitlines()) == ["through 0 20", "through 1 20"]


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined() as distributed:
        assert distributed == Distributed()
        assert distributed.is_main
        assert distributed.sums([1, 2]) == [1, 2]
        assert distributed.broadcast_from_main(lambda: 3) == distributed.main_first(lambda: 3) == 3
        assert local_device("auto", distributed) == "auto"


def test_a_wrong_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(UserError, match="WORLD_SIZE='two' in the environment must be a whole number"), joined():
        pass


def test_each_process_of_a_machine_has_its_own_gpu() -> None:
    second = Distributed(rank=1, world_size=2, local_rank=1, local_world_size=2)
    assert local_device("cuda", second) == "cuda:1"
    assert local_device("cpu", second) == "cpu"
    with pytest.raises(UserError, match="2 processes on a machine can't share it; use cuda"):
        local_device("cuda:0", second)
