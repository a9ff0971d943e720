"""First steps: a net that can learn starts, one that can't does not, and neither is changed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.measuring.starting import FirstSteps, first_steps


def two_classes() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def linear(scale: float) -> nn.Module:
    net = nn.Linear(4, 2)
    nn.init.constant_(net.weight, scale)
    nn.init.zeros_(net.bias)
    return net


def run(net: nn.Module, rate: float, steps: int = 60, seed: int = 0, window: int = 10) -> FirstSteps:
    return first_steps(net, *two_classes(), rate, batch=32, window=window, steps=steps, seed=seed)


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


def test_a_window_has_the_mean_of_its_losses() -> None:
    net = nn.Linear(4, 2)
    nn.init.constant_(net.bias, 0.0)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]))  # the wrong way round
    each, windows = (run(net, 1e-9, steps=20, window=window).losses for window in (1, 10))
    assert windows == pytest.approx([sum(each[:10]) / 10, sum(each[10:]) / 10])
    assert len(set(each)) > 10


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
    assert first != run(net, 0.1, seed=1)
    assert not net.training
    assert before is not None
    assert torch.equal(before, net.get_parameter("weight"))


def test_its_steps_are_those_of_sgd_with_momentum() -> None:
    """v := 0.9 v + g, w := w - lr v, on all 64 images in every step, in training mode."""
    x, labels = two_classes()
    found = first_steps(linear(0.5).eval(), x, labels, 0.01, batch=64, window=1, steps=4, seed=0)
    w, v, losses = torch.full((2, 4), 0.5), torch.zeros(2, 4), []
    b, vb = torch.zeros(2), torch.zeros(2)
    for _ in range(4):
        scores = x @ w.T + b
        losses.append(float(nn.functional.cross_entropy(scores, labels)))
        error = (scores.softmax(1) - nn.functional.one_hot(labels, 2)) / 64
        v, vb = 0.9 * v + error.T @ x, 0.9 * vb + error.sum(0)
        w, b = w - 0.01 * v, b - 0.01 * vb
    assert found.losses == pytest.approx(losses, rel=1e-5)


def test_it_trains_in_training_mode_whatever_the_networks_is() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    assert run(net.eval(), 0.01, steps=20) == run(net.train(), 0.01, steps=20)


def test_dropout_draws_anew_in_each_step_and_by_the_seed() -> None:
    """With a rate of 0 only what dropout leaves out can change the loss."""
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3))
    with torch.no_grad():
        net[2].bias.copy_(torch.tensor([-9.0, 0.0, 0.0]))  # so that the labels are unlikely, and it never starts
    x, labels = torch.ones(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)

    def losses(seed: int) -> list[float]:
        torch.rand(1)  # the caller's random state is of no account
        return first_steps(net, x, labels, 0.0, batch=4, window=1, steps=3, seed=seed).losses

    assert len(set(losses(0))) == 3
    assert losses(0) == losses(0) != losses(1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": torch.zeros(63)}, r"labels of shape \(63,\) and torch.float32 for 64 images"),
        ({"labels": torch.full((64,), -100)}, "a label is -100, and the network's 2 classes"),
        ({"x": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}, "images=0 must be 1 or more"),
        ({"window": 0}, "window=0 must be 1 or more"),
        ({"batch": 0}, "batch=0 must be 1 or more"),
    ],
)
def test_what_is_no_training_is_refused(changes: dict[str, Any], words: str) -> None:
    x, labels = two_classes()
    with pytest.raises(UserError, match=words):
        first_steps(
            linear(0), **{"x": x, "labels": labels, "batch": 32, "window": 1, "steps": 1, **changes}, rate=0.1, seed=0
        )
