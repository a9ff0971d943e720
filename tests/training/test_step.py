"""A training step equals SGD written out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnetlab.data.loading import Batch
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import make_optimiser, training_step


@pytest.mark.parametrize("decay", ["all", "weights"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_three_steps_equal_the_formula(decay: str, nesterov: bool) -> None:
    torch.manual_seed(0)
    net = nn.Linear(5, 3).double()
    recipe = Recipe(lr=0.1, momentum=0.9, weight_decay=0.01, decay=decay, nesterov=nesterov)  # type: ignore[arg-type]
    optimiser = make_optimiser(net, recipe)
    w, b = net.weight.detach().clone(), net.bias.detach().clone()
    v, vb = torch.zeros_like(w), torch.zeros_like(b)
    for lr in (0.1, 0.1, 0.01):
        x, labels = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
        p = torch.softmax(x @ w.T + b, 1)
        wrong = int((p.argmax(1) != labels).sum())
        error = p - nn.functional.one_hot(labels, 3)
        g = error.T @ x / 7 + 0.01 * w
        gb = error.mean(0) + (0.01 * b if decay == "all" else 0)
        v, vb = 0.9 * v + g, 0.9 * vb + gb
        w = w - lr * (g + 0.9 * v if nesterov else v)
        b = b - lr * (gb + 0.9 * vb if nesterov else vb)
        result = training_step(net, optimiser, Batch(x, labels, None), lr)
        assert int(result.wrong) == wrong
        assert float(result.loss) == pytest.approx(float(-p[range(7), labels].log().sum()))
    torch.testing.assert_close(net.weight.detach(), w)
    torch.testing.assert_close(net.bias.detach(), b)


def test_decay_of_weights_leaves_batch_norm_and_biases() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = make_optimiser(net, Recipe(decay="weights")).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 1e-4), (3, 0.0)]
    groups = make_optimiser(net, Recipe(decay="all")).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(4, 1e-4)]
