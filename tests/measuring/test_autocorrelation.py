"""Autocorrelations and effective ranks against sequences whose own are known."""

from __future__ import annotations

import math

import pytest
import torch

from resnetlab.measuring.autocorrelation import (
    autocorrelation,
    brown_noise,
    effective_rank,
    relative_rank,
    spatial_autocorrelation,
    white_noise,
)


def test_a_short_sequence_by_hand() -> None:
    """z = (−1.5, −0.5, 0.5, 1.5): Σz² = 5, Σ z_i z_{i+1} = 1.25, Σ z_i z_{i+2} = −1.5."""
    assert autocorrelation(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2) == pytest.approx([1, 0.25, -0.3])


def test_white_noise_has_none_and_brown_noise_much() -> None:
    white = autocorrelation(white_noise((4096,), 0), 5)
    brown = autocorrelation(brown_noise(4096, 0), 5)
    assert white is not None
    assert brown is not None
    assert max(map(abs, white[1:])) < 0.06
    assert min(brown) > 0.95
    assert torch.equal(white_noise((9,), 1), white_noise((9,), 1))
    assert not torch.equal(white_noise((9,), 1), white_noise((9,), 2))


@pytest.mark.parametrize("sequence", [torch.full((9,), 1e-12), torch.linspace(0, 1e-9, 9), torch.full((9,), 3.0)])
def test_what_has_vanished_or_is_constant_has_none(sequence: torch.Tensor) -> None:
    assert autocorrelation(sequence, 2) is None


def test_stripes_are_correlated_along_and_opposed_across() -> None:
    """Columns alternate: neighbours in a column are equal, those in a row opposite; two apart all are equal."""
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(2, 3, 8, 8)
    assert spatial_autocorrelation(stripes, 2) == pytest.approx([1, 0, 1])
    brighter = stripes + torch.arange(6.0).view(2, 3, 1, 1)
    assert spatial_autocorrelation(brighter, 2) == pytest.approx([1, 0, 1]), "each map is taken less its own mean"


def test_maps_without_contrast_have_none() -> None:
    assert spatial_autocorrelation(torch.ones(1, 1, 4, 4), 1) is None
    for value in (1 / 3, 123.456):  # whose mean over 25 positions is rounded
        assert spatial_autocorrelation(torch.full((2, 3, 5, 5), value, dtype=torch.double), 1) is None


def test_the_effective_rank_counts_directions_whatever_their_length() -> None:
    assert effective_rank(torch.diag(torch.tensor([1.0, 5.0, 100.0]))) == pytest.approx(3)
    assert effective_rank(torch.ones(4, 2, 3) * torch.arange(1.0, 5)[:, None, None]) == pytest.approx(1)
    assert effective_rank(torch.tensor([[1.0, 0], [0, 2], [0, 0]])) == pytest.approx(2), (
        "a row of zeros is no direction"
    )
    assert effective_rank(torch.zeros(2, 2)) is None


def test_white_noise_is_the_measure_of_ranks() -> None:
    found = relative_rank(white_noise((100, 8, 8), 1), seed=2)
    assert found == pytest.approx(1, abs=0.1)
    assert relative_rank(torch.zeros(3, 4), 0) is None
    low = relative_rank(torch.ones(100, 64), 0)
    assert low is not None
    assert math.isclose(low, 1 / (effective_rank(white_noise((100, 64), 0)) or 0))
