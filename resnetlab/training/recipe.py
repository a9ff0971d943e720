"""Recipe: everything that decides how a network learns, as one frozen value."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from resnetlab.data.open import DATA_NAMES
from resnetlab.errors import UserError, as_python, check_choice, did_you_mean, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from resnetlab.data.loading import Augmentation

ScheduleName = Literal["constant", "multistep", "cosine", "onecycle", "plateau"]
WarmupName = Literal["none", "linear", "constant", "train_error"]
MatchName = Literal["names", "order"]
NORMALISATIONS = ("pixel_mean", "channel_mean_std", "imagenet", "source")  # besides cifar10, cifar100 and MEAN/STD
AugmentName = Literal["none", "crop_flip", "crop_alternating_flip", "scale_crop_flip_colour", "resized_crop_flip"]
PolicyName = Literal["none", "randaugment", "trivialaugment"]
UnreadableName = Literal["error", "skip"]
DecayName = Literal["all", "weights"]
OptimiserName = Literal["sgd", "muon", "adamw"]
BalanceName = Literal["none", "class_weights", "sampling"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
Switch = bool | Literal["auto"]  # auto: whichever is faster on the machine on which the run starts


def _field(default: Any, words: str) -> Any:
    """A field of Recipe with the words that `resnetlab train --help` shows."""
    return field(default=default, metadata={"help": words})


def _retired(default: Any) -> Any:
    """A field of earlier versions, which is read, so that their runs keep their ids, but ignored."""
    return field(default=default, metadata={"help": "Ignored; runs of earlier versions may have it.", "retired": True})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A network, its data, and how it is trained. Every field is an option of `resnetlab train`.

    Milestones are shares of the run, so that a shorter run keeps its shape. Raises UserError for invalid values.
    """

    net: str = _field("cifar_resnet20", "The network's name, as in 'resnetlab describe'; '': the source's network.")
    start: str = _field(
        "",
        "The source from whose weights training starts: a run folder, a weight file, or pretrained:NAME, "
        "torchvision:NAME, timm/NAME or hf:OWNER/NAME.",
    )
    match: MatchName = _field(
        "names",
        "names: pair a source's tensors with the network's by name; order: pair them by order and shape with those of "
        "net, for files whose names are not known.",
    )
    freeze: int = _field(
        0, "Number of layer groups to freeze, with their batch norm statistics: 1 the stem, 2 the first stage too."
    )
    layer_decay: float = _field(1.0, "Factor on lr from each layer group to the one before it, from head to stem.")
    data: str = _field("digits", f"The data set: {DATA_NAMES}.")
    seed: int = _field(0, "Seed of the initial weights, the order of images and the augmentation.")
    validation_images: int = _field(0, "Number of training images to hold out for selecting the best weights.")
    validation_share: float = _field(0.0, "The same, as a share of the training images.")
    stop_after: int = _field(0, "Stop after this many evaluations without a lower validation error; 0: never.")
    unreadable: UnreadableName = _field(
        "error", "For an unreadable file: stop with an error that names it, or skip it."
    )
    unreadable_limit: int = _field(100, "With unreadable=skip: the maximum number of files an epoch may lack.")
    image_size: int | None = _field(
        None, "Side length in pixels of images from files; default: the network's input size."
    )
    normalise: str = _field(
        "pixel_mean",
        "pixel_mean: subtract each pixel's mean over the training images; channel_mean_std: use each channel's mean "
        "and standard deviation; source: normalise as the source's file states. Or what the source was trained with, "
        "if its file does not state it, as in eval: imagenet, cifar10, cifar100, or MEAN/STD of pixels from 0 to 1.",
    )
    augment: AugmentName = _field(
        "none",
        "crop_flip: pad, random crop, flip; crop_alternating_flip: the same, but each image is mirrored in every other "
        "epoch (Jordan 2024). For files, resized_crop_flip: crop of random area and shape, flip; "
        "scale_crop_flip_colour: random scale, crop, flip, colour noise (He 2015).",
    )
    crop_padding: int = _field(
        4, "crop_flip, crop_alternating_flip: pixels of padding on each side, the farthest that a crop moves."
    )
    policy: PolicyName = _field("none", "Randomly drawn operations, in addition to augment.")
    colour_jitter: float = _field(0.0, "Change brightness, contrast and saturation by up to this share.")
    erasing: float = _field(0.0, "Share of images in which a random rectangle is erased.")
    mixup: float = _field(0.0, "alpha of mixup: images and labels are mixed with a share from Beta(alpha, alpha).")
    cutmix: float = _field(0.0, "alpha of CutMix; if mixup is given too, each batch uses one of them.")
    balance: BalanceName = _field(
        "none",
        "For classes of uneven size. class_weights: the loss counts each class alike; sampling: an epoch shows the "
        "same number of images of each class, repeating those of small ones.",
    )
    label_smoothing: float = _field(0.0, "Share of each label that is spread over all classes.")
    epochs: float | None = _field(30.0, "Length of the run in epochs; alternatively give iterations.")
    iterations: int | None = _field(None, "Length of the run in steps; alternatively give epochs.")
    least_iterations: int = _field(0, "With epochs: the minimum number of steps, however few the images.")
    batch_size: int = _field(128, "Images per step, over all processes together.")
    lr: float = _field(0.1, "The highest learning rate.")
    schedule: ScheduleName = _field("multistep", "How lr decreases.")
    milestones: tuple[float, ...] = _field((0.5, 0.75), "multistep: shares of the run at which lr is lowered.")
    lr_drop: float = _field(0.1, "multistep, plateau: factor by which lr is multiplied when it is lowered.")
    patience: int = _field(5, "plateau: evaluations without a lower error before lr is lowered.")
    warmup: WarmupName = _field("none", "train_error: keep warmup_lr until the training error is below warmup_error.")
    warmup_steps: int = _field(0, "linear, constant: length of the warm-up; train_error: its maximum, 0 for no limit.")
    warmup_lr: float = _field(0.0, "linear: the initial lr; constant, train_error: the lr during warm-up.")
    warmup_error: float = _field(80.0, "train_error: the training error in % that ends the warm-up.")
    optimiser: OptimiserName = _field(
        "sgd",
        "sgd: with momentum; muon: the same, but updates of convolutions are made orthogonal (Jordan et al. 2024); "
        "adamw: with decoupled weight decay (Loshchilov & Hutter 2019), at a hundredth of SGD's lr.",
    )
    muon_lr: float = _field(0.02, "muon: the highest rate of the convolutions; it falls as lr does.")
    momentum: float = _field(0.9, "v := momentum * v + gradient; adamw: beta1.")
    nesterov: bool = _field(False, "Use Nesterov momentum; sgd and muon only.")
    weight_decay: float = _field(1e-4, "Add this multiple of the weights to the gradient; adamw: to the update.")
    decay: DecayName = _field("all", "Apply weight decay to all, as in the papers, or not to batch norm and biases.")
    sync_bn: bool = _field(False, "With several processes: compute batch norm's statistics over the whole batch.")
    channels_last: Switch = _field(
        False, "Use the memory layout N H W C: faster on most processors; rounds differently."
    )
    precision: PrecisionName = _field(
        "fp32", "Precision of convolutions and matrix products in a step; weights and the last evaluation are fp32."
    )
    compile: Switch = _field(
        False, "Faster steps: fuse batch norm, sum and ReLU on a CPU; compile residual units on a GPU."
    )
    accumulate: int = _field(1, "Split each batch into this many parts, computed one after another, to save memory.")
    checkpoint_activations: bool = _field(False, "Recompute the units' activations for the gradient, to save memory.")
    clip_gradient: float = _field(0.0, "Maximum norm of the gradient over all weights; 0: no limit.")
    ema: float = _field(0.0, "Decay of a moving average of the weights, which is evaluated in their place; 0: none.")
    bn_reestimate: int = _field(
        0, "Batches (at most an epoch) over which batch norm's statistics are re-estimated after training; 0: none."
    )
    fused: bool = _retired(False)  # ran the update in one kernel, which was no faster

    def __post_init__(self) -> None:
        if hasattr(self.net, "input_size") and not isinstance(self.net, type):  # a NetSpec, or a VGG net's
            from resnetlab.nets.zoo import text_of  # a recipe is read without torch

            object.__setattr__(self, "net", text_of(self.net))  # type: ignore[arg-type]
        for name, hint in TYPES.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        if (self.epochs is None) == (self.iterations is None):
            raise UserError("give exactly one of epochs and iterations.")
        for name, low, high, words in _RANGES:
            value = getattr(self, name)
            if value is not None and not (low <= value <= high):
                raise UserError(f"{name}={shown(value)} must be {words}.")
        if self.normalise not in NORMALISATIONS:
            from resnetlab.data.normalisation import check_normalisation  # a recipe is read without torch

            check_normalisation(self.normalise, NORMALISATIONS)
        of_source = {"net": not self.net, "normalise": self.normalise == "source", "freeze": self.freeze}
        of_source |= {"match": self.match == "order"}
        for name, needs_start in of_source.items():
            if needs_start and not self.start:
                raise UserError(f"{name}={shown(getattr(self, name))} needs weights to start from (--from).")
        for wrong, words in self._contradictions():
            if wrong:
                raise UserError(words)

    def _contradictions(self) -> tuple[tuple[bool, str], ...]:
        """Whether fields contradict each other, each with words that say which and why."""
        held_out = self.validation_images > 0 or self.validation_share > 0
        rising = all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(self.milestones)
        return (
            (self.epochs == 0, "epochs=0.0 must be more than 0."),
            (not rising, f"milestones={self.milestones} must be increasing shares of the run, between 0 and 1."),
            (
                self.schedule == "multistep" and not self.milestones,
                "schedule='multistep' needs milestones; for an lr that never falls, give schedule='constant'.",
            ),
            (
                self.warmup in ("linear", "constant") and self.warmup_steps < 1,
                f"warmup={self.warmup!r} needs warmup_steps of at least 1.",
            ),
            (
                self.validation_images > 0 and self.validation_share > 0,
                "give either validation_images or validation_share, not both.",
            ),
            (
                self.stop_after > 0 and not held_out,
                f"stop_after={self.stop_after} needs held-out images, since test images must not decide: give "
                "validation_images or validation_share.",
            ),
            (
                self.stop_after > 0 and self.bn_reestimate > 0,
                f"bn_reestimate={self.bn_reestimate} runs after the last step, which is not known in advance with "
                f"stop_after={self.stop_after}; leave one of them out.",
            ),
            (
                self.optimiser == "muon" and self.lr == 0,
                "optimiser='muon' needs an lr above 0, by which muon_lr falls.",
            ),
            (
                self.optimiser == "adamw" and self.nesterov,
                "nesterov=True is a form of SGD's momentum; leave it out with optimiser='adamw'.",
            ),
            (self.nesterov and self.momentum == 0, "nesterov=True needs a momentum above 0."),
            (
                self.batch_size < 2 * self.accumulate,
                f"accumulate={self.accumulate}: a batch of {self.batch_size} has fewer than two images per part, which "
                "batch norm needs; lower accumulate.",
            ),
        )

    def override(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; fields that they replace are reset unless they are given as well.

        epochs and iterations replace each other and reset least_iterations; validation_images and validation_share
        replace each other; start resets match, and the network and the normalisation, which are then the source's;
        optimiser="adamw" resets nesterov. Raises UserError for an unknown field, with the nearest names.
        """
        for key in changes:
            if key not in FIELDS:
                hint = " Did you mean start?" if key == "from" else did_you_mean(key, FIELDS)
                raise UserError(f"{shown(key)} is not a field of a recipe.{hint}")
        for name, replaced in REPLACED.items():
            given = changes.get(name)
            if given is not None and not (isinstance(given, str) and given == ""):  # an array is equal to nothing
                changes = replaced | changes
        if isinstance(changes.get("optimiser"), str) and changes["optimiser"] == "adamw":
            changes = {"nesterov": False} | changes
        return replace(self, **changes)

    def check_effect(self, names: Iterable[str]) -> None:
        """Raise UserError if one of these fields, which somebody set, has no effect beside the other fields."""
        for name in names:
            decider, values = DECIDED_BY.get(name, (name, ()))
            if values and getattr(self, decider) not in values and getattr(self, name) != DEFAULTS[name]:
                choices = " or ".join(f"{decider}={value!r}" for value in values)
                raise UserError(
                    f"{name}={shown(getattr(self, name))} has no effect with {decider}={getattr(self, decider)!r}: "
                    f"give {choices} as well, or leave {name} out."
                )

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation of training images."""
        from resnetlab.data.loading import Augmentation  # a recipe is read without torch

        return Augmentation(**{f.name: getattr(self, f.name) for f in fields(Augmentation)})

    @property
    def ignored(self) -> dict[str, Any]:
        """The retired fields that are set."""
        return {name: getattr(self, name) for name, default in RETIRED.items() if getattr(self, name) != default}

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values; of retired fields only those that are set."""
        values = {k: v for k, v in asdict(self).items() if k not in RETIRED}
        return values | {"milestones": list(self.milestones)} | self.ignored


FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Recipe))
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Recipe)}
TYPES: dict[str, Any] = get_type_hints(Recipe)  # once: it parses every annotation
Recipe.__doc__ = f"{(Recipe.__doc__ or '').rstrip()}\n\n" + "\n".join(  # for help(Recipe)
    f"    {f.name}: {f.metadata['help']}" for f in fields(Recipe) if "retired" not in f.metadata
)
# Not part of a run's id: the network's name, where data and source are, and how they are read, since their contents
# are hashed instead.
NOT_IN_ID = ("net", "data", "start", "match")
RETIRED = {f.name: DEFAULTS[f.name] for f in fields(Recipe) if "retired" in f.metadata}
_COUNT, _RATE = 1e9, 1e6  # upper limits: larger values are mistakes, and would overflow
REPLACED: dict[str, dict[str, Any]] = {  # how a field, when given, resets others
    "epochs": {"iterations": None, "least_iterations": 0},
    "iterations": {"epochs": None, "least_iterations": 0},
    "validation_images": {"validation_share": 0.0},
    "validation_share": {"validation_images": 0},
    "start": {"net": "", "normalise": "source", "match": "names"},
}
_WARM = ("linear", "constant", "train_error")
DECIDED_BY: dict[str, tuple[str, tuple[str, ...]]] = {  # fields that only some values of another give an effect
    "milestones": ("schedule", ("multistep",)),
    "lr_drop": ("schedule", ("multistep", "plateau")),
    "patience": ("schedule", ("plateau",)),
    "warmup_steps": ("warmup", _WARM),
    "warmup_lr": ("warmup", _WARM),
    "warmup_error": ("warmup", ("train_error",)),
    "muon_lr": ("optimiser", ("muon",)),
    "crop_padding": ("augment", ("crop_flip", "crop_alternating_flip")),
    "unreadable_limit": ("unreadable", ("skip",)),
}
_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("seed", 0, 2**31, "0 to 2^31"),
    ("freeze", 0, _COUNT, "0 to the number of stages plus 1"),
    ("layer_decay", 0, 1, "a factor between 0 and 1"),
    ("validation_images", 0, _COUNT, "0 to 10^9"),
    ("validation_share", 0, 0.9, "a share, 0 to 0.9"),
    ("stop_after", 0, _COUNT, "0 (never) to 10^9"),
    ("unreadable_limit", 0, _COUNT, "0 to 10^9"),
    ("image_size", 8, 4096, "8 to 4096 pixels"),
    ("crop_padding", 0, 4096, "0 to 4096 pixels"),
    ("colour_jitter", 0, 1, "a share, 0 to 1"),
    ("erasing", 0, 1, "a share, 0 to 1"),
    ("mixup", 0, 100, "0 (none) to 100"),
    ("cutmix", 0, 100, "0 (none) to 100"),
    ("label_smoothing", 0, 0.999999, "at least 0 and below 1"),
    ("epochs", 0, _COUNT, "more than 0 and at most 10^9"),
    ("iterations", 1, _COUNT, "1 to 10^9"),
    ("least_iterations", 0, _COUNT, "0 to 10^9"),
    ("batch_size", 2, _COUNT, "2 to 10^9, since batch norm has no variance of one image"),
    ("lr", 0, _RATE, "0 to 10^6"),
    ("lr_drop", 0, 1, "a factor between 0 and 1"),
    ("patience", 1, _COUNT, "1 to 10^9"),
    ("warmup_steps", 0, _COUNT, "0 to 10^9"),
    ("warmup_lr", 0, _RATE, "0 to 10^6"),
    ("warmup_error", 0, 100, "a percentage, 0 to 100"),
    ("muon_lr", 0, 1, "a rate, 0 to 1"),
    ("momentum", 0, 0.9999, "at least 0 and below 1"),
    ("weight_decay", 0, _RATE, "0 to 10^6"),
    ("accumulate", 1, _COUNT, "1 to 10^9"),
    ("clip_gradient", 0, _RATE, "0 (any) to 10^6"),
    ("ema", 0, 0.999999, "at least 0 (none) and below 1"),
    ("bn_reestimate", 0, _COUNT, "0 (none) to 10^9"),
)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """The value converted to its field's type if that loses nothing; else raise UserError."""
    kinds, value = get_args(hint), as_python(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if value is None and type(None) in kinds:
        return None
    if hint == Switch and value == "auto":
        return value
    if isinstance(kinds[0] if kinds else None, str):
        check_choice(name, value, kinds)
        return value
    if kinds and kinds[-1] is ...:
        if not isinstance(value, list | tuple):
            raise UserError(f"{name}={shown(value)} must be a list of numbers.")
        return tuple(_checked(name, v, kinds[0]) for v in value)
    kind = kinds[0] if kinds else hint
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise UserError(f"{name}={shown(value)} must be finite.")
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]
        wanted += " or auto" if hint == Switch else ""
        raise UserError(f"{name}={shown(value)} must be {wanted}.")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{name}={value!r} must be finite.")
    return value
