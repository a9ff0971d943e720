"""Precision and speed of a step: which settings are fast on a machine, autocast, compiled and recomputed units."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.machine import instruction_sets, made_by_amd
from resnetlab.nets.convolution import own_convolutions
from resnetlab.nets.fusing import fuse
from resnetlab.nets.kernels import library
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec
from resnetlab.training.recipe import Recipe

AUTOCAST: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
BACKEND = "inductor"
MOST_CODES = 64  # kinds of unit times sizes of batch: a net has at most 7, an epoch at most 4
FUSED_ON = ("cpu",)  # kinds of device on which `compile` means nets/fusing.py; on others torch compiles the units
_log = logging.getLogger(__name__)
AUTO = ("precision", "channels_last", "compile")  # fields of a recipe that the machine may decide


def resolved(recipe: Recipe, spec: Spec, device: str) -> dict[str, Any]:
    """The values of the fields AUTO on this machine; fields that the recipe sets keep their values.

    bf16 pays off where more numbers are multiplied per cycle in it than in float32: on every GPU that has it, and on
    the processors that `has_fast_bf16` names. Elsewhere its conversions make a step slower (docs/performance.md).
    """
    gpu, cpu = device.startswith("cuda"), device == "cpu"
    precision = ("bf16" if has_fast_bf16(device) else "fp32") if recipe.precision == "auto" else recipe.precision
    compiles = recipe.compile
    if compiles == "auto":
        compiles = cpu and isinstance(spec, NetSpec) and not recipe.sync_bn and can_fuse()
    half_on_gpu = gpu and precision != "fp32"
    channels_last = (cpu or half_on_gpu) if recipe.channels_last == "auto" else recipe.channels_last
    # Fused layers need that layout.
    return {"precision": precision, "channels_last": channels_last or (compiles and cpu), "compile": compiles}


def as_started(recipe: Recipe, settled: dict[str, Any], device: str) -> Recipe:
    """The recipe with the values that `auto` had where the run started, which it keeps to its end.

    Warns if this machine is slow at that, or can't do it, so that the result is no longer bit-identical.
    """
    found = recipe.override(**settled)
    if found.precision == "bf16" and recipe.precision == "auto" and not has_fast_bf16(device):
        unit = "processor" if device == "cpu" else "device"
        _log.warning(f"the run started in bf16, which is not fast on this {unit}: it continues, but slowly.")
    if found.compile and recipe.compile == "auto" and not (device == "cpu" and can_fuse()):
        why = "can't be compiled here" if device == "cpu" else "is for CPUs"
        _log.warning(
            f"the run started with fused batch norm, which {why}: it continues without, and its result is no longer "
            "bit-identical to an uninterrupted run."
        )
        found = found.override(compile=False)
    return found


def rng_states(device: str) -> dict[str, Tensor]:
    """The states of torch's random generators by kind of device: the processor's, and that of a GPU."""
    states = {"cpu": torch.get_rng_state()}
    if device.startswith("cuda"):
        states["cuda"] = torch.cuda.get_rng_state(device)
    if device == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_rng_states(states: dict[str, Tensor], device: str) -> None:
    """The inverse of `rng_states`; states of other kinds of devices are left out."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.startswith("cuda"):
        torch.cuda.set_rng_state(states["cuda"], device)
    if "mps" in states and device == "mps":
        torch.mps.set_rng_state(states["mps"])


@contextlib.contextmanager
def repeatable(device: str) -> Iterator[None]:
    """A context for training steps, which come out the same each time, as far as torch allows it.

    cuDNN chooses deterministic kernels, by rule and not by trial. Torch's random state is the caller's again
    afterwards. A GPU is torch's current one, where torch puts what belongs to no tensor, such as pinned memory.
    """
    gpus = [torch.device(device)] if device.startswith("cuda") else []
    with contextlib.ExitStack() as settings:
        for gpu in gpus:
            settings.enter_context(torch.cuda.device(gpu))
        settings.callback(set_rng_states, rng_states(device), device)
        settings.enter_context(cudnn())
        yield


@contextlib.contextmanager
def cudnn(*, allow_tf32: bool = True) -> Iterator[None]:
    """A context in which cuDNN is on and takes deterministic kernels, with or without TF32, a shorter float32."""
    flags: Any = torch.backends.cudnn  # the stubs lack `conv` and `rnn`
    with contextlib.ExitStack() as settings:
        try:
            flags.allow_tf32  # noqa: B018
        except RuntimeError:  # conv and rnn were set one by one, and torch's own context can't read that
            for operation in (flags.conv, flags.rnn):
                settings.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
            flags.allow_tf32 = True
        # Without `enabled`, this context would switch cuDNN off.
        settings.enter_context(flags.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=allow_tf32))
        yield


@contextlib.contextmanager
def on_threads(count: int) -> Iterator[None]:
    """A context in which torch computes with that many threads; afterwards it has the caller's number again."""
    callers = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(callers)


