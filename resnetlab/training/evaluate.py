"""Accuracy of a trained network on a data set, prepared as in its training."""

from __future__ import annotations

from pathlib import Path

from resnetlab.data.images import Data
from resnetlab.data.loading import channel_mean_std, evaluation_batches
from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import Accuracy, accuracy
from resnetlab.training.load import load_with_card
from resnetlab.training.loop import EVALUATION_BATCH


def evaluate_on(
    source: str | Path, data: Data, *, net: str | None = None, which: str = "last", device: str = "cpu"
) -> Accuracy:
    """Accuracy on the data's test images of a run folder or weight file.

    The images are normalised as the weight file says; where it says nothing, by the mean and standard
    deviation of each channel of the training images. Raises UserError where network and data don't fit.
    """
    network, card = load_with_card(source, net=net, which=which)
    channels, classes = network.spec.in_channels, network.spec.num_classes
    if channels != data.shape[0] or classes != len(data.classes):
        raise UserError(
            f"{source}: a network for {channels} channels and {classes} classes, and {data.name} has "
            f"{data.shape[0]} and {len(data.classes)}."
        )
    normalise = (card.normalisation if card else channel_mean_std(data.train)).to(device)
    if any(
        have not in (1, want)
        for t in (normalise.mean, normalise.std)
        for have, want in zip(t.shape, data.shape, strict=True)
    ):
        raise UserError(f"{source}: trained on images of another size than {data.name}'s {data.shape}.")
    batches = evaluation_batches(data.test.to(device), EVALUATION_BATCH, normalise)
    return accuracy(network.to(device), batches)
