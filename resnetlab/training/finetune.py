"""Fine-tuning: which weights a run takes from its source, and which are new."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from resnetlab.data.images import Data
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError, counted, first_of
from resnetlab.nets.spec import SIZES
from resnetlab.nets.zoo import Spec
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.run_files import source_path
from resnetlab.training.recipe import Recipe
from resnetlab.weights.interop import OURS
from resnetlab.weights.load import Loaded, load_described
from resnetlab.weights.sources import absent_hint, is_name

MOST_CLASSES_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What a run takes from its source: all weights of a network, or all but its head if that is for other classes."""

    spec: Spec  # of the source's network
    tensors: dict[str, Tensor]  # those that are kept, by name
    new: tuple[str, ...]  # names of the others, which are initialised by the run's seed
    normalisation: Normalisation | None  # of the source's images, if the recipe asks for it and the file states it
    note: str  # what is kept and what is new, in words
    naming: str = OURS  # whose parameter names the source has
    resizing: Resizing | None = None  # of test images, if the source states it and the images are files
    pairs: tuple[str, ...] = ()  # how its tensors were paired with the network's, if that was done by order

    @cached_property
    def digest(self) -> str:
        """A hash of the kept tensors, whatever file they are in, and of the normalisation.

        It leaves out `resizing`, which earlier versions did not take over, so that their runs keep their ids.
        """
        normalise = self.normalisation
        numbers = [normalise.mean.tolist(), normalise.std.tolist()] if normalise else None
        hashed = hashlib.sha256(json.dumps(numbers).encode())
        for name, tensor in sorted(self.tensors.items()):
            hashed.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            hashed.update(tensor.contiguous().numpy().tobytes())
        return hashed.hexdigest()[:16]

    def put_into(self, net: nn.Module) -> None:
        """Give the network the weights that are kept; the others stay as they are."""
        net.load_state_dict(net.state_dict() | self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Its entry in run.json."""
        more: dict[str, Any] = {"pairs": list(self.pairs)} if self.pairs else {}
        more |= {"resizing": self.resizing.to_dict()} if self.resizing else {}
        return {"digest": self.digest, "kept": len(self.tensors), "new": list(self.new), "note": self.note, **more}


def read_pretrained(recipe: Recipe, data: Data) -> Pretrained:
    """Read the run folder or weight file that the recipe starts from, and decide what of it fits the data.

    The head is kept if the file names the same classes as the data, in the same order; otherwise it is new, also if the
    file names no classes or has no head. Raises UserError for a source that can't be read or holds no network, and for
    a network with another number of channels.
    """
    source = recipe.start
    if not is_name(source) and not os.path.exists(source_path(source)):
        raise UserError(
            f"{source}: no such run folder or weight file to start from{absent_hint(source)}. A run's id depends on "
            "the weights it started from, so the command that resumes it needs them too."
        )
    loaded = _load(recipe)
    net, metadata, naming = loaded.net, loaded.metadata, loaded.naming
    spec, channels = net.spec, data.shape[0] if data.shape else 3
    if spec.in_channels != channels:
        raise UserError(
            f"{source}: a network for images with {counted(spec.in_channels, 'channel')}, but those of {data.title} "
            f"have {channels}: start from another network."
        )
    tensors, head = net.state_dict(), _head(net)
    if loaded.classes == data.classes:
        new: tuple[str, ...] = ()
        words = f"{head} is kept too, since the classes are the same"
    else:
        new = tuple(name for name in tensors if name.startswith(f"{head}."))
        before = f"{spec.num_classes}" if loaded.classes else f"{spec.num_classes} classes without names in the file"
        before = before if loaded.has_head else "none in the file"
        words = f"{head} is new: {before} -> {len(data.classes)} classes ({first_of(data.classes, MOST_CLASSES_SHOWN)})"
    kept = {name: tensor for name, tensor in tensors.items() if name not in new}
    note = f"kept {len(kept)} tensors of {spec.name or 'a network'} from {source}; {words}"
    normalise = metadata.normalisation if metadata and recipe.normalise == "source" else None
    resizing = None if data.shape else loaded.resizing
    return Pretrained(spec, kept, new, normalise, note, naming, resizing, loaded.pairs)


def check_size(pretrained: Pretrained, recipe: Recipe, size: int) -> None:
    """Raise UserError if the source's mean is an image of another size than the run's."""
    height = pretrained.normalisation.mean.shape[1] if pretrained.normalisation else 1
    if height not in (1, size):
        raise UserError(
            f"{recipe.start}: its mean image is {height} pixels wide, but these images are {size}: give "
            f"--image-size {height} if they are files, or --normalise imagenet, pixel_mean or channel_mean_std."
        )


def _load(recipe: Recipe) -> Loaded:
    """The source's network and what its file states; the recipe may name the network although the file does."""
    try:
        return load_described(recipe.start, net=recipe.net or None, head=False, match=recipe.match)
    except UserError:
        if recipe.net and recipe.match == "names":  # a name does not state the sizes that the source's data had
            with contextlib.suppress(UserError):
                loaded = load_described(recipe.start, head=False)
                sizes = {name: getattr(loaded.net.spec, name) for name in SIZES}
                if replace(named_spec(recipe.net), **sizes) == loaded.net.spec:
                    return loaded
        raise


def _head(net: nn.Module) -> str:
    """The name of the last layer: fc, or classifier.6 of a VGG net."""
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
