"""Standard input and output as a shell may hand them over: closed, or in an encoding that lacks characters."""

from __future__ import annotations

import io
import os
import sys

from resnetlab.errors import UserError
from resnetlab.paths import decoded


def mend_streams() -> None:
    """Replace closed streams, and escape characters that the output's encoding lacks, so that no name is an error."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # so that no file of ours gets a closed stream's number
    os.close(file)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  # as long as the process
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def lines_of_input() -> list[str]:
    """The lines of standard input that are not empty, names of files, or what NUL separates; none if it is a terminal.

    Raises UserError if it can't be read.
    """
    if sys.stdin.isatty():
        return []
    try:
        text = decoded(sys.stdin.buffer.read(), names=True)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list of files on standard input can't be read ({error}).") from error
    if "\0" in text:  # of find -print0; no name can have it
        return [name for name in text.split("\0") if name]
    return [line for line in (line.removesuffix("\r") for line in text.split("\n")) if line]


def names_given(names: tuple[str, ...]) -> list[str]:
    """The names, or the lines of standard input. Raises UserError where there are none."""
    if not (given := list(names) or lines_of_input()):
        raise UserError("no image given: name files, folders of images, or patterns.")
    return given
