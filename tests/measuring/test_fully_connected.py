"""Balduzzi's networks: their derivatives, the theorems where their assumption holds, and where it does not."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from resnetlab.measuring.fully_connected import (
    VARIANTS,
    Variant,
    _generator,
    _normed,
    coactive_share,
    gaussian_points,
    grid_points,
    input_gradients,
    pair_correlation,
    predicted_correlation,
)


def correlation(variant: str, depth: int, seeds: int = 4) -> float:
    found = [
        pair_correlation(input_gradients(VARIANTS[variant], depth, gaussian_points(seed), seed).values)
        for seed in range(seeds)
    ]
    return statistics.fmean(f for f in found if f is not None)


def test_the_points_are_the_papers() -> None:
    points = grid_points()
    assert points.shape == (256, 1)
    assert (points[0].item(), points[-1].item()) == (-2, 2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_seed_is_one_network(variant: str) -> None:
    first, again = (input_gradients(VARIANTS[variant], 4, grid_points(), 1) for _ in range(2))
    other = input_gradients(VARIANTS[variant], 4, grid_points(), 2)
    assert torch.equal(first.values, again.values)
    assert not torch.equal(first.values, other.values)
    assert len(first.coactive) == 3


def test_points_and_networks_of_all_seeds_share_no_numbers() -> None:
    firsts = [torch.rand(1, generator=_generator(seed, stream)).item() for seed in range(4) for stream in (0, 1)]
    assert len(set(firsts)) == 8


def test_batch_norm_divides_by_the_biased_deviation() -> None:
    """Ioffe & Szegedy 2015, algorithm 1."""
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.nn.functional.batch_norm(values, None, None, training=True, eps=1e-30)
    torch.testing.assert_close(_normed(values, "batch"), wanted)
    torch.testing.assert_close(_normed(values, "centre"), values - values.mean(0))


def test_the_gradient_is_the_slope_of_a_piecewise_linear_function() -> None:
    """Without statistics over points, f(x) is linear between hinges: at equal points slopes are equal, and the
    derivative at a point does not depend on which others are there.
    """
    few = input_gradients(VARIANTS["resnet"], 4, grid_points()[::16], 3).values
    assert torch.allclose(
        few, input_gradients(VARIANTS["resnet"], 4, grid_points(), 3).values[::16], rtol=1e-3, atol=1e-4
    )


def test_shared_units_are_counted_over_pairs() -> None:
    """Of three points: unit 0 active at all (3 of 3 pairs), 1 at two (1 of 3), 2 at one (0), 3 at none."""
    active = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    assert coactive_share(active) == pytest.approx((3 + 1) / 12)


def test_correlation_of_pairs_by_hand() -> None:
    """Two equal and one opposite: pairs 1, −1, −1."""
    assert pair_correlation(torch.tensor([[1.0, 0], [1, 0], [-1, 0]])) == pytest.approx(-1 / 3)
    assert pair_correlation(torch.zeros(3, 2)) is None


def test_the_theorems_are_those_of_the_paper() -> None:
    assert [predicted_correlation(VARIANTS["plain BN"], L) for L in (2, 4)] == [0.5, 0.125]
    assert predicted_correlation(VARIANTS["resnet"], 4) == pytest.approx(0.75**3)
    table = {
        1.0: (0.75, 0.5469, 0.3524, 0.2291, 0.1592, 0.1127),
        0.5: (0.9, 0.7661, 0.5668, 0.3953, 0.2828, 0.2031),
        0.1: (0.995, 0.9854, 0.9579, 0.9019, 0.8196, 0.7093),
    }
    for beta, values in table.items():
        variant = Variant("batch", skip=True, beta=beta)
        found = [predicted_correlation(variant, L) for L in (2, 4, 10, 24, 50, 100)]
        assert found == pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize("variant", ["plain centred", "plain BN", "resnet BN 0.1"])
@pytest.mark.parametrize("depth", [2, 4, 10])
def test_theorems_hold_where_pairs_share_a_quarter(variant: str, depth: int) -> None:
    assert correlation(variant, depth) == pytest.approx(predicted_correlation(VARIANTS[variant], depth), abs=0.03)


def test_the_third_theorem_needs_the_mean_that_bn_takes_away() -> None:
    found = correlation("resnet BN", 24)
    stated, centred = (predicted_correlation(VARIANTS["resnet BN"], 24, centred=c) for c in (False, True))
    assert abs(found - centred) < 0.03 < abs(found - stated)


def test_without_centring_pairs_share_more_than_a_quarter() -> None:
    made = input_gradients(VARIANTS["plain"], 24, gaussian_points(0), 0)
    assert made.coactive[0] == pytest.approx(0.25, abs=0.02)
    assert made.coactive[-1] > 0.35


def test_plain_nets_with_bn_explode_by_the_rate_of_theory() -> None:
    """√(π/(π − 1)) = 1.21 per layer (Yang et al. 2019)."""
    norms = [input_gradients(VARIANTS["plain BN"], L, gaussian_points(0), 0).values.norm().item() for L in (4, 24)]
    assert (norms[1] / norms[0]) ** (1 / 20) == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.02)
