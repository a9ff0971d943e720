"""Parts of a network: which stay as they are in training, and at what rate each learns."""

from __future__ import annotations

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.nets.zoo import build, spec
from resnetlab.training.averaging import reestimate
from resnetlab.training.parts import check_parts, freeze, lr_factors, parts, training_mode
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import make_optimiser


@pytest.mark.parametrize("net", ["cifar_resnet8", "cifar_preresnet20", "resnet18(stem=deep)"])
def test_parts_and_head_are_the_whole_network(net: str) -> None:
    made = build(net)
    found = parts(made)
    assert len(found) == 1 + len(made.spec.stages)  # type: ignore[union-attr]
    inside = [p for part in found for p in part.parameters()]
    head = [p for name, p in made.named_parameters() if name.startswith(("fc", "last_bn"))]
    assert len(inside) == len(set(inside))
    assert set(inside).isdisjoint(head)
    assert set(inside) | set(head) == set(made.parameters())


def test_rates_fall_from_the_head_to_the_stem() -> None:
    """Howard & Ruder 2018, section 3.2, with a factor of 0.5 from part to part."""
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


def test_a_frozen_part_has_no_gradient_and_stays_in_evaluation_mode() -> None:
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
def test_parts_that_a_network_lacks_are_refused(net: str, fields: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_parts(Recipe(start="somewhere", **fields), spec(net))  # type: ignore[arg-type]
    check_parts(Recipe(), spec(net))
