"""Accuracy: exact counts, whatever the batches, and the network left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.predictions import Predictions


class Scores(nn.Module):
    """Gives its input back: N K scores."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def batches(x: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_counts_equal_a_sort(size: int) -> None:
    x, labels = torch.randn(53, 10), torch.randint(10, (53,))
    order = x.argsort(1, descending=True)
    found = accuracy(Scores(), batches(x, labels, size))
    assert found.images == 53
    assert found.top1_correct == int((order[:, 0] == labels).sum())
    assert found.top5_correct == sum(int(y) in row[:5].tolist() for row, y in zip(order, labels, strict=True))
    assert found.top1 + found.error == pytest.approx(100)
    assert found.loss == pytest.approx(float(nn.functional.cross_entropy(x, labels)), rel=1e-5)


def test_a_large_batch_passes_in_parts_and_is_counted_whole() -> None:
    """Its loss is the sum over the batch to the last bit, so that runs go on as they began."""
    sizes: list[int] = []

    class Watched(Scores):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            return x

    x, labels = torch.randn(501, 10), torch.randint(10, (501,))
    found = accuracy(Watched(), [(x, labels)])
    assert sizes == [167, 167, 167]
    assert found.loss == float(nn.functional.cross_entropy(x, labels, reduction="sum")) / 501


def test_fewer_than_five_classes_are_always_within_the_first_five() -> None:
    assert accuracy(Scores(), [(torch.randn(9, 3), torch.zeros(9, dtype=torch.long))]).top5 == 100


def test_scores_that_are_not_finite_are_wrong() -> None:
    x = torch.tensor([[float("nan"), 0.0], [1.0, 0.0]])
    found = accuracy(Scores(), [(x, torch.tensor([0, 0]))])
    assert (found.top1_correct, found.top5_correct) == (1, 1)


def test_of_equal_highest_scores_each_is_right() -> None:
    x = torch.tensor([1.0, 1, 1, 1, 1, 1, 0]).repeat(7, 1)
    found = accuracy(Scores(), [(x, torch.arange(7))])
    assert (found.top1_correct, found.top5_correct) == (6, 6)


def test_the_loss_of_scores_in_half_precision_is_computed_in_float32() -> None:
    x, labels = torch.randn(53, 10).bfloat16(), torch.randint(10, (53,))
    found = accuracy(Scores(), [(x, labels)])
    assert found.loss == float(nn.functional.cross_entropy(x.float(), labels, reduction="sum")) / 53


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept_and_evaluation_used(training: bool) -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)).train(training)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    accuracy(net, [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))])
    assert net.training is training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        accuracy(Scores(), [])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 1, 3]), "a label is 3, and the network's 3 classes are numbered from 0 to 2"),
        (torch.tensor([0, 1, -1]), "a label is -1"),
        (torch.tensor([0, 1]), r"labels of shape \(2,\) .* for 3 images"),
        (torch.zeros(3, 1, dtype=torch.long), r"labels of shape \(3, 1\)"),
    ],
)
def test_labels_that_are_none_are_refused(labels: Tensor, words: str) -> None:
    with pytest.raises(UserError, match=words):
        accuracy(Scores(), [(torch.randn(3, 3), labels)])
    with pytest.raises(UserError, match=words):
        Predictions.of(torch.randn(3, 3).double().log_softmax(1), labels)
