"""Batch norm, sum and ReLU in few passes: the same values and gradients as one layer after another."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.nets import fusing
from resnetlab.nets.kernels import library
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build

try:
    library()
except UserError as reason:
    pytest.skip(f"the fused layers can't be compiled here: {reason}", allow_module_level=True)

SHAPES = [(2, 16, 5, 5), (3, 1, 4, 4), (4, 3, 2, 7), (2, 37, 3, 3), (5, 64, 1, 1), (2, 72, 8, 8)]


def draws(shape: tuple[int, ...], seed: int, mean: float = 0.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + mean


def layers_one_by_one(norm: nn.BatchNorm2d, x: Tensor, h: Tensor | None, relu: bool) -> Tensor:
    y = norm(x) if h is None else norm(x) + h
    return y.relu() if relu else y


def asked(compute: object, norm: nn.BatchNorm2d, x: Tensor, h: Tensor | None, relu: bool) -> dict[str, Tensor]:
    """What it answers, its gradients, and the running statistics after it."""
    given = {"x": x.clone().requires_grad_()} | ({} if h is None else {"h": h.clone().requires_grad_()})
    y = compute(norm, given["x"], given.get("h"), relu)  # type: ignore[operator]
    y.backward(draws(tuple(x.shape), 9).to(y.dtype))
    grads = {f"d{name}": t.grad for name, t in {**given, **dict(norm.named_parameters())}.items()}
    return {"y": y.detach(), **grads, **dict(norm.named_buffers())}  # type: ignore[dict-item]


def a_norm(channels: int, dtype: torch.dtype) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).to(dtype)
    with torch.no_grad():
        norm.weight.copy_(draws((channels,), 1, 1.0))
        norm.bias.copy_(draws((channels,), 2))
    return norm


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(("adds", "relu"), [(False, False), (False, True), (True, True), (True, False)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_gradients_and_statistics_are_those_of_the_layers(
    shape: tuple[int, int, int, int], adds: bool, relu: bool, layout: torch.memory_format
) -> None:
    x, h = draws(shape, 3, mean=2.0), draws(shape, 4) if adds else None
    exact = asked(layers_one_by_one, a_norm(shape[1], torch.float64), x, h, relu)
    x32, h32 = (t if t is None else t.float().contiguous(memory_format=layout) for t in (x, h))
    assert x32 is not None
    found = asked(fusing.normalised, a_norm(shape[1], torch.float32), x32, h32, relu)
    assert found.keys() == exact.keys()
    for name, value in exact.items():
        torch.testing.assert_close(found[name].double(), value.double(), atol=2e-5, rtol=2e-5)


def test_a_mean_far_from_zero_costs_no_more_digits_than_the_layers_lose() -> None:
    x = draws((8, 16, 6, 6), 3, mean=300.0)
    exact = asked(layers_one_by_one, a_norm(16, torch.float64), x, None, True)
    plain = asked(layers_one_by_one, a_norm(16, torch.float32), x.float(), None, True)
    found = asked(fusing.normalised, a_norm(16, torch.float32), x.float(), None, True)
    for name in ("y", "dx", "running_var"):
        errors = [(which[name] - exact[name]).abs().max() for which in (found, plain)]
        assert errors[0] <= 2 * errors[1] + 1e-6, name


@pytest.mark.parametrize("place", [0, 4096 // 3, 2048, 4095])
def test_one_far_value_costs_no_more_digits_than_the_layers_lose(place: int) -> None:
    x = draws((2, 16, 64, 64), 3)
    x.flatten(2)[:, :, place] = 1000.0
    exact = asked(layers_one_by_one, a_norm(16, torch.float64), x, None, True)
    found = asked(fusing.normalised, a_norm(16, torch.float32), x.float(), None, True)
    torch.testing.assert_close(found["running_var"].double(), exact["running_var"], rtol=1e-5, atol=0)
    torch.testing.assert_close(found["y"].double(), exact["y"], rtol=1e-5, atol=1e-5)


def test_one_value_of_a_channel_is_refused_in_training() -> None:
    with pytest.raises(ValueError, match=r"more than one value of each channel in training, and got \(1, 8, 1, 1\)"):
        fusing.normalised(a_norm(8, torch.float32), torch.ones(1, 8, 1, 1), None, True)


@pytest.mark.parametrize("adds", [False, True])
def test_bf16_is_computed_in_float32_and_rounded_once(adds: bool) -> None:
    x, h = draws((4, 40, 5, 5), 3).bfloat16(), draws((4, 40, 5, 5), 4).bfloat16() if adds else None
    exact = asked(layers_one_by_one, a_norm(40, torch.float64), x.double(), h.double() if h is not None else None, True)
    found = asked(fusing.normalised, a_norm(40, torch.float32), x, h, True)
    assert found["y"].dtype == found["dx"].dtype == torch.bfloat16
    assert torch.equal(found["y"], found["y"].float().bfloat16())
    assert ((found["y"].double() - exact["y"]).abs() <= 2**-8 * exact["y"].abs() + 1e-6).all(), "half a unit, at most"
    torch.testing.assert_close(found["dx"].double(), exact["dx"], atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(found["dweight"].double(), exact["dweight"], atol=0.1, rtol=1e-2)


def test_what_is_not_finite_stays_so() -> None:
    for bad in (float("nan"), float("inf")):
        for dtype in (torch.float32, torch.bfloat16):
            x = draws((2, 8, 3, 3), 3).to(dtype)
            x[1, 5, 2, 2] = bad
            y = fusing.normalised(a_norm(8, torch.float32), x, None, True)
            assert bool(y[:, 5].isnan().all())
            assert bool(y[:, :5].isfinite().all())


def test_no_bit_depends_on_the_number_of_threads() -> None:
    x, h = (draws((7, 48, 9, 9), seed).float() for seed in (3, 4))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(asked(fusing.normalised, a_norm(48, torch.float32), x, h, True))
    finally:
        torch.set_num_threads(before)
    for name, value in found[0].items():
        assert all(torch.equal(value, other[name]) for other in found[1:]), name


NETS = [
    "cifar_resnet8",
    "cifar_plain8",
    "cifar_preresnet8",
    "cifar_resnet8(shortcut=B)",
    "cifar_resnet8(order=bn_after_add)",
    "cifar_resnet8(order=relu_before_add)",
    "cifar_resnet8(order=relu_preact)",
    "cifar_resnet8(mix=Scale(0.5, 0.5))",
    "cifar_resnet8(mix=ExclusiveGate(-2))",
    "cifar_resnet8(se_reduction=4)",
    "cifar_resnet11(branch=bottleneck)",
    "resnet50(input_size=64, stem=deep)",
]


def step_of(net: ResNet, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores and running statistics, and the gradients, after one forward and backward pass."""
    scores = net(x)
    tf.cross_entropy(scores, torch.arange(len(x)) % 10).backward()
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    return {"scores": scores.detach()} | dict(net.named_buffers()), gradients


