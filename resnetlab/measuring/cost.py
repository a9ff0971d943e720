"""What networks and units cost on the machine at hand: seconds taken in turn, and bytes, beside the exact counts."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetlab.errors import UserError, check_counts, shown
from resnetlab.machine import wait_for
from resnetlab.measuring.complexity import Complexity, complexity
from resnetlab.measuring.load import Load, watch
from resnetlab.measuring.units import own_draws, taking_gradients
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.zoo import Spec, build


@dataclass(frozen=True)
class NetCost:
    """What a network costs: exact counts, and what was measured.

    multiply_adds and the bytes kept are per image (see `Complexity`); `seconds` holds the time of each round, for
    `batch` images; `load` is the machine's meanwhile; `peak_bytes` is the most that a CUDA device held at once beyond
    the weights, None on a CPU.
    """

    name: str
    depth: int
    parameters: int
    multiply_adds: int
    training_bytes: int
    inference_bytes: int
    batch: int
    seconds: list[float]
    load: Load
    peak_bytes: int | None


def network_costs(
    specs: Sequence[Spec], batch: int, rounds: int, *, training: bool, device: str = "cpu", seed: int = 0
) -> list[NetCost]:
    """Count each network, and time a training step (or a forward pass in evaluation) of each in turn.

    All are built from one seed and get random images of their own input size; networks whose times are to be
    compared belong into one call.
    """
    check_counts(batch=batch, rounds=rounds)
    calls = []
    for spec in specs:
        net = build(spec, seed=seed).to(device)
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, *spec.image_shape, generator=generator, device="cpu").to(device)
        calls.append(training_step(net, x) if training else forward_pass(net, x))
    taken, load = interleaved_under_load(calls, rounds, device)
    return [
        _cost(complexity(spec), batch, seconds, load, cuda_peak_bytes(call, device))
        for spec, call, seconds in zip(specs, calls, taken, strict=True)
    ]


def _cost(counted: Complexity, batch: int, seconds: list[float], load: Load, peak_bytes: int | None) -> NetCost:
    return NetCost(
        name=counted.name,
        depth=counted.depth,
        parameters=counted.parameters,
        multiply_adds=counted.multiply_adds,
        training_bytes=counted.training_bytes,
        inference_bytes=counted.inference_bytes,
        batch=batch,
        seconds=seconds,
        load=load,
        peak_bytes=peak_bytes,
    )


@dataclass(frozen=True)
class UnitCost:
    """What one more unit adds to a network: its convolutions' weights, multiply-adds and bytes kept, per image."""

    weights: int
    multiply_adds: int
    training_bytes: int


def unit_cost(spec: NetSpec) -> UnitCost:
    """Count the unit that the network of this spec would get at the end of its last stage."""
    if not isinstance(spec, NetSpec):
        raise UserError(f"{shown(spec)} has no units to count; give the spec of a residual or a plain network.")
    *stages, last = spec.stages
    longer = spec.override(stages=(*stages, type(last)(last.units + 1, last.width, last.stride)))
    before, after = complexity(spec), complexity(longer)
    known = {layer.name for layer in before.layers}
    added = [layer for layer in after.layers if layer.name not in known]
    return UnitCost(
        weights=sum(layer.parameters for layer in added if layer.kind.startswith("conv")),
        multiply_adds=sum(layer.multiply_adds for layer in added),
        training_bytes=after.training_bytes - before.training_bytes,
    )


def training_step(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call that takes a training step of a copy of the module: forward, backward from a fixed gradient, update.

    x: N C H W; its own gradient is computed if it asks for one. The update has a rate of 0, so that it costs what
    every update does and the numbers that are computed with stay ordinary.
    """
    own = copy.deepcopy(module).train()
    x = x.detach().clone().requires_grad_(x.requires_grad)
    optimiser = torch.optim.SGD(own.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)
    with torch.no_grad(), own_draws(x):
        scores = own(x)
    gradient = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(scores)

    def step() -> None:
        with taking_gradients(), own_draws(x):
            own(x).backward(gradient)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        x.grad = None

    return step


def forward_pass(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call that runs a copy of the module on x in evaluation mode, without gradients."""
    own = copy.deepcopy(module).eval()

    def forward() -> None:
        with torch.inference_mode():
            own(x)

    return forward


def interleaved(calls: Sequence[Callable[[], object]], rounds: int, device: str = "cpu") -> list[list[float]]:
    """Seconds of each call in each round, taken in turn, so that a busy moment of the machine meets them all."""
    for call in calls:
        call()  # the first one allocates and chooses kernels
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for seconds, call in zip(taken, calls, strict=True):
            wait_for(device)
            started = time.perf_counter()
            call()
            wait_for(device)
            seconds.append(time.perf_counter() - started)
    return taken


def interleaved_under_load(
    calls: Sequence[Callable[[], object]], rounds: int, device: str = "cpu"
) -> tuple[list[list[float]], Load]:
    """`interleaved`, and the machine's load meanwhile: times of a busy machine mean little, even ratios of them."""
    on_cpu = torch.device(device).type == "cpu"  # else the thread waits for the device
    load = watch(torch.get_num_threads() if on_cpu else 0)
    taken = interleaved(calls, rounds, device)
    return taken, load()


def cuda_peak_bytes(call: Callable[[], None], device: str) -> int | None:
    """The most bytes that a call holds at once on a CUDA device beyond what was held before it; None on others."""
    if torch.device(device).type != "cuda":
        return None
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device) - before
