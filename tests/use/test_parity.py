"""Parity: what counts as an answer, and as the right one."""

from __future__ import annotations

from typing import Any

import torch

from resnetlab.data.images import Data, Images
from resnetlab.data.resizing import USUAL
from resnetlab.use.parity import measure_parity


def test_scores_that_are_not_finite_are_no_answer_and_equal_ones_the_first() -> None:
    images = Images(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]))
    data = Data("four", images, images, ("a", "b"))
    nan = float("nan")
    by_pytorch = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    by_export = torch.tensor([[nan, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]])
    how: dict[str, Any] = {"resizing": USUAL, "outputs": (0, 1), "skip": False, "progress": lambda *_: None}
    found = measure_parity(lambda _: by_pytorch, lambda _: by_export, data, 8, **how)
    assert (found.images, found.pytorch_correct, found.exported_correct, found.same_predictions) == (4, 4, 2, 2)