def distance(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("name", NETS)
def test_a_fused_network_trains_as_the_plain_one_and_evaluates_to_the_same_bits(name: str) -> None:
    plain = build(name, seed=1).double().train()
    assert isinstance(plain, ResNet)
    fused = copy.deepcopy(plain).float()
    fusing.fuse(fused)
    fused = copy.deepcopy(fused)  # which is fused as well, and by itself
    assert plain.state_dict().keys() == fused.state_dict().keys()
    x = draws((6, 3, plain.spec.input_size, plain.spec.input_size), 5)
    layers = copy.deepcopy(plain).float()
    (exact, gradients), (found, found_gradients) = step_of(plain, x), step_of(fused, x.float())
    assert all(distance(found[tensor], value) < 1e-3 for tensor, value in exact.items())
    # A value next to 0 that rounding puts on the other side of a ReLU moves a gradient by a hundredth.
    assert all(distance(found_gradients[tensor], value) < 0.1 for tensor, value in gradients.items())
    evaluated = copy.deepcopy(layers).eval()
    evaluated.load_state_dict(fused.state_dict())
    assert torch.equal(evaluated(x.float()), fused.eval()(x.float()))


@pytest.mark.parametrize("name", NETS)
def test_fused_evaluation_gives_the_scores_of_the_layers_and_changes_nothing(name: str) -> None:
    net = build(name, seed=1)
    assert isinstance(net, ResNet)
    x = draws((6, 3, net.spec.input_size, net.spec.input_size), 5).float()
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
            for i, (t, mean) in enumerate(((norm.running_mean, 0), (norm.running_var, 3), (norm.bias, 0))):
                assert t is not None
                t.copy_(draws(tuple(t.shape), i, mean).abs() if mean else 0.3 * draws(tuple(t.shape), i))
    exact = copy.deepcopy(net).double().eval()(x.double()).detach()
    fusing.fuse(net.eval())
    state, given = copy.deepcopy(net.state_dict()), x.clone()
    with torch.no_grad(), fusing.fused_evaluation():
        scores = net(x)
    assert not torch.equal(scores, net(x)), "computed otherwise"
    assert distance(scores, exact) < 1e-5
    assert torch.equal(x, given)
    assert all(torch.equal(value, state[tensor]) for tensor, value in net.state_dict().items())
    with fusing.fused_evaluation():  # with gradients it is the layers
        assert torch.equal(net(x), net(x.clone().requires_grad_()))
        net(x).sum().backward()
    with torch.no_grad(), fusing.fused_evaluation(on=False):
        assert torch.equal(net(x), copy.deepcopy(net)(x))


def test_something_is_fused_in_every_network() -> None:
    for name in NETS:
        net = build(name, seed=1)
        assert isinstance(net, ResNet)
        fusing.fuse(net)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert all("forward" in vars(norm) for norm in norms), name


def test_frozen_batch_norm_and_its_relu_stay_as_they_are() -> None:
    net = build("cifar_resnet8", seed=1).train()
    assert isinstance(net, ResNet)
    plain = copy.deepcopy(net)
    fusing.fuse(net)
    x = draws((4, 3, 32, 32), 5).float()
    for which in (net, plain):
        which.bn1.eval()  # type: ignore[union-attr, operator]
        which.layer1.eval()  # type: ignore[union-attr, operator]
    first = [which.layer1(which.run(which.stem_layers, x)) for which in (net, plain)]  # type: ignore[operator]
    assert torch.equal(*first)
