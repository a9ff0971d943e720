"""The process of the command `resnetlab`: how errors are reported, and exit codes."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import get_args

import cyclopts

from resnetlab.api.errors import in_one_line, is_of_the_output
from resnetlab.cli.app import app
from resnetlab.cli.streams import mend_streams
from resnetlab.errors import NothingToResume, ToldElsewhere, UserError, printable
from resnetlab.training.signals import Stopped

USER_ERROR, GO_ON, INTERRUPTED = 2, 75, 130  # 75: EX_TEMPFAIL of sysexits.h, "try again"
KEEPING = (["train"], ["study", "run"], ["data", "fetch"])  # commands that resume from what they saved


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code.

    0; 1 if runs of a study failed; 2 for invalid input; 75 after SIGTERM to a training, which saved its last
    step and resumes with the same command; 130 after Ctrl-C.
    """
    mend_streams()
    _collect_rarely()
    given = arguments if arguments is not None else sys.argv[1:]
    with _ctrl_c_noted() as noted:
        try:
            code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()  # here, where a failure can still be reported
        except (Stopped, KeyboardInterrupt) as stopped:
            return _stopped(stopped, given)
        except SystemExit as left:
            if isinstance(left.__context__, BrokenPipeError):  # rich's answer to `--help | head`
                return 0
            raise
        except Exception as error:
            if noted:
                return _stopped(KeyboardInterrupt(), given)
            if (failed := _reported(error, given)) is None:
                raise
            return failed
    return code if isinstance(code, int) else 0


@contextlib.contextmanager
def _ctrl_c_noted() -> Iterator[list[int]]:
    """The signals of Ctrl-C that came to nobody else: cut off by one, the import of a library can end in any error."""
    noted: list[int] = []

    def raise_noted(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        signal.default_int_handler(number, frame)

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not ours or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    signal.signal(signal.SIGINT, raise_noted)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _collect_rarely() -> None:
    """Collect garbage among old objects ten times less often, and not at exit, when the system frees all memory.

    Torch makes hundreds of thousands of objects that stay, and looking through them takes a sixth of a short command.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 100)
    atexit.register(gc.freeze)


def _reported(error: Exception, given: list[str]) -> int | None:
    """Report an error in one line; return the exit code, or None if it is a bug of ours."""
    if isinstance(error, ToldElsewhere):
        return USER_ERROR
    if isinstance(error, UserError | cyclopts.CycloptsError):
        if isinstance(error, UserError) or _first():
            print(f"error: {printable(' '.join(_words(error).split()))}", file=sys.stderr)
        return USER_ERROR
    if isinstance(error, BrokenPipeError):
        _drop_output()  # e.g. `| head`
        return 0
    if is_of_the_output(error):
        _drop_output()
    if (line := in_one_line(error, " ".join(given))) is None:
        return None
    print(f"error: {line}", file=sys.stderr)
    return USER_ERROR


def _words(error: UserError | cyclopts.CycloptsError) -> str:
    """What an error says; of an argument that is missing, one too many, or taken for an option, also what to do."""
    match error:
        case cyclopts.UnknownOptionError():
            return _not_an_option(error)
        case cyclopts.MissingArgumentError(argument=cyclopts.Argument() as argument):
            name, command = argument.name, " ".join(error.command_chain or ())
            needs = f"{name} needs a value" if error.keyword else f"{command} needs {name}"
            return f"{needs}. {argument.parameter.help or ''}"
        case cyclopts.UnusedCliTokensError():
            given = " ".join(map(shlex.quote, error.unused_tokens or ()))
            command = " ".join(["resnetlab", *(error.command_chain or ())])
            return f"{given}: not expected here, as an argument or as an option's value; see '{command} --help'."
        case cyclopts.CoercionError(argument=cyclopts.Argument() as argument) if bool in get_args(argument.hint):
            return f"{str(error).rstrip('.')}, or give {argument.name} without a value."
    return str(error)


def _not_an_option(error: cyclopts.UnknownOptionError) -> str:
    """What to do about an unknown option, which may be meant as a file, or as standard input."""
    given = error.token.keyword or error.token.value
    if given == "-":
        return (
            "-: not an option, and not standard input, from which a list of images is read if none is named; write ./- "
            "for a file of that name."
        )
    if f"Did you mean {given}?" in str(error):
        return f"{given}: after -- everything is taken for a file or folder; write options before it."
    if "." in given or os.path.lexists(given):
        command = " ".join(["resnetlab", *(error.command_chain or ())])
        return f"{given}: not an option of '{command}'; if it is a file or folder, write {shlex.quote(f'./{given}')}."
    return str(error)


def _stopped(stopped: Stopped | KeyboardInterrupt, given: list[str]) -> int:
    """Say how to resume, if the command can; return the exit code."""
    number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
    if _first():
        again = shlex.join(["resnetlab", *given])
        if isinstance(stopped, Stopped):
            again = again if "RANK" not in os.environ else "the same torchrun command"
            print(f"\n{stopped}; to resume: {again}", file=sys.stderr)
        elif not isinstance(stopped, NothingToResume) and any(given[: len(c)] == c for c in KEEPING):
            kept = "saved work is kept (the last checkpoint, a partial download)"
            print(f"\nstopped; {kept}; to resume: {again}", file=sys.stderr)
        else:
            print("\nstopped.", file=sys.stderr)
    return INTERRUPTED if number == signal.SIGINT else GO_ON


def _first() -> bool:
    """Whether this is the main process of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _drop_output() -> None:
    """Discard the output that is still to be written, so that the exit is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
