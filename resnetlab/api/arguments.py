"""Arguments as Python gives them: paths of any kind, one or several."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable
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
    """Let a function be called in any state of torch, with numpy's numbers: it gets Python's, which JSON knows.

    None for an option whose default is another value is a UserError.
    """
    defaults = {name: option.default for name, option in inspect.signature(call).parameters.items()}

    @functools.wraps(call)
    def called(*args: Any, **options: Any) -> Any:
        from resnetlab.training.usual_torch import usual_torch  # the command line starts without torch

        for name, value in [*zip(defaults, args, strict=False), *options.items()]:
            default = defaults.get(name)
            if value is None and default not in (None, inspect.Parameter.empty):
                raise UserError(f"{name}=None: leave it out for the default, {name}={default!r}.")
        with usual_torch():
            return call(*map(as_python, args), **{name: as_python(value) for name, value in options.items()})

    return cast(Call, called)


def check_kind(kind: type, **values: object) -> None:
    """Raise UserError for a value that is not of the kind: int, float (or int), str or bool; None is always accepted.

    Unlike in Python, a bool is not a number, and a text such as "no" is not a bool.
    """
    words = {int: "a whole number", float: "a number", str: "text", bool: "True or False"}[kind]
    taken = int | float if kind is float else kind
    for name, value in values.items():
        if value is not None and (not isinstance(value, taken) or isinstance(value, bool) != (kind is bool)):
            raise UserError(f"{name}={shown(value)} must be {words}.")
