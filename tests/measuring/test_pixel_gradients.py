"""Gradients with respect to pixels: against differences, and without a trace on the network."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as tf

from resnetlab.measuring.pixel_gradients import pixel_gradients
from resnetlab.nets.zoo import build

LABELS = torch.tensor([0, 1, 2, 3])


def images() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["cifar_plain8", "cifar_resnet8"])
def test_it_is_the_slope_of_the_loss_in_training_mode(name: str) -> None:
    net, x = build(name, seed=0).double(), images().double()
    found = pixel_gradients(net, x, LABELS)
    net.train()
    step = torch.zeros_like(x)
    step[1, 2, 3, 4] = 1e-6
    with torch.no_grad():
        rise = tf.cross_entropy(net(x + step), LABELS) - tf.cross_entropy(net(x - step), LABELS)
    assert found.shape == x.shape
    assert found[1, 2, 3, 4].item() == pytest.approx(rise.item() / 2e-6, rel=1e-4)


def test_it_leaves_the_network_and_the_images_as_they_are() -> None:
    net, x = build("cifar_resnet8(mix=DropoutShortcut(0.5))", seed=0).eval(), images()
    before, random = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    pixel_gradients(net, x, LABELS)
    assert torch.equal(torch.get_rng_state(), random)
    assert not net.training
    assert x.grad is None
    assert not x.requires_grad
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
