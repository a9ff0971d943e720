"""`load`: a trained network from a run folder or a weight file, and its metadata."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resnetlab.data.normalisation import Normalisation, parse_normalisation
from resnetlab.data.resizing import USUAL, Resizing
from resnetlab.errors import UserError, as_python, check_choice, first_of, printable, shown
from resnetlab.nets.net import ResNet
from resnetlab.nets.orders import ORDERS
from resnetlab.nets.spec import SIZES, NetSpec
from resnetlab.nets.vgg import VGG, VGGSpec
from resnetlab.nets.zoo import Spec, build, on_meta, text_of
from resnetlab.nets.zoo import spec as named_spec
from resnetlab.run_files import SETTINGS, WEIGHTS, read_settings
from resnetlab.storage import is_there, whole_folder
from resnetlab.weights.architectures import CLASSES, StatedClasses, check_architecture
from resnetlab.weights.files import INDEX, Contents, check_fit, files_of, read_all
from resnetlab.weights.hub_files import MODEL, OLD_MODEL
from resnetlab.weights.interop import IN_ORDER, OURS, IdentifiedState, normalisation, read_in_order, read_state
from resnetlab.weights.metadata import ModelMetadata, Preprocessing, described
from resnetlab.weights.naming import NAMING_SCHEMES
from resnetlab.weights.sources import absent_hint, imagenet_classes, located, stated_names, stated_preprocessing

_log = logging.getLogger(__name__)

IN_FOLDERS = (MODEL, OLD_MODEL, MODEL + INDEX, OLD_MODEL + INDEX)  # the files that are read from a folder
SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".npz")  # of other weight files
LEAST_SIZE, MOST_SIZE = 8, 4096  # of images, pixels a side


def load(
    source: str | Path,
    *,
    pretrained: bool = False,
    net: str | Spec | None = None,
    which: str = "last",
    image_size: int | None = None,
    head: bool = True,
    match: str = "names",
) -> ResNet | VGG:
    """Return the network of a run folder (its "last" or "best" weights) or of a weight file, ours or a peer's.

    `source` may also name published weights: "pretrained:cifar_resnet20" come with the package, as does the same
    network with pretrained=True; "torchvision:resnet50", "timm/resnet50.a1_in1k" and "hf:OWNER/NAME" are fetched once.

    A file that resnetlab wrote states which network it holds, and the tensors' names in most others determine it
    (docs/weights.md); otherwise `net` names it. which="ema" takes the averaged weights of a file that has both.
    `image_size` is the side of the images if the file doesn't state it. head=False also accepts a file without a fully
    connected layer for classes, which is then 0. match="order" pairs the tensors of a file with unknown names with
    those of `net` by order and shape. The network is returned in evaluation mode.

    Raises UserError if the weights don't fit, naming the first that differ, with none loaded.
    """
    if not isinstance(pretrained, bool):
        raise UserError(f"pretrained={shown(pretrained)} must be True or False.")
    if pretrained:
        if not isinstance(source, str):
            raise UserError(f"pretrained=True goes with the name of a network; leave it out to load {shown(source)}.")
        source = f"pretrained:{source.removeprefix('pretrained:')}"
    return load_described(source, net=net, which=which, image_size=image_size, head=head, match=match).net


def load_with_metadata(
    source: str | Path, *, net: str | Spec | None = None
) -> tuple[ResNet | VGG, ModelMetadata | None]:
    """As `load`, with the network's metadata: classes, preprocessing, recipe.

    For another project's file they hold the preprocessing of its training; None if that is not known.
    """
    loaded = load_described(source, net=net)
    return loaded.net, loaded.metadata


@dataclass(frozen=True)
class Loaded:
    """A network, its metadata, and where these come from."""

    net: ResNet | VGG
    metadata: ModelMetadata | None  # as in `load_with_metadata`
    naming: str  # the naming scheme of the file's parameters, a key of NAMING_SCHEMES; "resnetlab" for ours
    file: Path  # of the weights
    has_head: bool = True  # if not, its fully connected layer is 0
    tells_size: bool = True  # whether the file or the user states the size of images; else it is the zoo's
    normalise: str = ""  # the normalisation that the user gave, as text; `metadata` has it in place of the file's
    pairs: tuple[str, ...] = ()  # for match="order": the pairs of layers, in lines
    names: tuple[str, ...] | None = None  # of its classes, if something else than the metadata states them

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of its classes; None if the file doesn't have them."""
        return self.metadata.classes if self.metadata and self.metadata.classes else self.names

    @property
    def files(self) -> list[Path]:
        """All files of its weights."""
        return files_of(self.file)

    @property
    def resizing(self) -> Resizing | None:
        """How its test images are resized; None if that is not stated."""
        return self.metadata.resizing if self.metadata else None


