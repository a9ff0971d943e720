"""Weight gradients of 3x3 convolutions by our own code: those of the layer, whatever the shape and the threads."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.nets.fusing import fuse
from resnetlab.nets.kernels import library
from resnetlab.nets.net import ResNet
from resnetlab.nets.weight_gradient import gradient_of_weight, is_served, own_weight_gradients
from resnetlab.nets.zoo import build
from resnetlab.training.precision import on_threads

try:
    library()
except UserError as reason:
    pytest.skip(f"the code can't be compiled here: {reason}", allow_module_level=True)

SHAPES = [  # images, channels in and out, height, width
    (2, 16, 16, 5, 7),
    (3, 9, 32, 4, 4),
    (1, 8, 16, 1, 1),
    (5, 64, 64, 8, 8),
    (2, 10, 48, 3, 1),
    (2, 12, 16, 1, 6),
    (33, 13, 16, 2, 2),
    (2, 128, 128, 3, 3),
    (1, 8, 16, 40, 300),  # a row of which is too long for the first cache
]


def draws(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(x: Tensor, dy: Tensor) -> Tensor:
    weight = torch.zeros(dy.shape[1], x.shape[1], 3, 3, dtype=torch.float64, requires_grad=True)
    torch.conv2d(x, weight, padding=1).backward(dy)
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_gradient_is_the_layers(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    n, c, k, h, w = shape
    x, dy = draws(n, c, h, w, seed=1), draws(n, k, h, w, seed=2)
    found = gradient_of_weight(x.float().contiguous(memory_format=layout), dy.float().contiguous(memory_format=layout))
    torch.testing.assert_close(found.double(), exact(x, dy), rtol=1e-5, atol=2e-6 * (n * h * w) ** 0.5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_no_bit_depends_on_the_threads() -> None:
    x, dy = draws(37, 16, 9, 9, seed=1).float(), draws(37, 32, 9, 9, seed=2).float()
    found = []
    for threads in (1, 2, 3, 5):
        with on_threads(threads):
            found.append(gradient_of_weight(x, dy))
    assert all(torch.equal(found[0], other) for other in found)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_a_network_has_the_same_scores_and_gradients(layout: torch.memory_format) -> None:
    plain = build("cifar_resnet8", seed=0).train()
    assert isinstance(plain, ResNet)
    plain.to(memory_format=layout)  # type: ignore[call-overload]
    own = copy.deepcopy(plain)
    fuse(own)
    own_weight_gradients(own)
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
    own_weight_gradients(conv)
    x = draws(2, 16, 4, 4, seed=4)
    assert "_Convolution" in type(conv(x.float()).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert "_Convolution" not in type(conv(x.float()).grad_fn).__name__
    assert "_Convolution" not in type(conv.eval()(x.float()).grad_fn).__name__
    assert conv.train().double()(x).dtype == torch.float64
    for other in (
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, bias=False, padding_mode="reflect"),
        nn.Conv2d(16, 24, 3, padding=1, bias=False),
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        nn.Conv2d(16, 16, 1, bias=False),
    ):
        assert not is_served(other), other
