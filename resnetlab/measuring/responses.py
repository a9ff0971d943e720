"""Layer responses: how large what each 3x3 layer puts out is (He 2015, Figure 7); each branch beside its shortcut."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from resnetlab.measuring.units import evaluating, squared_norms, steps, units_of, unlabelled
from resnetlab.nets.net import ResNet


@torch.no_grad()
def response_stds(net: ResNet, batches: Iterable[Tensor]) -> dict[str, float]:
    """Standard deviation of each 3x3 layer's response, by the layer's name, in the order of the layers.

    A response is what batch norm makes of the convolution's output, before the nonlinearity or the sum (He 2015,
    section 4.2); where no batch norm follows within the branch, the convolution's output. The deviation is taken
    over all images (N C H W), channels and positions together. The 3x3 layers of a stem come first; of a bottleneck
    only the 3x3 counts. NaN where responses are not finite. The network is left as it was.
    """
    sums = {name: torch.zeros(3, dtype=torch.float64, device="cpu") for name in dict(_responding(net))}

    def adder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], response: Tensor) -> None:
            values = response.double()
            sums[name] += torch.stack([values.new_tensor(values.numel()), values.sum(), values.square().sum()]).cpu()

        return add

    hooks = [module.register_forward_hook(adder(name)) for name, module in _responding(net)]
    try:
        with evaluating(net):
            for x in unlabelled(batches, net):
                net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _deviation(*total.tolist()) for name, total in sums.items()}


def _responding(net: ResNet) -> Iterator[tuple[str, nn.Module]]:
    """Each 3x3 convolution's name, and the module whose output is its response."""
    units = units_of(net)
    groups: list[tuple[str, nn.Module, tuple[str, ...]]] = [("", net, net.stem_layers)]
    groups += [(f"{name}.", unit, unit.preact_layers + unit.branch_layers) for name, unit in units]
    for prefix, holder, names in groups:
        layers = [(prefix + path, layer) for name in names for path, layer in _layers(name, getattr(holder, name))]
        for (path, layer), (_, after) in zip(layers, [*layers[1:], ("", None)], strict=True):
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                yield path, after if isinstance(after, nn.BatchNorm2d) else layer


def _layers(name: str, layer: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layer with its name; of several in a row, as a stem of three convolutions is, each of them."""
    if isinstance(layer, nn.Sequential):
        return [(f"{name}.{i}", each) for i, each in layer.named_children()]
    return [(name, layer)]


def _deviation(count: float, total: float, squares: float) -> float:
    return math.sqrt(max(squares / count - (total / count) ** 2, 0.0))  # in this order NaN stays NaN


@torch.no_grad()
def branch_shares(net: ResNet, batches: Iterable[Tensor]) -> dict[str, float | None]:
    """‖F(x)‖ / ‖h(x)‖ of each unit of a net with shortcuts, by name: what it adds beside what it adds it to.

    Norms are taken over all images (N C H W) together; None where h is zero everywhere. The network is left as it was.
    """
    sums = {name: torch.zeros(2, dtype=torch.float64, device="cpu") for name, _ in units_of(net)}
    with evaluating(net):
        for x in unlabelled(batches, net):
            for step in steps(net, net.stem(x)):
                sums[step.name] += torch.stack([squared_norms(step.F).sum(), squared_norms(step.h).sum()]).cpu()
    return {name: math.sqrt(F / h) if h else None for name, (F, h) in ((n, s.tolist()) for n, s in sums.items())}
