"""Signals and gradients through depth: against hand-made ones, and He's recursion against what is measured."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as tf
from made_nets import made
from torch import Tensor

from resnetlab.measuring.signal import backward_growth, growth, predicted, signals
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG, VGGSpec
from resnetlab.nets.zoo import build

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8)


def by_hand(net: ResNet, x: Tensor) -> list[Tensor]:
    """Every unit's y, from its equation."""
    x, ys = net.run(net.stem_layers, x), []
    for _, unit in net.units():
        y = unit.h(x) + unit.F(x)
        ys.append(y)
        x = unit.f(y)
    net.fc(x.mean((2, 3)))
    return ys


def test_the_signals_are_those_of_every_units_sum() -> None:
    net = made("cifar_resnet20")
    found = signals(net, X, LABELS)
    ys = by_hand(net.double().train(), X.double())
    assert [s.name for s in found] == [name for name, _ in net.units()]
    assert [s.stage for s in found] == [1] * 3 + [2] * 3 + [3] * 3
    assert [s.mean_square for s in found] == pytest.approx([y.square().mean().item() for y in ys])
    assert [s.std for s in found] == pytest.approx([y.std(correction=0).item() for y in ys])


def test_the_gradient_is_that_of_the_mean_loss() -> None:
    found = signals(made("cifar_plain8"), X, LABELS)
    net = made("cifar_plain8").double().train()
    *before, last = [unit for _, unit in net.units()]
    x = net.run(net.stem_layers, X.double())
    for unit in before:
        x = unit(x)
    y = last.F(x).detach().requires_grad_()
    tf.cross_entropy(net.fc(last.f(y).mean((2, 3))), LABELS).backward()
    assert y.grad is not None
    assert found[-1].gradient == pytest.approx(y.grad.norm().item())


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_resnet8(mix=DropoutShortcut(0.5))"])
def test_measuring_leaves_the_network_as_it_is(name: str) -> None:
    net = made(name)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    signals(net, X, LABELS)
    assert not net.training
    assert all(p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.slow  # their fully connected layers are 1 GB in double precision
@pytest.mark.parametrize("batch_norm", [False, True])
def test_vgg_nets_are_measured_layer_by_layer(batch_norm: bool) -> None:
    net = VGG(VGGSpec((1, 1, 2, 1, 1), batch_norm=batch_norm, num_classes=10))
    found = signals(net, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert [s.stage for s in found] == [1, 2, 3, 3, 4, 5]
    if batch_norm:
        assert [s.std for s in found] == pytest.approx([1] * 6, abs=0.01)


def test_what_single_precision_rounds_to_zero_is_still_seen() -> None:
    net = made("cifar_plain56(init=gaussian, norm=none)")
    found = signals(net, X, LABELS)
    assert 0 < found[-1].mean_square < 1e-90
    assert 0 < found[0].gradient < 1e-40


def test_growth_is_the_geometric_mean_within_stages() -> None:
    values, stages = [1.0, 4.0, 16.0, 1.0, 4.0], [1, 1, 1, 2, 2]
    assert growth(values, stages, 2) == pytest.approx(2)
    assert backward_growth(values, stages, 2) == pytest.approx(0.5)
    assert growth([1.0, 2.0], [1, 2], 2) is None, "no stage has two units"
    assert growth([1.0, 0.0], [1, 1], 2) is None
    assert growth([1.0, math.inf], [1, 1], 2) is None


@pytest.mark.parametrize("init", ["gaussian", "xavier", "he_fan_out"])
def test_hes_recursion_meets_what_is_measured(init: str) -> None:
    """On maps down to 2x2 pixels, where the paper's own n_l would be off by 9/4 a layer; wide, since a narrow net
    strays from the expectation.
    """
    name = f"cifar_plain8(init={init}, norm=none, stages=((1, 128, 1), (1, 128, 2), (2, 256, 2)), stem_width=256)"
    squares, gradients = [], []
    for seed in range(4):
        net = build(name, seed=seed)
        assert isinstance(net, ResNet)
        found, theory = signals(net, X, LABELS), predicted(net, X)
        assert theory.gradient[-1] == 1
        squares.append(found[-1].mean_square / theory.mean_square[-1])
        gradients.append(found[0].gradient / found[-1].gradient / theory.gradient[0])
    assert math.log(sum(squares) / 4) == pytest.approx(0, abs=0.4)
    assert math.log(sum(gradients) / 4) == pytest.approx(0, abs=0.2)


def test_the_recursion_counts_the_channels_of_one_group() -> None:
    name = (
        "cifar_plain20(branch=bottleneck, norm=none, groups=8, init=he_fan_in, stages=((2, 128, 1),), stem_width=256)"
    )
    net = made(name)
    found, theory = signals(net, X, LABELS), predicted(net, X)
    assert math.log(found[-1].mean_square / theory.mean_square[-1]) == pytest.approx(0, abs=0.5)
    assert math.log(found[0].gradient / found[-1].gradient / theory.gradient[0]) == pytest.approx(0, abs=0.4)


def test_the_recursion_on_a_map_without_borders_is_hes_own() -> None:
    """A large map: Var[y] of he_fan_in is kept, and of xavier halved with every layer."""
    x = torch.ones(1, 3, 256, 256)
    for init, kept in (("he_fan_in", 1.0), ("xavier", 0.5)):
        net = made(f"cifar_plain8(init={init}, norm=none, stages=((4, 32, 1),), stem_width=32)")
        found = growth(predicted(net, x).mean_square, [1] * 4, 2)
        assert found == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize(
    "name",
    ["cifar_resnet20(norm=none)", "cifar_plain20"]
    + [f"cifar_plain20(norm=none, {other})" for other in ("order=relu_before_add", "stem=deep")],
)
def test_the_recursion_is_for_plain_nets_without_batch_norm(name: str) -> None:
    with pytest.raises(ValueError, match="plain nets without batch norm"):
        predicted(made(name), X)


@pytest.mark.parametrize("other", ["se_reduction=4", "branch_scalar=0.5"])
def test_the_recursion_is_for_branches_of_convolutions_alone(other: str) -> None:
    with pytest.raises(ValueError, match="convolutions alone"):
        predicted(made(f"cifar_plain20(norm=none, {other})"), X)
