"""Recipe: everything that decides how a network learns, as one frozen value; and the named recipes."""

from __future__ import annotations

import math
import sys
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from resnetlab.data.names import DATA_NAMES
from resnetlab.errors import UserError, check_choice, did_you_mean, shown
from resnetlab.paths import decoded, expanded

ScheduleName = Literal["constant", "multistep", "cosine", "onecycle", "plateau"]
WarmupName = Literal["none", "linear", "constant", "train_error"]
NormaliseName = Literal["pixel_mean", "channel_mean_std", "imagenet", "source"]
AugmentName = Literal["none", "crop_flip", "scale_crop_flip_colour", "resized_crop_flip"]
PolicyName = Literal["none", "randaugment", "trivialaugment"]
UnreadableName = Literal["error", "skip"]
DecayName = Literal["all", "weights"]
OptimiserName = Literal["sgd", "muon"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]
Switch = bool | Literal["auto"]  # auto: what is fast on the machine that the run starts on


def _field(default: Any, words: str) -> Any:
    """A field of Recipe with the words that `resnetlab train --help` shows."""
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained on what, and how. Every field is an option of `resnetlab train`.

    Milestones are shares of the run, so that a shorter run keeps its shape. Raises UserError for values that can't be.
    """

    net: str = _field("cifar_resnet20", "The network's name, as in 'resnetlab describe'; '': the source's network.")
    start: str = _field("", "The source: a run folder or weight file from whose weights training starts.")
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
    image_size: int | None = _field(None, "Side length of images from files; default: the network's input size.")
    normalise: NormaliseName = _field(
        "pixel_mean",
        "Normalise by each pixel's mean, by each channel's mean and deviation, by ImageNet's, or as the source does.",
    )
    augment: AugmentName = _field(
        "none",
        "crop_flip: pad 4, random crop, flip. For files, resized_crop_flip: crop of random area and shape, flip; "
        "scale_crop_flip_colour: random scale, crop, flip, colour noise (He 2015).",
    )
    policy: PolicyName = _field("none", "Randomly drawn operations, in addition to augment.")
    colour_jitter: float = _field(0.0, "Change brightness, contrast and saturation by up to this share.")
    erasing: float = _field(0.0, "Share of images in which a random rectangle is erased.")
    mixup: float = _field(0.0, "alpha of mixup: images and labels are mixed with a share from Beta(alpha, alpha).")
    cutmix: float = _field(0.0, "alpha of CutMix; if mixup is given too, each batch uses one of them.")
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
        "sgd", "sgd: with momentum; muon: the same, but updates of convolutions are made orthogonal (Jordan 2024)."
    )
    muon_lr: float = _field(0.02, "muon: the highest rate of the convolutions; it falls as lr does.")
    momentum: float = _field(0.9, "v := momentum * v + gradient.")
    nesterov: bool = _field(False, "Use Nesterov momentum.")
    weight_decay: float = _field(1e-4, "Add this multiple of the weights to the gradient.")
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
    fused: bool = _field(False, "Run the optimiser's update in one kernel.")
    clip_gradient: float = _field(0.0, "Maximum norm of the gradient over all weights; 0: no limit.")
    ema: float = _field(0.0, "Decay of a moving average of the weights, which is evaluated in their place; 0: none.")
    bn_reestimate: int = _field(
        0, "Batches (at most an epoch) over which batch norm's statistics are re-estimated after training; 0: none."
    )

    def __post_init__(self) -> None:
        hints = get_type_hints(Recipe)
        for name, hint in hints.items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), hint))
        if (self.epochs is None) == (self.iterations is None):
            raise UserError("give exactly one of epochs and iterations.")
        for name, low, high, words in _RANGES:
            value = getattr(self, name)
            if value is not None and not (low <= value <= high):
                raise UserError(f"{name}={shown(value)} must be {words}.")
        if self.epochs == 0:
            raise UserError("epochs=0.0 must be more than 0.")
        if not all(0 < m < 1 for m in self.milestones) or list(self.milestones) != sorted(self.milestones):
            raise UserError(f"milestones={self.milestones} must be increasing shares of the run, between 0 and 1.")
        if self.warmup in ("linear", "constant") and self.warmup_steps < 1:
            raise UserError(f"warmup={self.warmup!r} needs warmup_steps of at least 1.")
        of_source = {"net": not self.net, "normalise": self.normalise == "source", "freeze": self.freeze}
        for name, needs_start in of_source.items():
            if needs_start and not self.start:
                raise UserError(f"{name}={shown(getattr(self, name))} needs weights to start from (--from).")
        if self.validation_images and self.validation_share:
            raise UserError("give either validation_images or validation_share, not both.")
        if self.stop_after and not (self.validation_images or self.validation_share):
            raise UserError(
                f"stop_after={self.stop_after} needs held-out images, since test images must not decide: give "
                "validation_images or validation_share."
            )
        if self.stop_after and self.bn_reestimate:
            raise UserError(
                f"bn_reestimate={self.bn_reestimate} runs after the last step, which is not known in advance with "
                f"stop_after={self.stop_after}; leave one of them out."
            )
        if self.optimiser == "muon" and self.lr == 0:
            raise UserError("optimiser='muon' needs an lr above 0, by which muon_lr falls.")
        if self.nesterov and self.momentum == 0:
            raise UserError("nesterov=True needs a momentum above 0.")
        if self.batch_size < 2 * self.accumulate:
            raise UserError(
                f"accumulate={self.accumulate}: a batch of {self.batch_size} has fewer than two images per part, which "
                "batch norm needs; lower accumulate."
            )

    def override(self, **changes: Any) -> Recipe:
        """A copy with some fields changed, and those that these replace unless they are given as well.

        One of epochs and iterations replaces the other, and both least_iterations; one of validation_images and
        validation_share the other; a start the network and the normalisation, which are then the source's.
        Raises UserError for an unknown field, with the nearest names.
        """
        for key in changes:
            if key not in FIELDS:
                raise UserError(f"{key!r} is not a field of a recipe.{did_you_mean(key, FIELDS)}")
        for name, replaced in _REPLACED.items():
            if changes.get(name) not in (None, ""):
                changes = replaced | changes
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return asdict(self) | {"milestones": list(self.milestones)}


FIELDS: tuple[str, ...] = tuple(f.name for f in fields(Recipe))
_COUNT, _RATE = 1e9, 1e6  # the most that may be asked for: what lies beyond is a slip, and would overflow
_REPLACED: dict[str, dict[str, Any]] = {  # what becomes of other fields when one is given
    "epochs": {"iterations": None, "least_iterations": 0},
    "iterations": {"epochs": None, "least_iterations": 0},
    "validation_images": {"validation_share": 0.0},
    "validation_share": {"validation_images": 0},
    "start": {"net": "", "normalise": "source"},
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
    ("colour_jitter", 0, 1, "a share, 0 to 1"),
    ("erasing", 0, 1, "a share, 0 to 1"),
    ("mixup", 0, 100, "0 (none) to 100"),
    ("cutmix", 0, 100, "0 (none) to 100"),
    ("label_smoothing", 0, 1, "a share, 0 to 1"),
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
    """The value as its field's type, where that loses nothing; else UserError."""
    kinds = get_args(hint)
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


