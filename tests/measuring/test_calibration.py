"""Reliability bins and ECE against numbers made by hand."""

from __future__ import annotations

import pytest
import torch

from resnetlab.measuring.calibration import calibration_error, reliability


def test_a_case_by_hand() -> None:
    """Gaps: 0.95 and 0.95 with one of two right, 0.45; 0.55 and right, 0.45; 0.15 and wrong, 0.15."""
    confidence = torch.tensor([0.95, 0.15, 0.55, 0.95], dtype=torch.float64)
    bins = reliability(confidence, torch.tensor([True, False, True, False]), bins=10)
    assert [b.images for b in bins] == [0, 1, 0, 0, 0, 1, 0, 0, 0, 2]
    assert (bins[9].confidence, bins[9].accuracy) == (pytest.approx(0.95), 0.5)
    assert (bins[9].low, bins[9].high) == (0.9, 1.0)
    assert calibration_error(bins) == pytest.approx((2 * 0.45 + 0.45 + 0.15) / 4)


def test_a_bin_has_its_upper_end_and_not_its_lower() -> None:
    ends = torch.tensor([0.0, 0.2, 0.4, 1.0], dtype=torch.float64)
    assert [b.images for b in reliability(ends, torch.ones(4), bins=5)] == [2, 1, 0, 0, 1]
    fifteenths = torch.arange(1, 16, dtype=torch.float64) / 15
    assert [b.images for b in reliability(fifteenths, torch.ones(15))] == [1] * 15


def test_right_as_often_as_sure_is_no_error() -> None:
    right = torch.tensor([True, True, True, False])
    assert calibration_error(reliability(torch.full((4,), 0.75), right)) == 0
    assert calibration_error(reliability(torch.tensor([]), torch.tensor([]))) == 0
