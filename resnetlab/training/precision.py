"""Precision and speed of a step: autocast and its gradient scaler, compiled units, recomputed units."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from resnetlab.errors import UserError
from resnetlab.nets.net import ResidualUnit, ResNet

AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
BACKEND = "inductor"
MOST_CODES = 64  # kinds of unit times sizes of batch: a net has at most 7, an epoch at most 4


def autocast(precision: str, kind: str) -> contextlib.AbstractContextManager[object]:
    """Convolutions and matrix products in the recipe's precision, losses and sums in float32; `kind`: cpu, cuda."""
    dtype = AUTOCAST[precision]
    return torch.autocast(kind, dtype) if dtype else contextlib.nullcontext()


def gradient_scaler(precision: str, kind: str) -> torch.amp.GradScaler | None:
    """What keeps float16's small gradients from vanishing: it scales the loss, and skips a step that overflows."""
    return torch.amp.GradScaler(kind) if precision == "fp16" else None


def compile_units(net: nn.Module, device: str) -> None:
    """Compile the residual units in place; parameters keep their names.

    Units of one structure and size share their code, so the time to compile does not grow with depth: a net has
    three to seven kinds (first and other units of each stage). Stem and head stay as they are.
    Raises UserError where torch can't compile, and for a net whose units can't share code.
    """
    units = residual_units(net, "compile")
    if isinstance(net, ResNet) and net.spec.stochastic_depth:
        raise UserError(
            "compile=True: with stochastic depth each unit has its own probability and would be compiled by itself; "
            "leave one of them out."
        )
    _check_compiler(device)
    for unit in units:
        unit.compile(backend=BACKEND, dynamic=False)


def _check_compiler(device: str) -> None:
    """Compile something small: better one clear line now than a traceback in the first step."""
    try:
        torch.compile(lambda x: x + 1, backend=BACKEND, dynamic=False)(torch.zeros(2, device=device))
    except Exception as error:  # inductor's own kinds, and what compilers and Triton raise
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].rstrip(".")
        needs = "Triton" if device.startswith("cuda") else "a C++ compiler such as g++"
        raise UserError(
            f"compile=True: torch can't compile here ({reason}); it needs {needs}. Leave compile out."
        ) from error


@contextlib.contextmanager
def compiled(on: bool) -> Iterator[None]:
    """Around a step: room for one code per kind of unit and size of batch, where torch's limit is 8 in all."""
    if not on:
        yield
        return
    with torch._dynamo.config.patch(recompile_limit=MOST_CODES):
        yield


def as_written(on: bool) -> contextlib.AbstractContextManager[object]:
    """Around an evaluation: compiled units run as they are written, as they will where the weights are loaded."""
    return torch.compiler.set_stance("force_eager") if on else contextlib.nullcontext()


def recompute_units(net: nn.Module) -> None:
    """Keep only what passes between units, and compute the rest again for the gradient (Chen et al. 2016)."""
    residual_units(net, "checkpoint_activations")
    assert isinstance(net, ResNet)
    net.recompute = True


def residual_units(net: nn.Module, field: str) -> list[ResidualUnit]:
    """The net's units. Raises UserError, naming the recipe's field, for a net that has none."""
    if not isinstance(net, ResNet):
        raise UserError(f"{field}=True works on residual units, and a {type(net).__name__} has none; leave it out.")
    return [unit for _, unit in net.units()]
