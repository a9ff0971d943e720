"""The solution by construction: the deeper net gives what the shallower one does."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from resnetlab.measuring.construction import deepened, deviation
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build


def images() -> Tensor:
    return torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(name: str) -> ResNet:
    """A net whose batch norms have seen images, with weights that are not as they were made."""
    net = build(name, seed=1)
    assert isinstance(net, ResNet)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator) * p.abs().mean()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # statistics of what it sees, all of it
        net.train()(images())
    return net.eval()


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_resnet11", "cifar_resnet8(shortcut=B)", "resnet18"])
def test_a_residual_net_is_the_same_to_the_last_bit(name: str) -> None:
    net = trained(name)
    units = [s.units + 3 for s in net.spec.stages]
    deeper = deepened(net, units)
    assert [s.units for s in deeper.spec.stages] == units
    found = deviation(net, deeper, images())
    assert found.exact
    assert not deeper.training, "the copy has the mode of the net"
    assert (found.largest, found.changed, found.images) == (0, 0, 64)
    assert found.scores > 0


def test_a_plain_net_gives_the_same_answers() -> None:
    net = trained("cifar_plain8")
    found = deviation(net, deepened(net, (4, 4, 4)), images())
    assert found.largest <= 1e-5 * found.scores
    assert found.changed == 0
    found = deviation(net, deepened(net, (4, 4, 4), images=images()), images())
    assert 0 < found.largest <= 1e-4 * found.scores
    assert found.changed == 0


def test_a_calibrated_plain_net_passes_x_on_in_training_too() -> None:
    """With batch norm by the batch: about, if it was calibrated, and not at all if it was not."""

    def apart(deeper: ResNet) -> float:
        shallow = copy.deepcopy(net).train()
        with torch.no_grad():
            return float((deeper.train()(images()) - shallow(images())).abs().max())

    net = trained("cifar_plain8")
    scores = deviation(net, net, images()).scores
    assert apart(deepened(net, (4, 4, 4), images=images())) < 0.05 * scores
    assert apart(deepened(net, (4, 4, 4))) > 0.1 * scores


def test_surplus_residual_units_can_learn() -> None:
    """F = 0 is no dead end: the last γ has a gradient."""
    net = trained("cifar_resnet8")
    deeper = deepened(net, (2, 1, 1)).train()
    deeper(images()).square().sum().backward()
    (_, surplus) = deeper.stages()[0]
    assert surplus.bn2.weight.grad.abs().max() > 0  # type: ignore[union-attr]


def test_a_deviation_has_no_sign_and_is_of_evaluation_mode() -> None:
    net, lower = trained("cifar_resnet8"), trained("cifar_resnet8")
    with torch.no_grad():
        lower.fc.bias -= 1
    found = deviation(net, lower, images())
    assert (found.largest, found.changed) == (pytest.approx(1, rel=1e-4), 0)
    assert deviation(net.train(), lower.train(), images()) == found


def test_images_calibrate_in_evaluation_mode() -> None:
    net = trained("cifar_plain8")
    wanted = deepened(net, (2, 2, 2), images=images()).state_dict()
    found = deepened(net.train(), (2, 2, 2), images=images()).state_dict()
    assert all(torch.equal(found[name], t) for name, t in wanted.items())


def test_the_given_net_is_left_as_it_was_and_shares_nothing() -> None:
    net = trained("cifar_plain8").train()
    state = copy.deepcopy(net.state_dict())
    deeper = deepened(net, (2, 2, 2), images=images())
    assert deeper.training
    with torch.no_grad():
        for p in deeper.parameters():
            p += 1
    deviation(net, deeper, images())
    assert net.training
    assert all(torch.equal(t, state[name]) for name, t in net.state_dict().items())


def test_what_is_random_follows_from_the_seed() -> None:
    net = trained("cifar_resnet8")
    one, same, other = (deepened(net, (2, 1, 1), seed=s).stages()[0][1].conv1.weight for s in (3, 3, 4))  # type: ignore[union-attr]
    assert torch.equal(one, same)  # type: ignore[arg-type]
    assert not torch.equal(one, other)  # type: ignore[arg-type]


def test_a_deeper_copy_has_the_precision_and_the_head_that_the_net_has_now() -> None:
    net = trained("cifar_resnet8").double()
    net.fc = nn.Linear(64, 3).double()
    found = deviation(net, deepened(net, (2, 2, 2)), images().double())
    assert found.exact
    assert found.images == 64


@pytest.mark.parametrize(
    ("name", "units", "why"),
    [
        ("cifar_resnet8(mix=Scale(0.5, 0.5))", (2, 2, 2), "needs mix Add or Plain"),
        ("cifar_preresnet8", (2, 2, 2), "order 'post'"),
        ("cifar_resnet8(norm=none)", (2, 2, 2), "batch norm"),
        ("cifar_resnet11(mix=Plain)", (2, 2, 2), "bottleneck squeezes"),
        ("cifar_resnet8(shortcut=C)", (2, 2, 2), "shortcut C each unit projects x"),
        ("cifar_plain8(se_reduction=4)", (2, 2, 2), "scale F"),
        ("cifar_plain8(branch_scalar=0.5)", (2, 2, 2), "scale F"),
        ("cifar_resnet14", (2, 1, 2), "at least"),
        ("cifar_resnet8", (2, 2), "one per stage"),
    ],
)
def test_what_can_not_be_built_is_refused(name: str, units: tuple[int, ...], why: str) -> None:
    net = build(name, seed=0)
    assert isinstance(net, ResNet)
    with pytest.raises(ValueError, match=why):
        deepened(net, units)
