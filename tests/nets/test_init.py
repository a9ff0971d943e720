"""Initialisation: seeds, the spread of every scheme, and the values that a spec asks for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from resnetlab.nets import zoo
from resnetlab.nets.branches import BranchScalar
from resnetlab.nets.init import initialise
from resnetlab.nets.mixing import Gate
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG, VGGSpec

GATED = "cifar_resnet20(mix=ExclusiveGate(-3), se_reduction=4, branch_scalar=0.5)"


def empty(spec: zoo.Spec) -> ResNet | VGG:
    """A network whose every value is wrong until it is set."""
    net = zoo.on_meta(spec)
    if isinstance(net, VGG):
        net.classifier = nn.Sequential(nn.Linear(512 * 7 * 7, 8, device="meta"))  # 4096 wide takes seconds
    net.to_empty(device="cpu")
    with torch.no_grad():
        for value in net.state_dict().values():
            value.fill_(math.nan if value.is_floating_point() else 7)
    return net


def bits(net: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_preresnet164", "cifar_wrn16_4", GATED])
def test_a_seed_gives_the_same_bits(name: str) -> None:
    torch.manual_seed(1)
    first = zoo.build(name, seed=5)
    torch.manual_seed(2)
    assert bits(zoo.build(name, seed=5)) == bits(first)
    assert bits(zoo.build(name, seed=6)) != bits(first)


def test_a_seed_leaves_torch_alone() -> None:
    before = torch.get_rng_state()
    zoo.build("cifar_resnet20", seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_seed_torch_governs() -> None:
    torch.manual_seed(1)
    first, second = zoo.build("cifar_resnet20"), zoo.build("cifar_resnet20")
    torch.manual_seed(1)
    assert bits(zoo.build("cifar_resnet20")) == bits(first)
    assert bits(second) != bits(first)


def test_modules_own_initialisation_draws_nothing() -> None:
    """`build` is the spec's initialisation alone, whatever torch's layers draw when they are made."""
    torch.manual_seed(1)
    made = zoo.build("cifar_resnet20")
    filled = empty(zoo.spec("cifar_resnet20"))
    torch.manual_seed(1)
    initialise(filled)
    assert bits(filled) == bits(made)


@pytest.mark.parametrize(
    "spec",
    [
        zoo.spec("cifar_resnet20"),
        zoo.spec("cifar_plain20(norm=none)"),
        zoo.spec("cifar_preresnet20(shortcut=C)"),
        zoo.spec("cifar_resnet20(zero_gamma=True, stem=deep)"),
        zoo.spec("cifar_resnet20(branch=bottleneck, groups=2, init=xavier)"),
        zoo.spec("cifar_resnet20(mix=DropoutShortcut(0.5), init=gaussian)"),
        zoo.spec(GATED),
        VGGSpec((1, 1, 1, 1, 1), batch_norm=True),
    ],
    ids=lambda spec: spec.name or "vgg",
)
def test_everything_is_set(spec: zoo.Spec) -> None:
    net = empty(spec)
    initialise(net, seed=0)
    for name, value in net.state_dict().items():
        assert value.isfinite().all(), name
        if name.endswith("num_batches_tracked"):
            assert value == 0
        elif name.endswith("running_var"):
            assert (value == 1).all(), name
        elif name.endswith("running_mean") or (name.endswith("bias") and "mix.part" not in name):
            assert (value == 0).all(), name
    gammas = [m.weight for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    zeros = sum(int((g == 0).all()) for g in gammas)
    assert all(((g == 0) | (g == 1)).all() for g in gammas)
    assert zeros == (9 if getattr(spec, "zero_gamma", False) else 0), "zero γ once per unit, only where asked for"


@pytest.mark.parametrize(("branch", "last"), [("single", "bn1"), ("basic", "bn2"), ("bottleneck", "bn3")])
def test_zero_gamma_is_the_last_batch_norm(branch: str, last: str) -> None:
    """Any of F's batch norms at γ = 0 would make F = 0, but only the last one lets a gradient through to its γ."""
    net = zoo.build(f"cifar_resnet20(branch={branch}, zero_gamma=True)", seed=0)
    zero = [name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d) and (m.weight == 0).all()]
    assert zero == [f"{name}.{last}" for name, _ in net.units()]


def spread(init: str, c_in: int, c_out: int, k2: int) -> float:
    """The standard deviation of a convolution's weights, from the formula of each scheme's paper."""
    return {
        "he_fan_out": math.sqrt(2 / (k2 * c_out)),
        "he_fan_in": math.sqrt(2 / (k2 * c_in)),
        "xavier": math.sqrt(2 / (k2 * (c_in + c_out))),
        "gaussian": 0.01,
    }[init]


def assert_spread(weight: torch.Tensor, std: float, *, uniform: bool) -> None:
    """Mean and deviation within five standard errors; a uniform draw within ±std·√3 and reaching it."""
    n = weight.numel()
    assert weight.mean().item() == pytest.approx(0, abs=5 * std / math.sqrt(n))
    assert weight.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * n))
    largest = weight.abs().max().item() / (std * math.sqrt(3))
    assert 0.99 < largest <= 1.000001 if uniform else largest > 1.2


@pytest.mark.parametrize("init", ["he_fan_out", "he_fan_in", "xavier", "gaussian"])
def test_spread(init: str) -> None:
    net = zoo.build("cifar_wrn16_4", init=init, num_classes=1000, seed=0)
    seen = set()
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 8_000:
            c_out, c_in, k, _ = module.weight.shape
            assert_spread(module.weight, spread(init, c_in, c_out, k * k), uniform=init == "xavier")
            seen.add((name.split(".")[-1], k, c_in == c_out))
    assert {("conv1", 3, False), ("conv2", 3, True), ("0", 1, False)} <= seen, "fan in and fan out differ somewhere"

    c_in, c_out = 256, 1000  # the classifier: under He U(±1/√fan_in), since no ReLU follows it
    std = 1 / math.sqrt(3 * c_in) if init.startswith("he") else spread(init, c_in, c_out, 1)
    assert_spread(net.fc.weight, std, uniform=init != "gaussian")


def test_of_vggs_fc_layers_the_last_alone_is_the_classifier() -> None:
    """A ReLU follows the others, so that they start as convolutions do."""
    net = zoo.on_meta(VGGSpec((1, 1, 1, 1, 1)))
    net.classifier = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 100))  # 4096 wide takes seconds
    initialise(net.to_empty(device="cpu"), seed=0)
    assert_spread(net.classifier[0].weight, math.sqrt(2 / 200), uniform=False)
    assert_spread(net.classifier[2].weight, 1 / math.sqrt(3 * 200), uniform=True)


@pytest.mark.parametrize("bias", [0.0, -6.0])
@pytest.mark.parametrize("mix", ["ExclusiveGate", "ShortcutGate"])
def test_gate_biases(mix: str, bias: float) -> None:
    net = zoo.build(f"cifar_resnet20(mix={mix}({bias}))", seed=0)
    gates = [m for m in net.modules() if isinstance(m, Gate)]
    assert len(gates) == 9
    assert all((gate.conv.bias == bias).all() for gate in gates)


@pytest.mark.parametrize("start", [0, 0.5, 1])
def test_branch_scalars(start: float) -> None:
    net = zoo.build("cifar_resnet20", branch_scalar=start, seed=0)
    assert [m.alpha.item() for m in net.modules() if isinstance(m, BranchScalar)] == [start] * 9


def test_the_deepest_net_builds() -> None:
    net = zoo.build("cifar_resnet1202", seed=0)
    assert all(p.isfinite().all() for p in net.parameters())
    assert len(list(net.units())) == 600