RECIPES: dict[str, Recipe] = {
    # Ours, for the demo: a residual net of 56 layers learns the 1,437 images in half a minute, and a plain
    # one does not. At a rate of 0.1 without warm-up both fail.
    "digits": Recipe(
        net="cifar_resnet20",
        data="digits",
        epochs=15,
        batch_size=64,
        lr=0.05,
        schedule="multistep",
        milestones=(0.5, 0.75),
        warmup="linear",
        warmup_steps=46,  # two epochs
        channels_last=True,
    ),
    # He 2015, section 4.2, but for what is marked. Open points of the paper: it decides the schedule on
    # 45k/5k and does not say what the final runs train on (here: all 50k, as its re-implementations);
    # momentum is torch's form, v = μv + g, not Caffe's v = μv + lr·g, which differs when lr changes; its
    # batches of 128 lie on two GPUs, where batch norm presumably sees 64 images each (here: all on a device);
    # whether its test error is of moving averages or of re-estimated ones (here: moving). Initialisation (fan-out)
    # and where option A pads its zeros (after) are the network's: init= and zero_pad= of the net.
    "cifar_paper": Recipe(
        net="cifar_resnet20",
        data="cifar10:data",
        validation_images=0,  # 5000 gives the 45k/5k split
        normalise="pixel_mean",  # "the per-pixel mean subtracted"; fb.resnet.torch: channel_mean_std
        augment="crop_flip",  # "4 pixels are padded on each side, and a 32x32 crop ... or its horizontal flip"
        epochs=None,
        iterations=64_000,  # "terminate training at 64k iterations"
        batch_size=128,
        lr=0.1,
        schedule="multistep",
        milestones=(0.5, 0.75),  # "divide it by 10 at 32k and 48k iterations"
        lr_drop=0.1,
        warmup="none",  # 110 layers: warmup="train_error", warmup_lr=0.01, warmup_error=80; He 2016, section 4:
        # all CIFAR runs: warmup="constant", warmup_lr=0.01, warmup_steps=400, which its new unit does not need
        momentum=0.9,
        weight_decay=1e-4,
        decay="all",  # the paper gives the value alone; Goyal et al. 2017, section 5.1, say it spared γ and β
        precision="fp32",  # as the paper; so it says itself, whatever is fast
    ),
    # He 2015, section 3.4. Open points: what error has to plateau, and for how long (here: the training error, or
    # the validation error if images are held out, 5 epochs); pixel_mean is of the middle crops, since crops differ
    # from image to image. Not as there: momentum is torch's form; batches of 256 lay on 8 GPUs with batch norm over
    # 32 each; the released nets' batch norm statistics were averaged anew after training. 50 layers and more in the
    # paper's form are resnet50_v1 and so on.
    "imagenet_paper": Recipe(
        net="resnet34",
        data="imagenet:data",
        normalise="pixel_mean",
        augment="scale_crop_flip_colour",  # short side in [256, 480], 224 crop, flip, AlexNet's colour noise
        epochs=None,
        iterations=600_000,  # "up to 60 x 10^4 iterations", 119.9 epochs
        batch_size=256,
        lr=0.1,
        schedule="plateau",  # "divided by 10 when the error plateaus"; He 2016, section 5: at epochs 30 and 60, which
        # is schedule="multistep", epochs=90 (its end is not stated), milestones=(1/3, 2/3)
        lr_drop=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        decay="all",
        precision="fp32",
    ),
    # Goyal et al. 2017 (batch, lr, warm-up, γ = 0, 90 epochs) with the cosine and the smoothed labels of He T. et al.
    # 2019, "Bag of tricks" (which trains for 120). Not as there: the last layer starts as the zoo has it (Goyal:
    # from N(0, 0.01)), and He T.'s noise of colour is left out.
    "imagenet_modern": Recipe(
        net="resnet50(zero_gamma=True)",  # v1.5; γ = 0 in each unit's last batch norm: Goyal, section 5.1
        data="imagenet:data",
        normalise="imagenet",
        augment="resized_crop_flip",  # Goyal 5.1, He T. 2.1: a random part of 8 to 100 % of the area, and its flip
        label_smoothing=0.1,  # He T. 5.2
        epochs=90,
        batch_size=2048,  # of all GPUs together: 8 of 256 images
        lr=0.8,  # the linear rule, 0.1 · batch / 256 (Goyal 2.1): scale it with another batch_size
        schedule="cosine",  # He T. 5.1
        warmup="linear",  # Goyal 2.2, from 0 as He T. 3.1 (Goyal: from 0.1)
        warmup_steps=3130,  # 5 epochs: 1,281,167 images are 626 batches
        warmup_lr=0.0,
        momentum=0.9,
        nesterov=True,  # Goyal 5.1, who finds the plain form as good; He T. 2.1
        weight_decay=1e-4,  # Goyal 5.1; 5e-5 is common in later code
        decay="weights",  # not batch norm's γ and β: Goyal 5.1; nor biases: He T. 3.1
        precision="auto",
        channels_last="auto",
    ),
    # After Vryniotis 2021, "How to Train State-Of-The-Art Models Using TorchVision's Latest Primitives", whose resnet50
    # has 80.9 % top-1; the same kind as Wightman et al. 2021, "ResNet strikes back", with SGD in place of LAMB and
    # cross-entropy in place of a binary one. Not as there: crops of 224 pixels in training as in the evaluation
    # (176 there), each image once an epoch (there four views of a quarter of the images).
    "imagenet_strong": Recipe(
        net="resnet50",
        data="imagenet:data",
        normalise="imagenet",
        augment="resized_crop_flip",
        policy="trivialaugment",
        erasing=0.1,
        mixup=0.2,
        cutmix=1.0,
        label_smoothing=0.1,
        epochs=600,
        batch_size=1024,  # of all GPUs together: 8 of 128 images
        lr=0.5,
        schedule="cosine",
        warmup="linear",
        warmup_steps=6260,  # 5 epochs: 1,281,167 images are 1,252 batches
        warmup_lr=0.005,  # a hundredth of lr
        momentum=0.9,
        weight_decay=2e-5,
        decay="weights",
        ema=0.999966,  # there: every 32 steps towards the weights by 2e-5 · 8 · 128 · 32 / 600
        precision="auto",
        channels_last="auto",
    ),
    # Ours, for 100 to 100,000 images of one's own and `--from` a trained network, which brings its normalisation and
    # its size of image. A low rate, since the weights are good already; 20 epochs, or the 500 steps that few images
    # need. The best weights are chosen by a tenth of the training images, never by the test images. Without --from it
    # trains resnet18 from scratch.
    "finetune": Recipe(
        net="resnet18",
        data="folder:data",
        normalise="imagenet",
        augment="resized_crop_flip",
        label_smoothing=0.1,
        validation_share=0.1,
        epochs=20,
        least_iterations=500,
        batch_size=32,
        lr=0.01,
        schedule="cosine",
        warmup="linear",
        warmup_steps=50,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        decay="weights",
        precision="auto",
        channels_last="auto",
    ),
    # Ours, and not tuned yet: for about the error of cifar_paper in 25 epochs instead of 164. One cycle of the rate
    # (Smith & Topin 2018), a batch four times as large with lr raised as much (Goyal et al. 2017, section 2.1), labels
    # smoothed, a weight decay five times the paper's on the weights alone.
    "cifar_fast": Recipe(
        net="cifar_resnet20",
        data="cifar10:data",
        normalise="channel_mean_std",
        augment="crop_flip",
        label_smoothing=0.1,
        epochs=25,
        batch_size=512,
        lr=0.4,
        schedule="onecycle",
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        decay="weights",
        precision="auto",
        channels_last="auto",
        compile="auto",
    ),
}


def recipe(name: str, **overrides: Any) -> Recipe:
    """Return a recipe by its name or from a TOML file, with some fields changed.

    A file holds fields of Recipe and may start from a named one: `recipe = "cifar_paper"`. Raises
    UserError for an unknown name or field (with the nearest) and for a file that can't be read.
    """
    if name in RECIPES:
        return RECIPES[name].override(**overrides)
    if name.endswith(".toml"):
        return _from_file(expanded(name)).override(**overrides)
    raise UserError(
        f"recipe {name!r} is not known: choose one of {', '.join(RECIPES)}, or give a .toml file."
        f"{did_you_mean(name, RECIPES)}"
    )


def _from_file(path: Path) -> Recipe:
    try:
        values = tomllib.loads(decoded(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:  # ValueError: TOML's, Unicode's, and numbers of too many digits
        raise UserError(f"{path}: not a TOML file, {error}.") from error
    base = values.pop("recipe", None)
    try:
        if base is None:
            return Recipe().override(**values)
        if not isinstance(base, str) or base not in RECIPES:
            text = shown(base)
            raise UserError(f"recipe={text} must be one of {', '.join(RECIPES)}.{did_you_mean(text, RECIPES)}")
        return RECIPES[base].override(**values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
