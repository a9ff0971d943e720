"""Paths: Veit's arithmetic to the digit, and single paths that sum up to the gradient."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as tf
from made_nets import made

from resnetlab.errors import UserError
from resnetlab.measuring.paths import Unrolled, decay, gradient_shares, mean_length, middle, share_of_paths
from resnetlab.nets.mixing import Gate

X, LABELS = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4)


def test_the_papers_shares() -> None:
    assert f"{100 * share_of_paths(54, 5, 17):.4f}" == "0.4537"
    assert f"{100 * share_of_paths(54, 19, 35):.1f}" == "98.0"
    assert share_of_paths(54, 0, 54) == 1


@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet8",
        "cifar_preresnet8",
        "cifar_resnet11(branch='bottleneck', shortcut='B')",
        "cifar_resnet8(mix=Scale(0.5, 2))",
    ],
)
def test_all_paths_together_are_the_gradient(name: str) -> None:
    net = made(name)
    x = X.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(tf.cross_entropy(net(x), LABELS, reduction="sum"), x)
    unrolled = Unrolled(net, X, LABELS)
    units = range(unrolled.units)
    every = [path for length in range(len(units) + 1) for path in itertools.combinations(units, length)]
    assert len(every) == 2**unrolled.units
    torch.testing.assert_close(sum(unrolled.gradient(path) for path in every), wanted)


@pytest.mark.parametrize("mix", ["ExclusiveGate(-1)", "ShortcutGate(-1)"])
def test_what_a_gate_itself_passes_back_is_no_path(mix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = made(f"cifar_resnet8(mix={mix})")
    unrolled = Unrolled(net, X, LABELS)
    every = [path for length in range(4) for path in itertools.combinations(range(3), length)]
    found = sum(unrolled.gradient(path) for path in every)
    monkeypatch.setattr(Gate, "forward", lambda self, x: torch.sigmoid(self.conv(x)).detach())
    x = X.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(tf.cross_entropy(net(x), LABELS, reduction="sum"), x)
    torch.testing.assert_close(found, wanted)


def test_a_plain_net_has_one_path() -> None:
    with pytest.raises(ValueError, match="single path"):
        Unrolled(made("cifar_plain8"), X, LABELS)


def test_paths_that_are_not_there_are_refused() -> None:
    """A unit that is none would be left out: the gradient would be that of another path."""
    unrolled = Unrolled(made("cifar_resnet8"), X, LABELS)
    for path in ([0, 3], [-1]):
        with pytest.raises(UserError, match=rf"path=\[{path[-1]}\]: the units are numbered from 0 to 2"):
            unrolled.gradient(path)
    with pytest.raises(UserError, match="draws=0 must be 1 or more"):
        unrolled.norm_by_length(0, seed=0)


def test_norms_by_length_are_means_over_images() -> None:
    unrolled = Unrolled(made("cifar_resnet8"), X, LABELS)
    norms = unrolled.norm_by_length(2, seed=0)
    assert len(norms) == 4
    for length, path in ((0, []), (3, [0, 1, 2])):  # of these lengths there is one path each
        assert norms[length] == pytest.approx(float(unrolled.gradient(path).flatten(1).norm(dim=1).mean()), rel=1e-5)
    assert unrolled.norm_by_length(2, seed=0) == norms
    drawn = {tuple(unrolled.norm_by_length(1, seed=seed)[1:3]) for seed in range(8)}
    assert len(drawn) > 1, "of the other lengths, paths are drawn by the seed"


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_each_unit_passing_on_a_share_moves_the_length(factor: float) -> None:
    """If each F passes on c, lengths are Binomial(n, c / (1 + c))."""
    norms = [7 * factor**k for k in range(28)]
    assert sum(gradient_shares(norms)) == pytest.approx(1)
    assert mean_length(norms) == pytest.approx(27 * factor / (1 + factor))
    slope, explained = decay(norms)
    assert 10**slope == pytest.approx(factor)
    assert explained == pytest.approx(1 if factor != 1 else 0)


def test_no_gradient_at_all() -> None:
    assert gradient_shares([0.0, 0.0]) == [0, 0]
    assert decay([0.0, 1.0, 0.0]) == (0, 0)


def test_the_middle_holds_what_it_says() -> None:
    assert middle([0.01, 0.02, 0.47, 0.48, 0.02]) == (2, 3)
    assert middle([0.5, 0.0, 0.5]) == (0, 2)
    assert middle([0.3, 0.34, 0.36], covered=0.6) == (1, 2), "of as many lengths, those that hold more"
    assert middle([0.005, 0.01, 0.235, 0.24, 0.01]) == (2, 3), "in parts of what there is"
    assert middle([0.0, 0.0, 0.0]) == (0, 0)
    first, last = middle(gradient_shares([1.0] * 55))
    assert share_of_paths(54, first, last) >= 0.95 > share_of_paths(54, first + 1, last)
