"""Networks: building and one training step, beside torchvision or timm where they import, and the convolutions alone.

python -m benchmarks.networks [--json] [--runs N]
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

import resnetlab
from benchmarks.timing import Row, medians, options, show

STEPS = (("resnet18", 4), ("resnet50", 4), ("cifar_resnet20", 128), ("cifar_resnet110", 64))  # network, batch
BUILDS = ("resnet50", "cifar_resnet1202")


def peer_of(name: str) -> tuple[str, Callable[[], nn.Module]] | None:
    """The same network of another library, if one imports; torchvision's wheel does not beside a CPU torch."""
    for library, make in (
        ("torchvision", lambda: getattr(importlib.import_module("torchvision.models"), name)()),
        ("timm", lambda: importlib.import_module("timm").create_model(name)),
    ):
        try:
            make()
        except Exception:  # an import that fails half-way raises whatever it likes; then there is no peer
            continue
        return library, make
    return None


def step_of(net: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """One training step as a call."""
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        tf.cross_entropy(net(x), labels).backward()
        optimiser.step()

    return step


def convolutions_of(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """The convolutions of a step alone, forward and backward, each on an input of its own: the limit."""
    inputs: list[tuple[nn.Conv2d, Tensor]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        inputs.append((module, torch.randn_like(args[0]).requires_grad_(bool(inputs))))  # the first needs no gradient

    hooks = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()

    def run() -> None:
        for module, given in inputs:
            out = module(given)
            out.backward(out.detach())
            given.grad = module.weight.grad = None

    return run


def step_rows(runs: int) -> list[Row]:
    """A training step of each network in STEPS."""
    rows = []
    for name, batch in STEPS:
        net = resnetlab.build(name, seed=0)
        x = torch.randn(batch, 3, net.spec.input_size, net.spec.input_size)
        labels = torch.randint(0, net.spec.num_classes, (batch,))
        candidates: list[Callable[[], object]] = [step_of(net, x, labels), convolutions_of(net, x)]
        peer = peer_of(name)
        if peer:
            candidates.append(step_of(peer[1](), x, labels))
        ours, limit, *theirs = medians(candidates, runs)
        rows.append(_row(f"training step of {name}, batch {batch}, one thread", ours, theirs, peer, limit, runs))
    return rows


def build_rows(runs: int) -> list[Row]:
    """Building a network with its weights."""
    rows = []
    for name in BUILDS:
        peer = peer_of(name)
        candidates: list[Callable[[], object]] = [lambda name=name: resnetlab.build(name, seed=0)]  # type: ignore[misc]
        if peer:
            candidates.append(peer[1])
        ours, *theirs = medians(candidates, runs)
        rows.append(_row(f"building {name}", ours, theirs, peer, None, runs))
    return rows


def _row(
    what: str,
    ours: float,
    theirs: list[float],
    peer: tuple[str, Callable[[], nn.Module]] | None,
    limit: float | None,
    runs: int,
) -> Row:
    found = theirs[0] if theirs else None
    return Row(what, "ms", ours, found, peer[0] if peer else None, found / ours if found else None, limit, runs)


if __name__ == "__main__":
    chosen = options(str(__doc__).splitlines()[0], runs=7).parse_args()
    torch.set_num_threads(1)  # threads of a busy machine wait for each other, and the figures swell
    show([*build_rows(chosen.runs), *step_rows(chosen.runs)], as_json=chosen.json)
