"""The command `resnetlab`: its commands, and what becomes of errors."""

from __future__ import annotations

import os
import shlex
import sys

import cyclopts

import resnetlab
from resnetlab.cli import data, networks, study, train
from resnetlab.errors import UserError

app = cyclopts.App(
    name="resnetlab",
    version=resnetlab.__version__,
    help="Every network, recipe, figure and claim of the ResNet papers as a command that runs.",
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # main says how to go on
)
app.command(networks.describe)
app.command(networks.compare)
app.command(train.train)
app.command(train.evaluate, name="eval")
app.command(study.app)
app.command(data.app)

USER_ERROR, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return its exit code: 0, 2 for input that can't be used, 130 after Ctrl-C."""
    try:
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except (UserError, cyclopts.CycloptsError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        again = shlex.join(["resnetlab", *(arguments if arguments is not None else sys.argv[1:])])
        kept = "what was saved is kept (the last whole epoch, the part of a download)"
        print(f"\nstopped; {kept}; to go on from it: {again}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # e.g. `| head`; keeps exit quiet
    return 0
