"""Errors as one line that a user can act on, the same in Python as on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from resnetlab.errors import UserError, dead_worker, out_of_memory, printable

TAKES_LESS = {  # what to do if a command runs out of memory
    "train": "use a smaller --batch-size or --image-size, or fewer --workers",
    "predict": "use a smaller --batch-size",
    "features": "use a smaller --batch-size",
    "serve": "use a smaller --batch-size",
    "eval": "use fewer --workers, --views 1-crop, or fewer networks at once",
    "study run": "use fewer --jobs",
    "data": "use fewer --workers",
}


def in_one_line(error: Exception, command: str) -> str | None:
    """The message for an error, or None if it is a bug of ours; command: its words, e.g. "study run degradation".

    A lack of memory, an unusable file or folder, and a killed process are not bugs of ours.
    """
    if isinstance(error, UserError):
        return printable(" ".join(str(error).split()))
    if words := out_of_memory(error):
        advice = next((ways for name, ways in TAKES_LESS.items() if command.startswith(name)), "")
        more = "close other programs, or use a machine with more memory"
        return f"out of memory: {words}; {advice}{', ' if advice else ''}{more}."
    if isinstance(error, OSError):
        where = printable(str(error.filename or "the output"))
        return f"{where}: can't be read or written ({error.strerror or error})."
    if words := dead_worker(error):
        return f"{words}."
    return None


def is_of_the_output(error: Exception) -> bool:
    """Whether it is of standard output, which has no file name, as when a disk is full."""
    return isinstance(error, OSError) and error.filename is None and not out_of_memory(error)


@contextlib.contextmanager
def as_user_errors(command: str) -> Iterator[None]:
    """Raise UserError, with the line that the command would print, in place of errors that are not bugs of ours."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        line = None if is_of_the_output(error) else in_one_line(error, command)
        if line is None:
            raise
        raise UserError(line) from error
