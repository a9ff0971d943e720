"""The command `resnetlab`: its subcommands, and how errors are reported."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cyclopts

import resnetlab
from resnetlab.cli import convert, data, evaluate, export, features, networks, runs, serve, study, train, use
from resnetlab.cli.completion import completion
from resnetlab.cli.streams import mend_streams
from resnetlab.errors import ToldElsewhere, UserError, dead_worker, out_of_memory, printable
from resnetlab.paths import expanded
from resnetlab.training.signals import Stopped


def _converted(kind: Any, tokens: Sequence[cyclopts.Token]) -> Any:
    """As cyclopts converts, with the home folder in place of "~" in every option that is a path."""
    found = cyclopts.convert(kind, tokens)
    return expanded(tokens[0].value) if isinstance(found, Path) else found


app = cyclopts.App(
    name="resnetlab",
    default_parameter=cyclopts.Parameter(converter=_converted),
    version=resnetlab.__version__,
    help="Run every network, recipe, figure and claim of the ResNet papers as a command.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # main says how to go on
)
app.command(networks.describe)
app.command(networks.compare)
app.command(train.train)
app.command(evaluate.evaluate, name="eval")
app.command(use.predict)
app.command(use.explain)
app.command(features.features)
app.command(export.export)
app.command(serve.serve)
app.command(convert.convert)
app.command(runs.app)
app.command(study.app)
app.command(data.app)
app.command(completion)

USER_ERROR, GO_ON, INTERRUPTED = 2, 75, 130  # 75: EX_TEMPFAIL of sysexits.h, "try again"
TAKES_LESS = {  # what to do if a command runs out of memory
    "train": "use a smaller --batch-size or --image-size, or fewer --workers",
    "predict": "use a smaller --batch-size",
    "features": "use a smaller --batch-size",
    "serve": "use a smaller --batch-size",
    "eval": "use fewer --workers, --views 1-crop, or fewer networks at once",
    "study run": "use fewer --jobs",
    "data": "use fewer --workers",
}
KEEPING = (["train"], ["study", "run"], ["data", "fetch"])  # commands that resume from what they saved


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code.

    0; 1 if runs of a study failed; 2 for invalid input; 75 after SIGTERM to a training, which saved its last
    step and resumes with the same command; 130 after Ctrl-C.
    """
    mend_streams()
    given = arguments if arguments is not None else sys.argv[1:]
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()  # here, where a failure can still be told
    except ToldElsewhere:
        return USER_ERROR
    except (UserError, cyclopts.CycloptsError) as error:
        if isinstance(error, UserError) or _first():
            print(f"error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return USER_ERROR
    except Stopped as stopped:
        if _first():
            again = shlex.join(["resnetlab", *given]) if "RANK" not in os.environ else "the same torchrun command"
            print(f"\n{stopped}; to resume: {again}", file=sys.stderr)
        return INTERRUPTED if stopped.number == signal.SIGINT else GO_ON
    except KeyboardInterrupt:
        if not _first():
            return INTERRUPTED
        if any(given[: len(command)] == command for command in KEEPING):
            kept = "saved work is kept (the last checkpoint, a partial download)"
            print(f"\nstopped; {kept}; to resume: {shlex.join(['resnetlab', *given])}", file=sys.stderr)
        else:
            print("\nstopped.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()  # e.g. `| head`
        return 0
    except OSError as error:
        if words := out_of_memory(error):
            return _no_memory(words, given)
        if error.filename is None:
            _drop_output()
        where = error.filename or "the output"
        print(f"error: {printable(str(where))}: can't be read or written ({error.strerror or error}).", file=sys.stderr)
        return USER_ERROR
    except Exception as error:
        if words := out_of_memory(error):
            return _no_memory(words, given)
        if words := dead_worker(error):
            print(f"error: {words}.", file=sys.stderr)
            return USER_ERROR
        raise
    return code if isinstance(code, int) else 0


def _no_memory(words: str, given: list[str]) -> int:
    """Say what did not fit, and what takes less; return the exit code."""
    advice = next((ways for command, ways in TAKES_LESS.items() if " ".join(given).startswith(command)), "")
    more = "close other programs, or use a machine with more memory"
    print(f"error: out of memory: {words}; {advice}{', ' if advice else ''}{more}.", file=sys.stderr)
    return USER_ERROR


def _first() -> bool:
    """Whether this is the process that speaks of those that torchrun starts."""
    return os.environ.get("RANK", "0") == "0"


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that the exit is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
