"""First steps: a net that can learn starts, one that can't does not, and neither is changed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from resnetlab.measuring.starting import FirstSteps, first_steps


def two_classes() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def linear(scale: float) -> nn.Module:
    net = nn.Linear(4, 2)
    nn.init.constant_(net.weight, scale)
    nn.init.zeros_(net.bias)
    return net


def run(net: nn.Module, rate: float, steps: int = 60) -> FirstSteps:
    return first_steps(net, *two_classes(), rate, batch=32, window=10, steps=steps, seed=0)


def test_it_stops_at_the_window_in_which_it_has_started() -> None:
    found = run(linear(0), 0.1)
    assert found.step is not None
    assert found.step == 10 * len(found.losses)
    assert found.losses[-1] < 0.9 * math.log(2)
    assert all(loss >= 0.9 * math.log(2) for loss in found.losses[:-1])


def test_a_rate_of_nothing_does_not_start() -> None:
    found = run(linear(0), 1e-9)
    assert found.step is None
    assert not found.diverged
    assert found.losses == pytest.approx([math.log(2)] * 6, abs=1e-4)


def test_a_loss_that_is_not_finite_is_a_divergence() -> None:
    found = run(linear(math.inf), 0.1)
    assert found.diverged
    assert found.step is None
    assert found.losses == []


def test_the_network_is_left_as_it_is_and_the_outcome_follows_from_the_seed() -> None:
    net = linear(0.5)
    before = net.weight.clone() if isinstance(net.weight, Tensor) else None
    net.eval()
    first, again = run(net, 0.1), run(net, 0.1)
    assert first == again
    assert not net.training
    assert before is not None
    assert torch.equal(before, net.get_parameter("weight"))
