"""Lesions: exact errors, and units of one size only."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from made_nets import made

from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.lesion import (
    error_of,
    errors_without_each,
    random_deletion,
    random_swaps,
    same_sized,
)

X, LABELS = torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 10
BATCHES = [(X[:30], LABELS[:30]), (X[30:], LABELS[30:])]


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_plain20"])
def test_untouched_it_is_the_network(name: str) -> None:
    net = made(name)
    assert error_of(net, BATCHES) == pytest.approx(accuracy(net, BATCHES).error)


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_preresnet20", "cifar_plain20"])
def test_one_by_one_is_each_alone(name: str) -> None:
    net = made(name)
    for i, error in enumerate(errors_without_each(net, BATCHES)):
        if error is None:
            assert net.spec.is_plain
            assert i in (3, 6), "where a plain net changes sizes"
        else:
            assert error == error_of(net, BATCHES, deleted=[i])


def test_a_unit_whose_branch_is_zero_is_not_missed() -> None:
    net = made("cifar_resnet20(zero_gamma=True)")
    assert errors_without_each(net, BATCHES) == [error_of(net, BATCHES)] * 9


@torch.no_grad()
def test_a_swap_changes_places_and_nothing_else() -> None:
    net = made("cifar_resnet20")
    net.layer1[1].bn2.weight.mul_(3)
    before = [error_of(net, BATCHES, [0, 2, 1, *range(3, 9)])]
    net.layer1[1], net.layer1[2] = net.layer1[2], net.layer1[1]
    assert before == [error_of(net, BATCHES)]


def test_units_that_keep_their_size() -> None:
    assert same_sized(made("cifar_plain20")) == [[0, 1, 2], [4, 5], [7, 8]]
    assert same_sized(made("cifar_resnet20(shortcut='B')")) == [[0, 1, 2], [4, 5], [7, 8]]


def test_random_lesions_are_drawn_among_them() -> None:
    net, draw = made("cifar_resnet20"), random.Random(0)
    assert sorted(random_deletion(net, 7, draw)) == [0, 1, 2, 4, 5, 7, 8]
    for count in (0, 1, 9):
        order = random_swaps(net, count, draw)
        assert sorted(order) == list(range(9))
        assert [order[i] for i in (3, 6)] == [3, 6]
        assert {*order[:3]} == {0, 1, 2}
    swapped = [[i for i, place in enumerate(random_swaps(net, 1, draw)) if place != i] for _ in range(60)]
    assert sorted({tuple(pair) for pair in swapped}) == [(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)]
    for count in range(5):  # each swap turns the parity of the permutation
        order = random_swaps(net, count, draw)
        assert sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == count % 2


def test_more_deletions_than_units_are_refused() -> None:
    with pytest.raises(UserError, match="count=8: 7 units keep their size"):
        random_deletion(made("cifar_resnet20"), 8, random.Random(0))


def test_where_nothing_can_change_places_it_says_so() -> None:
    with pytest.raises(ValueError, match="no stage has two units that can be swapped"):
        random_swaps(made("cifar_resnet8"), 1, random.Random(0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deleted": [99]}, r"deleted=\[99\]: the units are numbered from 0 to 8"),
        ({"deleted": [-1]}, "numbered from 0 to 8"),
        ({"order": [0, 1]}, "must name each of the 9 units once"),
        ({"order": [0, 0, *range(2, 9)]}, "must name each of the 9 units once"),
        ({"order": [0, 1, 3, 2, *range(4, 9)]}, "unit 3 can't take its place, where maps have another size"),
    ],
)
def test_units_that_are_not_there_are_named(options: dict[str, list[int]], words: str) -> None:
    with pytest.raises(UserError, match=words):
        error_of(made("cifar_resnet20"), BATCHES, **options)
