"""Where the command runs: narrow and dumb terminals, NO_COLOR, none at all; and what a shell can complete."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetlab.cli.main import main

Command = Callable[..., "subprocess.CompletedProcess[str]"]
COLOURED = re.compile(r"\x1b\[([0-9]+;)*(3[0-8]|4[0-8]|9[0-7]|10[0-7])(;[0-9]+)*m")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TRAIN = ("train", "digits", "--net", "cifar_resnet8", "--epochs", "1", "--threads", "1")


def on_terminal(python: list[str], folder: Path, *arguments: str, columns: int = 40, **environment: str) -> str:
    """What the command shows on a terminal of so many columns; it has to succeed."""
    main_end, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [*python, "-m", "resnetlab", *arguments],
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        cwd=folder,
        env=inherited | {"TERM": "xterm-256color"} | environment,
    )
    os.close(its_end)
    shown = b""
    with os.fdopen(main_end, "rb", buffering=0) as terminal:
        while True:
            try:
                part = terminal.read(1 << 16)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            shown += part
    assert process.wait() == 0, shown.decode()
    return shown.decode()


def test_a_narrow_terminal_cuts_no_number(python: list[str], tmp_path: Path) -> None:
    shown = on_terminal(python, tmp_path, "describe", "cifar_resnet20")
    lines = ESCAPES.sub("", shown).splitlines()
    assert {"layer         layer3.2.conv2", "multiply-adds 2,359,296"} <= {line.rstrip() for line in lines}
    wide = on_terminal(python, tmp_path, "describe", "cifar_resnet20", columns=100)
    assert "│ layer3.2.conv2 │ conv 3x3    │   64x8x8 │" in ESCAPES.sub("", wide)


@pytest.mark.parametrize("arguments", [("--help",), ("train", "--help"), ("describe", "cifar_resnet8"), TRAIN])
def test_a_dumb_terminal_gets_no_escapes_and_no_color_no_colours(
    python: list[str], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    assert "\x1b" not in on_terminal(python, tmp_path, *arguments, TERM="dumb")
    assert not COLOURED.search(on_terminal(python, tmp_path, *arguments, NO_COLOR="1"))


@pytest.mark.parametrize("arguments", [("--help",), ("describe", "cifar_resnet8"), ("compare", "resnet50"), TRAIN])
def test_pipes_get_no_escapes(resnetlab: Command, arguments: tuple[str, ...]) -> None:
    done = resnetlab(*arguments, env=os.environ | {"COLUMNS": "40"}, start_new_session=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[[str], Path]:
    """script(shell): the file that completes the command there."""

    def written(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        path = tmp_path / f"resnetlab.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return written


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_of_its_shell(script: Callable[[str], Path], shell: str) -> None:
    path = script(shell)
    assert "checkpoint-steps" in path.read_text()
    if not (program := shutil.which(shell)):
        pytest.skip(f"{shell} is not installed: its script was written, and not tried")
    done = subprocess.run([program, "-n", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["resnetlab", "tra"], "train"),
        (["resnetlab", "study", "ru"], "run"),
        (["resnetlab", "train", "--checkpoint-s"], "--checkpoint-steps"),
        (["resnetlab", "export", "--to", "a"], "aoti"),
    ],
    ids=" ".join,
)
def test_bash_completes(script: Callable[[str], Path], words: list[str], found: str) -> None:
    lines = [
        f"source {script('bash')}",
        f"COMP_WORDS=({' '.join(words)}) COMP_CWORD={len(words) - 1}",
        "_resnetlab",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.stderr == ""
    assert found in [word.strip() for word in done.stdout.splitlines()]
