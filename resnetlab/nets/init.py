"""Every initialisation, in one place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from resnetlab.nets.branches import BranchScalar
from resnetlab.nets.mixing import Gate
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG

Generator = torch.Generator | None


def he_fan_out(weight: Tensor, generator: Generator) -> None:
    """N(0, 2 / (k²·c_out)): keeps the variance of the gradient (He et al. 2015, 1502.01852, eq. 14)."""
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu", generator=generator)


def he_fan_in(weight: Tensor, generator: Generator) -> None:
    """N(0, 2 / (k²·c_in)): keeps the variance of the activations (He et al. 2015, 1502.01852, eq. 10)."""
    nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu", generator=generator)


def xavier(weight: Tensor, generator: Generator) -> None:
    """U(±√(6 / (fan_in + fan_out))) (Glorot & Bengio 2010, eq. 16)."""
    nn.init.xavier_uniform_(weight, generator=generator)


def gaussian(weight: Tensor, generator: Generator) -> None:
    """N(0, 0.01²): the small Gaussian of AlexNet and VGG."""
    nn.init.normal_(weight, std=0.01, generator=generator)


INITS: dict[str, Callable[[Tensor, Generator], None]] = {
    "he_fan_out": he_fan_out,
    "he_fan_in": he_fan_in,
    "xavier": xavier,
    "gaussian": gaussian,
}


def fully_connected(weight: Tensor, generator: Generator) -> None:
    """U(±1/√fan_in), for the classifier under the He schemes, which are made for layers before a ReLU."""
    bound = weight.shape[1] ** -0.5
    nn.init.uniform_(weight, -bound, bound, generator=generator)


@torch.no_grad()
def initialise(net: ResNet | VGG, seed: int | None = None) -> None:
    """Set every parameter and buffer of the network, in the order of its modules.

    Convolutions by the spec's `init`, batch norm to γ = 1 and β = 0, biases to 0; then the other values that the
    spec states: gate biases, branch scalars, zero γ. A seed gives the same weights on every call and leaves
    torch's own random state alone; without one, torch's state is used.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    scheme = INITS[net.spec.init]
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            last = module is net.fc and net.spec.init.startswith("he")  # VGG's other two are before ReLUs
            (fully_connected if last else scheme)(module.weight, generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            module.reset_running_stats()
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)
    if isinstance(net, ResNet):
        _initialise_units(net)


def _initialise_units(net: ResNet) -> None:
    for module in net.modules():
        if isinstance(module, Gate) and module.conv.bias is not None:
            nn.init.constant_(module.conv.bias, module.initial_bias)  # b_g (He 2016, section 3.1)
        elif isinstance(module, BranchScalar):
            nn.init.constant_(module.alpha, module.initial)
    if net.spec.zero_gamma:
        for _, unit in net.units():
            nn.init.zeros_(unit.last_norm.weight)
