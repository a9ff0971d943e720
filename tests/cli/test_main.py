"""Exit codes, and the line that says how to resume, whatever a command ends with."""

from __future__ import annotations

import re
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from resnetlab.cli import main as command
from resnetlab.cli.app import app
from resnetlab.errors import NothingToResume, ToldElsewhere, UserError
from resnetlab.training.signals import Stopped


def stopped(number: int) -> Stopped:
    made = Stopped(number)
    made.step = 7
    return made


def ended(monkeypatch: pytest.MonkeyPatch, how: object, *arguments: str) -> int:
    """The exit code of a command that ends so: with an error, or by returning something."""

    def app(*_: object, **__: object) -> Any:
        if isinstance(how, BaseException):
            raise how
        return how

    monkeypatch.setattr(command, "app", app)
    return command.main([*arguments])


KEPT = "stopped; saved work is kept (the last checkpoint, a partial download); to resume: "
AFTER = "after step 7, which is saved; to resume: "


@pytest.mark.parametrize(
    ("how", "arguments", "code", "said"),
    [
        (None, ["nets"], 0, ""),
        (1, ["predict", "x"], 1, ""),
        (KeyboardInterrupt(), ["predict", "x"], 130, "stopped."),
        (KeyboardInterrupt(), ["train", "digits"], 130, f"{KEPT}resnetlab train digits"),
        (NothingToResume(), ["train", "digits", "--serve"], 130, "stopped."),
        (KeyboardInterrupt(), ["study", "run", "lesion"], 130, f"{KEPT}resnetlab study run lesion"),
        (KeyboardInterrupt(), ["study", "report"], 130, "stopped."),
        (
            KeyboardInterrupt(),
            ["data", "fetch", "mnist", "my data"],
            130,
            f"{KEPT}resnetlab data fetch mnist 'my data'",
        ),
        (stopped(signal.SIGINT), ["train"], 130, f"stopped by SIGINT {AFTER}resnetlab train"),
        (stopped(signal.SIGTERM), ["train"], 75, f"stopped by SIGTERM {AFTER}resnetlab train"),
        (UserError("two\nlines\x1b[2J."), ["train"], 2, "error: two lines\\x1b[2J."),
        (ToldElsewhere("by the first process"), ["train"], 2, ""),
    ],
)
def test_a_command_ends_with_its_code_and_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: object,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert ended(monkeypatch, how, *arguments) == code
    assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("--serve", "resnetlab.cli.train.serve_run"),
        ("--find-lr", "resnetlab.cli.find_lr.show_find_lr"),
        ("--dry-run", "resnetlab.cli.dry_run.show_dry_run"),
    ],
)
def test_a_training_command_that_is_not_training_has_nothing_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str, part: str
) -> None:
    def ctrl_c(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(part, ctrl_c)
    command_line = ["train", "digits", "--net", "cifar_resnet8", "--iterations", "1", "--warmup", "none"]
    assert command.main([*command_line, "--threads", "1", "--runs", str(tmp_path), option]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "stopped."


@pytest.mark.parametrize(("rank", "said"), [("0", f"stopped by SIGTERM {AFTER}the same torchrun command"), ("1", "")])
def test_of_several_processes_the_first_one_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, said: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert ended(monkeypatch, stopped(signal.SIGTERM), "train") == 75
    assert capsys.readouterr().err.strip() == said


def test_a_fault_of_the_code_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        ended(monkeypatch, ZeroDivisionError("a fault"), "train")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("features", "features needs SOURCE. A run, by its folder, name or hash"),
        ("eval nowhere", "eval needs --data. The data set: digits, cifar10:DIR"),
        ("train digits --epochs", "--epochs needs a value. Length of the run in epochs"),
        ("train digits 'a b' 6", "'a b' 6: not expected here, .* see 'resnetlab train --help'"),
        ("data stats digits --json yes", "yes: not expected here, .* see 'resnetlab data stats --help'"),
        ("predict net -", "-: not an option, and not standard input, .* is read if none is named; write ./- for"),
        ("predict net -1.jpg", "-1.jpg: not an option of 'resnetlab predict'; if it is a file .* write ./-1.jpg."),
        ("data audit -my*.d", r"-my\*.d: not an option of 'resnetlab data audit'; .* write './-my\*.d'."),
        (
            "data audit -- -my --workers 1",
            "--workers: after -- everything is taken for a file or folder; write options",
        ),
        ("predict net --tpo 3", "Unknown option: --tpo. Did you mean --top\\?"),
        ("train digits --compile maybe", 'Choose from: "auto", or give --compile without a value'),
    ],
)
def test_arguments_that_are_missing_or_too_many(capsys: pytest.CaptureFixture[str], arguments: str, words: str) -> None:
    assert command.main(shlex.split(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: .*{words}", line)


def test_a_folder_that_looks_like_an_option(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(["predict", "net", "-x"]) == 2
    assert "write" not in capsys.readouterr().err
    (tmp_path / "-x").mkdir()
    assert command.main(["predict", "net", "-x"]) == 2
    assert "if it is a file or folder, write ./-x." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("predict net --top 1", "a.jpg b.jpg"),
        ("predict net a.jpg --json", "b.jpg c.jpg"),
        ("explain net --unit layer1.0", "a.jpg b.jpg"),
        ("features net --nearest 1", "a.jpg b.jpg"),
        ("eval --data digits", "one two three"),
        ("eval one --data digits", "two three"),
        ("compare resnet18 --json", "resnet34 resnet50"),
        ("runs compare one --runs folder", "two three"),
    ],
)
def test_options_may_stand_before_a_list(before: str, after: str) -> None:
    bound = app.parse_args(shlex.split(f"{before} {after}"), print_error=False, exit_on_error=False)[1]
    assert bound.args[-len(after.split()) :] == tuple(after.split())
