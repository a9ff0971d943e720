"""Protects the stack of signal handlers from OpenVINO."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """A context that restores this thread's alternate signal stack at its end.

    OpenVINO's CPU plugin sets one of its own when it is loaded, and frees it when it is unloaded. With two instances
    whose lives overlap, the last one restores the stack of the first, which is freed by then, and the next signal that
    Python handles (Ctrl-C, the end of a child process) ends the process with a segmentation fault.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, stack = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(stack), None)
