"""Names of networks: a table for ImageNet, a grammar for CIFAR, and `build`."""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator
from dataclasses import astuple, fields, replace
from typing import Any, NamedTuple

import torch

from resnetlab.errors import UserError, as_python, check_choice, did_you_mean, shown
from resnetlab.nets.init import initialise
from resnetlab.nets.mixing import UNREADABLE, Add, Mix, Plain, mix_from_node
from resnetlab.nets.net import ResNet
from resnetlab.nets.orders import CONVS, BranchName
from resnetlab.nets.spec import SIZES, NetSpec, StageSpec, depth_rule, units_per_stage
from resnetlab.nets.vgg import VGG, VGGSpec

Spec = NetSpec | VGGSpec

# He 2015, Table 1; 200 layers: He 2016, section 5; 10, 14, 26 and 269: timm.
IMAGENET_UNITS: dict[int, tuple[BranchName, tuple[int, ...]]] = {
    10: ("basic", (1, 1, 1, 1)),
    14: ("bottleneck", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    26: ("bottleneck", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
    200: ("bottleneck", (3, 24, 36, 3)),
    269: ("bottleneck", (3, 30, 48, 8)),
}
PAPER_DEPTHS = (18, 34, 50, 101, 152, 200)

# Stem and shortcut by the letter after a depth: ResNet-C and -D of He et al. 2019, section 4.2; s and t are timm's.
LETTERS: dict[str, dict[str, Any]] = {
    "": {},
    "c": {"stem": "deep"},
    "d": {"stem": "deep", "shortcut": "D"},
    "s": {"stem": "deep", "stem_width": 128},
    "t": {"stem": "tiered", "shortcut": "D"},
}
# timm's networks beyond the papers', by family: the fields that its members share, then each depth, letter and
# cardinality x width. seresnet: Hu et al. 2018; resnetv2: full pre-activation.
_SQUEEZES = {"se_reduction": 16, "se_divisor": 8}
TIMM: dict[str, tuple[dict[str, Any], str]] = {
    "resnet": ({}, "10t 14t 18d 26 26d 26t 34d 50c 50d 50s 50t 101c 101d 101s 152c 152d 152s 200d"),
    "resnext": ({}, "50d_32x4d 101_32x4d 101_32x16d 101_32x32d 101_64x4d"),
    "seresnet": (_SQUEEZES, "18 34 50 50t 101 152 152d 200d 269d"),
    "seresnext": (_SQUEEZES, "26d_32x4d 26t_32x4d 50_32x4d 101_32x4d 101_32x8d 101d_32x8d 101_64x4d"),
    "resnetv2_": (
        {"order": "full_preact", "first_preact": "unit"},
        "18 18d 34 34d 50 50d 50t 101 101d 152 152d",
    ),
}
_MEMBER = re.compile(r"(\d+)([cdst]?)(?:_(\d+)x(\d+)d)?")


def _imagenet(name: str, depth: int, **changes: Any) -> NetSpec:
    branch, units = IMAGENET_UNITS[depth]
    widths = (64, 128, 256, 512)
    stages = tuple(StageSpec(n, w, 1 if w == 64 else 2) for n, w in zip(units, widths, strict=True))
    spec = NetSpec(
        stages=stages,
        name=name,
        stem="imagenet",
        stem_width=64,
        branch=branch,
        shortcut="B",
        num_classes=1000,
        input_size=224,
    )
    return replace(spec, **changes)


def _table() -> dict[str, Spec]:
    table: dict[str, Spec] = {}

    def add(name: str, depth: int, **changes: Any) -> None:
        table[name] = _imagenet(name, depth, **changes)

    for depth in PAPER_DEPTHS:
        add(f"resnet{depth}", depth)
        if IMAGENET_UNITS[depth][0] == "bottleneck":
            add(f"resnet{depth}_v1", depth, stride_at="1x1")
    for depth in (18, 34):
        add(f"plain{depth}", depth, mix=Plain())
    for depth in (50, 101, 152, 200):
        add(f"preresnet{depth}", depth, order="full_preact")
    add("wide_resnet50_2", 50, base_width=128)
    add("wide_resnet101_2", 101, base_width=128)
    add("resnext50_32x4d", 50, groups=32, base_width=4)
    add("resnext101_32x8d", 101, groups=32, base_width=8)
    for family, (shared, members) in TIMM.items():
        for name, depth, letter, groups, width in _members(members):
            resnext = {"groups": groups, "base_width": width} if groups > 1 else {}
            add(f"{family}{name}", depth, **shared, **LETTERS[letter], **resnext)
    for depth, convs in ((16, (2, 2, 3, 3, 3)), (19, (2, 2, 4, 4, 4))):
        table[f"vgg{depth}"] = VGGSpec(convs, name=f"vgg{depth}")
        table[f"vgg{depth}_bn"] = VGGSpec(convs, name=f"vgg{depth}_bn", batch_norm=True)
    return table


def _members(text: str) -> Iterator[tuple[str, int, str, int, int]]:
    """Each name in a text of TIMM, with its depth, letter, cardinality and width."""
    for name in text.split():
        match = _MEMBER.fullmatch(name)
        assert match, name
        yield name, int(match[1]), match[2], int(match[3] or 1), int(match[4] or 64)


IMAGENET: dict[str, Spec] = _table()


class Family(NamedTuple):
    """A family of CIFAR networks: the fields that its members share, and the depths that its paper names."""

    mix: Mix
    order: str
    published: tuple[int, ...]
    branches: tuple[BranchName, ...]  # the first whose rule allows a depth is taken


# He 2015, section 4.2 (resnet, plain); He 2016, section 4 (preresnet). 164 and 1001 are bottlenecks there.
CIFAR: dict[str, Family] = {
    "resnet": Family(Add(), "post", (20, 32, 44, 56, 110, 164, 1001, 1202), ("basic", "bottleneck")),
    "plain": Family(Plain(), "post", (20, 32, 44, 56, 110), ("basic",)),
    "preresnet": Family(Add(), "full_preact", (110, 164, 1001), ("basic", "bottleneck")),
}
BOTTLENECK_DEPTHS = (164, 1001)
WRN_PUBLISHED = ((16, 4), (16, 8), (28, 10), (40, 4))  # Zagoruyko & Komodakis 2016, Table 4 and 5

_CIFAR_NAME = re.compile(r"cifar_(resnet|plain|preresnet)([1-9][0-9]{0,4})")
_WRN_NAME = re.compile(r"cifar_wrn([1-9][0-9]{0,4})_([0-9]{1,3})")
PATTERNS = (
    "cifar_resnet{6n+2 or 9n+2}",
    "cifar_plain{6n+2}",
    "cifar_preresnet{6n+2 or 9n+2}",
    "cifar_wrn{6n+4}_{width}",
)


def names() -> list[str]:
    """Every network with a name of its own; the CIFAR families (`PATTERNS`) take any depth of their rule."""
    cifar = [f"cifar_{family}{depth}" for family, f in CIFAR.items() for depth in f.published]
    return [*IMAGENET, *cifar, *(f"cifar_wrn{depth}_{width}" for depth, width in WRN_PUBLISHED)]


def _cifar(name: str, family: str, depth: int, branch: BranchName | None) -> NetSpec:
    """A CIFAR network of He 2015, section 4.2 (basic, option A) or He 2016, appendix (bottleneck, projections)."""
    mix, order, _, branches = CIFAR[family]
    if branch:
        check_choice("branch", branch, CONVS)
        branches = (branch,)
    elif depth in BOTTLENECK_DEPTHS:
        branches = branches[::-1]
    for kind in branches:
        n = units_per_stage(depth, kind)
        if n is None:
            continue
        spec = NetSpec(stages=_cifar_stages(n, 16), name=name, branch=kind, mix=mix, order=order)  # type: ignore[arg-type]
        return replace(spec, shortcut="B", stride_at="1x1") if kind == "bottleneck" else spec
    rules = [depth_rule(kind) for kind in branches]
    near = sorted({d for r in rules for d in _neighbours(depth, r, 2)}, key=lambda d: (abs(d - depth), d))[:2]
    rule = " or ".join(f"{r}n+2 ({kind})" for r, kind in zip(rules, branches, strict=True))
    raise UserError(f"{name}: depth {depth} is not {rule}; the nearest are {' and '.join(map(str, sorted(near)))}.")


def _wrn(name: str, depth: int, width: int) -> NetSpec:
    """WRN-depth-width: pre-activation basic units, `width` times as wide, depth 6n+4."""
    n, rest = divmod(depth - 4, 6)
    if width < 1:
        raise UserError(f"{name}: the width is a multiple of 16, 32, 64, and must be 1 or more.")
    if n < 1 or rest:
        near = " and ".join(map(str, _neighbours(depth, 6, 4)))
        raise UserError(f"{name}: depth {depth} is not 6n+4; the nearest are {near}.")
    return NetSpec(stages=_cifar_stages(n, 16 * width), name=name, shortcut="B", order="full_preact")


def _cifar_stages(units: int, width: int) -> tuple[StageSpec, ...]:
    """Three stages on maps of 32, 16 and 8 pixels, each twice as wide as the one before."""
    return StageSpec(units, width), StageSpec(units, 2 * width, 2), StageSpec(units, 4 * width, 2)


def _neighbours(depth: int, step: int, offset: int) -> tuple[int, int]:
    below = max(1, (depth - offset) // step)
    return below * step + offset, (below + 1) * step + offset


def spec(name: str, /, **overrides: Any) -> Spec:
    """Return the spec of a named network, with some fields changed.

    `name` is a name of the zoo, e.g. "resnet50" or "cifar_resnet110", or such a name written as a call with
    overrides, e.g. "cifar_resnet110(mix=Scale(0.5, 0.5), shortcut=C)"; `overrides` are fields of NetSpec.

    Raises UserError for a name that is not known (with the nearest), a depth outside the family's rule
    (with the nearest depths), and overrides that do not fit.
    """
    if not isinstance(name, str):
        raise UserError(f"network {shown(name)} must be text, such as resnet50.")
    base, written = _parse(name)
    own = {key: overrides.pop(key) for key in ("name",) if key in overrides}
    overrides = {**written, **overrides}
    found = _find(base, overrides.get("branch"))
    changed = found.override(**overrides, **own)
    return changed if own or not overrides else replace(changed, name=_called(base, found, changed, overrides))


def text_of(net: Spec) -> str:
    """The text that `spec` reads as this network: its name, or a simple network's with all fields that differ."""
    with contextlib.suppress(UserError):  # a name of the user's own
        if spec(net.name) == net:
            return net.name
    base = "vgg16" if isinstance(net, VGGSpec) else "cifar_resnet20" if net.stem == "cifar" else "resnet18"
    branch = getattr(net, "branch", None)
    simple = _find(base, branch)
    differing = [f.name for f in fields(net) if f.name != "name" and getattr(net, f.name) != getattr(simple, f.name)]
    return _written(base, net, differing, branch)


def _find(base: str, branch: BranchName | None = None) -> Spec:
    """The spec of a name without overrides; `branch` decides where a CIFAR depth allows several."""
    if base in IMAGENET:
        return IMAGENET[base]
    if match := _CIFAR_NAME.fullmatch(base):
        return _cifar(base, match[1], int(match[2]), branch)
    if match := _WRN_NAME.fullmatch(base):
        return _wrn(base, int(match[1]), int(match[2]))
    raise UserError(
        f"network {base[:80]!r} is not known.{did_you_mean(base[:80], names())} "
        f"'resnetlab describe' without a name lists all; CIFAR networks can have any depth: {', '.join(PATTERNS)}."
    )


def build(net: str | Spec, *, seed: int | None = None, **overrides: Any) -> ResNet | VGG:
    """Build a network from its name or spec, initialised as the spec says.

    `seed` makes the weights reproducible to the last bit; `overrides` are fields of the spec, e.g.
    `build("cifar_resnet110", mix=Scale(0.5, 0.5), num_classes=100)`. Raises UserError as `spec` does.
    """
    whole = isinstance(seed := as_python(seed), int) and not isinstance(seed, bool)
    if seed is not None and not (whole and -(2**63) <= seed < 2**64):
        raise UserError(f"seed={shown(seed)} must be a whole number that fits into 64 bits.")
    net = net.override(**overrides) if isinstance(net, NetSpec | VGGSpec) else spec(net, **overrides)
    try:
        # Via the meta device, since torch's own initialisation draws from the random state, which a training in
        # another thread may be using.
        made = on_meta(net)
        # What to_empty does, without the import of sympy (0.2 s) that it makes for tensors on the meta device.
        empty = {name: torch.empty(t.shape, dtype=t.dtype, device="cpu") for name, t in made.state_dict().items()}
        made.load_state_dict(empty, assign=True)
    except (RuntimeError, MemoryError) as error:
        if "alloc" not in str(error) and not isinstance(error, MemoryError):
            raise
        raise UserError(f"{net.name or 'the network'}: does not fit into memory; make it narrower.") from error
    initialise(made, seed)  # by the CPU's random numbers, which are the same everywhere
    device = torch.get_default_device()
    return made if device.type == "cpu" else made.to(device)


def on_meta(spec: Spec) -> ResNet | VGG:
    """The network without memory for its weights: enough to count parameters and to compute shapes."""
    with torch.device("meta"):
        return ResNet(spec) if isinstance(spec, NetSpec) else VGG(spec)


def _parse(name: str) -> tuple[str, dict[str, Any]]:
    """Split "net(field=value, ...)" into the name and its overrides."""
    if "(" not in name:
        return name.strip(), {}
    try:
        call = ast.parse(name.strip(), mode="eval").body
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
            raise SyntaxError
        if len({k.arg for k in call.keywords}) < len(call.keywords):
            raise UserError(f"network {shown(name)} gives a field twice: remove one.")
        if "name" in {k.arg for k in call.keywords}:
            raise UserError(f"network {shown(name)}: a network's name follows from its fields; leave name= out.")
        return call.func.id, {str(k.arg): _value(str(k.arg), k.value) for k in call.keywords}
    except UNREADABLE as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"network {shown(name)} can't be read: write e.g. 'cifar_resnet110(mix=Scale(0.5, 1), shortcut=C)'."
        ) from error


def _value(key: str, node: ast.expr) -> Any:
    if key == "mix":
        return mix_from_node(node)
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


def _called(base: str, found: Spec, changed: Spec, overrides: dict[str, Any]) -> str:
    """The name of an overridden network, readable by `spec`; sizes and overrides that change nothing are left out."""
    differing = [k for k in overrides if k not in SIZES and getattr(changed, k) != getattr(found, k)]
    return _written(base, changed, differing, overrides.get("branch"))


def _written(base: str, net: Spec, differing: list[str], branch: str | None) -> str:
    """The call that makes a network of the named one: its fields that differ, and its branch unless that is usual."""
    values = {name: getattr(net, name) for name in differing}
    if "stages" in values:
        values["stages"] = tuple(astuple(stage) for stage in values["stages"])
    if branch and branch != _default_branch(base):
        values["branch"] = branch  # the rest depends on it
    return f"{base}({', '.join(f'{name}={value!r}' for name, value in values.items())})" if values else base


def _default_branch(base: str) -> str | None:
    """The branch of a name without overrides; None for a depth that none of its family's branches allows."""
    try:
        return getattr(_find(base), "branch", None)
    except UserError:
        return None