def has_fast_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 faster than float32, and torch may use that.

    Such processors have AMX's matrix units, or are AMD's with AVX-512-BF16 (Zen 4 and later), whose vector units
    multiply twice as many numbers per cycle in bf16 as in float32. Intel's multiply only as many.
    """
    if device.startswith("cuda"):
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device != "cpu":
        return False
    found = instruction_sets()
    matrices = "amx_bf16" in found and _allowed("AMX")
    return matrices or ("avx512_bf16" in found and made_by_amd() and _allowed("BF16", "FP16", "AMX", "AVX10"))


def has_avx2_at_best() -> bool:
    """Whether AVX2 is the best instruction set that this processor has and oneDNN may use."""
    found = instruction_sets()
    return "avx2" in found and not ("avx512f" in found and _allowed("AVX512", "AVX10"))


def _allowed(*sets: str) -> bool:
    """Whether oneDNN may use the instruction sets that have one of these in their name."""
    most = (os.environ.get("ONEDNN_MAX_CPU_ISA") or "DEFAULT").upper()
    return most in ("DEFAULT", "ALL") or any(name in most for name in sets)


def can_fuse() -> bool:
    """Whether nets/kernels.py can be compiled here; if not, a line says why, once in a process."""
    try:
        library()
    except UserError as error:
        _say_once(f"compile=auto: {error}, so steps are computed layer by layer here, which is slower.")
        return False
    return True


@cache
def _say_once(line: str) -> None:
    _log.warning(line)


def autocast(precision: str, kind: str) -> contextlib.AbstractContextManager[object]:
    """Convolutions and matrix products in the recipe's precision, losses and sums in float32; `kind`: cpu, cuda."""
    dtype = AUTOCAST[precision]
    return torch.autocast(kind, dtype) if dtype else contextlib.nullcontext()


def gradient_scaler(precision: str, kind: str) -> torch.amp.GradScaler | None:
    """The scaler that keeps small float16 gradients from vanishing: it scales the loss, and skips overflowing steps."""
    return torch.amp.GradScaler(kind) if precision == "fp16" else None


def compile_net(net: nn.Module, kind: str) -> bool:
    """Make a residual network's steps faster, in place; parameters keep their names. `kind` of device: cpu, cuda.

    Returns whether torch compiled units, whose steps and evaluation need `compiled` and `as_written`. Units of one
    structure and size share torch's code, so the time to compile does not grow with depth: a net has three to seven
    kinds (first and other units of each stage). Stem and head stay as they are.
    """
    assert isinstance(net, ResNet)
    if kind in FUSED_ON:
        fuse(net)
        if has_avx2_at_best():
            own_convolutions(net)
        return False
    for _, unit in net.units():
        unit.compile(backend=BACKEND, dynamic=False)
    return True


def check_switches(recipe: Recipe, spec: Spec, kind: str) -> None:
    """Raise UserError for switches that the network or the machine does not allow. `kind` of device: cpu, cuda.

    Where `auto` stands, there is nothing to check.
    """
    for field in ("compile", "checkpoint_activations"):
        if getattr(recipe, field) is True and not isinstance(spec, NetSpec):
            raise UserError(f"{field}=True works on residual units, but a VGG has none; leave it out.")
    if recipe.compile is True and isinstance(spec, NetSpec):
        if kind in FUSED_ON:
            _check_fusing(recipe)
        else:
            _check_compiling(recipe, spec, kind)


def _check_fusing(recipe: Recipe) -> None:
    if recipe.sync_bn:
        raise UserError("compile=True: batch norm over several processes can't be fused; leave compile or sync_bn out.")
    try:
        library()
    except UserError as error:
        raise UserError(f"compile=True: {error}. Install a compiler such as g++, or leave compile out.") from error


def _check_compiling(recipe: Recipe, spec: NetSpec, kind: str) -> None:
    if spec.stochastic_depth:
        raise UserError(
            "compile=True: with stochastic depth each unit has its own probability and would be compiled separately; "
            "leave one of them out."
        )
    if recipe.unreadable == "skip":
        raise UserError(
            "compile=True: with unreadable='skip' batches differ in size, and each size would be compiled separately; "
            "leave one of them out."
        )
    try:  # something small, to raise a clear UserError now rather than fail in the first step
        torch.compile(lambda x: x + 1, backend=BACKEND, dynamic=False)(torch.zeros(2, device=kind))
    except Exception as error:  # inductor's own, and those of compilers and Triton
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200].rstrip(".")
        raise UserError(
            f"compile=True: torch can't compile here ({reason}); on a GPU it needs Triton. Leave compile out."
        ) from error


def compiled(on: bool) -> contextlib.AbstractContextManager[object]:
    """A context for steps with compiled units: raises torch's limit of 8 codes, one per kind of unit and batch size."""
    return torch._dynamo.config.patch(recompile_limit=MOST_CODES) if on else contextlib.nullcontext()


def as_written(on: bool) -> contextlib.AbstractContextManager[object]:
    """A context for evaluations: compiled units run as written, as they will when the weights are loaded elsewhere."""
    return torch.compiler.set_stance("force_eager") if on else contextlib.nullcontext()


def recompute_units(net: nn.Module) -> None:
    """Keep only the maps between groups of units, and recompute the rest for the gradient (Chen et al. 2016)."""
    assert isinstance(net, ResNet)
    net.recompute = True
