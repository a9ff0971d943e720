"""Accuracy of a trained network or an ensemble on a data set, prepared as in training, over one view or many."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.loading import Loader, measure
from resnetlab.data.normalisation import Normalisation, imagenet
from resnetlab.data.views import VIEWS, Views, one_crop, read_views
from resnetlab.errors import UserError, check_choice
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.measuring.answers import Answers, average, can_be_convolutional, log_probabilities, over_views
from resnetlab.measuring.halving import in_halves
from resnetlab.nets.interop import OURS
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.training.load import Loaded, load_described
from resnetlab.training.loop import evaluation_batch

IMAGES_AT_ONCE = 16  # files whose views are held together, and grouped by shape


@dataclass(frozen=True)
class Member:
    """A network of an evaluation, alone or in an ensemble, and how images are prepared for it."""

    source: str  # as it was given
    net: ResNet | VGG
    normalise: Normalisation
    weights_sha256: str  # of the file
    layout: str  # whose parameter names it has, e.g. "resnetlab" or "torchvision"
    normalisation: str  # whose it is, in words


@dataclass(frozen=True)
class Evaluation:
    """What networks answered to the test images of a data set; of several their softmax is averaged."""

    members: tuple[Member, ...]
    accuracies: tuple[Accuracy, ...]  # of each member by itself
    answers: Answers
    views: str
    flip: bool

    @property
    def accuracy(self) -> Accuracy:
        """Of all together."""
        return self.answers.accuracy


def evaluate(
    sources: Sequence[str | Path],
    data: Data,
    *,
    nets: Sequence[str] = (),
    which: str = "last",
    views: str = "1-crop",
    flip: bool = False,
    device: str = "cpu",
    workers: int = 0,
    progress: Callable[[int, int], object] = lambda *_: None,
) -> Evaluation:
    """Evaluate run folders or weight files on the data's test images, one or together as an ensemble.

    nets: their names where files don't tell them, one for all or one for each source. views: one of data.views.VIEWS,
    whose softmax is averaged; images in memory are looked at whole. flip: the mirror image of each view too. workers:
    processes that decode files ahead, of all members together. progress is called with how many images are done, and
    of how many.

    Files are resized and cut to the network's size. The images are normalised as the weight file says; where it says
    nothing, files by ImageNet's means and deviations, others by those of each channel of the training images. Raises
    UserError where a network and the data don't fit, for views that can't be, and for a file that can't be read.
    """
    check_choice("views", views, VIEWS)
    if flip and VIEWS[views].mirrored:
        raise UserError(f"{views} has the mirror images already; leave --flip out.")
    if views != "1-crop" and data.shape is not None:
        raise UserError(
            f"{views} cuts files, and the images of {data.name} are in memory, all of {data.shape[1]}x{data.shape[2]} "
            "pixels: they are looked at whole. Use 1-crop, with --flip for their mirror images too."
        )
    if not sources or len(nets) not in (0, 1, len(sources)):
        raise UserError(
            f"{len(sources)} networks and {len(nets)} names for them: give one --net for all, or each its own."
        )
    if not len(data.test):
        raise UserError(f"{data.name} has no test images.")
    names = nets if len(nets) == len(sources) else [nets[0] if nets else None] * len(sources)
    way = VIEWS[views]._replace(mirrored=flip or VIEWS[views].mirrored)
    images = data.test.to(device) if isinstance(data.test, Images) else data.test
    members = tuple(
        _member(str(source), load_described(source, net=net, which=which), data, way, device)
        for source, net in zip(sources, names, strict=True)
    )
    share = max(1, workers // len(members)) if workers else 0
    streams = [_batches(member, images, way, device, share) for member in members]
    parts: list[list[Answers]] = [[] for _ in range(len(members) + 1)]  # of each, and of all together
    done = 0
    for batches in zip(*streams, strict=True):
        labels = batches[0][1]
        found = [log for log, _ in batches]
        for part, log in zip(parts, [*found, average(found)], strict=True):
            part.append(Answers.of(log, labels))
        done += len(labels)
        progress(done, len(data.test))
    *alone, together = (Answers.joined(part) for part in parts)
    return Evaluation(members, tuple(a.accuracy for a in alone), together, views, flip)


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
    """Accuracy of one network with one view of each image, as `evaluate` finds it."""
    nets = [net] if net else []
    return evaluate([source], data, nets=nets, which=which, device=device, workers=workers, progress=progress).accuracy


def _member(source: str, loaded: Loaded, data: Data, views: Views, device: str) -> Member:
    """The network ready to be evaluated. Raises UserError unless it fits the data."""
    spec, card = loaded.net.spec, loaded.card
    shape = data.shape or (3, spec.input_size, spec.input_size)
    if spec.in_channels != shape[0] or spec.num_classes != len(data.classes):
        raise UserError(
            f"{source}: a network for {spec.in_channels} channels and {spec.num_classes} classes, and {data.name} has "
            f"{shape[0]} and {len(data.classes)}."
        )
    if card:
        _check_classes(source, card.classes, data)
    if views.whole and not can_be_convolutional(loaded.net):
        raise UserError(
            f"{source}: multi-scale needs a VGG net for images of 224 pixels, whose fc layers become convolutions over "
            f"7x7 maps, and this one is for {spec.input_size}; use 1-crop or 10-crop."
        )
    if card:
        normalise = card.normalisation
        words = "from the file" if loaded.layout == OURS else f"that of {loaded.layout}'s training"
    elif isinstance(data.train, Files):
        normalise, words = imagenet(), "ImageNet's, assumed, since the file has none"
    else:
        normalise = measure(data.train, 0).channel_mean_std()
        words = f"measured on {data.name}'s training images, since the file has none"
    if any(
        have not in (1, want)
        for t in (normalise.mean, normalise.std)
        for have, want in zip(t.shape, shape, strict=True)
    ):
        raise UserError(f"{source}: trained on images of another size than {data.name}'s {shape}.")
    if views.whole and max(normalise.mean[0].numel(), normalise.std[0].numel()) > 1:
        normalise = Normalisation(*(t.mean((1, 2), keepdim=True) for t in (normalise.mean, normalise.std)))
        words += ", each pixel's averaged over its channel, since images have other sizes"
    with loaded.file.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Member(source, loaded.net.to(device), normalise.to(device), digest, loaded.layout, words)


def _check_classes(source: str, trained: tuple[str, ...], data: Data) -> None:
    """Raise UserError if a label means another class than in training.

    Two lists without a common name are taken for two ways to name the same, in the same order.
    """
    if trained != data.classes and set(trained) & set(data.classes):
        i = next(i for i, pair in enumerate(zip(trained, data.classes, strict=True)) if pair[0] != pair[1])
        raise UserError(
            f"{source}: trained on other classes than {data.name}'s: its number {i} is {trained[i]!r}, and the data's "
            f"{data.classes[i]!r}. Where they mean the same, give them the same names."
        )


def _batches(
    member: Member, images: Images | Files, views: Views, device: str, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ln of the probabilities, float64 N K, and the labels of the test images, in order."""
    spec = member.net.spec
    answer = partial(log_probabilities, member.net, whole=views.whole, mirrored=views.mirrored)
    if isinstance(images, Images) or views.cut is one_crop:
        loader = Loader(member.normalise, spec.num_classes, size=spec.input_size, device=device, workers=workers)
        for x, labels in loader.evaluation(images, evaluation_batch(images)):
            yield torch.cat(in_halves(answer, x)), labels
        return
    read, done = read_views(images, views, spec.input_size, workers), 0
    while some := list(islice(read, IMAGES_AT_ONCE)):
        parts = [[torch.from_numpy(view) for view in each] for each in some]
        found = over_views(lambda pixels: torch.cat(in_halves(answer, member.normalise(pixels.to(device)))), parts)
        yield found, images.labels[done : done + len(some)].to(device)
        done += len(some)
