"""Responses: those of Figure 7, after BN and before the nonlinearity or the sum."""

from __future__ import annotations

import math

import pytest
import torch
from made_nets import made

from resnetlab.measuring.responses import branch_shares, response_stds
from resnetlab.measuring.units import steps

X = 3 + torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_by_hand() -> None:
    net = made("cifar_resnet8")
    for i, norm in enumerate(m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.weight.fill_(0.5 + i)  # fresh ones pass on what they get
    unit = net.layer1[0]
    x = net.bn1(net.conv1(X))
    first = unit.bn1(unit.conv1(x.relu()))
    second = unit.bn2(unit.conv2(first.relu()))
    found = response_stds(net, [X])
    for name, values in (("conv1", x), ("layer1.0.conv1", first), ("layer1.0.conv2", second)):
        assert found[name] == pytest.approx(float(values.std(correction=0)), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("cifar_plain20", 19),
        ("cifar_resnet56", 55),
        ("cifar_preresnet20", 19),
        ("cifar_resnet29(branch='bottleneck', shortcut='B')", 1 + 9),
        ("cifar_resnet8(norm='none')", 7),
        ("cifar_resnet8(stem='deep')", 3 + 6),
        ("cifar_resnet8(stem='tiered', norm='none')", 3 + 6),
    ],
)
def test_every_3x3_layer_in_order(name: str, layers: int) -> None:
    net = made(name)
    found = response_stds(net, [X])
    convs = [n for n, m in net.named_modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
    assert list(found) == convs
    assert len(found) == layers


@torch.no_grad()
def test_each_layer_of_a_deep_stem() -> None:
    net = made("cifar_resnet8(stem='deep')")
    net.conv1[1].bias.fill_(0.5)
    net.conv1[1].weight.fill_(3.0)
    second = net.conv1[4](net.conv1[3](net.conv1[2](net.conv1[1](net.conv1[0](X)))))
    found = response_stds(net, [X])
    for name, values in (("conv1.3", second), ("conv1.6", net.bn1(net.conv1(X)))):
        assert found[name] == pytest.approx(float(values.std(correction=0)), rel=1e-5)


@torch.no_grad()
def test_of_a_preactivation_net_the_last_response_is_what_is_added() -> None:
    net = made("cifar_preresnet8")
    step = list(steps(net, net.stem(X)))[-1]
    assert response_stds(net, [X])["layer3.0.conv2"] == pytest.approx(float(step.F.std(correction=0)), rel=1e-5)


def test_batches_make_no_difference() -> None:
    net = made("cifar_resnet8")
    assert response_stds(net, X.split(3)) == pytest.approx(response_stds(net, [X]), rel=1e-6)
    assert branch_shares(net, X.split(3)) == pytest.approx(branch_shares(net, [X]), rel=1e-6)


def test_responses_that_are_not_finite_have_no_deviation_of_zero() -> None:
    x = torch.full((1, 3, 8, 8), math.nan)
    assert all(math.isnan(std) for std in response_stds(made("cifar_resnet8"), [x]).values())


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        response_stds(made("cifar_resnet8"), [])


@torch.no_grad()
def test_the_branch_beside_its_shortcut() -> None:
    net = made("cifar_resnet8")
    net.layer2[0].bn2.weight.mul_(0)  # F = 0
    net.layer3[0].bn2.weight.mul_(2)
    step = list(steps(net, net.stem(X)))[-1]
    found = branch_shares(net, [X])
    assert found["layer2.0"] == 0
    assert found["layer3.0"] == pytest.approx(float(step.F.norm() / step.h.norm()), rel=1e-5)


@torch.no_grad()
def test_a_shortcut_of_zeros_has_no_share() -> None:
    net = made("cifar_resnet8")
    net.bn1.weight.zero_()
    assert branch_shares(net, [X])["layer1.0"] is None
