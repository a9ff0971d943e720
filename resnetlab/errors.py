"""UserError, the one kind of error that users can cause, and helpers for its messages."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

MOST_CHOICES = 2000  # ImageNet has 1,000 classes
_BYTES = re.compile("[\\udc80-\\udcff]+")  # as Python has those of names that are not text


class UserError(ValueError):
    """Input that can't be used: the message is one line that names it and says what to do.

    The command line prints the line and exits with code 2; in Python it is a ValueError.
    """


class ToldElsewhere(UserError):
    """A UserError in a run of several processes that another process reports."""


class NothingToResume(KeyboardInterrupt):
    """Ctrl-C in a part of a command that saves nothing, of one that otherwise resumes from what it saved."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the choices nearest to `word`, or "" if none is near.

    Of more than MOST_CHOICES none is looked at, since that would take seconds, for which a server can't wait.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    if len(by_lower) > MOST_CHOICES:
        return ""
    near = difflib.get_close_matches(str(word).lower(), list(by_lower), cutoff=0.5)
    return f" Did you mean {' or '.join(by_lower[n] for n in near)}?" if near else ""


def shown(value: object) -> str:
    """Any value as a message shows it: in one line, shortened if it is long."""
    try:
        text = " ".join(repr(value).splitlines())
    except (ValueError, RecursionError):  # Python writes no number of more than 4,300 digits
        return f"a huge {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}..."


def as_python(value: Any) -> Any:
    """Numbers of numpy's or torch's as Python's: one, as loops over arrays give it, or a list of several."""
    shape = getattr(value, "shape", None)
    return value.tolist() if isinstance(shape, tuple) and len(shape) <= 1 and hasattr(value, "tolist") else value


def whole_text(name: str) -> str:
    """A file's name as text that any program can read: bytes that are not UTF-8 become escapes."""
    return _BYTES.sub(lambda found: found[0].encode(errors="surrogateescape").decode(errors="backslashreplace"), name)


def in_whole_texts(value: Any) -> Any:
    """A value for JSON with all its texts whole: many readers refuse what stands for other bytes."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, dict):
        return {in_whole_texts(key): in_whole_texts(held) for key, held in value.items()}
    return [in_whole_texts(held) for held in value] if isinstance(value, list | tuple) else value


def printable(name: str) -> str:
    """The same as a line: unprintable characters become escapes, too."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in whole_text(name))


def counted(count: int, one: str, more: str = "") -> str:
    """The number with its noun: "1 file", "2,000 files"."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def some(words: Iterable[str], most: int = 3) -> str:
    """The first of some words, separated by commas, and dots for the others."""
    words = list(words)
    return ", ".join(words[:most]) + (", ..." if len(words) > most else "")


def first_of(words: Sequence[str], most: int) -> str:
    """The first of some words, separated by commas, and the number of the others."""
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")


def check_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Raise UserError unless `value` is one of `choices`."""
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        hint = did_you_mean(value if isinstance(value, str) else shown(value), choices)
        raise UserError(f"{field}={shown(value)} is not known: choose one of {', '.join(choices)}.{hint}")


def check_counts(**counts: int | None) -> None:
    """Raise UserError for a count that is not a whole number of at least 1; None, for one not given, is fine."""
    for name, value in counts.items():
        if value is None:
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or value < 1:
            raise UserError(f"{name}={shown(value)} must be {'1 or more' if whole else 'a whole number'}.")


_NO_MEMORY = re.compile(
    "out of memory|not enough memory|(can't|cannot|failed to|unable to) allocate|bad_alloc|ALLOC_FAILED", re.IGNORECASE
)
_ONEDNN_FAILED = re.compile("could not (?:create|execute) a (?:primitive|memory object)(?! descriptor)")
_TRIED = re.compile(r"(?:tried to|unable to) allocate ([\d.]+) ?(bytes|[KMGT]iB)", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def out_of_memory(error: BaseException | None) -> str:
    """What did not fit, in words, if an error or one of its causes means that memory ran out; else "".

    torch, numpy, ONNX Runtime and C++ have different messages for that; only Python has a class. oneDNN, which torch's
    convolutions on a CPU call, does not say why it failed, so its words stand in the answer.
    """
    for cause in causes(error):
        words = str(cause)
        if isinstance(cause, OSError):
            found = cause.errno == errno.ENOMEM
        else:
            found = isinstance(cause, MemoryError) or bool(_NO_MEMORY.search(words))
        if found and not isinstance(cause, UserError):
            where = "the GPU's memory" if re.search("CUDA|cuDNN|CUBLAS", words) else "memory"
            if tried := _TRIED.search(words):
                return f"{size_in_words(float(tried[1]) * _UNITS[tried[2].lower()])} more did not fit into {where}"
            return f"{where} is full"
        if failed := _ONEDNN_FAILED.search(words):
            return f'memory is full (oneDNN says "{failed[0]}")'
    return ""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what caused it, what caused that, and so on; nothing for None."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


_DEAD_WORKER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)")


def dead_worker(error: BaseException | None) -> str:
    """A message, if an error or one of its causes means that a process that decodes images has died; else "".

    torch raises that error at any point of the main process, even in the middle of writing a file.
    """
    for cause in causes(error):
        if isinstance(cause, RuntimeError) and (found := _DEAD_WORKER.search(str(cause))):
            return (
                f"process {found[1].strip()}, which decoded images, died: it was killed, or memory ran out; what was "
                "saved is intact; repeat the command to resume, with fewer --workers if it happens again"
            )
    return ""


def size_in_words(size: float) -> str:
    """A number of bytes, e.g. "4.5 GiB", "64 MiB"."""
    unit = next((unit for unit in ("TiB", "GiB", "MiB", "KiB") if size >= _UNITS[unit.lower()]), "bytes")
    number = size / _UNITS[unit.lower()]
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
