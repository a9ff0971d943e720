"""Uneven classes: their weights in the loss, and epochs with as many images of each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as tf

from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Batch
from resnetlab.data.seeds import balanced_order
from resnetlab.nets.zoo import build
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import make_run
from resnetlab.training.setup import class_weights
from resnetlab.training.step import Stepper, StepResult, make_stepper

UNEVEN = torch.tensor([0] * 60 + [1] * 30 + [3] * 10)  # of four classes; one is empty
SHORT = Recipe(net="cifar_resnet8", epochs=None, iterations=2, batch_size=45, validation_images=10)


def test_an_epoch_has_as_many_of_each_class_and_is_as_long() -> None:
    order = balanced_order(UNEVEN, 0, 0)
    assert len(order) == len(UNEVEN)
    assert sorted(UNEVEN[order].bincount(minlength=4).tolist()) == [0, 33, 33, 34]
    often = order.bincount(minlength=len(UNEVEN))
    assert often[UNEVEN == 0].max() == 1  # some of a large class are left out, and none comes twice
    assert set(often[UNEVEN == 3].tolist()) <= {3, 4}  # of a small one all come equally often
    larger = {int(UNEVEN[balanced_order(UNEVEN, 0, epoch)].bincount().argmax()) for epoch in range(12)}
    assert larger == {0, 1, 3}  # the one that is left over goes to each class in turn


def test_it_is_a_function_of_seed_and_epoch() -> None:
    assert torch.equal(balanced_order(UNEVEN, 1, 2), balanced_order(UNEVEN, 1, 2))
    seen = torch.cat([balanced_order(UNEVEN, 0, epoch) for epoch in range(12)])
    assert len(seen[UNEVEN[seen] == 0].unique()) == 60  # over the epochs all of them
    assert not torch.equal(balanced_order(UNEVEN, 0, 0), balanced_order(UNEVEN, 1, 0))
    runs = (UNEVEN[balanced_order(UNEVEN, 0, 0)].diff() == 0).sum()
    assert runs < 60  # the classes are mixed, not one after another


def test_weights_give_each_class_the_same_share_of_the_loss() -> None:
    weights = class_weights(Recipe(balance="class_weights"), UNEVEN, 4)
    assert weights is not None
    torch.testing.assert_close(weights * UNEVEN.bincount(minlength=4), torch.tensor([100.0, 100.0, 0.0, 100.0]) / 3)
    assert float(weights[UNEVEN].mean()) == pytest.approx(1)
    assert class_weights(Recipe(balance="sampling"), UNEVEN, 4) is class_weights(Recipe(), UNEVEN, 4) is None


def stepper(recipe: Recipe, weights: torch.Tensor | None) -> Stepper:
    return make_stepper(build("cifar_resnet8(norm=none)", seed=0), recipe, "cpu", weights)


def gradient(recipe: Recipe, weights: torch.Tensor | None, batch: Batch) -> torch.Tensor:
    made = stepper(recipe, weights)
    made(batch, 0.0)
    found = made.net.get_parameter("fc.weight").grad
    assert found is not None
    return found


@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_is_that_of_the_weighted_mean_in_parts_too(soft: bool) -> None:
    draws = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 9])
    sharp = (tf.one_hot(labels, 10) + tf.one_hot(labels.flip(0), 10)) / 2 if soft else tf.one_hot(labels, 10).float()
    targets = sharp * 0.9 + 0.01 if soft else None  # mixed, with smoothed labels
    batch = Batch(torch.randn(7, 3, 32, 32, generator=draws), labels, targets)
    weights = torch.linspace(0.5, 2, 10)
    net = build("cifar_resnet8(norm=none)", seed=0).train()
    logs = net(batch.x).log_softmax(1)
    each = -(sharp @ weights) * ((sharp if targets is None else targets) * logs).sum(1)
    each.mean().backward()
    for accumulate in (1, 3):
        recipe = Recipe(momentum=0.0, accumulate=accumulate, label_smoothing=0.1 if soft else 0.0)
        found = gradient(recipe, weights, batch)
        torch.testing.assert_close(found, net.fc.weight.grad)
    assert torch.equal(
        gradient(Recipe(), None, batch), gradient(Recipe(balance="sampling"), None, batch)
    )  # without weights the loss is computed as it always was


def test_weights_keep_their_digits_in_half_precision() -> None:
    batch = Batch(torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(6), None)
    soft = batch._replace(targets=tf.one_hot(batch.labels, 10).float())
    weights = torch.linspace(1 / 3, 7 / 3, 10)
    hard, smooth = (stepper(Recipe(precision="bf16"), weights)(each, 0.0).loss for each in (batch, soft))
    torch.testing.assert_close(hard, smooth, rtol=1e-5, atol=0)


def test_it_works_in_half_precision() -> None:
    batch = Batch(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3]), None)
    made = stepper(Recipe(precision="bf16"), torch.ones(10))
    assert made(batch, 0.1).loss.isfinite()


def test_a_run_shows_and_weighs_its_own_training_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an uneven data set, without those that are held out."""
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (len(UNEVEN), 1, 8, 8), generator=draws, dtype=torch.uint8)
    images = Images(pixels, UNEVEN)
    data = Data("uneven", images, images[:8], ("a", "b", "c", "d"))
    taken, seen, weights = Stepper.__call__, [], []

    def noting(self: Stepper, batch: Batch, lr: float) -> StepResult:
        seen.append(batch.labels)
        weights.append(self.class_weights)
        return taken(self, batch, lr)

    monkeypatch.setattr(Stepper, "__call__", noting)
    ids = set()
    for balance in ("sampling", "class_weights"):
        run = make_run(SHORT.override(balance=balance), tmp_path, data)
        ids.add(run.id)
        for _ in train(run, threads=1):
            pass
    ids.add(make_run(SHORT, tmp_path, data).id)
    assert len(ids) == 3
    kept, _ = data.hold_out(10)
    assert torch.cat(seen[:2]).bincount().tolist() == [30, 30, 0, 30]
    assert torch.cat(seen[2:]).bincount().tolist() == kept.labels.bincount().tolist()
    assert weights[0] is None
    assert torch.equal(weights[2], class_weights(Recipe(balance="class_weights"), kept.labels, 4))
