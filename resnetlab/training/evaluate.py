"""Accuracy of a trained network on a data set, prepared as in its training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Loader, measure
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.measuring.accuracy import Accuracy, accuracy
from resnetlab.training.load import load_with_card
from resnetlab.training.loop import evaluation_batch


def evaluate_on(
    source: str | Path,
    data: Data,
    *,
    net: str | None = None,
    which: str = "last",
    device: str = "cpu",
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Accuracy:
    """Accuracy on the data's test images of a run folder or weight file.

    Files are resized and cut to the network's size. The images are normalised as the weight file says; where it
    says nothing, files by ImageNet's means and deviations, others by those of each channel of the training
    images. progress is called with how many are done, and of how many. Raises UserError where network and data
    don't fit, and for a file that can't be read.
    """
    network, card = load_with_card(source, net=net, which=which)
    spec = network.spec
    shape = data.shape or (3, spec.input_size, spec.input_size)
    if spec.in_channels != shape[0] or spec.num_classes != len(data.classes):
        raise UserError(
            f"{source}: a network for {spec.in_channels} channels and {spec.num_classes} classes, and {data.name} has "
            f"{shape[0]} and {len(data.classes)}."
        )
    if card:
        normalise = card.normalisation
    elif isinstance(data.train, Files):
        normalise = imagenet()
    else:
        normalise = measure(data.train, 0).channel_mean_std()
    if any(
        have not in (1, want)
        for t in (normalise.mean, normalise.std)
        for have, want in zip(t.shape, shape, strict=True)
    ):
        raise UserError(f"{source}: trained on images of another size than {data.name}'s {shape}.")
    images = data.test.to(device) if isinstance(data.test, Images) else data.test
    loader = Loader(normalise.to(device), len(data.classes), size=spec.input_size, device=device, workers=workers)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        done = 0
        for x, labels in loader.evaluation(images, evaluation_batch(images)):
            yield x, labels
            done += len(labels)
            progress(done, len(images))

    return accuracy(network.to(device), batches())
