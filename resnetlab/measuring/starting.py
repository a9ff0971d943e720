"""Whether a network starts to learn: short trainings of a copy, by plain steps of SGD."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetlab.errors import check_counts
from resnetlab.measuring.units import check_labels, cross_entropy, own_draws, taking_gradients

MOMENTUM = 0.9
STARTED = 0.9  # of ln K, the loss of a network that has learned nothing of K classes


@dataclass(frozen=True)
class FirstSteps:
    """A short training: its mean loss window by window, and whether and when it started."""

    rate: float
    losses: list[float]  # mean cross-entropy of each whole window, in nats
    step: int | None  # the step after which it had started, or None
    diverged: bool  # a loss was not finite


def first_steps(
    net: nn.Module, x: Tensor, labels: Tensor, rate: float, *, batch: int, window: int, steps: int, seed: int
) -> FirstSteps:
    """Train a copy of `net` until it has started, its loss is not finite, or for `steps` steps.

    It has started when the mean loss over a window of steps is below STARTED times ln K, K being the number of
    scores. Batches are drawn from x (N C H W) and labels (N) by `seed`, without replacement within one, as is what
    dropout leaves out; the rate is constant. The network itself is left as it is.
    """
    labels = check_labels(x, labels)
    check_counts(images=len(x), batch=batch, window=window, steps=steps)
    net = copy.deepcopy(net).train()
    optimiser = torch.optim.SGD(net.parameters(), rate, momentum=MOMENTUM)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    recent: list[float] = []
    with taking_gradients(), own_draws(x, seed):
        for step in range(1, steps + 1):
            chosen = torch.randperm(len(x), generator=generator, device="cpu")[:batch].to(x.device)
            scores = net(x[chosen])
            loss = cross_entropy(scores, labels[chosen])
            optimiser.zero_grad()
            loss.backward()
            recent.append(loss.item())
            if not math.isfinite(recent[-1]):
                return FirstSteps(rate, losses, None, diverged=True)
            optimiser.step()
            if len(recent) == window:
                losses.append(sum(recent) / window)
                recent.clear()
                if losses[-1] < STARTED * math.log(scores.shape[1]):
                    return FirstSteps(rate, losses, step, diverged=False)
    return FirstSteps(rate, losses, None, diverged=False)
