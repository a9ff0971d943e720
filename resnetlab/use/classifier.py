"""A trained network with everything it needs to classify image files: classes, preprocessing, engine, device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from resnetlab.data.decoding import decode_resized
from resnetlab.data.normalisation import Normalisation, imagenet
from resnetlab.data.open import is_in_memory
from resnetlab.data.resizing import CROP_SIDE, TEST_SIDE, USUAL, Resizing
from resnetlab.errors import UserError, printable
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.vgg import VGG
from resnetlab.paths import expanded
from resnetlab.training.evaluate import skips, whose_normalisation
from resnetlab.use.exported import Engine, ExportedFile, first_engine, read_exported, suffix_of
from resnetlab.use.heat import CropArea
from resnetlab.use.recorded_accuracy import RecordedAccuracy, known_accuracy
from resnetlab.weights.load import check_outputs, load_described
from resnetlab.weights.metadata import ModelMetadata
from resnetlab.weights.reading import Reading

NUMBERED = "names of classes (numbered from 0 instead)"  # an item of `assumed`
LUMA = (0.299, 0.587, 0.114)  # grey of red, green and blue (ITU-R BT.601), as Pillow's


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode on `device`, the names of its classes, and how images are prepared for it."""

    network: ResNet | VGG | None  # None for an exported file
    classes: tuple[str, ...]
    normalise: Normalisation
    whole: bool  # whether the whole image is resized to the input size; else its middle is cropped, by `resizing`
    device: str
    source: str = ""  # as it was given
    named: bool = True  # whether the file names the classes; else they are numbers
    layout: str = ""  # whose parameter names the file has
    normalisation: str = ""  # whose it is, in words
    skips: bool = False  # whether its training left out unreadable images
    assumed: tuple[str, ...] = ()  # what its file doesn't state, and what was assumed instead, in words
    file: ExportedFile | None = None
    engine: Engine | None = None  # runs it; None: the network itself
    accuracy: RecordedAccuracy | None = None  # on its test images, if its run or file states it
    resizing: Resizing = USUAL  # before the crop; by default 224/256 of the short side is seen, as on ImageNet

    @classmethod
    def open(
        cls,
        source: str | Path,
        *,
        device: str = "cpu",
        head: bool = True,
        told: Callable[[str], object] = lambda _: None,
        **reading: Unpack[Reading],
    ) -> Classifier:
        """Open a run folder, a weight file or an exported file; head and reading are for `load_described`.

        If a file states no preprocessing or classes, ImageNet's means and deviations, and numbers, are used; told is
        called with a line that says so. Raises UserError as `resnetlab.load` and `read_exported` do.
        """
        if suffix_of(source):
            found = cls._of_exported(source, reading, device)
        else:
            found = cls._of_weights(source, reading, device, head)
        if found.assumed:
            told(f"{source}: the file does not state: {', '.join(found.assumed)}")
        return found

    @classmethod
    def _of_weights(cls, source: str | Path, reading: Reading, device: str, head: bool) -> Classifier:
        loaded = load_described(source, head=head, **reading)
        network, card, names = loaded.net, loaded.metadata, loaded.classes
        spec = network.spec
        if spec.in_channels not in (1, 3):
            raise UserError(f"{source}: a network for {spec.in_channels} channels, but images have 1 or 3.")
        if head:
            check_outputs(source, spec.num_classes)
        classes = names or tuple(map(str, range(spec.num_classes)))
        normalise = card.normalisation if card else imagenet(spec.in_channels)
        told = (
            (names or not head, NUMBERED),  # features have no classes
            (loaded.tells_size, f"size of images ({spec.input_size} pixels, unless --image-size gives another)"),
            (card is not None, "normalisation (ImageNet's, unless --normalise gives another)"),
        )
        found = cls(
            network=network.to(device),
            classes=classes,
            normalise=normalise.to(device),
            whole=_whole(card, spec),
            device=device,
            source=str(source),
            named=names is not None,
            layout=loaded.naming,
            normalisation=whose_normalisation(loaded),
            skips=skips(card),
            assumed=tuple(words for is_told, words in told if not is_told),
            accuracy=None if loaded.normalise else known_accuracy(source, loaded, reading.get("image_size")),
            resizing=loaded.resizing or USUAL,
        )
        return found._answering()

    @classmethod
    def _of_exported(cls, source: str | Path, reading: Reading, device: str) -> Classifier:
        for name, value in reading.items():
            if value not in (None, "last", "names"):  # the defaults
                raise UserError(f"{source}: an exported file states this itself; leave --{name.replace('_', '-')} out.")
        if device != "cpu":
            raise UserError(f"{source}: exported files run on the CPU; leave --device {device} out.")
        file = read_exported(expanded(source))
        check_outputs(source, len(file.classes))
        return cls(
            network=None,
            classes=file.classes,
            normalise=file.normalise,
            whole=file.whole,
            device="cpu",
            source=str(source),
            named=NUMBERED not in file.assumed,
            assumed=file.assumed,
            file=file,
            engine=first_engine(file),
            accuracy=file.accuracy,
            resizing=file.resizing,
        )._answering()

    def _answering(self) -> Classifier:
        """Return self. Raises UserError if its output is not finite."""
        grey = torch.full((1, *self.shape), 128, dtype=torch.uint8)
        if not self.probabilities(grey).isfinite().all():
            raise UserError(f"{self.source}: its output for a grey image is not finite: its weights are damaged.")
        return self

    @property
    def net(self) -> ResNet | VGG:
        """The network itself. Raises UserError for an exported file."""
        if self.network is None:
            raise UserError(
                f"{self.source}: an exported file only predicts classes; for this, give the run folder or "
                "weight file that it was exported from."
            )
        return self.network

    @property
    def name(self) -> str:
        """The network's name, as a line that can be printed and sent; a file from elsewhere states what it likes."""
        return printable(self.file.network if self.file else self.net.spec.name)

    @property
    def channels(self) -> int:
        """Channels of the images: 1 or 3."""
        return self.file.channels if self.file else self.net.spec.in_channels

    @property
    def size(self) -> int:
        """Side of the prepared, square images, in pixels."""
        return self.file.size if self.file else self.net.spec.input_size

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a prepared image: C H W."""
        return self.channels, self.size, self.size

    @property
    def seen(self) -> float:
        """Side of the square in the middle that the network sees, as a share of the image's short side."""
        return 1.0 if self.whole else self.resizing.crop_share or CROP_SIDE / TEST_SIDE

    @property
    def short_side(self) -> int:
        """The length to which an image's short side is resized, in pixels."""
        return self.size if self.whole else self.resizing.short_side(self.size)

    def prepare(self, content: bytes) -> Tensor:
        """An encoded image as the network sees it: uint8 C H W. Raises Unreadable."""
        return self.crop(self.resized(content))

    def resized(self, content: bytes) -> np.ndarray:
        """An encoded image before it is cropped: uint8 H W 3. Raises Unreadable."""
        return decode_resized(content, self.short_side, self.resizing.interpolation)

    def crop(self, image: np.ndarray) -> Tensor:
        """A resized image, uint8 H W 3, as the network sees it: uint8 C H W."""
        top, left = self._corner(image)
        image = image[top : top + self.size, left : left + self.size]
        if self.channels == 1:
            image = np.rint(image @ np.array(LUMA))[:, :, None].astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def crop_area(self, image: np.ndarray) -> CropArea:
        """The part of a resized image, uint8 H W 3, that `crop` returns."""
        height, width = image.shape[:2]
        top, left = self._corner(image)
        return CropArea(left / width, top / height, self.size / width, self.size / height)

    def _corner(self, image: np.ndarray) -> tuple[int, int]:
        top, left = (round((side - self.size) / 2) for side in image.shape[:2])
        return top, left

    def input(self, pixels: Tensor) -> Tensor:
        """Prepared images, uint8 N C H W, as the network's input: float32 N C H W on its device."""
        return self.normalise(pixels.to(self.device))

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """Softmax over the classes of prepared images, uint8 N C H W: float32 N K on the CPU."""
        scores = self.engine.scores(pixels) if self.engine else self.net(self.input(pixels))
        return scores.softmax(1).cpu()


def _whole(card: ModelMetadata | None, spec: object) -> bool:
    """Whether the network was evaluated on whole images: on data in memory, or on CIFAR by other projects."""
    if card and card.resizing:
        return False
    trained_on = str(card.recipe.get("data", "")).partition(":")[0] if card else ""
    return is_in_memory(trained_on) or (not trained_on and isinstance(spec, NetSpec) and spec.stem == "cifar")
