"""Layer groups of a network: which are frozen in training, and at what rate each learns."""

from __future__ import annotations

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.nets.zoo import build, spec
from resnetlab.training.averaging import reestimate
from resnetlab.training.layer_groups import check_layer_groups, freeze, layer_groups, lr_factors, training_mode
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe


@pytest.mark.parametrize("net", ["cifar_resnet8", "cifar_preresnet20", "resnet18(stem=deep)"])
def test_layer_groups_and_head_are_the_whole_network(net: str) -> None:
    made = build(net)
    groups = layer_groups(made)
    assert len(groups) == 1 + len(made.spec.stages)  # type: ignore[union-attr]
    inside = [p for group in groups for p in group.parameters()]
    head = [p for name, p in made.named_parameters() if name.startswith(("fc", "last_bn"))]
    assert len(inside) == len(set(inside))
    assert set(inside).isdisjoint(head)
    assert set(inside) | set(head) == set(made.parameters())


def test_rates_fall_from_the_head_to_the_stem() -> None:
    """Howard & Ruder 2018, section 3.2, with a factor of 0.5 from group to group."""
    net = build("cifar_resnet8")
    wanted = {"conv1": 0.0625, "bn1": 0.0625, "layer1": 0.125, "layer2": 0.25, "layer3": 0.5, "fc": 1.0}
    factors = lr_factors(net, 0.5)
    assert {name: factors[p] for name, p in net.named_parameters()} == {
        name: wanted[name.partition(".")[0]] for name, _ in net.named_parameters()
    }
    groups = make_optimiser(net, Recipe(layer_decay=0.5, decay="weights")).param_groups
    assert [(g["lr_factor"], g["weight_decay"]) for g in groups] == [
        (factor, decay) for factor in (0.0625, 0.125, 0.25, 0.5, 1.0) for decay in (1e-4, 0.0)
    ]
    assert {g["lr_factor"] for g in make_optimiser(net, Recipe()).param_groups} == {1.0}


def test_a_frozen_group_has_no_gradient_and_stays_in_evaluation_mode() -> None:
    net = build("cifar_resnet8(mix=DropoutShortcut(0.3))")
    freeze(net, 2)
    training_mode(net, net, 2)
    for name, module in net.named_modules():
        if name:
            assert module.training != name.startswith(("conv1", "bn1", "relu", "layer1")), name
    for name, p in net.named_parameters():
        assert p.requires_grad != name.startswith(("conv1", "bn1", "layer1")), name
    held = [p for g in make_optimiser(net, Recipe()).param_groups for p in g["params"]]
    assert set(held) == {p for p in net.parameters() if p.requires_grad}


def test_statistics_that_are_averaged_anew_leave_out_frozen_ones() -> None:
    net = build("cifar_resnet8", seed=0)
    freeze(net, 2)
    before = {name: b.clone() for name, b in net.named_buffers()}
    reestimate(net, [torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) for _ in range(2)])
    for name, b in net.named_buffers():
        assert torch.equal(b, before[name]) == name.startswith(("bn1", "layer1")), name


@pytest.mark.parametrize(
    ("net", "fields", "message"),
    [
        ("cifar_resnet8", {"freeze": 5}, "freeze=5: cifar_resnet8 has a stem and 3 stages, so choose 0 to 4"),
        ("vgg16", {"freeze": 1}, "work on a residual network's stages, but vgg16 has none"),
        ("vgg16", {"layer_decay": 0.5}, "work on a residual network's stages, but vgg16 has none"),
    ],
)
def test_layer_groups_that_a_network_lacks_are_refused(net: str, fields: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_layer_groups(Recipe(start="somewhere", **fields), spec(net))  # type: ignore[arg-type]
    check_layer_groups(Recipe(), spec(net))


def test_all_groups_but_the_head_may_be_frozen() -> None:
    check_layer_groups(Recipe(start="somewhere", freeze=4), spec("cifar_resnet8"))
