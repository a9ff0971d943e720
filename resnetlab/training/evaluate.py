"""Accuracy of a trained network or an ensemble on a data set, prepared as in training, over one view or many."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import islice
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from resnetlab.data.files import Files
from resnetlab.data.images import Data, Images
from resnetlab.data.loading import evaluation_batch, placed_batches
from resnetlab.data.normalisation import Normalisation, imagenet
from resnetlab.data.resizing import USUAL, Resizing
from resnetlab.data.statistics import measure
from resnetlab.data.streaming import BadImages
from resnetlab.data.tta import VIEWS, Views, one_crop, read_views
from resnetlab.data.understood import Understood
from resnetlab.errors import UserError, check_choice, counted
from resnetlab.machine import widest_float
from resnetlab.measuring.accuracy import Accuracy
from resnetlab.measuring.halving import in_halves
from resnetlab.measuring.predictions import Predictions, average, can_be_convolutional, log_probabilities, over_views
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.run_files import read_settings, source_path
from resnetlab.training.classes import SAME, Matched, common_classes, match_classes
from resnetlab.weights.interop import OURS
from resnetlab.weights.load import Loaded, check_outputs, load_described
from resnetlab.weights.metadata import ModelMetadata
from resnetlab.weights.reading import Reading
from resnetlab.weights.sources import is_name

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
    matched: Matched  # its classes with those of the data
    skips: bool = False  # whether its training left out unreadable images
    size_assumed: bool = False  # whether neither the file nor the user states the size of images
    resizing: Resizing | None = None  # of files, if it is stated
    scores: Callable[[Tensor], Tensor] | None = None  # of pixels, uint8 N C H W, by an engine; None: the network's own


@dataclass(frozen=True)
class Evaluation:
    """The answers of networks on the test images of a data set; the softmax of several networks is averaged."""

    members: tuple[Member, ...]
    accuracies: tuple[Accuracy, ...]  # of each member by itself
    answers: Predictions
    views: str
    flip: bool
    classes: tuple[str, ...]  # what the numbers of labels and answers stand for: the data's, or all of the networks'
    images: Images | Files  # the images that were evaluated, in order
    unreadable: tuple[str, ...] = ()  # the places of those that were left out

    @property
    def accuracy(self) -> Accuracy:
        """The accuracy of all networks together."""
        return self.answers.accuracy


def evaluate(
    sources: Sequence[str | Path],
    data: Data,
    *,
    nets: Sequence[str] = (),
    views: str = "1-crop",
    flip: bool = False,
    classes: Mapping[str, str] | None = None,
    class_order: str = "text",
    unreadable: str | None = None,
    device: str = "cpu",
    workers: int = 0,
    engine: Callable[[ResNet | VGG, Normalisation], Callable[[Tensor], Tensor]] | None = None,
    told: Callable[[str], object] = lambda _: None,
    progress: Callable[[int, int], object] = lambda *_: None,
    **reading: Unpack[Reading],
) -> Evaluation:
    """Evaluate run folders or weight files on the data's test images, one or together as an ensemble.

    nets: the networks' names if the files don't determine them, one for all or one for each source. views: one of
    data.tta.VIEWS, whose softmax is averaged; images in memory are used uncropped. flip: also average over mirror
    images. classes: names that the data's classes had in training, if they differ. class_order: as in `outputs_of`, for
    files without class names. unreadable: "error", or "skip" to leave out and count unreadable files; None: as in
    training. workers: processes that decode files ahead, for all members together. engine: makes a function from a
    network's pixels, uint8 N C H W, to scores, to run in its place; None: the network itself. told is called with each
    line that says what is evaluated, before the work; progress with the number of images done and in all. reading: how
    all of the sources are read, by `load_described`.

    Files are resized and cropped to the network's size as its file or publisher states. Images are normalised as the
    weight file states; if it states nothing, files by ImageNet's means and deviations, and images in memory by those
    of each channel of the training images. Classes are matched by name (`classes.match_classes`); a network with more
    classes has to find the right one among all of its own. Raises UserError if a network and the data don't fit, for
    views that are not possible, and for an unreadable file.
    """
    _check_asked(sources, data, nets, views, flip, unreadable)
    way = VIEWS[views]._replace(mirrored=flip or VIEWS[views].mirrored)
    loaded = _loaded(sources, nets, data, reading)
    members = tuple(
        _member(str(source), network, data, way, device, classes or {}, class_order)
        for source, network in zip(sources, loaded, strict=True)
    )
    if class_order != "text" and all(network.classes for network in loaded):
        raise UserError(f"class-order={class_order}: the files have class names; leave it out.")
    if engine:
        members = tuple(_run_by(engine, member, way) for member in members)
    answered, label_of, orders = common_classes([(m.source, m.matched) for m in members], data.classes)
    for line in understood(members, data):
        told(line)
    skip = unreadable == "skip" if unreadable else all(member.skips for member in members)
    streams = _streams(members, data, way, device, workers, skip)
    labels = torch.tensor(label_of, device=device)[data.test.labels.to(device)]
    parts, read = _answers_of_all(streams, labels, orders, progress)
    left_out = _left_out(data, read)
    *alone, together = map(Predictions.joined, parts)
    looked_at = data.test[read] if left_out else data.test
    return Evaluation(members, tuple(a.accuracy for a in alone), together, views, flip, answered, looked_at, left_out)


def _loaded(sources: Sequence[str | Path], nets: Sequence[str], data: Data, reading: Reading) -> list[Loaded]:
    """The network of each source, and what its file says; nets: as `evaluate`'s."""
    if reading.get("image_size") is not None and data.shape is not None:
        raise UserError(f"the images of {data.title} are in memory and used uncropped: leave --image-size out.")
    names = nets if len(nets) == len(sources) else [nets[0] if nets else None] * len(sources)
    return [load_described(source, **reading | {"net": net}) for source, net in zip(sources, names, strict=True)]


