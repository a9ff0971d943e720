"""NetSpec, the frozen value that describes a network and is validated when it is made; and the arithmetic of depth."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal, get_args

from resnetlab.errors import UserError, as_python, check_choice, did_you_mean, shown
from resnetlab.nets.mixing import MIXES, Add, Mix, Plain, number, parse_mix
from resnetlab.nets.orders import CONVS, EXPANSION, ORDERS, BranchName, OrderName

StemName = Literal["cifar", "imagenet", "deep", "tiered"]
ShortcutName = Literal["A", "B", "C", "D"]
InitName = Literal["he_fan_out", "he_fan_in", "xavier", "gaussian"]
StrideAt = Literal["1x1", "3x3"]
NormName = Literal["batch", "none"]
ZeroPadName = Literal["after", "around"]
FirstPreactName = Literal["stem", "unit"]

CHOICES: dict[str, tuple[str, ...]] = {
    "stem": get_args(StemName),
    "branch": get_args(BranchName),
    "stride_at": get_args(StrideAt),
    "shortcut": get_args(ShortcutName),
    "zero_pad": get_args(ZeroPadName),
    "order": get_args(OrderName),
    "first_preact": get_args(FirstPreactName),
    "norm": get_args(NormName),
    "init": get_args(InitName),
}

MOST = 10**6  # channels, classes, pixels, units: larger networks fit no machine, and torch's sizes overflow
MOST_LAYERS = 20_000  # describing that many takes a minute

# Fields added after the format of specs was fixed. `to_dict` leaves them out at their default, so that hashes of older
# specs stay the same.
ADDED = ("first_preact", "se_divisor")
SIZES = ("in_channels", "num_classes", "input_size")  # set by the data, and not part of a network's name


@dataclass(frozen=True)
class StageSpec:
    """Units on maps of one size: how many, their width (channels before expansion), the first one's stride."""

    units: int
    width: int
    stride: int = 1

    def __post_init__(self) -> None:
        set_python_numbers(self)