def load_described(
    source: str | Path,
    *,
    net: str | Spec | None = None,
    which: str = "last",
    image_size: int | None = None,
    head: bool = True,
    match: str = "names",
    normalise: str | None = None,
) -> Loaded:
    """As `load`, with the network's metadata, and where these come from.

    `normalise` is the normalisation with which the network was trained, as `parse_normalisation` reads it, in place of
    the one that the file or its names state. Log warnings name tensors that are left out, which of several sets of
    weights is taken, and the pairs of match="order".
    """
    check_choice("match", match, ("names", "order"))
    if not isinstance(head, bool):
        raise UserError(f"head={shown(head)} must be True or False.")
    if isinstance(net, NetSpec | VGGSpec):
        net = text_of(net)
    if not isinstance(net, str | None) or net == "":
        raise UserError(f"net={shown(net)} must be the name or the spec of a network.")
    path = _weight_file(located(source), which)
    contents = read_all(path, which)
    if "resnetlab" in contents.header:
        if match == "order":
            raise UserError(f"{path}: states which network it holds; leave --match order out.")
        loaded = _ours(path, contents, net, which)
    elif match == "order":
        loaded = _with_stated(_in_order(path, contents, net), source, image_size, contents.classes)
    else:
        loaded = _with_stated(_peers(path, contents, net, which, head), source, image_size, contents.classes)
    if normalise is not None:
        loaded = _normalised(loaded, normalise)
    return _sized(loaded, image_size) if image_size is not None else loaded


def check_outputs(source: str | Path, count: int) -> None:
    """Raise UserError for a network with a single output, which softmax would make certain of every image."""
    if count == 1:
        raise UserError(
            f"{source}: has one output, as networks that answer yes or no by a sigmoid; resnetlab's answers are a "
            "softmax over classes, which need two. Its features can be used (features), and it can be fine-tuned "
            "(train --from)."
        )


def _ours(path: Path, contents: Contents, net: str | None, which: str) -> Loaded:
    """The network of a file that states itself what it holds."""
    if which == "ema":
        raise UserError(f"{path}: holds a single set of weights, without averages; leave --which ema out.")
    try:
        spec, metadata = described(contents.header)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: its description is damaged ({error}).") from error
    if not net:
        return Loaded(_network(path, spec, contents.tensors), metadata, OURS, path)
    given = _fitted(net, spec)
    if metadata:
        known = metadata.measured if given == spec else {}
        metadata = replace(metadata, spec=replace(given, input_size=spec.input_size), measured=known)
    made = _network(path, replace(given, input_size=spec.input_size), contents.tensors)
    loaded = Loaded(made, metadata, OURS, path)
    return loaded if given.input_size == spec.input_size else _sized(loaded, given.input_size)


def _fitted(net: str, stated: Spec) -> Spec:
    """The named network, with the file's classes, channels and image size unless its name states other ones."""
    kept = {name: getattr(stated, name) for name in SIZES if name not in net}
    return replace(named_spec(net), **kept)


def _peers(path: Path, contents: Contents, net: str | None, which: str, head: bool) -> Loaded:
    """The network of a file, determined by its tensors' names."""
    if not net:
        is_caffes = any(re.search(NAMING_SCHEMES["caffe"].first, key) for key in contents.tensors)
        check_architecture(path, contents.architecture, IN_FOLDERS, is_caffes)
    try:
        found = read_state(contents.tensors, net, "last" if contents.is_average else which)
    except UserError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from error
    tensors, left_out = found.state, (*contents.left_out, *found.left_out, *(found.other_head or ()))
    if found.other_head is not None:
        if head:
            has = (
                f"its head ({_some(found.other_head)}) is not one fully connected layer"
                if found.other_head
                else ("has no head, the fully connected layer that gives classes")
            )
            raise UserError(f"{path}: {has}: fine-tune it (train --from), or use its features (features).")
        meta = on_meta(found.spec).state_dict()
        tensors = tensors | {key: torch.zeros(meta[key].shape) for key in ("fc.weight", "fc.bias")}
    made = _network(path, found.spec, tensors, contents)
    for choice in filter(None, (contents.choice, found.choice)):
        _log.warning("%s: %s.", path, choice)
    if left_out:
        _log.warning("%s: left out, not part of the network: %s.", path, _some(left_out))
    _say_assumed(path, found, net)
    tells_size = isinstance(found.spec, VGGSpec) or "input_size" in (net or "")
    return Loaded(made, _metadata(found), found.naming, path, found.other_head is None, tells_size)