def _streams(
    members: Sequence[Member], data: Data, views: Views, device: str, workers: int, skip: bool
) -> list[Iterator[tuple[Tensor, Tensor]]]:
    """`_batches` of each network over the test images; workers: of all together."""
    images = data.test.to(device) if isinstance(data.test, Images) else data.test
    share = max(1, workers // len(members)) if workers else 0
    return [_batches(m, images, views, device, share, BadImages(skip, limit=len(images))) for m in members]


def _answers_of_all(
    streams: Sequence[Iterator[tuple[Tensor, Tensor]]],
    labels: Tensor,
    orders: Sequence[list[int] | None],
    progress: Callable[[int, int], object],
) -> tuple[list[list[Predictions]], Tensor]:
    """The answers of each network and, last, of all together, batch by batch; and the numbers of the images read.

    Those are int64, of the images that could be read for all networks. streams: `_batches` of each network; labels:
    int64, of all images; orders: for each network, the output of each common answer.
    """
    parts: list[list[Predictions]] = [[] for _ in range(len(streams) + 1)]
    read = torch.empty(0, dtype=torch.int64)
    for batches in zip(*streams, strict=True):
        new = reduce(lambda a, b: a[torch.isin(a, b)], (numbers for numbers, _ in batches))  # in all, in order
        read = torch.cat([read, new])
        if len(new):
            logs = [log[torch.isin(numbers, new).to(labels.device)] for numbers, log in batches]
            logs = [log if order is None else log[:, order] for log, order in zip(logs, orders, strict=True)]
            for part, log in zip(parts, [*logs, average(logs)], strict=True):
                part.append(Predictions.of(log, labels[new.to(labels.device)]))
        progress(len(read), len(labels))
    progress(len(labels), len(labels))  # done, though some may have been left out
    return parts, read


def _check_asked(
    sources: Sequence[str | Path], data: Data, nets: Sequence[str], views: str, flip: bool, unreadable: str | None
) -> None:
    """Raise UserError for arguments that no network could satisfy."""
    check_choice("views", views, VIEWS)
    if unreadable is not None:
        check_choice("unreadable", unreadable, ("error", "skip"))
    if flip and VIEWS[views].mirrored:
        raise UserError(f"{views} already includes mirror images; leave --flip out.")
    if views != "1-crop" and data.shape is not None:
        raise UserError(
            f"{views} crops files, but the images of {data.title} are in memory, all {data.shape[1]}x{data.shape[2]} "
            "pixels, and used uncropped. Use 1-crop, with --flip to add mirror images."
        )
    if not sources or len(nets) not in (0, 1, len(sources)):
        networks = counted(len(sources), "network")
        raise UserError(f"{networks} but {counted(len(nets), 'name')}: give one --net for all, or one for each.")
    if not len(data.test):
        raise UserError(f"{data.title} has no test images.")


def _left_out(data: Data, read: Tensor) -> tuple[str, ...]:
    """The places of the test images that were not read. Raises UserError if no image was read."""
    missing = torch.ones(len(data.test), dtype=torch.bool)
    missing[read] = False
    if not isinstance(data.test, Files) or not missing.any():
        return ()
    places = tuple(data.test.place(i) for i in missing.nonzero()[:, 0].tolist())
    if len(places) == len(data.test):
        raise UserError(f"{places[0]}: neither this nor any other test image can be read; see 'resnetlab data audit'.")
    return places


def understood(members: Sequence[Member], data: Data) -> list[str]:
    """Lines that say what is evaluated on what: one in all, plus one for each of several networks, and one for each
    network whose classes are not simply those of the data.
    """

    def fields(member: Member) -> dict[str, Any]:
        size, assumed = member.net.spec.input_size, member.size_assumed
        looked_at = {"size": size, "size_assumed": assumed, "resizing": member.resizing}
        return looked_at | {"layout": member.layout, "normalisation": member.normalisation}

    if len(members) == 1:
        return [str(Understood.of(data, **fields(members[0]))), *classes_told(members[0].source, members[0].matched)]
    lines = [str(Understood.of(data))]
    for member in members:
        own = str(Understood(member.matched.classes, **fields(member)))
        lines += [f"{member.source}: {own}", *classes_told(member.source, member.matched)]
    return lines


def classes_told(source: str, matched: Matched) -> list[str]:
    """A line that says how the data's classes were matched, if they are not simply those of the training."""
    return [f"{source}: classes {matched.words}"] if matched.words != SAME else []


def trained_on(sources: Sequence[str | Path]) -> frozenset[str]:
    """The fingerprints of the data that runs were trained on, as far as their folders state them; see `open_data`."""
    found = set()
    for path in (source_path(source) for source in sources if not is_name(source)):
        for folder in (path, path.parent.parent):  # of RUN and RUN/last/weights.safetensors
            with contextlib.suppress(UserError, OSError):  # no run, or a damaged one
                found.add(read_settings(folder)["data"]["fingerprint"])
                break
    return frozenset(found)


def _member(
    source: str,
    loaded: Loaded,
    data: Data,
    views: Views,
    device: str,
    classes: Mapping[str, str],
    order: str,
) -> Member:
    """The network ready to be evaluated. Raises UserError unless it fits the data."""
    spec, card = loaded.net.spec, loaded.metadata
    shape = data.shape or (3, spec.input_size, spec.input_size)
    names = loaded.classes
    check_outputs(source, spec.num_classes)
    if spec.in_channels != shape[0] or (names is None and spec.num_classes != len(data.classes)):
        raise UserError(
            f"{source}: a network for {spec.in_channels} channel{'s' * (spec.in_channels != 1)} and {spec.num_classes} "
            f"classes, but {data.title} has {shape[0]} and {len(data.classes)}."
        )
    matched = match_classes(source, names, data.title, data.classes, classes, order)
    if views.whole and not can_be_convolutional(loaded.net):
        raise UserError(
            f"{source}: multi-scale needs a VGG net for images of 224 pixels, whose fc layers become convolutions over "
            f"7x7 maps, but this one is for {spec.input_size}; use 1-crop or 10-crop."
        )
    normalise, words = _normalisation(loaded, data)
    if not normalise.fits(shape):
        raise UserError(f"{source}: trained on images of a different size than {data.title}'s {shape}.")
    if views.whole and max(normalise.mean[0].numel(), normalise.std[0].numel()) > 1:
        normalise = Normalisation(*(t.mean((1, 2), keepdim=True) for t in (normalise.mean, normalise.std)))
        words += ", averaged over each channel, since the images have other sizes"
    digest = hashlib.sha256()
    for path in loaded.files:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return Member(
        source=source,
        net=loaded.net.to(device),
        normalise=normalise.to(device),
        weights_sha256=digest.hexdigest(),
        layout=loaded.naming,
        normalisation=words,
        matched=matched,
        skips=skips(card),
        size_assumed=data.shape is None and not loaded.tells_size,
        resizing=loaded.resizing if data.shape is None else None,
    )


def _normalisation(loaded: Loaded, data: Data) -> tuple[Normalisation, str]:
    """How images are normalised for a network, and whose normalisation that is, in words."""
    if loaded.metadata:
        return loaded.metadata.normalisation, whose_normalisation(loaded)
    if isinstance(data.train, Files):
        return imagenet(), whose_normalisation(loaded)
    measured = measure(data.train, 0).channel_mean_std()
    return measured, f"measured on {data.title}'s training images, since the file does not state one"


def whose_normalisation(loaded: Loaded) -> str:
    """Whose normalisation is used, in words."""
    if loaded.normalise:
        return f"{loaded.normalise}, as given"
    if not loaded.metadata:
        return "ImageNet's, assumed, since the file does not state one"
    return "from the file" if loaded.naming == OURS else f"that of {loaded.naming}'s training"


def skips(card: ModelMetadata | None) -> bool:
    """Whether a network's training left out unreadable images."""
    return card is not None and card.recipe.get("unreadable") == "skip"


def _run_by(
    engine: Callable[[ResNet | VGG, Normalisation], Callable[[Tensor], Tensor]], member: Member, views: Views
) -> Member:
    """The member, run by an engine. Raises UserError for views that only the network itself supports."""
    if views.whole:
        raise UserError("engines take images of one size, and multi-scale has many: leave --engine out.")
    if views.mirrored and max(member.normalise.mean[0].numel(), member.normalise.std[0].numel()) > 1:
        raise UserError(f"{member.source}: its mean image is not mirrored with the images: leave --engine out.")
    return replace(member, scores=engine(member.net, member.normalise))


def _answers(member: Member, views: Views, device: str, pixels: Tensor) -> Tensor:
    """ln of the softmax for views of images, uint8 N C H W: float64 N K."""
    if member.scores is None:
        x = member.normalise(pixels.to(device, non_blocking=True))
        return log_probabilities(member.net, x, whole=views.whole, mirrored=views.mirrored)
    looked_at = [pixels, pixels.flip(3)] if views.mirrored else [pixels]
    return average([member.scores(each).to(widest_float(device)).log_softmax(1) for each in looked_at])


def _batches(
    member: Member, images: Images | Files, views: Views, device: str, workers: int, unreadables: BadImages
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the numbers of test images that could be read, in order, and ln of the probabilities, float64 N K."""
    spec, resizing = member.net.spec, member.resizing or USUAL

    def answers(pixels: Tensor) -> Tensor:
        return torch.cat(in_halves(partial(_answers, member, views, device), pixels))

    none = torch.empty(0, spec.num_classes, dtype=widest_float(device), device=device)
    if isinstance(images, Images) or views.crops is one_crop:
        batches = placed_batches(
            images, 0, len(images), evaluation_batch(images), spec.input_size, workers, unreadables, resizing
        )
        for pixels, places in batches:
            yield places, answers(pixels) if len(places) else none
        return
    read, done = read_views(images, views, spec.input_size, workers, unreadables, resizing), 0
    while some := list(islice(read, IMAGES_AT_ONCE)):
        parts = [[torch.from_numpy(view) for view in each] for each in some if each]
        places = torch.tensor([done + i for i, each in enumerate(some) if each], dtype=torch.int64)
        yield places, over_views(answers, parts) if parts else none
        done += len(some)
