"""How signal and gradient pass the units of a network: through shortcuts only, and altogether."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.functional import jvp, vjp

from resnetlab.errors import UserError
from resnetlab.measuring.units import check_batch, cross_entropy, taking_gradients, units_of
from resnetlab.nets.mixing import Add, Mix, Plain, Scale
from resnetlab.nets.net import ResidualUnit, ResNet


@dataclass(frozen=True)
class Propagation:
    """What passes the L units of a network, in lists of L + 1: entry l is of x_l, the last of the last unit's output.

    Norms are Euclidean, over the whole batch. A factor tells what becomes of a signal or a gradient that takes
    shortcuts only, beside what h alone, without mix and f, would leave of it: where h is the identity or zero padding,
    and f the identity, it is the product of the shortcuts' scales (He 2016, eq. 7 and 8). It is None where h leaves
    nothing, and in a plain net, which has no h. Numbers that are not finite are None, too.
    """

    signal: list[float | None]  # ‖x_l‖
    signal_factor: list[float | None]  # of x_0 on its way to x_l
    signal_share: list[float | None]  # what shortcuts brought of x_0 to x_l / ‖x_l‖
    gradient: list[float | None]  # ‖∂E/∂x_l‖, with E the mean cross-entropy of the batch
    shortcut_gradient: list[float | None]  # the same, of what came from x_L through shortcuts only
    gradient_factor: list[float | None]  # of ∂E/∂x_L on its way to x_l


def propagation(net: ResNet, x: Tensor, labels: Tensor) -> Propagation:
    """Send a batch (x N C H W, labels N) through the units forward and backward (He 2016, eq. 6 to 8).

    "Through shortcuts only" is exact: in each unit F is held at its value, and so is a gate, so that h, mix and f
    alone pass on what varies (forward by their Jacobian-vector product, backward by its transpose). Batch norm takes
    the batch's own statistics, as in training; dropout is off. The network and its gradients stay as they were.
    """
    units = [unit for _, unit in units_of(net)]
    labels = check_batch(x, labels, net)
    has_h = not net.spec.is_plain
    with taking_gradients(), _batch_statistics(net), torch.no_grad():
        values = [net.stem(x)]  # x_0 ... x_L
        carried, by_h = [values[0]], [values[0]]
        for unit in units:
            through, alone = _shortcut(unit, values[-1])
            output, passed = jvp(through, values[-1], carried[-1])
            by_h.append(jvp(alone, values[-1], by_h[-1])[1] if has_h else torch.zeros_like(output))
            values.append(output)
            carried.append(passed)
        factors = [_ratio(c, h) if has_h else None for c, h in zip(carried, by_h, strict=True)]
        shares = [_ratio(c, v) for c, v in zip(carried, values, strict=True)]

        gradient = _pull(lambda v: cross_entropy(net.head(v), labels), values[-1], x.new_ones(()))
        whole, shortcut, back_by_h = [gradient], [gradient], [gradient]
        for unit, value in zip(units[::-1], values[-2::-1], strict=True):
            through, alone = _shortcut(unit, value)
            whole.append(_pull(unit, value, whole[-1]))
            shortcut.append(_pull(through, value, shortcut[-1]))
            back_by_h.append(_pull(alone, value, back_by_h[-1]) if has_h else torch.zeros_like(value))
        back = [_ratio(s, h) if has_h else None for s, h in zip(shortcut, back_by_h, strict=True)]
    return Propagation(
        signal=[_norm(v) for v in values],
        signal_factor=factors,
        signal_share=shares,
        gradient=[_norm(g) for g in whole[::-1]],
        shortcut_gradient=[_norm(g) for g in shortcut[::-1]],
        gradient_factor=back[::-1],
    )


def shortcut_scale(mix: Mix) -> float:
    """λ in y = λ·h + b·F (He 2016, eq. 6). Raises UserError for a mix whose shortcut has no constant scale."""
    match mix:
        case Plain():
            return 0.0
        case Add():
            return 1.0
        case Scale(a=a):
            return a
    raise UserError(f"{mix!r}: its shortcut has no constant scale; choose Plain, Add or Scale.")


def _shortcut(unit: ResidualUnit, x: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """At x: the unit with F (and what a gate sees) held at its value, and h by itself."""
    start = unit.preact(x)
    branch = unit.F(start)

    def through(v: Tensor) -> Tensor:
        return unit.f(unit.mix(alone(v), branch, start))

    def alone(v: Tensor) -> Tensor:
        return unit.h(unit.preact(v))

    return through, alone


def _pull(function: Callable[[Tensor], Tensor], at: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of what goes into a function, from that of what comes out."""
    return vjp(function, at, gradient)[1]


def _norm(x: Tensor) -> float | None:
    value = float(torch.linalg.vector_norm(x, dtype=torch.float64))
    return value if math.isfinite(value) else None


def _ratio(x: Tensor, reference: Tensor) -> float | None:
    above, below = _norm(x), _norm(reference)
    return above / below if above is not None and below else None


@contextlib.contextmanager
def _batch_statistics(net: nn.Module) -> Iterator[None]:
    """Within it batch norm takes the batch's statistics and keeps none of them; all else is as in evaluation."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    training = {m: m.training for m in net.modules()}
    tracking = {m: m.track_running_stats for m in norms}
    net.eval()
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode
        for norm, kept in tracking.items():
            norm.track_running_stats = kept
