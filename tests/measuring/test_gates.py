"""What gates carry: the theory's numbers where it holds, a product followed by hand, and a net left as it was."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from resnetlab.measuring.gates import carries, initial_carry
from resnetlab.nets.mixing import Gate
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build


def gated(name: str = "cifar_resnet14(mix=ExclusiveGate(bias=-2))") -> ResNet:
    net = build(name, seed=0)
    assert isinstance(net, ResNet)
    return net.eval()


def without_weights(net: ResNet) -> ResNet:
    for module in net.modules():
        if isinstance(module, Gate):
            nn.init.zeros_(module.conv.weight)
    return net


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_theory_has_the_papers_numbers() -> None:
    """Of ResNet-110's 54 units (He 2016, section 3.1)."""
    assert initial_carry(0) == 0.5
    assert [round(initial_carry(b), 4) for b in (-1, -3, -6)] == [0.7311, 0.9526, 0.9975]
    assert [round(initial_carry(b, 54), 3) for b in (-3, -5, -6, -7)] == [0.073, 0.696, 0.875, 0.952]
    assert initial_carry(0, 54) == 0.5**54
    assert initial_carry(3) == pytest.approx(1 / (1 + math.exp(3)), rel=1e-15)
    assert (initial_carry(800.0), initial_carry(800.0, 54), initial_carry(-800.0, 54)) == (0, 0, 1)


@pytest.mark.parametrize("mix", ["ExclusiveGate", "ShortcutGate"])
def test_gates_without_weights_are_the_theory(mix: str, x: Tensor) -> None:
    """Also where maps shrink and channels are padded: those that x does not reach don't count."""
    found = carries(without_weights(gated(f"cifar_resnet14(mix={mix}(bias=-2))")), x)
    assert [c.unit for c in found] == [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1)]
    for i, carry in enumerate(found):
        assert [carry.mean, carry.low, carry.high] == pytest.approx([initial_carry(-2)] * 3, rel=1e-5)
        assert carry.left == pytest.approx(initial_carry(-2, len(found) - i), rel=1e-5)


def test_what_is_left_is_the_product_along_the_shortcuts(x: Tensor) -> None:
    net = gated()
    units = [unit for _, unit in net.units()]
    kept = []
    y = net.run(net.stem_layers, x)
    with torch.no_grad():
        for unit in units:
            kept.append(1 - unit.mix.part(y))
            y = unit(y)
    found = carries(net, x)
    assert found[-1].left == pytest.approx(float(kept[5].mean()), rel=1e-5)
    assert found[4].left == pytest.approx(
        # the third stage's first unit takes 32 of its 64 channels from x, at every second position
        float((kept[4] * kept[5])[:, :32].mean()),
        rel=1e-5,
    )
    by_hand = (kept[2] * kept[3])[:, :, ::2, ::2] * (kept[4] * kept[5])[:, :32]
    assert found[2].left == pytest.approx(float(by_hand[:, :16].mean()), rel=1e-5)
    values = kept[0].flatten().sort().values
    assert found[0].low == pytest.approx(float(torch.quantile(values, 0.05)), abs=1e-3)
    assert found[0].high == pytest.approx(float(torch.quantile(values, 0.95)), abs=1e-3)


def test_a_fresh_net_needs_the_batchs_statistics(x: Tensor) -> None:
    net = gated()
    before = carries(net, x, by_batch=True)
    for module in net.modules():  # as after training: statistics of the images
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        net.train()(x)
    after = carries(net.eval(), x)
    assert [c.left for c in after] == pytest.approx([c.left for c in before], rel=0.02)
    assert carries(gated(), x)[0].left != pytest.approx(before[0].left, rel=0.02)


def test_the_network_is_left_as_it_was(x: Tensor) -> None:
    net = gated().train()
    state = copy.deepcopy(net.state_dict())
    carries(net, x, by_batch=True)
    assert net.training
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks for m in net.modules())
    assert all(p.grad is None for p in net.parameters())


def test_stochastic_depth_draws_nothing(x: Tensor) -> None:
    net, before = gated("cifar_resnet14(mix=ExclusiveGate(bias=-2), stochastic_depth=0.9)"), torch.get_rng_state()
    assert carries(net, x, by_batch=True) == carries(gated(), x, by_batch=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "why"),
    [("cifar_resnet8", "has no gates"), ("cifar_resnet8(mix=ExclusiveGate(bias=-6), shortcut=B)", "projections")],
)
def test_a_net_without_such_gates_is_refused(name: str, why: str, x: Tensor) -> None:
    with pytest.raises(ValueError, match=why):
        carries(gated(name), x)
