"""Recall, precision and confusions of a case made by hand."""

from __future__ import annotations

import torch

from resnetlab.measuring.confusion import ClassResult, Confusion, class_results, confusions
from resnetlab.measuring.intervals import wilson

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 2])
PREDICTED = torch.tensor([0, 0, 0, 1, 1, 0, -1])


def test_classes() -> None:
    cat, dog, owl, ant = class_results(LABELS, PREDICTED, 4)
    assert (cat.images, cat.predicted, cat.right) == (4, 4, 3)
    assert (cat.recall, cat.precision, cat.recall_interval) == (0.75, 0.75, wilson(3, 4))
    assert (dog.recall, dog.precision, dog.precision_interval) == (0.5, 0.5, wilson(1, 2))
    assert (owl.recall, owl.precision) == (0.0, None)
    assert (ant.recall, ant.precision, ant.recall_interval) == (None, None, (0.0, 1.0))
    common = ClassResult(images=4, predicted=5, right=3)
    assert (common.recall, common.precision) == (0.75, 0.6)
    assert (common.recall_interval, common.precision_interval) == (wilson(3, 4), wilson(3, 5))


def test_cells_that_are_not_0() -> None:
    assert confusions(LABELS, PREDICTED) == [
        Confusion(0, 0, 3),
        Confusion(0, 1, 1),
        Confusion(1, 0, 1),
        Confusion(1, 1, 1),
        Confusion(2, -1, 1),
    ]
