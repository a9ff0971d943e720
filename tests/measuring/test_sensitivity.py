"""Sensitivity: changes of the stated size, and the identity that makes F react more than H."""

from __future__ import annotations

import pytest
import torch
from made_nets import made

from resnetlab.measuring.sensitivity import reactions

X = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_preresnet20", "cifar_resnet11(branch='bottleneck')"])
def test_after_a_change_of_weights_the_factor_is_arithmetic(name: str) -> None:
    net = made(name)
    with torch.no_grad():  # a small branch, as in trained nets
        for _, unit in net.units():
            getattr(unit, "conv3" if hasattr(unit, "conv3") else "conv2").weight.mul_(0.1)
    for unit in reactions(net, [X], 0.01, seed=0):
        assert unit.weights_F / unit.weights_H == pytest.approx(1 / unit.size, rel=1e-4)


def test_in_a_plain_net_h_is_f() -> None:
    for unit in reactions(made("cifar_plain20"), [X], 0.01, seed=0):
        assert unit.size == 1
        assert (unit.weights_F, unit.input_F) == (unit.weights_H, unit.input_H)


def test_a_net_of_shortcuts_passes_a_change_of_the_input_on() -> None:
    found = reactions(made("cifar_resnet20(zero_gamma=True)"), [X], 0.01, seed=0)
    for unit in found:
        assert (unit.size, unit.weights_F, unit.weights_H, unit.input_F) == (0, None, 0, None)
    same_size = [unit.input_H for unit in found if unit.unit not in ("layer2.0", "layer3.0")]
    assert same_size == pytest.approx([0.01] * 7, rel=1e-4)


def test_small_changes_have_proportional_reactions() -> None:
    net = made("cifar_resnet8(norm='none')")
    small, large = (reactions(net, [X], change, seed=0) for change in (1e-4, 2e-4))
    for one, two in zip(small, large, strict=True):
        assert two.weights_F == pytest.approx(2 * one.weights_F, rel=0.05)
        assert two.input_F == pytest.approx(2 * one.input_F, rel=0.05)


def test_the_seed_decides() -> None:
    net = made("cifar_resnet8")
    assert reactions(net, [X], 0.01, seed=0) != reactions(net, [X], 0.01, seed=1)
