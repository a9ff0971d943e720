"""Boosting: cosines as by hand, and read-outs through shortcuts alone."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as tf
from made_nets import made

from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.boosting import alignments, read_outs

X, LABELS = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 10


def test_the_last_units_cosines_by_hand() -> None:
    net = made("cifar_resnet20")
    before = net.layer3[1](net.layer3[0](net.layer2(net.layer1(net.stem(X))))).detach().requires_grad_()
    unit = net.layer3[2]
    scores = net.head(unit(before))
    (gradient,) = torch.autograd.grad(tf.cross_entropy(scores, LABELS, reduction="sum"), before)
    F = unit.F(before).detach().flatten(1)
    own = tf.cosine_similarity(F, -gradient.flatten(1)).mean()
    other = tf.cosine_similarity(F, -gradient.flatten(1).roll(1, 0)).mean()
    found = alignments(net, [(X, LABELS)])["layer3.2"]
    assert found.own == pytest.approx(float(own), abs=1e-5)
    assert found.other == pytest.approx(float(other), abs=1e-5)
    assert found.chance == 1 / math.sqrt(64 * 2 * 2)


def test_an_image_alone_in_its_batch_has_no_other_ones_gradient() -> None:
    net = made("cifar_resnet8(stages=((2, 16),))")
    alone = alignments(net, [(X[:1], LABELS[:1])])["layer1.0"]
    assert alone.own is not None
    assert alone.other is None
    pair, more = (
        alignments(net, batches)["layer1.0"]
        for batches in ([(X[:2], LABELS[:2])], [(X[:2], LABELS[:2]), (X[2:3], LABELS[2:3])])
    )
    assert more.other == pair.other
    assert more.own != pair.own


def test_only_units_that_keep_their_size_have_one() -> None:
    found = alignments(made("cifar_resnet20"), [(X, LABELS)])
    assert list(found) == ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]


def test_without_a_unit_that_keeps_its_size_there_is_none() -> None:
    assert alignments(made("cifar_resnet8(stages=((1, 32, 2), (1, 64, 2)))"), [(X, LABELS)]) == {}


@torch.no_grad()
def test_a_step_down_the_gradient_has_a_cosine_of_one() -> None:
    """Without its convolutions, F of the last unit is β, here the way that lowers the loss of class 3."""
    net = made("cifar_resnet8(stages=((1, 16), (1, 16), (2, 16)))")
    net.fc.weight.zero_()
    net.fc.bias.zero_()
    net.fc.weight[3] = 0.01  # small, so that no image is so well known that its gradient vanishes
    unit = net.layer3[1]
    unit.bn2.weight.zero_()
    unit.bn2.bias.fill_(5.0)  # all sums are positive, so that f lets every gradient through
    found = alignments(net, [(X, torch.full((12,), 3))])["layer3.1"]
    assert found.own == pytest.approx(1, abs=1e-5)
    assert alignments(net, [(X, torch.full((12,), 4))])["layer3.1"].own == pytest.approx(-1, abs=1e-5)


def test_branches_of_zeros_have_no_direction() -> None:
    found = alignments(made("cifar_resnet20(zero_gamma=True)"), [(X, LABELS)])
    assert {(a.own, a.other) for a in found.values()} == {(None, None)}


def test_the_last_read_out_is_the_networks_answer() -> None:
    net = made("cifar_resnet20")
    batches = [(X[:5], LABELS[:5]), (X[5:], LABELS[5:])]
    found, wanted = read_outs(net, batches), accuracy(net, batches)
    assert [r.unit for r in found] == ["stem", *(name for name, _ in net.units())]
    assert found[-1].error == pytest.approx(wanted.error)
    assert found[-1].loss == pytest.approx(wanted.loss, rel=1e-5)


def test_where_branches_are_zero_every_read_out_is_the_same() -> None:
    found = read_outs(made("cifar_resnet20(zero_gamma=True)"), [(X, LABELS)])
    assert {round(r.loss, 5) for r in found} == {round(found[0].loss, 5)}


def test_a_plain_net_can_not_be_read_out() -> None:
    with pytest.raises(ValueError, match="no shortcuts"):
        read_outs(made("cifar_plain8"), [(X, LABELS)])
