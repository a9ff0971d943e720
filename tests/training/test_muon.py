"""Muon: the orthogonal update is that of the singular vectors, and everything else is SGD."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build
from resnetlab.training.muon import orthogonal
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import make_run
from resnetlab.training.step import Stepper

MUON = Recipe(optimiser="muon", lr=0.1, muon_lr=0.02, nesterov=True, momentum=0.9, weight_decay=0.01)


@pytest.mark.parametrize("shape", [(16, 144), (64, 36), (32, 32)])
def test_singular_values_become_about_one_and_the_vectors_stay(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    in_their_basis = u.mT @ orthogonal(matrices) @ v.mT
    values = in_their_basis.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(in_their_basis, values.diag_embed())
    large = s > 0.01 * s.square().sum(-1, keepdim=True).sqrt()
    assert large.float().mean() > 0.9
    assert 0.68 < values[large].min() <= values[large].max() < 1.21


def test_a_zero_gradient_turns_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 4, 9)), torch.zeros(2, 4, 9))


def steps(recipe: Recipe, count: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The weights before and after the last of some steps, and the direction in which momentum then pointed."""
    draws = torch.Generator().manual_seed(1)
    net = build("cifar_resnet8", seed=0)
    step = Stepper(net, make_optimiser(net, recipe), recipe, "cpu")
    before, velocity = {}, {}
    for _ in range(count):
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        batch = Batch(torch.randn(8, 3, 32, 32, generator=draws), torch.randint(0, 10, (8,), generator=draws), None)
        step(batch, recipe.lr)
        velocity = {name: step.optimiser.state[p]["momentum_buffer"].clone() for name, p in net.named_parameters()}
    return before, dict(net.named_parameters()), velocity


@pytest.mark.parametrize("nesterov", [False, True])
def test_convolutions_but_the_first_turn_by_their_own_rate(nesterov: bool) -> None:
    """Along v, or with Nesterov along g + μv, where v = μ·v of the step before + g."""
    recipe = MUON.override(nesterov=nesterov)
    (_, _, earlier), (before, after, velocity) = steps(recipe, 2), steps(recipe, 3)
    convolutions = [name for name, p in before.items() if p.ndim == 4]
    for name in convolutions[1:]:
        out, v = len(before[name]), velocity[name]
        w = before[name] * math.sqrt(out) / before[name].norm()
        direction = (v - 0.9 * earlier[name]) + 0.9 * v if nesterov else v
        turn = orthogonal(direction.reshape(1, out, -1)).reshape(w.shape)
        torch.testing.assert_close(after[name].detach(), w - 0.02 * turn, rtol=1e-5, atol=1e-5)


def test_a_tall_matrix_turns_as_far_as_a_wide_one() -> None:
    recipe = MUON.override(net="cifar_resnet11")  # bottlenecks, whose 1x1 convolutions widen four times
    net = build("cifar_resnet11", seed=0)
    optimiser = make_optimiser(net, recipe)
    far = []
    for name, p in net.named_parameters():
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)))
    lengths = {name: p.detach() * math.sqrt(len(p)) / p.detach().norm() for name, p in net.named_parameters()}
    optimiser.step()
    for name, p in net.named_parameters():
        if p.ndim == 4 and name != "conv1.weight":
            far.append(float((p.detach() - lengths[name]).norm() / math.sqrt(len(p))))
    # In the first step lr_factor has not been multiplied in: the group's rate is lr.
    assert 0.7 * recipe.lr < min(far) <= max(far) < 1.1 * recipe.lr


def test_the_rest_is_left_to_sgd() -> None:
    _, after, _ = steps(MUON, 1)
    _, by_sgd, _ = steps(MUON.override(optimiser="sgd"), 1)
    rest = [name for name, p in after.items() if p.ndim != 4 or name == "conv1.weight"]
    assert len(rest) > 10
    assert all(torch.equal(after[name], by_sgd[name]) for name in rest)


def test_its_rate_falls_as_lr_does() -> None:
    net = build("cifar_resnet8", seed=0)
    factors = {g["orthogonal"]: g["lr_factor"] for g in make_optimiser(net, MUON).param_groups}
    assert factors == {False: 1.0, True: pytest.approx(MUON.muon_lr / MUON.lr)}
    decayed = make_optimiser(net, MUON.override(layer_decay=0.5)).param_groups
    turned = [g["lr_factor"] * MUON.lr / MUON.muon_lr for g in decayed if g["orthogonal"]]
    assert turned == pytest.approx([0.125, 0.25, 0.5]), "with layer_decay, from stage to stage"


@pytest.mark.parametrize(
    ("net", "changes", "message"),
    [
        ("cifar_resnet8(norm=none)", {}, "has no batch norm; use optimiser='sgd'"),
        ("cifar_resnet8", {"lr": 0}, "needs an lr above 0"),
    ],
)
def test_what_it_can_not_train_is_rejected(net: str, changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        make_run(MUON.override(net=net, **changes), tmp_path)


@pytest.mark.parametrize(
    "net",
    [
        "cifar_resnet8(shortcut=B)",
        "cifar_resnet11",
        "cifar_resnet8(order=relu_before_add)",
        "cifar_resnet8(order=bn_after_add)",
        "cifar_resnet8(se_reduction=4)",
        "cifar_resnet8(mix=ExclusiveGate(-1))",
        "cifar_resnet8(mix=ShortcutGate(-1))",
        "cifar_resnet8(stem=deep, stem_width=16)",
        "cifar_preresnet8(shortcut=B)",
    ],
)
def test_a_step_by_nearly_nothing_changes_nearly_nothing(net: str) -> None:
    """Only where a batch norm cancels the length of a filter may its length be fixed."""
    recipe = MUON.override(net=net, lr=1e-9, muon_lr=1e-9)
    made = build(net, seed=0)
    step = Stepper(made, make_optimiser(made, recipe), recipe, "cpu")
    draws = torch.Generator().manual_seed(1)
    batch = Batch(torch.randn(8, 3, 32, 32, generator=draws), torch.randint(0, 10, (8,), generator=draws), None)
    before = made.train()(batch.x).detach()
    step(batch, recipe.lr)
    assert any(group["orthogonal"] for group in step.optimiser.param_groups)
    torch.testing.assert_close(made.train()(batch.x).detach(), before, rtol=1e-3, atol=1e-3)
