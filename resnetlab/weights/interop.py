"""Other projects' weights: identifies a file's naming scheme and network, renames its tensors to ours, and back."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import torch

from resnetlab.errors import UserError, check_choice, first_of, printable
from resnetlab.nets import zoo
from resnetlab.nets.branches import squeezed
from resnetlab.nets.mixing import Add, Plain
from resnetlab.nets.orders import EXPANSION, ORDERS, BranchName
from resnetlab.nets.spec import SIZES, NetSpec, ShortcutName, StageSpec, StemName
from resnetlab.nets.vgg import VGGSpec
from resnetlab.weights.matching import match_order
from resnetlab.weights.naming import NAMING_SCHEMES, MeanStd, NamingScheme, State
from resnetlab.weights.wrapping import unwrapped

IN_ORDER = "by order"  # in place of a naming scheme, if tensors were paired by their order
OURS = "resnetlab"  # our own naming scheme, which does not determine the network


@dataclass(frozen=True)
class IdentifiedState:
    """The network in a weight file: its naming scheme, its spec, and its tensors under our names."""

    naming: str  # the name of a scheme
    spec: zoo.Spec
    state: State
    left_out: tuple[str, ...] = ()  # names of tensors that are not part of a network
    choice: str = ""  # which of several networks was taken, in words
    other_head: tuple[str, ...] | None = None  # if there is no fc layer: the names of another head, which may be empty


def read_in_order(state: State, net: str | None) -> tuple[IdentifiedState, list[str]]:
    """A network's tensors paired by `matching.match_order`, whatever their names are; and the pairs in lines.

    Raises UserError as `match_order` does, and for a bias that no batch norm can take up.
    """
    matched = match_order(state, net)
    tensors = _counted(_without_conv_biases(matched.state, matched.spec))
    return IdentifiedState(IN_ORDER, matched.spec, tensors, matched.left_out), matched.table()


def read_state(state: State, net: str | None = None, which: str = "last") -> IdentifiedState:
    """Tensors with any project's names, under ours; `net` names the network if the names don't determine it.

    Wrappers around the network are removed by the rules of weights.wrapping; which="ema" takes averages.

    The scheme decides where option A puts its zeros and where a bottleneck strides; the tensors decide the number of
    classes and whether shortcuts project, unless `net` states these fields itself. Batch norm's counters may all be
    missing, as in files from before torch 0.4.1 and in Caffe's; they become 0. A convolution's bias before batch norm
    is merged into the mean. Nothing else is made up: tensors that don't fit the network are returned as they are.
    Without an fc layer, the network has as many classes as the zoo's.

    Raises UserError if the network can't be determined, for duplicate tensors, and for a bias that no batch norm can
    take up.
    """
    found = unwrapped(state, which)
    state, name = found.state, naming_of(found.state)
    if name != OURS:
        state = NAMING_SCHEMES[name].to_ours(state)
    spec = _named(net, name, state) if net else _told(name, state)
    if name != OURS:
        state = _without_conv_biases(state, spec)
    return IdentifiedState(name, spec, _counted(state), found.left_out, found.choice, found.other_head)


def naming_of(state: State) -> str:
    """The naming scheme of these names, by its key in NAMING_SCHEMES; "resnetlab" if it is none of them."""
    for name, scheme in NAMING_SCHEMES.items():
        if scheme.mark and any(re.fullmatch(scheme.mark, key) for key in state):
            return name
    for name, scheme in NAMING_SCHEMES.items():
        told = spec_of(state, scheme) if scheme.alike else None
        if told and not list(_misfits(told, scheme)):
            return name
    return "torchvision" if _vgg(state) else OURS


def write_state(state: State, spec: zoo.Spec, naming: str) -> State:
    """Our network's tensors under another project's names, in its order of layers.

    Raises UserError, with the reason, for a network that the project doesn't have.
    """
    if naming == OURS:
        return dict(state)
    check_choice("naming", naming, [*NAMING_SCHEMES, OURS])
    if isinstance(spec, VGGSpec):
        if naming != "torchvision":
            raise UserError(
                f"{naming} can't hold {spec.name or 'this network'}: only torchvision has names for VGG nets."
            )
        return dict(state)
    if misfits := list(_misfits(spec, NAMING_SCHEMES[naming])):
        others = [name for name, scheme in NAMING_SCHEMES.items() if not list(_misfits(spec, scheme))]
        raise UserError(
            f"{naming} can't hold {spec.name or 'this network'}: {'; '.join(misfits)}. What can: "
            f"{', '.join([*others, OURS])}."
        )
    return NAMING_SCHEMES[naming].to_theirs(state)


def normalisation(naming: str, spec: zoo.Spec) -> MeanStd | None:
    """Mean and deviation by channel, of pixels / 255, that the project trained such a network with, if known."""
    if naming == OURS or spec.in_channels != 3:
        return None
    if isinstance(spec, NetSpec) and list(_misfits(spec, NAMING_SCHEMES[naming])):
        return None
    known = NAMING_SCHEMES[naming].normalisation
    order = spec.order if isinstance(spec, NetSpec) else None
    return known.get(order, known.get(spec.num_classes, known.get(None)))


def spec_of(state: State, scheme: NamingScheme) -> NetSpec | None:
    """The residual network to which tensors under our names belong, as the scheme's project builds it.

    None if they form none. The first unit of every stage except the first has stride 2, as in all projects.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    convs: dict[tuple[int, int, int], int] = {}  # stage, unit and number of each convolution -> its output channels
    for key, shape in shapes.items():
        if (place := re.fullmatch(r"layer(\d)\.(\d{1,5})\.conv(\d)\.weight", key)) and shape:
            convs[int(place[1]), int(place[2]), int(place[3])] = shape[0]
    stages = range(1, max((stage for stage, *_ in convs), default=0) + 1)
    last = max((number for *_, number in convs), default=0)
    branches: dict[int, BranchName] = {1: "single", 2: "basic", 3: "bottleneck"}
    try:
        branch = branches[last]
        stem, stem_width, in_channels = _stem(shapes)
        units = [1 + max(unit for stage, unit, _ in convs if stage == i) for i in stages]
        outputs = {stage: channels for (stage, _, number), channels in convs.items() if number == last}
        widths = [outputs[i] // EXPANSION[branch] for i in stages]
        inner, inner_in, *_ = shapes["layer1.0.conv2.weight"] if branch == "bottleneck" else (64, 64)
        groups = inner // inner_in
        projections = sum(bool(re.search(r"downsample\.0\.weight$", key)) for key in state)
        pooled = any(re.search(r"downsample\.1\.weight$", key) and len(shape) == 4 for key, shape in shapes.items())
        changing = len(units) - (outputs[1] == stem_width)  # units whose shortcut changes size or channels
        everywhere = projections == sum(units) > changing
        shortcut: ShortcutName = "D" if pooled else "C" if everywhere else "B" if projections else "A"
        reduction, divisor = _squeezed(shapes, sum(units))
        spec = NetSpec(
            stages=tuple(StageSpec(units[i], widths[i], 2 if i else 1) for i in range(len(stages))),
            stem=stem,
            stem_width=stem_width,
            branch=branch,
            stride_at=scheme.stride_at if branch == "bottleneck" else "3x3",
            groups=groups,
            base_width=inner * 64 // (widths[0] * groups) if branch == "bottleneck" else 64,
            shortcut=shortcut,
            zero_pad=scheme.zero_pad if shortcut == "A" else "after",
            order="full_preact" if "last_bn.weight" in shapes else "post",
            first_preact="unit" if {"last_bn.weight", "layer1.0.bn1.weight"} <= shapes.keys() else "stem",
            se_reduction=reduction,
            se_divisor=divisor,
            in_channels=in_channels,
            num_classes=shapes["fc.weight"][0] if "fc.weight" in shapes else 10 if stem == "cifar" else 1000,
            input_size=32 if stem == "cifar" else 224,
        )
    except (KeyError, ValueError, IndexError, ZeroDivisionError):  # UserError is a ValueError
        return None
    return _called(spec)


def _stem(shapes: dict[str, tuple[int, ...]]) -> tuple[StemName, int, int]:
    """Kind, width and input channels of the stem. Raises KeyError where there is none."""
    if "conv1.weight" in shapes:
        width, in_channels, kernel, _ = shapes["conv1.weight"]
        return "imagenet" if kernel == 7 else "cifar", width, in_channels
    (first, in_channels, *_), (second, *_), (width, *_) = (shapes[f"conv1.{i}.weight"] for i in (0, 3, 6))
    return "deep" if first == second else "tiered", width, in_channels


def _squeezed(shapes: dict[str, tuple[int, ...]], units: int) -> tuple[int | None, int]:
    """The reduction and the divisor of squeeze-and-excitation: SENet's with timm's rounding if they match.

    None and 1 unless every unit has it.
    """
    found = [shape[:2] for key, shape in shapes.items() if re.fullmatch(r"layer\d\.\d+\.se\.fc1\.weight", key)]
    if len(found) != units:
        return None, 1
    inner, channels = found[-1]
    known = [(16, 8), (channels // inner, 1)]
    return next((rule for rule in known if all(squeezed(c, *rule) == width for width, c in found)), known[-1])


def _called(spec: NetSpec) -> NetSpec:
    """The same network, named after the most similar one of the zoo."""

    def differing(known: NetSpec) -> dict[str, object]:
        names = (f.name for f in fields(NetSpec) if f.name not in ("name", *SIZES))
        return {name: getattr(spec, name) for name in names if getattr(spec, name) != getattr(known, name)}

    known = [s for s in zoo.IMAGENET.values() if isinstance(s, NetSpec)]
    with contextlib.suppress(UserError):  # a depth outside the rule
        known.append(zoo.spec(f"cifar_resnet{spec.depth}"))  # type: ignore[arg-type]  # no VGG net
    nearest = min(known, key=lambda s: len(differing(s)))
    sizes = {name: getattr(spec, name) for name in SIZES}
    return zoo.spec(nearest.name, **differing(nearest), **sizes)  # type: ignore[return-value]


def _misfits(spec: NetSpec, scheme: NamingScheme) -> Iterator[str]:
    """The properties of a network that the scheme's project doesn't support, in words."""
    strides = (1, *[2] * (2 if spec.stem == "cifar" else 3))
    allowed: dict[str, tuple[object, ...]] = {
        "stem": scheme.stems,
        "branch": scheme.branches,
        "shortcut": scheme.shortcuts,
        "zero_pad": (scheme.zero_pad,) if spec.pads_zeros else (spec.zero_pad,),
        "stride_at": (scheme.stride_at,) if spec.branch == "bottleneck" else (spec.stride_at,),
        "groups": (spec.groups,) if scheme.grouped else (1,),
        "base_width": (spec.base_width,) if scheme.grouped else (64,),
        "mix": (Add(), Plain()) if scheme.plain else (Add(),),
        "order": scheme.orders,
        "first_preact": ("stem",) if spec.order == "post" else ("unit",),
        "norm": ("batch",),
        "branch_scalar": (None,),
        "se_reduction": (None, 16) if scheme.squeezes and spec.order == "post" else (None,),
    }
    for name, values in allowed.items():
        if getattr(spec, name) not in values:
            yield f"it has {name}={getattr(spec, name)!r}, but theirs has {' or '.join(map(repr, values))}"
    outputs = [stage.width * spec.expansion for stage in spec.stages]
    if spec.se_reduction and any(squeezed(c, 16, 8) != squeezed(c, 16, spec.se_divisor) for c in outputs):
        yield "it has inner widths of squeeze-and-excitation that are not timm's: se_divisor=8 gives those"
    if spec.order != "post" and (spec.shortcut == "D") != (spec.stem in ("deep", "tiered")):
        yield f"it has shortcut={spec.shortcut!r} with stem={spec.stem!r}, but theirs has 'D' with deep stems only"
    if tuple(stage.stride for stage in spec.stages) != strides:
        yield f"its stages have strides {[stage.stride for stage in spec.stages]}, but theirs have {list(strides)}"


def _named(net: str, naming: str, state: State) -> zoo.Spec:
    """The network of this name, with fields taken from the file that the name does not state."""
    spec = zoo.spec(net)
    known: dict[str, object] = {}
    first, last = (
        next((state[key] for key in keys if key in state), None)
        for keys in (("conv1.weight", "conv1.0.weight", "features.0.weight"), ("fc.weight", "classifier.6.weight"))
    )
    if first is not None and first.ndim == 4:
        known["in_channels"] = first.shape[1]
    if last is not None and last.ndim == 2:
        known["num_classes"] = len(last)
    if isinstance(spec, NetSpec) and naming != OURS:
        scheme = NAMING_SCHEMES[naming]
        if spec.pads_zeros:
            told = spec_of(state, scheme)
            if "shortcut" not in net and told and told.shortcut != "A":
                known["shortcut"] = told.shortcut
            else:
                known["zero_pad"] = scheme.zero_pad
        # Not so if their names are ours for v1 too, or the user's name says v1.
        if spec.branch == "bottleneck" and spec.stride_at == "3x3" and not scheme.alike:
            known["stride_at"] = scheme.stride_at
    return zoo.spec(net, **{name: value for name, value in known.items() if name not in net})


def _told(naming: str, state: State) -> zoo.Spec:
    """The network to which the tensors belong. Raises UserError if they could also belong to another."""
    spec = None if naming == OURS else _vgg(state) or spec_of(state, NAMING_SCHEMES[naming])
    if spec is None:
        if any(re.match(r"layer1\.0\.", key) for key in state):
            raise UserError("does not say which network it holds; name it with --net")
        if not state:
            raise UserError("holds no tensors")
        names = first_of(list(map(printable, state)), 3)
        raise UserError(
            f"holds no residual network under names that are known ({names}); if it is one under other names, give "
            "--net NAME and --match order"
        )
    if isinstance(spec, NetSpec) and spec.shortcut == "A" and NAMING_SCHEMES[naming].plain:
        plain = spec.name.replace("resnet", "plain")
        raise UserError(f"can be {spec.name} or {plain}, whose tensors have the same names; choose one with --net")
    return spec


def _vgg(state: State) -> VGGSpec | None:
    """The VGG net of the zoo that has just these names, if any."""
    for spec in zoo.IMAGENET.values():
        if isinstance(spec, VGGSpec) and "classifier.6.weight" in state:
            names = zoo.on_meta(spec).state_dict().keys()
            if {n for n in names if "num_batches" not in n} == {n for n in state if "num_batches" not in n}:
                return replace(spec, num_classes=len(state["classifier.6.weight"]))
    return None


def _without_conv_biases(state: State, spec: zoo.Spec) -> State:
    """A bias between a convolution and its batch norm moves the mean: (x + b) - mean = x - (mean - b).

    Raises UserError for a unit's bias in full pre-activation, where the convolution's batch norm comes before it.
    """
    made = dict(state)
    norm_first = isinstance(spec, NetSpec) and spec.norm == "batch" and "b" in ORDERS[spec.order].preact
    for key, bias in state.items():
        found = re.fullmatch(r"(.*?)(conv|downsample\.)(\d)\.bias", key)
        if not found:
            continue
        if norm_first and found[1].startswith("layer") and found[2] == "conv":  # the stem's batch norm comes after it
            raise UserError(
                f"{key} can't be kept: a convolution's bias needs its batch norm after it, which in this network comes "
                "before it. Nothing was loaded"
            )
        norm = f"{found[1]}bn{found[3]}" if found[2] == "conv" else f"{found[1]}downsample.1"
        mean = state.get(f"{norm}.running_mean")
        if mean is not None and mean.shape == bias.shape and norm != key.removesuffix(".bias"):
            del made[key]
            made[f"{norm}.running_mean"] = mean - bias
    return made


def _counted(state: State) -> State:
    """With batch norm's counters, 0, where the file has none at all."""
    if any(key.endswith("num_batches_tracked") for key in state):
        return state
    norms = [key.removesuffix("running_mean") for key in state if key.endswith("running_mean")]
    return state | {f"{norm}num_batches_tracked": torch.tensor(0) for norm in norms}
