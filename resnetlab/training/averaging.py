"""Averages of the weights over the steps (EMA), and of batch norm's statistics over batches after training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """The exponential moving average a := d·a + (1 − d)·w of a network's weights and batch norm statistics.

    The decay d rises as (1 + t) / (10 + t) over the steps t up to `decay`, so that a short run does not end near
    its random start (as in TensorFlow's ExponentialMovingAverage with num_updates). Counts of batches are copied.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.own: dict[str, Tensor] = {k: v.detach() for k, v in net.state_dict(keep_vars=True).items()}
        self.tensors = {k: v.clone() for k, v in self.own.items()}
        self._floats = [k for k, v in self.own.items() if v.is_floating_point()]
        self._counts = [k for k in self.own if k not in set(self._floats)]

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after a step."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        floats = ([which[k] for k in self._floats] for which in (self.tensors, self.own))
        get_ema_multi_avg_fn(decay)(*floats, None)
        if self._counts:
            torch._foreach_copy_([self.tensors[k] for k in self._counts], [self.own[k] for k in self._counts])
        self.steps += 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the values of the average and the network, bit for bit; a second call puts both back."""
        for name, own in self.own.items():
            held = own.clone()
            own.copy_(self.tensors[name])
            self.tensors[name].copy_(held)


@torch.no_grad()
def reestimate(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace batch norm's running means and variances by plain averages over batches (float N C H W).

    The papers' authors did so for the models they released ("not moving average", README of their repository;
    an effect below 0.1 %). Each batch counts equally; dropout and stochastic depth are off, as in evaluation. The
    network keeps its mode; frozen batch norm keeps its statistics.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.weight.requires_grad]
    if not norms:
        return
    was_training, momenta = net.training, [norm.momentum for norm in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the average of all batches since the reset
        norm.train()
    try:
        for x in batches:
            net(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        net.train(was_training)
