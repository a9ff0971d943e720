"""Grad-CAM and occlusion: their equations, where the evidence is known; and that the network stays as it was."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from resnetlab import build
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.use import explain
from resnetlab.use.explain import default_unit, grad_cam, occlusion, units_of


def net() -> ResNet:
    torch.manual_seed(0)
    made = build("cifar_resnet8", num_classes=4)
    assert isinstance(made, ResNet)
    return made.eval()


def bright_corner() -> tuple[ResNet, Tensor]:
    """A net whose class 1 is the brightness after the stem, and an image that is bright in one corner alone."""
    made = net()
    with torch.no_grad():
        for name, p in made.named_parameters():
            p.zero_()
            if name == "conv1.weight":
                p[0, :, 1, 1] = 1.0
            if name.endswith("bn1.weight"):
                p.fill_(1.0)
        made.fc.weight[1] = 1.0
    x = torch.zeros(1, 3, 32, 32)
    x[:, :, 2:10, 20:28] = 1.0
    return made, x


@pytest.mark.parametrize("unit", ["layer1.0", "layer3.0", None])
def test_grad_cam_finds_the_only_evidence(unit: str | None) -> None:
    made, x = bright_corner()
    (heat,) = grad_cam(made, x, torch.tensor([1]), unit)
    assert heat.shape == (32, 32)
    assert heat.max() == 1
    row, column = divmod(int(heat.argmax()), 32)
    assert 2 <= row < 10
    assert 20 <= column < 28
    assert heat[16:, :16].max() == 0
    assert grad_cam(made, x, torch.tensor([0]), unit).max() == 0, "nothing speaks for class 0"


def test_grad_cam_is_the_papers_equation() -> None:
    made, x = net(), torch.randn(2, 3, 32, 32)
    unit, labels = units_of(made)["layer2.0"], torch.tensor([3, 0])
    maps: list[Tensor] = []
    hook = unit.register_forward_hook(lambda module, inputs, output: maps.append(output))
    score = made(x.requires_grad_())[torch.arange(2), labels].sum()
    hook.remove()
    (gradient,) = torch.autograd.grad(score, maps[0])
    for image in range(2):
        weights = [gradient[image, c].mean() for c in range(32)]
        heat = sum(w * maps[0][image, c] for c, w in enumerate(weights)).relu()
        wanted = torch.nn.functional.interpolate(heat[None, None], (32, 32), mode="bilinear")[0, 0]
        got = grad_cam(made, x.detach(), labels, "layer2.0")[image]
        torch.testing.assert_close(got, (wanted / wanted.max()).detach())


def test_occlusion_finds_the_only_evidence() -> None:
    made, x = bright_corner()
    (heat,) = occlusion(made, x, torch.tensor([1]), patch=8, stride=4)
    assert heat.max() == 1
    row, column = divmod(int(heat.argmax()), 32)
    assert 2 <= row < 10
    assert 20 <= column < 28
    assert heat[16:, :16].max() == 0


@pytest.mark.parametrize("at_once", [4, 64])
@torch.no_grad()
def test_occlusion_is_the_mean_fall_over_the_squares_that_hide_a_pixel(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each class; where a square hides what speaks against a class, its probability rises, which counts as 0."""
    monkeypatch.setattr(explain, "AT_ONCE", at_once)
    made, x, total, count = net(), torch.randn(1, 3, 32, 32), torch.zeros(4, 32, 32), torch.zeros(32, 32)
    whole = made(x).softmax(1)[0]
    for top, left in itertools.product((0, 12, 16), repeat=2):
        rows, columns = slice(top, top + 16), slice(left, left + 16)
        hidden = x.clone()
        hidden[:, :, rows, columns] = 0
        total[:, rows, columns] += (whole - made(hidden).softmax(1)[0])[:, None, None]
        count[rows, columns] += 1
    wanted = (total / count).relu()
    found = occlusion(made, x.repeat(4, 1, 1, 1), torch.arange(4), patch=16, stride=12)
    highest = wanted.amax((1, 2), keepdim=True).clamp(min=1e-30)  # of a class that only rises it is 0
    torch.testing.assert_close(found, wanted / highest, rtol=1e-3, atol=1e-3)


def test_the_short_side_of_an_image_decides_on_the_unit() -> None:
    made, x, target = net(), torch.randn(1, 3, 4, 32), torch.tensor([0])
    assert torch.equal(grad_cam(made, x, target), grad_cam(made, x, target, "layer2.0"))
    assert not torch.equal(grad_cam(made, x, target), grad_cam(made, x, target, "layer3.0"))


@pytest.mark.parametrize(("patch", "stride"), [(0, 1), (33, 1), (8, 0), (8, 9)])
def test_squares_that_do_not_fit_are_refused(patch: int, stride: int) -> None:
    with pytest.raises(ValueError, match="don't cover"):
        occlusion(net(), torch.zeros(1, 3, 32, 40), torch.tensor([0]), patch=patch, stride=stride)


@pytest.mark.parametrize("training", [True, False])
def test_the_network_stays_as_it_was(training: bool) -> None:
    made = net().train(training)
    for p in made.parameters():
        p.requires_grad_(False)
    before = {k: v.clone() for k, v in made.state_dict().items()}
    x = torch.randn(2, 3, 32, 32)
    grad_cam(made, x, torch.tensor([0, 1]))
    occlusion(made, x, torch.tensor([0, 1]), patch=16, stride=16)
    assert made.training == training
    assert all(torch.equal(before[k], v) for k, v in made.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in made.parameters())
    assert not any(m._forward_hooks for m in made.modules())


@pytest.mark.parametrize("name", ["resnet18", "cifar_preresnet20", "cifar_plain8", "vgg16"])
def test_every_kind_of_network_can_be_explained(name: str) -> None:
    made, x = build(name, num_classes=3).eval(), torch.randn(1, 3, 64, 64)
    assert grad_cam(made, x, torch.tensor([0])).shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("name", "side", "unit"),
    [
        ("resnet18", 224, "layer4.1"),
        ("resnet18", 33, "layer4.1"),
        ("resnet18", 32, "layer3.1"),  # layer4's map has one position, which can't say where
        ("cifar_resnet8", 8, "layer3.0"),
        ("cifar_resnet8", 1, "layer3.0"),
        ("vgg16", 64, "features.29"),
    ],
)
def test_by_default_the_last_unit_is_taken_that_can_say_where(name: str, side: int, unit: str) -> None:
    assert default_unit(build(name), side) == unit


def test_a_unit_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'layer1.5' is not one of this network's, layer1.0 to layer3.0"):
        grad_cam(net(), torch.zeros(1, 3, 32, 32), torch.tensor([0]), "layer1.5")
