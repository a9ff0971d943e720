"""A run: the same to the last bit twice, interrupted or not; and its folder never lost."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resnetlab.cli.main import main
from resnetlab.data.seeds import seed_of
from resnetlab.errors import UserError
from resnetlab.storage import is_there
from resnetlab.training import loop
from resnetlab.training.distributed import Distributed
from resnetlab.training.evaluate import evaluate
from resnetlab.training.launch import launch
from resnetlab.training.loop import Status, train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.weights.files import read_safetensors
from resnetlab.weights.metadata import described


def small(**changes: Any) -> Recipe:
    """Three epochs of a net of 8 layers on the digits: half a second."""
    length = {} if "iterations" in changes else {"epochs": 3}
    return recipe("digits", **{"net": "cifar_resnet8", **length, **changes})


def finish(r: Recipe, root: Path) -> Run:
    run = make_run(r, root)
    for _ in train(run, threads=1):
        pass
    return run


def weights(run: Run, which: str = "last") -> bytes:
    return (run.folder / which / "weights.safetensors").read_bytes()


def without_times(run: Run) -> dict[str, Any]:
    return {k: v for k, v in (run.result() or {}).items() if k != "seconds"}


# Everything that has a state of its own or draws random numbers.
SHAKEN = {
    "net": "cifar_resnet8(mix=DropoutShortcut(0.3), stochastic_depth=0.2)",
    "augment": "crop_flip",
    "schedule": "plateau",
    "patience": 1,
    "warmup": "train_error",
    "warmup_lr": 0.01,
    "warmup_steps": 60,
    "validation_images": 100,
    "batch_size": 48,
}


def test_a_seed_gives_the_same_weights_to_the_last_bit(tmp_path: Path) -> None:
    first, second = finish(small(), tmp_path / "a"), finish(small(), tmp_path / "b")
    assert first.id == second.id
    assert weights(first) == weights(second)
    assert weights(first, "best") == weights(second, "best")
    assert (first.folder / "metrics.jsonl").read_text() == (second.folder / "metrics.jsonl").read_text()
    other = finish(small(seed=1), tmp_path / "a")
    assert other.folder != first.folder
    assert (
        load_file(other.folder / "last/weights.safetensors")["fc.weight"]
        .ne(load_file(first.folder / "last/weights.safetensors")["fc.weight"])
        .all()
    )


@pytest.mark.parametrize(
    ("changes", "stop_after"),
    [({}, 1), (SHAKEN, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in (({}, 2), (SHAKEN, 1)))],
    ids=["digits", "everything random", "digits, later", "everything random, earlier"],
)
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path: Path, changes: dict[str, Any], stop_after: int) -> None:
    unbroken = finish(small(**changes), tmp_path / "unbroken")
    run = make_run(small(**changes), tmp_path / "broken")
    sitting: Iterator[Status] = train(run, threads=1)
    for status in sitting:
        if status.epochs_done == stop_after:
            break
    sitting.close()  # type: ignore[attr-defined]  # a generator
    assert run.result() is None
    torch.manual_seed(99)  # what happens in between must not matter
    resumed = finish(small(**changes), tmp_path / "broken")
    assert weights(resumed) == weights(unbroken)
    assert weights(resumed, "best") == weights(unbroken, "best")
    assert (resumed.folder / "metrics.jsonl").read_bytes() == (unbroken.folder / "metrics.jsonl").read_bytes()
    assert without_times(resumed) == without_times(unbroken)


# The command, which sends itself a signal in its 30th step: in the second epoch.
STOPPED = """
import os, sys
from resnetlab.cli.main import main
from resnetlab.training.step import Stepper

taken, steps = Stepper.__call__, 0

def sending(self, *arguments):
    global steps
    steps += 1
    if steps == 30:
        os.kill(os.getpid(), int(sys.argv[1]))
    return taken(self, *arguments)

