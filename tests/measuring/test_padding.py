"""Option A's added channels: what is measured there follows from the unit's own equation."""

from __future__ import annotations

import pytest
import torch
from made_nets import made

from resnetlab.measuring.padding import padded_units


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "cifar_resnet20(zero_pad=around)", "cifar_preresnet20", "resnet18(shortcut=A)"]
)
def test_nothing_is_carried_where_zeros_are_padded(name: str) -> None:
    net = made(name)
    found = padded_units(net, torch.randn(4, 3, 32, 32))
    changing = [unit for unit, module in net.units() if module.in_channels != module.out_channels]
    assert [u.unit for u in found] == changing
    assert {u.largest_shortcut for u in found} == {0.0} == {u.largest_gap for u in found}
    assert all(u.shortcut_rms_kept > 0 < u.branch_rms_added for u in found)
    assert [u.added for u in found][0] == net.spec.stages[0].width


def test_a_unit_that_only_subsamples_pads_nothing() -> None:
    assert padded_units(made("cifar_resnet8(stages=[(1, 16), (1, 16, 2)])"), torch.randn(2, 3, 8, 8)) == []


def test_a_mix_that_scales_the_branch_is_told_apart() -> None:
    """There y = F/2, so that y − F is not zero: the measurement is of y, not of the padding alone."""
    found = padded_units(made("cifar_resnet20(mix=Scale(0.5, 0.5))"), torch.randn(4, 3, 16, 16))
    assert all(u.largest_shortcut == 0 < u.largest_gap for u in found)


@pytest.mark.parametrize("name", ["cifar_resnet20(shortcut=B)", "cifar_plain20"])
def test_a_net_that_pads_nothing_has_no_such_unit(name: str) -> None:
    assert padded_units(made(name), torch.randn(2, 3, 16, 16)) == []


def test_the_network_is_left_as_it_was() -> None:
    net = made("cifar_resnet20").train()
    net.layer1.eval()  # type: ignore[union-attr]
    modes = [m.training for m in net.modules()]
    before = {name: t.clone() for name, t in net.state_dict().items()}
    padded_units(net, torch.randn(2, 3, 16, 16))
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert not any(m._forward_pre_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())
