"""3x3 convolutions and their gradients by our own code: those of the layer, whatever the shape and the threads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.nets.convolution import (
    convolution,
    gradient_of_input,
    gradient_of_weight,
    is_served,
    own_convolutions,
)
from resnetlab.nets.fusing import fuse, fused_evaluation
from resnetlab.nets.kernels import library
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build
from resnetlab.training.precision import on_threads

try:
    library()
except UserError as reason:
    pytest.skip(f"the code can't be compiled here: {reason}", allow_module_level=True)

SHAPES = [  # images, channels in and out, height, width
    (2, 16, 16, 8, 8),
    (3, 16, 48, 5, 7),
    (1, 32, 16, 1, 1),
    (5, 64, 32, 9, 4),
    (2, 128, 128, 3, 3),
    (40, 64, 64, 7, 7),  # more tiles than are summed at once
    (3, 256, 272, 5, 6),
    (13, 16, 16, 4, 4),  # a block of tiles, and one more
    (2, 48, 16, 2, 33),
    (1, 16, 16, 40, 300),
]


def draws(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAYOUTS = [torch.channels_last, torch.contiguous_format]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_convolution_and_its_gradients_are_the_layers(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    """To 2e-5 of the largest value, 5e-5 of longer sums: with a fourth of the products, float32 loses a digit more."""
    n, c, k, h, w = shape
    most = 2e-5 if max(c, k) <= 128 else 5e-5
    x, weight, dy = draws(n, c, h, w, seed=1), draws(k, c, 3, 3, seed=2), draws(n, k, h, w, seed=3)
    y = torch.conv2d(x.requires_grad_(), weight.requires_grad_(), padding=1)
    wanted = (y, *torch.autograd.grad(y, (x, weight), dy))
    x, weight, dy = (t.detach().float().contiguous(memory_format=layout) for t in (x, weight, dy))
    found = (convolution(x, weight), gradient_of_input(dy, weight), gradient_of_weight(x, dy))
    for ours, exact in zip(found, wanted, strict=True):
        assert (ours - exact).abs().max() < most * exact.abs().max()
        assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("c", "k"), [(16, 32), (64, 80)])
def test_no_bit_depends_on_the_threads(c: int, k: int) -> None:
    x, dy = draws(37, c, 9, 9, seed=1).float(), draws(37, k, 9, 9, seed=2).float()
    weight = draws(k, c, 3, 3, seed=3).float()
    found = []
    for threads in (1, 2, 3, 5):
        with on_threads(threads):
            found.append((gradient_of_weight(x, dy), convolution(x, weight), gradient_of_input(dy, weight)))
    assert all(torch.equal(a, b) for other in found for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_network_has_the_same_scores_and_gradients(layout: torch.memory_format) -> None:
    plain = build("cifar_resnet8", seed=0).train()
    assert isinstance(plain, ResNet)
    plain.to(memory_format=layout)  # type: ignore[call-overload]
    own = copy.deepcopy(plain)
    fuse(own)
    own_convolutions(own)
    assert (
        sum(is_served(m) for m in own.modules() if isinstance(m, nn.Conv2d)) == 4
    )  # not the stem, nor those of stride 2
    x = draws(6, 3, 32, 32, seed=3).float().contiguous(memory_format=layout)
    scores = [net(x) for net in (plain, own)]
    torch.testing.assert_close(*scores)
    for answer in scores:
        answer.square().mean().backward()
    for (name, wanted), found in zip(plain.named_parameters(), own.parameters(), strict=True):
        assert wanted.grad is not None
        torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-3, atol=1e-5, msg=name)
    for net in (plain, own):
        net.zero_grad(set_to_none=True)
        net.layer1.requires_grad_(False)
        net(x).sum().backward()
    assert own.layer1.get_parameter("0.conv1.weight").grad is None
    torch.testing.assert_close(own.conv1.weight.grad, plain.conv1.weight.grad, rtol=1e-3, atol=1e-4)


def test_other_numbers_and_layers_are_left_to_torch() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    own_convolutions(conv)
    x = draws(32, 16, 4, 4, seed=4)
    assert "_Convolution" in type(conv(x.float()).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert "_Convolution" not in type(conv(x.float()).grad_fn).__name__
    assert "_Convolution" not in type(conv.eval()(x.float()).grad_fn).__name__
    with torch.no_grad(), fused_evaluation():
        assert not torch.equal(conv(x.float()), torch.conv2d(x.float(), conv.weight, padding=1))
    with torch.no_grad():
        assert torch.equal(conv(x.float()), torch.conv2d(x.float(), conv.weight, padding=1))
    assert conv.train().double()(x).dtype == torch.float64
    for other in (
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, bias=False, padding_mode="reflect"),
        nn.Conv2d(16, 24, 3, padding=1, bias=False),
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.Conv2d(24, 16, 3, padding=1, bias=False),
        nn.Conv2d(512, 528, 3, padding=1, bias=False),
        nn.Conv2d(16, 16, 1, bias=False),
    ):
        assert not is_served(other), other


@pytest.mark.parametrize(
    ("images", "side", "own"), [(32, 4, True), (31, 4, False), (32, 5, False), (32, 6, False), (32, 7, True)]
)
def test_maps_of_few_tiles_and_empty_ones_are_left_to_torch(images: int, side: int, own: bool) -> None:
    conv = nn.Conv2d(16, 32, 3, padding=1, bias=False)
    x = draws(images, 16, side, side, seed=5).float().requires_grad_()
    dy = draws(images, 32, side, side, seed=6).float()
    wanted = conv(x)
    (gradient,) = torch.autograd.grad(wanted, x, dy)
    own_convolutions(conv)
    found = conv(x)
    for a, b in ((found, wanted), (torch.autograd.grad(found, x, dy)[0], gradient)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
        assert torch.equal(a, b) is not own
