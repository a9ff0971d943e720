"""torch as it starts, whatever state the caller has it in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def usual_torch() -> Iterator[None]:
    """Within it torch is as it starts: new tensors are float32 on the CPU, gradients can be taken, and what is computed
    in float32 is not shortened.
    """
    device = torch.get_default_device()
    with contextlib.ExitStack() as state:
        state.enter_context(_for_all_threads())
        state.enter_context(torch.inference_mode(False))
        state.enter_context(torch.enable_grad())
        for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda", "mps")):
            state.enter_context(torch.autocast(kind, enabled=False))
        if device.type != "cpu":  # a context slows each operation
            state.enter_context(torch.device("cpu"))
        yield


_LOCK, _SETTINGS, _within = threading.Lock(), contextlib.ExitStack(), 0


@contextlib.contextmanager
def _for_all_threads() -> Iterator[None]:
    """The settings that all threads of a process share: the last thread to leave gives the caller's back."""
    global _within
    with _LOCK:
        if not _within:
            _set_usual(_SETTINGS)
        _within += 1
    try:
        yield
    finally:
        with _LOCK:
            _within -= 1
            if not _within:
                _SETTINGS.close()


def _set_usual(callers: contextlib.ExitStack) -> None:
    callers.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch has a newer way to set it, after which this one can't be read
        precision = "highest"
    if precision != "highest":
        callers.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")
    backends: Any = torch.backends  # the stubs lack those of mkldnn
    for operation in (backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv):
        if operation.fp32_precision not in ("none", "ieee"):
            callers.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
            operation.fp32_precision = "ieee"
