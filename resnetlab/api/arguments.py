"""Arguments as Python gives them: paths of any kind, one or several."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from resnetlab.errors import UserError, as_python, shown

Call = TypeVar("Call", bound=Callable[..., Any])
PathLike = str | os.PathLike[str]  # including the result of `train`


def text_of(value: PathLike, what: str) -> str:
    """The value as text. Raises UserError, which names it `what`, unless it is text or a path, and not empty."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):  # a path may be bytes
        raise UserError(f"{what}={shown(value)} must be a name or a path.")
    if not text:
        raise UserError(f"{what} is empty; give a name or a path, . for the working folder.")
    return text


def texts_of(values: PathLike | Iterable[PathLike], what: str) -> list[str]:
    """The same for one value or several."""
    if isinstance(values, str | os.PathLike):
        return [text_of(values, what)]
    if not isinstance(values, Iterable) or isinstance(values, bytes):
        raise UserError(f"{what}={shown(values)} must be a name or a path, or several.")
    return [text_of(value, what) for value in values]


def called_from_python(call: Call) -> Call:
    """Let a function be called in any state of torch, with numpy's numbers: it gets Python's, which JSON knows."""

    @functools.wraps(call)
    def called(*args: Any, **options: Any) -> Any:
        with _usual_torch():
            return call(*map(as_python, args), **{name: as_python(value) for name, value in options.items()})

    return cast(Call, called)


@contextlib.contextmanager
def _usual_torch() -> Iterator[None]:
    """Within it torch is as it starts: new tensors are float32 on the CPU, gradients can be taken, and what is computed
    in float32 is not shortened.
    """
    import torch

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
    import torch

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


def check_kind(kind: type, **values: object) -> None:
    """Raise UserError for a value that is not of the kind: int, float (or int), str or bool; None is always accepted.

    Unlike in Python, a bool is not a number, and a text such as "no" is not a bool.
    """
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}[kind]
    taken = int | float if kind is float else kind
    for name, value in values.items():
        if value is not None and (not isinstance(value, taken) or isinstance(value, bool) != (kind is bool)):
            raise UserError(f"{name}={shown(value)} must be {words}.")