@dataclass(frozen=True)
class NetSpec:
    """A residual or plain network: y = mix(h(x), F(x)), x⁺ = f(y) in every unit (He 2016, eq. 1 and 2).

    Two axes say how a unit is wired: `shortcut`, how x crosses a change of size (A, B, C, D), and `mix`, how
    h and F meet. A plain net has no shortcut, so its `shortcut` always reads "A", the one without parameters.

    Raises UserError, with what to change, for combinations that make no sense.
    """

    stages: tuple[StageSpec, ...]
    name: str = field(default="", compare=False)  # the name it was built by; two names can mean the same network
    stem: StemName = "cifar"
    stem_width: int = 16
    branch: BranchName = "basic"
    stride_at: StrideAt = "3x3"  # bottleneck: "1x1" is the paper's, "3x3" is v1.5
    groups: int = 1  # bottleneck: groups of its 3x3 convolution (ResNeXt's cardinality)
    base_width: int = 64  # bottleneck: inner width = width · base_width / 64 · groups
    shortcut: ShortcutName = "A"
    zero_pad: ZeroPadName = "after"  # option A: where the zero channels go
    mix: Mix = Add()
    order: OrderName = "post"
    first_preact: FirstPreactName = "stem"  # where the first pre-activation is: "stem" is the paper's
    norm: NormName = "batch"
    branch_scalar: float | None = None  # initial value of a learned factor on F (SkipInit: 0)
    se_reduction: int | None = None  # squeeze-and-excitation on F (SENet: 16)
    se_divisor: int = 1  # its inner width is rounded to a multiple of this (timm: 8)
    stochastic_depth: float = 0.0  # share of images that skip F in the last unit; in unit l of L, l/L of that
    zero_gamma: bool = False  # start with γ = 0 in F's last batch norm, so that F = 0 (Goyal et al. 2017)
    init: InitName = "he_fan_out"
    in_channels: int = 3
    num_classes: int = 10
    input_size: int = 32  # side length in pixels for which costs are counted; the network accepts other sizes too

    def __post_init__(self) -> None:
        set_python_numbers(self)
        if not isinstance(self.stages, tuple | list):
            raise UserError(f"stages={shown(self.stages)} must be a list of stages, each (units, width, stride).")
        object.__setattr__(self, "stages", tuple(_stage(s) for s in self.stages))
        if isinstance(self.mix, str):
            object.__setattr__(self, "mix", parse_mix(self.mix))
        for name, choices in CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        if self.is_plain:
            object.__setattr__(self, "shortcut", "A")
        # As floats, so that equal specs have one to_dict: 1 and 1.0 are equal, their JSON is not.
        object.__setattr__(self, "stochastic_depth", number("stochastic_depth", self.stochastic_depth))
        if self.branch_scalar is not None:
            object.__setattr__(self, "branch_scalar", number("branch_scalar", self.branch_scalar))
        self._check()

    def _check(self) -> None:
        if not isinstance(self.name, str):
            raise UserError(f"name={shown(self.name)} must be text.")
        if not isinstance(self.zero_gamma, bool):
            raise UserError(f"zero_gamma={shown(self.zero_gamma)} must be True or False.")
        if not isinstance(self.mix, tuple(MIXES.values())):
            raise UserError(f"mix={shown(self.mix)} is not a mix: choose one of {', '.join(MIXES)}.")
        for name in ("stem_width", "groups", "base_width", "in_channels", "num_classes", "se_divisor"):
            check_positive(name, getattr(self, name))
        check_positive("input_size", self.input_size, most=MOST // 10)  # its square times channels is counted
        if not self.stages:
            raise UserError("stages=() is empty: give at least one StageSpec.")
        for i, stage in enumerate(self.stages, 1):
            for name in ("units", "width", "stride"):
                check_positive(f"{name} of stage {i}", getattr(stage, name))
        for broken, why in self._conflicts():
            if broken:
                raise UserError(why)

    def _conflicts(self) -> list[tuple[bool, str]]:
        """Pairs of (whether the conflict exists, the message that says what to change)."""
        return [*self._conflicts_of_sizes(), *self._conflicts_of_wiring()]

    def _conflicts_of_sizes(self) -> list[tuple[bool, str]]:
        bottleneck = self.branch == "bottleneck"
        widths = [self.stem_width, *(s.width * self.expansion for s in self.stages)]
        return [
            (
                not bottleneck and (self.groups, self.base_width, self.stride_at) != (1, 64, "3x3"),
                f"groups, base_width and stride_at belong to the bottleneck: leave them out or set "
                f"branch='bottleneck' (it is {self.branch!r}).",
            ),
            (
                bottleneck and any(self.inner_width(s.width) < 1 for s in self.stages),
                f"base_width={self.base_width} leaves a bottleneck without channels: raise it or the width.",
            ),
            (
                bottleneck and any(self.inner_width(s.width) > MOST for s in self.stages),
                f"groups={self.groups} and base_width={self.base_width} make a bottleneck of more than {MOST:,} "
                "channels: lower them or the width.",
            ),
            (
                self.depth > MOST_LAYERS,
                f"a depth of {self.depth:,} layers is more than {MOST_LAYERS:,}: choose fewer units.",
            ),
            (self.stem == "deep" and self.stem_width < 2, "stem='deep' needs a stem_width of at least 2."),
            (self.stem == "tiered" and self.stem_width < 3, "stem='tiered' needs a stem_width of at least 3."),
            (
                self.pads_zeros and any(after < before for before, after in pairwise(widths)),
                f"shortcut='A' can add channels but not drop them (widths {widths}): use shortcut='B'.",
            ),
            (
                self.se_divisor != 1 and self.se_reduction is None,
                "se_divisor belongs to se_reduction: give both, or leave it out.",
            ),
            (
                self.se_reduction is not None
                and (type(self.se_reduction) is not int or not 1 <= self.se_reduction <= MOST),
                f"se_reduction={shown(self.se_reduction)} is a divisor: 1 to {MOST:,} (SENet: 16), or None for none.",
            ),
        ]

    def _conflicts_of_wiring(self) -> list[tuple[bool, str]]:
        plain = self.is_plain
        return [
            (
                self.zero_pad != "after" and not self.pads_zeros,
                f"zero_pad={self.zero_pad!r} belongs to shortcut='A': leave it out.",
            ),
            (
                self.first_preact != "stem" and not ORDERS[self.order].preact,
                f"first_preact={self.first_preact!r} needs a pre-activation order, and order={self.order!r} is "
                "not one: leave it out.",
            ),
            (
                self.zero_gamma and (self.norm == "none" or not ORDERS[self.order].last.endswith("b")),
                f"zero_gamma needs a batch norm at the end of F, and norm={self.norm!r}, order={self.order!r} has "
                f"none there: use branch_scalar=0, or norm='batch' with order='post' or 'relu_preact'.",
            ),
            (plain and self.zero_gamma, "zero_gamma makes a plain net all zero: leave it out or use mix=Add()."),
            (
                plain and self.branch_scalar == 0,
                "branch_scalar=0 makes a plain net all zero: start it at 1 or use mix=Add().",
            ),
            (
                plain and self.stochastic_depth > 0,
                "stochastic_depth skips F, and a plain net has nothing else: set it to 0 or use mix=Add().",
            ),
            (
                not 0 <= self.stochastic_depth < 1,
                f"stochastic_depth={self.stochastic_depth} is a probability: 0 <= p < 1.",
            ),
        ]

    @property
    def expansion(self) -> int:
        """Output channels of a unit / its stage's width: 4 for the bottleneck, else 1."""
        return EXPANSION[self.branch]

    def inner_width(self, width: int) -> int:
        """Channels of a bottleneck's 3x3 convolution in a stage of this width."""
        return width * self.base_width // 64 * self.groups

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C H W of an image."""
        return self.in_channels, self.input_size, self.input_size

    @property
    def depth(self) -> int:
        """Weight layers on the main path, as the papers count: the stem, the branches and the fc layer."""
        stem = 3 if self.stem in ("deep", "tiered") else 1
        return stem + CONVS[self.branch] * sum(s.units for s in self.stages) + 1

    @property
    def is_plain(self) -> bool:
        """Whether the units have no shortcut."""
        return isinstance(self.mix, Plain)

    @property
    def pads_zeros(self) -> bool:
        """Whether shortcuts are of option A, which pads x with zeros where it has fewer channels than F."""
        return self.shortcut == "A" and not self.is_plain

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values; the mix as its text."""
        defaults = {f.name: f.default for f in fields(self) if f.name in ADDED}
        values = {name: value for name, value in asdict(self).items() if value != defaults.get(name, ...)}
        return values | {"mix": repr(self.mix)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> NetSpec:
        """The inverse of `to_dict`. Raises UserError for unknown fields and without stages."""
        if not isinstance(values, dict) or "stages" not in values:
            raise UserError("a network needs its stages: a list, each (units, width, stride).")
        return cls(**check_fields(cls, "a network", values))

    def override(self, **changes: Any) -> NetSpec:
        """A copy with some fields changed; it keeps its name only if it is still the network of that name.

        Raises UserError for unknown fields, with the nearest names.
        """
        changed = replace(self, **check_fields(NetSpec, "a network", changes))
        same = replace(changed, **{name: getattr(self, name) for name in SIZES}) == self
        return changed if same or "name" in changes else replace(changed, name="")


def set_python_numbers(spec: Any) -> None:
    """Replace numbers of numpy's, and tensors of one number, in the fields of a frozen dataclass by Python's."""
    for f in fields(spec):
        object.__setattr__(spec, f.name, as_python(getattr(spec, f.name)))


def check_fields(kind: Any, what: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return `values` if every key is a field of `kind`, in words `what`; else raise UserError with near names."""
    known = [f.name for f in fields(kind)]
    for key in values:
        if key not in known:
            raise UserError(f"{shown(key)} is not a field of {what}: {', '.join(known)}.{did_you_mean(key, known)}")
    return values


def _stage(value: StageSpec | dict[str, int] | tuple[int, ...] | list[int]) -> StageSpec:
    """A stage from a StageSpec, from JSON values, or from (units, width, stride)."""
    if isinstance(value, StageSpec):
        return value
    try:
        return StageSpec(**value) if isinstance(value, dict) else StageSpec(*value)
    except TypeError as error:
        raise UserError(
            f"stage {shown(value)} can't be read: give (units, width) or (units, width, stride)."
        ) from error


def check_positive(name: str, value: object, most: int = MOST) -> None:
    """Raise UserError unless `value` is a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise UserError(f"{name}={shown(value)} must be a whole number of at least 1 and at most {most:,}.")


def depth_rule(branch: BranchName) -> int:
    """Layers that one more unit in each of the three CIFAR stages adds: 3, 6 (6n+2) or 9 (9n+2)."""
    return 3 * CONVS[branch]


def units_per_stage(depth: int, branch: BranchName) -> int | None:
    """n in depth = 6n+2 (basic), 9n+2 (bottleneck) or 3n+2 (single); None if the depth does not fit the rule."""
    n, rest = divmod(depth - 2, depth_rule(branch))
    return n if n >= 1 and rest == 0 else None
