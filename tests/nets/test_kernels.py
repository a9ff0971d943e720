"""Our own code in C++: compiled once, kept, compiled again when damaged, and what a failing compiler says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnetlab.errors import UserError
from resnetlab.nets import kernels


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The folder of a cache in which nothing was compiled yet, in this process either; the compiler is a quick one."""
    copies = f"cp '{kernels.library()._name}' \"$last\""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", f"{script(tmp_path / 'quick', 'for last; do :; done', copies)} -g0")
    kernels.built.cache_clear()
    yield tmp_path / "cache" / "resnetlab"
    kernels.built.cache_clear()


def script(path: Path, *lines: str) -> str:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (None, "", r"^no C\+\+ compiler was found \(.*compiler\)$"),
        (None, " -O2", r"^no C\+\+ compiler was found \(.*compiler -O2\)$"),
        (["exit 3"], "", r"^the C\+\+ compiler .*compiler fails \(exit code 3\)$"),
        (["echo unknown option >&2", "echo more >&2", "exit 1"], " -x", r"compiler -x fails \(unknown option\)$"),
        (["exit 0"], "", r"^what the C\+\+ compiler .*compiler makes can't be saved or loaded \(.+\)$"),
        (["exec sleep 60"], "", r"^the C\+\+ compiler .*compiler does not finish within 0\.1 seconds$"),
    ],
)
def test_a_compiler_that_is_missing_or_fails_is_one_line(
    lines: list[str] | None,
    options: str,
    message: str,
    anew: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    compiler = script(tmp_path / "compiler", *lines) if lines else str(tmp_path / "compiler")
    monkeypatch.setenv("CXX", compiler + options)
    monkeypatch.setattr(kernels, "COMPILE_SECONDS", 0.1 if "sleep" in str(lines) else 60)
    with pytest.raises(UserError, match=message):
        kernels.library()
    (tmp_path / "compiler").unlink(missing_ok=True)
    with pytest.raises(UserError, match=message):  # and is not asked again
        kernels.library()
    assert not anew.exists() or not list(anew.iterdir())


def test_the_code_is_compiled_once_and_kept(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels.library()
    (made,) = anew.iterdir()
    assert made.suffix == ".so"

    def compiles(*_: object, **__: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(subprocess, "run", compiles)
    kernels.built.cache_clear()
    kernels.library()


@pytest.mark.parametrize("damage", ["no library", "cut in its middle", "empty", "zeros in its middle"])
def test_damaged_code_is_compiled_again(
    damage: str, anew: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A process that loads a file which was cut short dies, so damage is seen before."""
    kernels.library()
    (made,) = anew.iterdir()
    content = made.read_bytes()
    half = len(content) // 2
    damaged = tmp_path / "other" / "resnetlab" / made.name  # a process does not load a path twice
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(
        {
            "no library": b"not a library",
            "cut in its middle": content[:half],
            "empty": b"",
            "zeros in its middle": content[:half] + bytes(100) + content[half + 100 :],
        }[damage]
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    kernels.built.cache_clear()
    assert kernels.library()._name == str(damaged)
    assert damaged.read_bytes() == content
    assert list(damaged.parent.iterdir()) == [damaged]


def test_code_for_other_instructions_is_compiled_beside_it(anew: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder may be shared by machines with other processors."""
    kernels.library()
    (first,) = anew.iterdir()
    monkeypatch.setattr(kernels, "_processor", lambda: b"flags : others")
    kernels.built.cache_clear()
    assert kernels.library()._name != str(first)
    assert len(list(anew.iterdir())) == 2


@pytest.mark.parametrize(
    "line", [b"flags\t\t: fpu avx2", b"Features\t: fp asimd sve", b"isa\t: rv64imafdcv", b"features\t: vx"]
)
def test_the_instruction_sets_of_each_kind_of_processor_are_found(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"processor\t: 0\nBogoMIPS\t: 50\n" + line + b"\nother\t: 1\n")
    assert kernels._processor() == line


def test_where_the_cache_cannot_be_written_the_code_is_compiled_for_the_process(anew: Path) -> None:
    anew.parent.write_text("a file in the place of the folder")
    kernels.library()
    assert anew.parent.is_file()


@pytest.mark.slow
def test_processes_that_compile_at_once_all_have_the_code_and_leave_one_file(anew: Path) -> None:
    code = "from resnetlab.nets import kernels; print(kernels.library()._name)"
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate() for process in started]
    (made,) = anew.iterdir()
    assert said == [(f"{made}\n", "")] * 3
