"""Too little memory: one line that says what did not fit and what takes less, and nothing that was saved is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from resnetlab.cli.main import main
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.studies.frame.run import run_missing
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run

Captured = pytest.CaptureFixture[str]
NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4831838208 bytes."
SMALL = recipe("digits", net="cifar_resnet8", iterations=9, batch_size=300)  # 5 steps an epoch


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[ResNet, Tensor], bool]], None]:
    """short_of_memory(when): memory runs out in the midst of a forward pass where when(net, x)."""

    def install(when: Callable[[ResNet, Tensor], bool]) -> None:
        forward = ResNet.forward

        def limited(self: ResNet, x: Tensor) -> Tensor:
            found = forward(self, x)
            if when(self, x):
                raise RuntimeError(NO_MEMORY)
            return found

        monkeypatch.setattr(ResNet, "forward", limited)

    return install


def finish(run: Run, **options: Any) -> Run:
    for _ in train(run, threads=1, **options):
        pass
    return run


def weights(run: Run) -> bytes:
    return (run.folder / "last/weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return finish(make_run(SMALL, tmp_path_factory.mktemp("unbroken")))


def test_in_a_step_the_checkpoint_is_kept(
    unbroken: Run, tmp_path: Path, short_of_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(100))
    short_of_memory(lambda net, x: net.training and next(steps) == 3)
    run = make_run(SMALL, tmp_path)
    with pytest.raises(UserError) as caught:
        finish(run, checkpoint_steps=2)
    assert str(caught.value) == (
        f"{run.folder}: out of memory in step 4: 4.5 GiB more did not fit into memory; the checkpoint of step 2 is "
        "kept. To use less memory: --accumulate 2, --checkpoint-activations, a smaller --batch-size, a smaller --net."
    )
    monkeypatch.undo()
    assert weights(finish(run)) == weights(unbroken)


def test_in_an_evaluation_the_last_step_is_saved(
    unbroken: Run, tmp_path: Path, short_of_memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(lambda net, x: not net.training)
    run = make_run(SMALL, tmp_path)
    with pytest.raises(UserError, match=r"out of memory in the evaluation after step 5: 4\.5 GiB .* of step 5 is kept"):
        finish(run)
    monkeypatch.undo()
    assert weights(finish(run)) == weights(unbroken)
    assert run.result() is not None


def test_an_evaluation_that_fits_in_parts_goes_on(unbroken: Run, tmp_path: Path, short_of_memory: Any) -> None:
    short_of_memory(lambda net, x: not net.training and len(x) > 50)
    run = finish(make_run(SMALL, tmp_path))
    found, wanted = run.result(), unbroken.result()
    assert found is not None
    assert wanted is not None
    assert (found["test_error"], weights(run)) == (wanted["test_error"], weights(unbroken))


@pytest.mark.parametrize("changes", [{"accumulate": 4}, {"checkpoint_activations": True}])
def test_what_is_done_already_is_not_advised(tmp_path: Path, short_of_memory: Any, changes: dict[str, Any]) -> None:
    short_of_memory(lambda net, x: net.training)
    with pytest.raises(UserError, match="out of memory in step 1: .*; there was no checkpoint yet") as caught:
        finish(make_run(SMALL.override(**changes), tmp_path))
    advice = str(caught.value).partition("To use less memory: ")[2]
    assert ("--accumulate 8" in advice) == ("accumulate" in changes)
    assert ("--checkpoint-activations" in advice) != ("checkpoint_activations" in changes)


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: ResNet, x: Tensor) -> Tensor:
        raise RuntimeError("a fault of the code")

    monkeypatch.setattr(ResNet, "forward", wrong)
    with pytest.raises(RuntimeError, match="a fault of the code"):
        finish(make_run(SMALL, tmp_path))


def recipes() -> Iterator[Recipe]:
    for seed, size in ((0, 300), (1, 301), (2, 302)):
        yield SMALL.override(seed=seed, batch_size=size, iterations=3)


def test_in_a_study_the_others_go_on(tmp_path: Path, short_of_memory: Any) -> None:
    short_of_memory(lambda net, x: net.training and len(x) == 301)
    events = list(run_missing(tuple(recipes()), tmp_path))
    assert [event.index for event in events if event.done] == [0, 2]
    (failed,) = (event for event in events if event.failed)
    assert failed.index == 1
    assert "out of memory in step 1: 4.5 GiB more did not fit into memory" in failed.failed
    assert str(tmp_path) not in failed.failed


@pytest.mark.parametrize("command", ["predict", "features", "eval", "explain"])
def test_what_reads_a_run_says_one_line(
    unbroken: Run, tmp_path: Path, short_of_memory: Any, capsys: Captured, command: str
) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    more = {
        "predict": [str(tmp_path / "image.png")],
        "features": [str(tmp_path / "image.png"), "--out", str(tmp_path / "features.npz")],
        "eval": ["--data", "digits"],
        "explain": [str(tmp_path / "image.png"), "--out", str(tmp_path / "explained")],
    }
    short_of_memory(lambda net, x: True)
    assert main([command, str(unbroken.folder), *more[command]]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.startswith("error: ")]
    assert line.startswith("error: out of memory: 4.5 GiB more did not fit into memory; ")
    assert line.endswith("close other programs, or use a machine with more memory.")
    assert ("--batch-size" in line) == (command in ("predict", "features"))


def test_export_says_one_line(unbroken: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """torch's exporter wraps what it meets."""

    def wrapped(*_: object, **__: object) -> None:
        try:
            raise MemoryError
        except MemoryError as error:
            raise RuntimeError("Failed to convert the exported program") from error

    monkeypatch.setattr(torch.onnx, "export", wrapped)
    out = tmp_path / "net.onnx"
    assert main(["export", str(unbroken.folder), "--out", str(out)]) == 2
    assert "error: out of memory: memory is full; close other programs" in capsys.readouterr().err
    assert not out.exists()


LIMITED = """
import resource, sys, torch
from pathlib import Path
from resnetlab.cli.main import main
from resnetlab.data.open import open_data
from resnetlab.training import loop
open_data("digits")  # with all libraries that it maps into memory
used = int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmSize" in line))
resource.setrlimit(resource.RLIMIT_AS, (1024 * (used + 400_000),) * 2)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux' limit of a process's memory")
def test_a_real_limit_is_one_line(python: list[str], tmp_path: Path) -> None:
    """A step that takes gigabytes, in tensors of 22 MiB: where 400 MB are left, it is one of them that does not fit.

    With tensors as small as oneDNN's kernels, the library is what runs out at times, and can end in a crash of its own.
    """
    how = [
        "--net",
        "cifar_wrn40_4",
        "--batch-size",
        "1400",
        "--epochs",
        "1",
        "--threads",
        "1",
        "--runs",
        str(tmp_path),
    ]
    command = [*python, "-c", LIMITED, "train", "digits", *how]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert "out of memory in step 1: " in line
    assert "--checkpoint-activations" in line
