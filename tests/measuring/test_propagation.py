"""Propagation: the product of scales where theory has it, autograd's own gradients, and the network left as it was."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as tf
from made_nets import made
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.measuring.propagation import Propagation, propagation, shortcut_scale
from resnetlab.nets.mixing import Add, Gate, Plain, Scale, ShortcutGate
from resnetlab.nets.net import ResNet


def batch(size: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 3, size, size, generator=generator), torch.arange(6)


def passed(name: str) -> Propagation:
    return propagation(made(name), *batch())


@pytest.mark.parametrize("order", ["full_preact", "relu_preact", "relu_before_add"])
@pytest.mark.parametrize("scale", [0.5, 0.9, 1, 1.1])
def test_where_f_is_the_identity_shortcuts_alone_pass_the_product_of_scales(order: str, scale: float) -> None:
    """He 2016, eq. 7 and 8, over units that change size (zero padding), too."""
    found = passed(f"cifar_resnet20(order={order!r}, mix=Scale({scale}, 1))")
    assert found.gradient_factor == pytest.approx([scale ** (9 - at) for at in range(10)], rel=1e-5)
    assert found.signal_factor == pytest.approx([scale**at for at in range(10)], rel=1e-5)


def test_the_branchs_scale_has_no_part_in_it() -> None:
    found = passed("cifar_preresnet8(mix=Scale(0.5, 0.25))")
    assert found.gradient_factor == pytest.approx([0.125, 0.25, 0.5, 1])


def test_a_relu_after_the_sum_takes_from_what_shortcuts_pass() -> None:
    found = passed("cifar_resnet20")
    assert found.gradient_factor[-1] == 1
    assert found.gradient_factor[0] is not None
    assert 0 < found.gradient_factor[0] < 0.95


NETS = [
    "cifar_resnet20",
    "cifar_plain20",
    "cifar_preresnet20(shortcut='B')",
    "cifar_resnet20(shortcut='C')",
    "cifar_resnet20(order='bn_after_add', mix=Scale(0.5, 1))",
    "cifar_resnet8(mix=ShortcutGate(-1))",
    "cifar_resnet8(mix=ExclusiveGate(-1))",
    "cifar_resnet8(mix=DropoutShortcut(0.5))",
    "cifar_preresnet11(branch='bottleneck', shortcut='B')",
    "cifar_resnet8(norm='none')",
]


def by_autograd(net: ResNet, shortcuts_only: bool) -> list[float]:
    """‖∂E/∂x_l‖ by hooks on an ordinary forward pass; with shortcuts only, every F is detached, and every gate."""
    net.eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    inputs: list[Tensor] = []  # of each unit, and the last one's output
    units = [unit for _, unit in net.units()]
    for unit in units:
        unit.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        if shortcuts_only:
            unit.F = lambda x, whole=unit.F: whole(x).detach()  # type: ignore[method-assign, misc]
            if isinstance(unit.mix.part, Gate):
                unit.mix.part.register_forward_hook(lambda _, given, g: g.detach())
    units[-1].register_forward_hook(lambda _, given, made: inputs.append(made))
    x, labels = batch()
    loss = tf.cross_entropy(net(x), labels)
    return [float(g.norm()) for g in torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("name", NETS)
def test_the_whole_gradient_is_autograds(name: str) -> None:
    assert passed(name).gradient == pytest.approx(by_autograd(made(name), shortcuts_only=False), rel=1e-3)


@pytest.mark.parametrize("name", [n for n in NETS if "plain" not in n])
def test_the_shortcuts_gradient_is_autograds_with_f_detached(name: str) -> None:
    found = passed(name)
    assert found.shortcut_gradient == pytest.approx(by_autograd(made(name), shortcuts_only=True), rel=1e-3)
    assert all(f is not None and f > 0 for f in (*found.gradient_factor, *found.signal_factor))


def test_a_gate_is_held_so_that_it_scales_what_passes() -> None:
    net = made("cifar_preresnet8(mix=ShortcutGate(-1))")
    for _, unit in net.units():
        nn.init.zeros_(unit.mix.part.conv.weight)  # type: ignore[union-attr, arg-type]
    carry = 1 - float(torch.sigmoid(torch.tensor(-1.0)))
    assert propagation(net, *batch()).gradient_factor == pytest.approx([carry**3, carry**2, carry, 1])


def test_a_plain_net_has_no_shortcuts() -> None:
    found = passed("cifar_plain8")
    assert found.gradient_factor == found.signal_factor == [None] * 4
    assert found.shortcut_gradient[:3] == [0, 0, 0]
    assert found.signal_share == [1, 0, 0, 0]
    assert found.gradient == pytest.approx(passed("cifar_resnet8(mix=Scale(0, 1))").gradient)


def test_the_share_is_that_of_x0_in_what_arrives() -> None:
    found = passed("cifar_preresnet8")
    assert found.signal_share[0] == 1
    assert all(share is not None and 0 < share < 1 for share in found.signal_share[1:])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training: bool) -> None:
    net = made("cifar_resnet8(mix=DropoutShortcut(0.5))").train(training)
    next(iter(net.parameters())).grad = torch.ones(16, 3, 3, 3)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    random = torch.get_rng_state()
    first = propagation(net, *batch())
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(m.training is training for m in net.modules())
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert [p.grad is None for p in net.parameters()].count(False) == 1
    assert torch.equal(random, torch.get_rng_state())
    with torch.no_grad():
        assert propagation(net.train(not training), *batch()) == first, "neither the mode nor no_grad has a say"


def test_it_is_left_as_it_was_after_an_error_too() -> None:
    net = made("cifar_resnet8").train()
    with pytest.raises(UserError, match="a label is 99"):
        propagation(net, batch()[0], torch.full((6,), 99))
    assert all(m.training for m in net.modules())
    assert all(m.track_running_stats for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_what_is_not_finite_is_none_and_fits_json() -> None:
    net = made("cifar_resnet8")
    nn.init.constant_(net.fc.weight, torch.inf)
    found = propagation(net, *batch())
    assert found.gradient == [None] * 4
    json.dumps(asdict(found), allow_nan=False)


def test_a_mix_says_its_scale_or_that_it_has_none() -> None:
    assert [shortcut_scale(mix) for mix in (Plain(), Add(), Scale(0.5, 2))] == [0, 1, 0.5]
    with pytest.raises(UserError, match="ShortcutGate"):
        shortcut_scale(ShortcutGate())