Stepper.__call__ = sending
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run of `small()`, which nothing stopped."""
    return finish(small(), tmp_path_factory.mktemp("unbroken"))


@pytest.mark.parametrize(
    ("signal_sent", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 75)]
)
def test_a_stopped_command_goes_on_where_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    python: list[str],
    unbroken: Run,
    signal_sent: signal.Signals,
    code: int,
) -> None:
    options = ["--net", "cifar_resnet8", "--epochs", "3", "--threads", "1"]
    command = [*python, "-c", STOPPED, str(int(signal_sent)), "train", "digits", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "epoch 1, step 23 " in done.stderr
    if signal_sent != signal.SIGKILL:
        lines = done.stderr.splitlines()
        (line,) = [line for line in lines if line.startswith(f"stopped by {signal_sent.name} after step ")]
        assert line.endswith(f"which is saved; to resume: resnetlab train digits {' '.join(options)}")
        assert "Traceback" not in done.stderr
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *options, "--json"]) == 0
    said = capsys.readouterr()
    assert "epoch 1," not in said.err
    answer = json.loads(said.out)
    assert (tmp_path / answer["run"] / "last/weights.safetensors").read_bytes() == weights(unbroken)
    assert answer["test_error"] == unbroken.result()["test_error"]  # type: ignore[index]


def test_a_finished_run_is_read_and_not_touched(unbroken: Run) -> None:
    run = unbroken
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in run.folder.rglob("*.*") if p.is_file()}
    assert list(train(make_run(small(), run.root))) == []
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before


def test_a_small_net_learns_the_digits(tmp_path: Path) -> None:
    result = finish(small(epochs=6), tmp_path).result()
    assert result is not None
    assert result["train_error"] < 3
    assert result["test_error"] < 5


def test_the_run_is_its_settings_and_not_where_data_lies_or_how_the_net_is_called(tmp_path: Path) -> None:
    base = make_run(small(), tmp_path)
    assert make_run(small(net="cifar_resnet8(mix=Add)"), tmp_path).id == base.id
    for other in (small(lr=0.01), small(seed=3), small(net="cifar_plain8"), small(validation_images=5)):
        assert make_run(other, tmp_path).id != base.id


def test_a_field_of_earlier_versions_is_ignored_and_keeps_its_runs_id(tmp_path: Path) -> None:
    """The ids are those that the version gave which had the field."""
    before, plain = recipe("digits", net="cifar_resnet8", fused=True), recipe("digits", net="cifar_resnet8")
    assert make_run(before, tmp_path).id == "d4d057531a98"
    assert make_run(plain, tmp_path).id == "97acae61fa1d"
    assert "fused" not in plain.to_dict(), "a new run does not speak of it"
    (said,) = launch(before, tmp_path, Distributed()).warnings()
    assert said.startswith("fused=True is ignored: this version has no such field")
    assert launch(plain, tmp_path, Distributed()).warnings() == []


def test_a_run_that_does_not_get_out_of_its_warmup_says_so(tmp_path: Path) -> None:
    short = launch(recipe("digits", epochs=1), tmp_path, Distributed())
    assert short.warnings() == [
        "the warm-up of 46 steps is not shorter than the run of 23: shorten it with --warmup-steps, or train longer"
    ]


def test_one_network_under_several_names_is_one_run(tmp_path: Path) -> None:
    folder = finish(small(net="cifar_plain8"), tmp_path).folder
    again = make_run(small(net="cifar_resnet8(mix=Plain)"), tmp_path)
    assert again.folder == folder
    assert again.result() is not None


def test_a_copy_of_a_run_is_not_taken_for_it(tmp_path: Path) -> None:
    run = make_run(small(), tmp_path, name="mine")
    (tmp_path / f"a-{run.id}").touch()  # neither a file of that name
    (tmp_path / f"b-{run.id}").mkdir()  # nor a folder that is no run
    assert run.folder == tmp_path / f"mine-{run.id}"
    finish(small(), tmp_path)
    (made,) = (path.parent for path in tmp_path.glob("*/run.json"))
    shutil.copytree(made, tmp_path / f"backup-{made.name}")
    assert make_run(small(), tmp_path).folder == made
    assert is_there(run.folder / "run.json"), "an existing run, and not a new one"
    shutil.copytree(made, tmp_path / f"mine-{run.id}")
    assert run.folder.name == f"mine-{run.id}"


def test_what_a_caller_draws_between_two_statuses_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {**SHAKEN, "epochs": 2}
    monkeypatch.setattr(loop, "LOG_STEPS", 10)  # of 28 an epoch
    alone = finish(small(**changes), tmp_path / "alone")
    run = make_run(small(**changes), tmp_path / "disturbed")
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    drawn = []
    for _ in train(run, threads=1):
        drawn.append(torch.rand(1))
        assert torch.get_num_threads() == threads
    assert weights(run) == weights(alone)
    assert torch.equal(torch.cat(drawn[:3]), wanted), "and the run leaves the caller's numbers alone"


@pytest.mark.parametrize("validation", [0, 200])
def test_best_is_the_epoch_with_the_lowest_error_of_the_images_that_choose(tmp_path: Path, validation: int) -> None:
    """A rate that is far too high at the end makes the last epoch worse than one before."""
    r = small(epochs=4, lr=10.0, warmup="linear", warmup_steps=92, schedule="constant", validation_images=validation)
    run = finish(r, tmp_path)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    errors = [line["validation_error" if validation else "test_error"] for line in lines]
    assert errors[-1] > min(errors), "this recipe should end worse than it was"
    result = run.result()
    assert result is not None
    assert result["best_error"] == min(errors)
    best_epoch = errors.index(min(errors))
    assert evaluate([run.folder], run.data, which="best").accuracy.error == pytest.approx(
        lines[best_epoch]["test_error"]
    )
    assert evaluate([run.folder], run.data, which="last").accuracy.error == pytest.approx(lines[-1]["test_error"])


def test_every_epoch_draws_its_own_dropout() -> None:
    assert len({seed_of(purpose, seed, epoch) for purpose in "ab" for seed in (0, 1) for epoch in range(3)}) == 12


def test_iterations_may_end_within_an_epoch(tmp_path: Path) -> None:
    result = finish(small(iterations=30), tmp_path).result()
    assert result is not None
    assert (result["steps"], result["epochs"]) == (30, 2)


@pytest.fixture
def after_one_epoch(tmp_path: Path) -> Run:
    """A run that was stopped after its first epoch."""
    run = make_run(small(), tmp_path / "runs")
    sitting = train(run, threads=1)
    next(status for status in sitting if status.epochs_done == 1)
    sitting.close()  # type: ignore[attr-defined]  # a generator
    return run


# The command, which can't write files of more than 100,000 bytes.
FULL = """
import resource, sys
from resnetlab.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_leaves_the_checkpoint_before_whole(
    python: list[str], after_one_epoch: Run, tmp_path: Path, unbroken: Run
) -> None:
    """A limit on the size of files stands for a full disk: writing the weights fails half-way, for real."""
    before = weights(after_one_epoch)
    options = ["--net", "cifar_resnet8", "--epochs", "3", "--threads", "1", "--runs", str(tmp_path / "runs")]
    done = subprocess.run([*python, "-c", FULL, "train", "digits", *options], capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "can't write (File too large); what was saved before is intact" in last
    assert "Traceback" not in done.stderr
    assert weights(after_one_epoch) == before
    assert not list(after_one_epoch.folder.glob("*.new"))
    resumed = finish(small(), tmp_path / "runs")
    assert weights(resumed) == weights(unbroken)


def test_a_kill_between_the_renames_is_survived(after_one_epoch: Run, tmp_path: Path, unbroken: Run) -> None:
    last = after_one_epoch.folder / "last"
    last.rename(last.with_name("last.old"))
    (last.with_name("last.new")).mkdir()
    assert weights(finish(small(), tmp_path / "runs")) == weights(unbroken)


@pytest.mark.parametrize(
    ("path", "damage", "message"),
    [
        ("last/weights.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "damaged, its checksum differs"),
        ("last/state.safetensors", lambda b: b[:50], "damaged, its checksum differs"),
        ("last/state.json", lambda b: b[:20], "damaged, not JSON"),
        ("last/state.json", lambda b: b"{}", "damaged, it lacks progress"),
        ("run.json", lambda b: b"[]", r"it is \[\], not an object"),
        (
            "run.json",
            lambda b: b.replace(b'"format": 3', b'"format": 7'),
            "a run of format 7, but this",
        ),
        ("run.json", lambda b: b'{"format": 1}', "damaged, it lacks spec, recipe, data"),
        ("result.json", lambda b: b"{}", "damaged, it lacks train_error"),
        ("run.json", lambda b: b.replace(b'"id": "', b'"id": "0'), "damaged, it belongs to run '0"),
        ("metrics.jsonl", lambda b: b"5" * len(b), "metrics.jsonl: damaged"),
        ("metrics.jsonl", lambda b: b[:5], "shorter than its checkpoint says"),
    ],
)
def test_damage_is_named_and_nothing_overwritten(
    after_one_epoch: Run, path: str, damage: Callable[[bytes], bytes], message: str
) -> None:
    file = after_one_epoch.folder / path
    file.write_bytes(damage(file.read_bytes() if file.exists() else b""))
    left = {p: p.read_bytes() for p in after_one_epoch.folder.rglob("*") if p.is_file() and p.name != "lock"}
    with pytest.raises(UserError, match=message) as caught:
        list(train(after_one_epoch, threads=1))
    assert str(after_one_epoch.folder) in str(caught.value)
    assert {p: p.read_bytes() for p in left} == left


def test_two_processes_never_train_one_run(tmp_path: Path) -> None:
    run = make_run(small(), tmp_path)
    sitting = train(run, threads=1)
    next(iter(sitting))
    with pytest.raises(UserError, match="this run is being trained already"):
        next(iter(train(make_run(small(), tmp_path), threads=1)))


def test_a_process_that_outlives_the_one_that_trains_does_not_hold_the_run(tmp_path: Path) -> None:
    """As those that decode images do for a while after a SIGKILL."""
    run = make_run(small(), tmp_path)
    with left_behind(run) as child:
        finish(small(), tmp_path)
        os.kill(child, 0)  # it lives still


@contextlib.contextmanager
def left_behind(run: Run) -> Iterator[int]:
    """A process that was forked from one that held the run."""
    sitting = train(run, threads=1)
    next(iter(sitting))
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    sitting.close()  # type: ignore[attr-defined]  # a generator
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no longer finite at step \d+ .*no checkpoint yet.*lower lr"):
        finish(small(lr=1e5, warmup="none", net="cifar_resnet8(norm=none)"), tmp_path)


def test_runs_below_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't write"):
        finish(small(), tmp_path / "file")


def test_checkpoints_hold_no_code(after_one_epoch: Run) -> None:
    names = {p.name for p in after_one_epoch.folder.rglob("*") if p.is_file()}
    assert names == {"run.json", "metrics.jsonl", "lock", "weights.safetensors", "state.safetensors", "state.json"}
    card = described(read_safetensors(after_one_epoch.folder / "last" / "weights.safetensors")[1])[1]
    assert card is not None
    assert card.spec == after_one_epoch.spec
    assert card.classes == tuple("0123456789")
    assert os.path.getsize(after_one_epoch.folder / "best" / "weights.safetensors") > 300_000
