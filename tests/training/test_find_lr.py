"""The learning-rate finder: what it suggests for known curves, what it leaves alone, and what the command says."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetlab.cli import find_lr as command
from resnetlab.cli.main import main
from resnetlab.data.images import Data, Images
from resnetlab.errors import UserError
from resnetlab.studies.figures import curves
from resnetlab.studies.figures.curves import lr_test_figure
from resnetlab.studies.figures.draw import draw
from resnetlab.training import find_lr as module
from resnetlab.training.find_lr import HIGHEST, LOWEST, LrTest, find_lr, has_diverged, judged, smooth
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run

Captured = pytest.CaptureFixture[str]
RATES = [LOWEST * (HIGHEST / LOWEST) ** (i / 104) for i in range(105)]


def curve(lowest: float, diverges: float = math.inf) -> list[float]:
    """A loss that is flat at first, is lowest at a rate, and then grows."""
    return [2.3 - 2 * math.exp(-((math.log10(r / lowest)) ** 2)) + (r / diverges) ** 4 for r in RATES]


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    found = judged(RATES, curve(0.1))
    assert found.suggestion == pytest.approx(0.01, rel=0.1)
    assert found.diverged is None
    losses = curve(0.1, diverges=0.5)
    end = next(i for i in range(1, 105) if has_diverged(losses[:i]))
    assert losses[end - 1] > 2.3
    found = judged(RATES[:end], losses[:end])
    assert found.diverged == RATES[end - 1]
    assert found.suggestion == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(
    "losses", [[2.3] * 20, [2.3 + i for i in range(5)], [math.nan], [2.3, math.inf]], ids=["flat", "up", "nan", "inf"]
)
def test_a_loss_that_never_falls_gives_no_suggestion(losses: list[float]) -> None:
    found = judged(RATES[: len(losses)], losses)
    assert found.suggestion is None
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["suggestion"] is None
    assert (found.diverged is None) == all(map(math.isfinite, losses))
    if math.isfinite(losses[0]):  # else the command ends before it draws
        assert "<svg" in draw(lr_test_figure(found, "net"), "x")


def test_smoothing_keeps_a_line_and_the_length() -> None:
    line = [float(i) for i in range(20)]
    assert smooth(line)[3:-3] == line[3:-3]
    assert len(smooth(line)) == 20
    assert smooth([1.0]) == [1.0]
    assert smooth([0.0] * 7 + [7.0] + [0.0] * 7) == [0.0] * 4 + [1.0] * 7 + [0.0] * 4, "means over seven"


def small_run(root: Path, **changes: Any) -> Any:
    pixels = torch.randint(0, 256, (20, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = Images(pixels, torch.arange(20) % 10)
    fields = {"net": "cifar_resnet8", "batch_size": 8} | changes
    return make_run(recipe("digits", **fields), root, Data("small", images, images, tuple("abcdefghij")))


def test_it_repeats_itself_and_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 6)
    run = small_run(tmp_path / "runs", mixup=0.2)
    state, told = torch.get_rng_state(), []
    first = find_lr(run, threads=1, progress=lambda done, total: told.append((done, total)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not run.root.exists()
    assert find_lr(run, threads=1) == first
    assert first.rates == pytest.approx(tuple(LOWEST * (HIGHEST / LOWEST) ** (i / 5) for i in range(len(first.rates))))
    assert told[0] == (1, 6)
    assert first.losses[0] == pytest.approx(math.log(10), rel=0.5), "the mean of the batch, before anything is learned"


def test_a_first_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the loss is not finite in the first step, before anything was learned"):
        find_lr(small_run(tmp_path, net="cifar_resnet8(branch_scalar=1e38)"), threads=1)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_command_draws_and_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.chdir(tmp_path)
    found = judged(RATES, curve(0.1))
    monkeypatch.setattr(module, "find_lr", lambda *_, **__: found)
    asked = ["train", "digits", "--net", "cifar_resnet8", "--find-lr"]
    assert main(asked) == 0
    assert capsys.readouterr().out.splitlines() == [
        "find-lr.svg: the loss at 105 learning rates",
        f"suggested: --lr {found.suggestion:g} (the loss is lowest at {found.best:.2g})",
    ]
    assert "suggested" in (tmp_path / "find-lr.svg").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["find-lr.svg"]
    assert main([*asked, "--json"]) == 0  # its own figure is replaced
    answer = json.loads(capsys.readouterr().out)
    assert answer["written"] == "find-lr.svg"
    assert len(answer["rates"]) == 105
    monkeypatch.setattr(module, "find_lr", lambda *_, **__: LrTest((1.0,), (2.0,), (2.0,), None, None))
    assert main(asked) == 0
    assert "no suggestion: the loss did not fall" in capsys.readouterr().out
    monkeypatch.setattr(module, "find_lr", lambda *_, **__: found)
    monkeypatch.setattr(curves, "write_atomically", full)
    assert main(asked) == 2
    said = capsys.readouterr()
    assert "suggested: --lr" in said.out, "what was found is worth more than its picture"
    assert "No space left" in said.err
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    command.OUT.write_text("mine")
    assert main(asked) == 2
    assert "is not a plot of this command; move it away" in capsys.readouterr().err
    assert main(["train", "finetune", "--data", "folder:nowhere", "--find-lr"]) == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
