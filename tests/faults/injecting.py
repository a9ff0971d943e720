"""Commands in processes of their own, into which faults are injected at places that follow from a seed."""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

for each in ("cli.main", "training.loop", "data.pack", "use.export", "use.features_file", "studies.degradation"):
    importlib.import_module(f"resnetlab.{each}")  # so that a command's process need not

WRITES = {"os.rename", "os.remove", "os.mkdir", "os.truncate", "os.link"}
Fault = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the signal that ended it; what it said."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """Its one line, where it refused; fails unless it is one, and without a traceback."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.code == 2, f"exit code {self.code}: {self.err[-2000:]}"
        assert "Traceback" not in self.err, self.err[-2000:]
        assert len(lines) == 1, self.err
        return lines[0]

    def went_well(self) -> Ended:
        """This, if it came to its end; else it fails."""
        assert self.code == 0, f"exit code {self.code}: {self.err[-2000:]}"
        return self


class Process:
    """`resnetlab ARGUMENTS` in a fork of this process: torch is imported once for all of them."""

    def __init__(self, folder: Path, *arguments: str, fault: Fault | None = None):
        self.place = folder
        self.log = Path(tempfile.mkdtemp(prefix="said-"))
        self.pid = os.fork()
        if not self.pid:
            self._be(arguments, fault)

    def _be(self, arguments: tuple[str, ...], fault: Fault | None) -> NoReturn:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(self.place)
            for number, name in ((1, "out"), (2, "err")):
                file = os.open(self.log / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode) for n, mode in ((0, "r"), (1, "w"), (2, "w")))
            from resnetlab.cli.main import main

            if fault:
                fault()
            code = main(list(arguments))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> Ended:
        _, status = os.waitpid(self.pid, 0)
        out, err = ((self.log / name).read_text() for name in ("out", "err"))
        shutil.rmtree(self.log)
        return Ended(os.waitstatus_to_exitcode(status), out, err)

    def wait_until_stopped(self) -> bool:
        """Whether it has stopped itself (`pausing`), and not ended."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return os.WIFSTOPPED(status)


def run(folder: Path, *arguments: str, fault: Fault | None = None) -> Ended:
    """Run a command to its end."""
    return Process(folder, *arguments, fault=fault).wait()


def at_event(folder: Path, number: int, then: Callable[[int | None], object]) -> Fault:
    """Do something before the command's so many-th step of training or operation on files in a folder; 0: before each.

    Files opened for writing, synced, renamed, removed; folders made. `then` is given the descriptor of a file that is
    about to be synced.
    """

    def install() -> None:
        from resnetlab.training.step import Stepper

        met, root = 0, str(folder.resolve())

        def event(file: int | None = None) -> None:
            nonlocal met
            met += 1
            if number in (0, met):
                then(file)

        def audited(name: str, arguments: tuple[Any, ...]) -> None:
            opened = name == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            named = (opened or name in WRITES) and isinstance(arguments[0], str | bytes | Path)
            if named and os.path.abspath(os.fsdecode(arguments[0])).startswith(root):
                event()

        step, sync = Stepper.__call__, os.fsync

        def counted_step(self: Stepper, *arguments: Any) -> Any:
            event()
            return step(self, *arguments)

        def counted_sync(file: int) -> None:
            event(file)
            sync(file)

        Stepper.__call__ = counted_step  # type: ignore[method-assign]
        os.fsync = counted_sync
        sys.addaudithook(audited)

    return install


def killed(folder: Path, number: int, *, half: bool) -> Fault:
    """kill -9 before that event; with `half` a file that is being written loses its second half, as in a power cut."""

    def kill(file: int | None) -> None:
        if half and file is not None:
            os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    return at_event(folder, number, kill)


def pausing(folder: Path, number: int) -> Fault:
    """Stop before that event, until SIGCONT."""
    return at_event(folder, number, lambda _: os.kill(os.getpid(), signal.SIGSTOP))


def counting(folder: Path, tally: Path) -> Fault:
    """Leave a byte in a file for each event."""
    file = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    return at_event(folder, 0, lambda _: os.write(file, b"."))


def little_memory(more: int) -> Fault:
    """So many bytes of addresses more than the process has now, and no more."""

    def limit() -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return limit


def small_files() -> None:
    """No file of more than 20,000 bytes can be written: stands for a full disk where none can be mounted."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def clock_backwards() -> None:
    """Each look at the clock is an hour before the last one."""
    began, looks = time.time(), iter(range(1, 10**9))
    time.time = lambda: began - 3600 * next(looks)


def as_anybody() -> None:
    """Without root's right to write where permissions forbid it (CAP_DAC_OVERRIDE), which it has until then."""
    if os.getuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the call; this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: 32 bits each, twice
    assert libc.capget(header, sets) == 0
    sets[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0


@contextmanager
def mounted(folder: Path) -> Iterator[Callable[[str], None]]:
    """A disk of 64 MB at a folder, and a function that mounts it anew, e.g. "ro". Raises OSError where nobody may."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    try:
        yield lambda how: _mount("-o", f"remount,{how}", str(folder))
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True, text=True)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise PermissionError(error.stderr.strip()) from error
