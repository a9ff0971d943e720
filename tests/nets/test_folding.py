"""Folding batch norm: the scores stay what they are, and what follows a sum stays where it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnetlab import build
from resnetlab.nets.folding import folded
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG


def trained(name: str) -> ResNet | VGG:
    """A network whose batch norms are far from the identity, in float64."""
    net = build(name, num_classes=5).double().eval()
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(generator=generator)
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return net


def batch_norms(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]


# The network, and how many batch norms stay: those that follow a sum.
NETWORKS = [
    ("cifar_resnet8", 0),
    ("cifar_resnet8(shortcut=C)", 0),
    ("cifar_plain8", 0),
    ("cifar_resnet8(order=bn_after_add)", 3),
    ("cifar_resnet8(order=relu_before_add)", 0),
    ("cifar_resnet8(order=relu_preact)", 0),
    ("cifar_preresnet8", 3),  # the first of units 2 and 3, and the last of the network; the stem's is folded
    ("cifar_preresnet11(branch=bottleneck)", 3),
    ("cifar_resnet11(branch=bottleneck, shortcut=B)", 0),
    ("cifar_resnet8(norm=none)", 0),
    ("cifar_resnet8(se_reduction=4)", 0),
    ("cifar_resnet8(mix=ExclusiveGate(-1))", 0),
    ("resnet18(stem=deep)", 0),
    ("resnext50_32x4d", 0),
    pytest.param("vgg16_bn(input_size=64)", 0, marks=pytest.mark.slow),  # a fourth of the weights
]


@pytest.mark.parametrize(("name", "left"), NETWORKS)
def test_the_scores_are_the_same(name: str, left: int) -> None:
    net = trained(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    made = folded(net)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, got = net(x), made(x)
    assert wanted.std() > 0
    assert (wanted - got).abs().max() <= 1e-12 * wanted.abs().max()
    assert len(batch_norms(made)) == left
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_names_units_and_stages_stay() -> None:
    net = trained("cifar_preresnet8")
    made = folded(net)
    assert isinstance(net, ResNet)
    assert isinstance(made, ResNet)
    assert [name for name, _ in made.named_modules()] == [name for name, _ in net.named_modules()]
    assert batch_norms(made) == ["layer2.0.bn1", "layer3.0.bn1", "last_bn"]
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with torch.inference_mode():
        for ours, theirs in zip(net.features(x), made.features(x), strict=True):
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 * float(ours.abs().max()))


def test_a_network_in_training_is_folded_as_it_is_evaluated() -> None:
    net = trained("cifar_resnet8").train()
    made = folded(net)
    assert net.training
    assert not made.training