def _say_assumed(path: Path, found: IdentifiedState, net: str | None) -> None:
    """Say which fields of the network neither its tensors, nor its project's names, nor the user's name determine."""
    spec, is_known = found.spec, found.naming in NAMING_SCHEMES and not NAMING_SCHEMES[found.naming].alike
    if is_known or not net or not isinstance(spec, NetSpec):
        return
    hidden = {
        "zero_pad": spec.pads_zeros,
        "stride_at": spec.branch == "bottleneck" and found.naming == IN_ORDER and "_v1" not in net,
        "first_preact": bool(ORDERS[spec.order].preact) and found.naming == IN_ORDER,
    }
    for name, is_hidden in hidden.items():
        if is_hidden and name not in net:
            other = f"{net[:-1]}, {name}=...)" if net.endswith(")") else f"{net}({name}=...)"
            words = "%s: the file doesn't show %s; %r is assumed, unless --net '%s' gives another."
            _log.warning(words, path, name, getattr(spec, name), other)


def _in_order(path: Path, contents: Contents, net: str | None) -> Loaded:
    """The network called `net`, from a file with its tensors in its order."""
    if not contents.in_order:
        raise UserError(
            f"{path}: a safetensors file sorts its tensors by name, and --match order needs the network's order; give "
            "the file that torch.save wrote."
        )
    try:
        found, table = read_in_order(contents.tensors, net)
    except UserError as error:
        raise UserError(f"{path}: {str(error).rstrip('.')}.") from error
    made = _network(path, found.spec, found.state)
    for line in (*filter(None, [contents.choice]), "paired by order:", *table):
        _log.warning("%s: %s", path, printable(line))
    _say_assumed(path, found, net)
    if left_out := (*contents.left_out, *found.left_out):
        _log.warning("%s: left out, not part of the network: %s.", path, _some(left_out))
    return Loaded(made, None, found.naming, path, tells_size="input_size" in (net or ""), pairs=tuple(table))


def _normalised(loaded: Loaded, text: str) -> Loaded:
    """The same, with the normalisation that the user gave."""
    spec, metadata = loaded.net.spec, loaded.metadata
    given = parse_normalisation(text, spec.in_channels)
    known = (
        replace(metadata, normalisation=given, measured={})  # with the file's own
        if metadata
        else ModelMetadata(spec, loaded.classes, given, recipe={})
    )
    return replace(loaded, metadata=known, normalise=text)


def _network(
    path: Path, spec: Spec, tensors: dict[str, torch.Tensor], contents: Contents | None = None
) -> ResNet | VGG:
    """The network with these weights, in evaluation mode. Raises UserError unless they fit exactly.

    contents: the file in which they were found by their names, for a hint if they don't fit.
    """
    wanted = on_meta(spec).state_dict()
    hint = _hint(spec, wanted, contents) if contents and not wanted.keys() <= tensors.keys() else ""
    check_fit(path, spec.name, wanted, tensors, hint)
    made = build(spec, seed=0)  # all weights are replaced; the seed leaves torch's random state alone
    made.load_state_dict(tensors)
    return made.eval()


def _hint(spec: Spec, wanted: dict[str, torch.Tensor], contents: Contents) -> str:
    """A hint on what else to try if a file has the network's convolutions under other names.

    None for pre-activation, where projects differ in what a shortcut sees, and tensors do not show it.
    """
    if isinstance(spec, NetSpec) and ORDERS[spec.order].preact:
        return ""

    def convs(tensors: Iterable[torch.Tensor]) -> list[tuple[int, ...]]:
        return sorted(tuple(tensor.shape) for tensor in tensors if tensor.ndim == 4 and max(tensor.shape[2:]) > 1)

    same = convs(contents.tensors.values()) == convs(wanted.values()) and contents.tensors.keys() - wanted.keys()
    return " If only its names differ, give --match order." if contents.in_order and same else ""


def _sized(loaded: Loaded, size: int) -> Loaded:
    """The same network for images of `size` x `size` pixels. Raises UserError if that is not possible."""
    size = as_python(size)
    if not isinstance(size, int) or isinstance(size, bool):
        raise UserError(f"image_size={shown(size)} must be a whole number of pixels, {LEAST_SIZE} to {MOST_SIZE}.")
    if not LEAST_SIZE <= size <= MOST_SIZE:
        raise UserError(f"image_size={shown(size)} must be {LEAST_SIZE} to {MOST_SIZE} pixels.")
    spec, metadata = loaded.net.spec, loaded.metadata
    if isinstance(spec, VGGSpec) and size != spec.input_size:
        raise UserError(
            f"{loaded.file}: {spec.name or 'a VGG net'} takes only images of {spec.input_size} pixels, by its fully "
            f"connected layers; leave --image-size {size} out."
        )
    if metadata and not metadata.normalisation.fits((spec.in_channels, size, size)):
        raise UserError(
            f"{loaded.file}: its mean image has {metadata.normalisation.mean.shape[1]} pixels per side; leave "
            f"--image-size {size} out."
        )
    if metadata:
        measured = metadata.measured if size == spec.input_size else {}  # at the file's own size
        metadata = replace(metadata, spec=replace(spec, input_size=size), measured=measured)
    loaded.net.spec = replace(spec, input_size=size)
    return replace(loaded, metadata=metadata, tells_size=True)


