"""The metadata of our weight files: the network, its classes, how images are prepared, the recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from resnetlab.data.normalisation import Normalisation
from resnetlab.data.resizing import Resizing
from resnetlab.nets.spec import NetSpec
from resnetlab.nets.vgg import VGGSpec
from resnetlab.nets.zoo import Spec


class Preprocessing(NamedTuple):
    """How the publisher of a file prepares images for its network, if the file itself does not state it."""

    mean: tuple[float, ...]  # of each channel, of pixels / 255
    std: tuple[float, ...]
    size: int | None  # of images, pixels a side; None if theirs aren't square
    resizing: Resizing
    other: str = ""  # what the publisher does differently from resnetlab, in words


@dataclass(frozen=True)
class ModelMetadata:
    """The metadata of a weight file, which are all that prediction needs."""

    spec: Spec
    classes: tuple[str, ...] | None  # their names; None if they are not known
    normalisation: Normalisation
    recipe: dict[str, Any]
    measured: dict[str, Any] = field(default_factory=dict)  # the accuracy of exactly these weights, and its data
    resizing: Resizing | None = None  # of test images, if it is stated

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "classes": None if self.classes is None else list(self.classes),
            "mean": self.normalisation.mean.tolist(),  # float32 -> decimal -> float32 loses nothing
            "std": self.normalisation.std.tolist(),
            "recipe": self.recipe,
            **({"measured": self.measured} if self.measured else {}),
            **({"resizing": self.resizing.to_dict()} if self.resizing else {}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelMetadata:
        """The inverse of `to_dict`. Raises ValueError for other content.

        Without a recipe, class names that are numbers from 0 count as missing: earlier versions wrote these into files
        made from other projects' weights.
        """
        try:
            spec = spec_from_dict(values["spec"])
            mean, std = (torch.tensor(values[key], dtype=torch.float32) for key in ("mean", "std"))
            classes, recipe = values["classes"], values["recipe"]
            measured = values.get("measured", {})
            resizing = Resizing.from_dict(values["resizing"]) if "resizing" in values else None
        except KeyError as error:
            raise ValueError(f"it lacks {error}") from error
        except (TypeError, AttributeError, RuntimeError, OverflowError) as error:  # RecursionError is a RuntimeError
            raise ValueError(str(error)) from error
        for key, t in (("mean", mean), ("std", std)):
            if t.ndim != 3 or any(have not in (1, want) for have, want in zip(t.shape, spec.image_shape, strict=True)):
                raise ValueError(f"its {key} of shape {tuple(t.shape)} does not fit images of {spec.image_shape}")
            if not t.isfinite().all() or (key == "std" and (t <= 0).any()):
                raise ValueError(f"its {key} is not finite{' and above 0' * (key == 'std')}")
        if classes is not None and (not isinstance(classes, list) or len(classes) != spec.num_classes):
            raise ValueError(f"its classes should be {spec.num_classes} names")
        for what, fields in (("recipe", recipe), ("measured", measured)):
            if not isinstance(fields, dict):
                raise ValueError(f"its {what} should be fields with values")
        names = None if classes is None else tuple(map(str, classes))
        if not recipe and names == tuple(map(str, range(spec.num_classes))):
            names = None
        return cls(spec, names, Normalisation(mean, std), recipe, measured, resizing)


def weights_bytes(net: nn.Module, known: ModelMetadata | Spec) -> bytes:
    """A weight file's content, with its metadata, or with only the network if nothing else is known."""
    values = known.to_dict() if isinstance(known, ModelMetadata) else {"spec": known.to_dict()}
    header = {"resnetlab": json.dumps(values)}  # one key, because the order of several is not fixed
    tensors, stores = dict[str, Tensor](), set[int]()
    for name, tensor in net.state_dict().items():
        whole = tensor.detach().cpu().contiguous()
        store = whole.untyped_storage().data_ptr()
        tensors[name] = whole.clone() if store in stores else whole  # safetensors refuses what shares memory
        stores.add(store)
    return save(tensors, header)


def described(header: dict[str, str]) -> tuple[Spec, ModelMetadata | None]:
    """The network and the metadata that a weight file of ours states. Raises ValueError if they are damaged."""
    values = json.loads(header["resnetlab"])
    if not isinstance(values, dict):
        raise ValueError(f"it should be fields with values, not a {type(values).__name__}")
    if values.keys() == {"spec"}:
        try:
            return spec_from_dict(values["spec"]), None
        except (TypeError, AttributeError, KeyError) as error:
            raise ValueError(str(error)) from error
    metadata = ModelMetadata.from_dict(values)
    return metadata.spec, metadata


def spec_from_dict(values: dict[str, Any]) -> Spec:
    """A network's spec from its JSON values, residual or VGG."""
    if "convs" in values:
        return VGGSpec(**{**values, "convs": tuple(values["convs"])})
    return NetSpec.from_dict(values)