def _some(names: Sequence[str]) -> str:
    return first_of([printable(name) for name in names], 4)


def _metadata(found: IdentifiedState) -> ModelMetadata | None:
    """The metadata that follow from the naming scheme of another project's file."""
    known = normalisation(found.naming, found.spec)
    if known is None:
        return None
    mean, std = (torch.tensor(values)[:, None, None] for values in known)  # C 1 1
    return ModelMetadata(found.spec, None, Normalisation(mean, std), recipe={})


def _with_stated(loaded: Loaded, source: str | Path, image_size: int | None, own: tuple[StatedClasses, ...]) -> Loaded:
    """The same with what the source of another project's file, or the config.json beside it, states.

    own: the names of the classes, as the file itself states them.
    """
    spec, metadata = loaded.net.spec, loaded.metadata
    stated = stated_preprocessing(source, loaded.file, image_size)
    classes = _names_of_outputs(loaded, own, source) if loaded.has_head else None
    if stated and len(stated.mean) == len(stated.std) == spec.in_channels:
        normalise = Normalisation(*(torch.tensor(values)[:, None, None] for values in stated[:2]))  # C 1 1
        metadata = ModelMetadata(spec, None, normalise, recipe={}, resizing=_resizing(stated, spec))
        if stated.other and not _sees_whole_images(spec):
            _log.warning("%s: %s, so the accuracy may differ from what it states.", source, stated.other)
        size = stated.size or 0
        if isinstance(spec, NetSpec) and not loaded.tells_size and LEAST_SIZE <= size <= MOST_SIZE:
            loaded = _sized(replace(loaded, metadata=metadata), size)
            metadata = loaded.metadata
    if classes and metadata:
        metadata = replace(metadata, classes=classes)
    knows_size = loaded.tells_size or bool(imagenet_classes(source, spec))
    return replace(loaded, metadata=metadata, tells_size=knows_size, names=classes)


def _names_of_outputs(loaded: Loaded, own: tuple[StatedClasses, ...], source: str | Path) -> tuple[str, ...] | None:
    """The names of the classes that the file, or its source, states; if none fit, a line says why."""
    stated, outputs = (*own, *stated_names(loaded.file)), loaded.net.spec.num_classes
    named = (*(each.names for each in stated), imagenet_classes(source, loaded.net.spec) or ())
    found = next((each for each in named if len(each) == outputs), None)
    if not found and (meant := [each for each in stated if each.key != CLASSES[-1]]):
        _log.warning("%s: %s.", loaded.file, meant[0].trouble(outputs))
    return found


def _resizing(stated: Preprocessing, spec: Spec) -> Resizing | None:
    """The stated resizing, or None if it is the usual one, or for nets for CIFAR, which see whole images."""
    return None if _sees_whole_images(spec) or stated.resizing == USUAL else stated.resizing


def _sees_whole_images(spec: Spec) -> bool:
    """Whether test images are not cropped, as for CIFAR."""
    return isinstance(spec, NetSpec) and spec.stem == "cifar"


def _weight_file(path: Path, which: str) -> Path:
    check_choice("which", which, ("last", "best", "ema"))
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from error
    if is_folder:
        for name in IN_FOLDERS:
            if (path / name).exists():
                return _weight_file(path / name, which)
        if not is_there(path / SETTINGS):
            files = (file.name for file in path.iterdir() if file.suffix in SUFFIXES)
            others = sorted(files, key=lambda name: (name != WEIGHTS, name))
            hint = f"; give a file in it, such as {shown(others[0])}" if others else ""
            raise UserError(f"{path}: not a run folder, it has neither {SETTINGS} nor {MODEL}{hint}.")
        check_choice("which", which, ("last", "best"))
        weights = whole_folder(path / which) / WEIGHTS
        read_settings(path, f"its weights may be intact: give {weights} instead of the folder")
        return weights
    if not exists:
        raise UserError(f"{path}: no such run folder or weight file{absent_hint(path)}.")
    if which == "best":
        raise UserError(f"{path}: a file, and only a run folder has best weights; leave --which best out.")
    return path
