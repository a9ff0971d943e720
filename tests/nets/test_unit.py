"""The residual unit against a hand-written forward: every order, branch, shortcut and mix, values and gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.nets import zoo
from resnetlab.nets.branches import BranchScalar, SqueezeExcitation, StochasticDepth
from resnetlab.nets.mixing import Mixing
from resnetlab.nets.net import ResidualUnit, ResNet
from resnetlab.nets.spec import NetSpec

State = dict[str, Tensor]

# He 2016, Fig. 4 (a) to (e), written out: the pre-activation | the rest of F | what follows the sum.
FIGURE_4 = """
post            single     |          | conv1 bn1                                   | relu
post            basic      |          | conv1 bn1 relu conv2 bn2                    | relu
post            bottleneck |          | conv1 bn1 relu conv2 bn2 relu conv3 bn3     | relu
bn_after_add    single     |          | conv1                                       | bn1 relu
bn_after_add    basic      |          | conv1 bn1 relu conv2                        | bn2 relu
bn_after_add    bottleneck |          | conv1 bn1 relu conv2 bn2 relu conv3         | bn3 relu
relu_before_add single     |          | conv1 bn1 relu                              |
relu_before_add basic      |          | conv1 bn1 relu conv2 bn2 relu               |
relu_before_add bottleneck |          | conv1 bn1 relu conv2 bn2 relu conv3 bn3 relu |
relu_preact     single     | relu     | conv1 bn1                                   |
relu_preact     basic      | relu     | conv1 bn1 relu conv2 bn2                    |
relu_preact     bottleneck | relu     | conv1 bn1 relu conv2 bn2 relu conv3 bn3     |
full_preact     single     | bn1 relu | conv1                                       |
full_preact     basic      | bn1 relu | conv1 bn2 relu conv2                        |
full_preact     bottleneck | bn1 relu | conv1 bn2 relu conv2 bn3 relu conv3         |
"""
UNITS = {
    tuple(cells[0].split()): [ops.split() for ops in cells[1:]]
    for cells in (row.split("|") for row in FIGURE_4.strip().splitlines())
}
ORDERS = ["post", "bn_after_add", "relu_before_add", "relu_preact", "full_preact"]

BRANCHES: dict[str, tuple[str, dict[str, Any]]] = {  # id: (the convolution with the stride, fields of the spec)
    "single": ("conv1", {"branch": "single"}),
    "basic": ("conv1", {"branch": "basic"}),
    "bottleneck_1x1": ("conv1", {"branch": "bottleneck", "stride_at": "1x1"}),
    "bottleneck_3x3": ("conv2", {"branch": "bottleneck", "stride_at": "3x3"}),
    "bottleneck_grouped": ("conv2", {"branch": "bottleneck", "groups": 2}),
}

SHORTCUTS: dict[str, dict[str, str]] = {
    "A": {"shortcut": "A"},
    "A_around": {"shortcut": "A", "zero_pad": "around"},
    "B": {"shortcut": "B"},
    "C": {"shortcut": "C"},
    "D": {"shortcut": "D"},
}

# He 2016, section 3 and Table 1, on h, F, the gate's value g and whether the unit trains.
MIXES: dict[str, Callable[[Tensor, Tensor, Tensor, bool], Tensor]] = {
    "Plain()": lambda h, F, g, training: F,
    "Add()": lambda h, F, g, training: h + F,
    "Scale(0.5, 0.25)": lambda h, F, g, training: h / 2 + F / 4,
    "ExclusiveGate(-1)": lambda h, F, g, training: h - g * h + g * F,
    "ShortcutGate(-1)": lambda h, F, g, training: h - g * h + F,
    "DropoutShortcut(0)": lambda h, F, g, training: h + F,
    "DropoutShortcut(0.3)": lambda h, F, g, training: tf.dropout(h, 0.3, training) + F,
}

OUT = 8  # channels that every unit here gives
SIZES = [(8, 1), (5, 2), (5, 1), (8, 2)]  # channels in, stride: 5 leaves an odd number of channels to pad


def conv(state: State, name: str, x: Tensor, stride: int) -> Tensor:
    weight = state[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    return tf.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding=weight.shape[-1] // 2, groups=groups)


def batch_norm(state: State, name: str, x: Tensor, training: bool) -> Tensor:
    statistics = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return tf.batch_norm(x, *statistics, state[f"{name}.weight"], state[f"{name}.bias"], training, 0.1, 1e-5)


def means_over(stride: int, x: Tensor) -> Tensor:
    """Means over stride x stride pixels, and over what is left of them at the end of an odd side."""
    rows = torch.stack([x[:, :, i : i + stride].mean(2) for i in range(0, x.shape[2], stride)], 2)
    return torch.stack([rows[..., i : i + stride].mean(3) for i in range(0, x.shape[3], stride)], 3)


def reference(
    state: State, x: Tensor, *, order: str, branch: str, shortcut: str, mix: str, stride: int, first: bool, train: bool
) -> Tensor:
    """x⁺ = f(mix(h(x), F(x))) from the weights alone; updates the running statistics in `state` when it trains."""
    strided, fields = BRANCHES[branch]

    def run(ops: list[str], x: Tensor) -> Tensor:
        for op in ops:
            if op == "relu":
                x = tf.relu(x)
            elif op.startswith("bn"):
                x = batch_norm(state, op, x, train)
            else:
                x = conv(state, op, x, stride if op == strided else 1)
        return x

    preact, rest, postact = UNITS[order, fields["branch"]]
    preact = [] if first else preact  # the stem has done it
    changes = x.shape[1] != OUT or stride != 1
    if mix != "Plain()" and (shortcut == "C" or (shortcut in "BD" and changes)):
        x = run(preact, x)  # shared with the projection (He 2016, section 4.1)
        pooled, place = (means_over(stride, x), 1) if shortcut == "D" else (x, 0)
        h = conv(state, f"downsample.{place}", pooled, 1 if shortcut == "D" else stride)
        if order != "full_preact":
            h = batch_norm(state, f"downsample.{place + 1}", h, train)
        F = run(rest, x)
    else:
        F = run(preact + rest, x)
        h = torch.zeros_like(F)
        start = (OUT - x.shape[1]) // 2 if shortcut == "A_around" else 0
        h[:, start : start + x.shape[1]] = x[:, :, ::stride, ::stride]
    g = torch.sigmoid(conv(state, "mix.part.conv", x, stride)) if "Gate" in mix else F
    return run(postact, MIXES[mix](h, F, g, train))


def randomised(unit: nn.Module, generator: torch.Generator) -> None:
    """No weight, bias or statistic stays at 0 or 1, where a wrong one would not show."""
    with torch.no_grad():
        for name, value in unit.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
                value.uniform_(0.5, 2, generator=generator)
            elif value.is_floating_point():
                value.normal_(0, 0.5, generator=generator)


def check(unit: ResidualUnit, x: Tensor, case: str, **kind: Any) -> None:
    """Compare output, gradients of the input and of every parameter, and running statistics."""
    state = {name: value.detach().clone() for name, value in unit.state_dict().items()}
    parameters = {name: state[name].requires_grad_() for name, _ in unit.named_parameters()}
    statistics = [name for name, buffer in unit.named_buffers() if buffer.is_floating_point()]
    torch.default_generator.manual_seed(1)  # both drop the same values
    y = unit(x)
    torch.default_generator.manual_seed(1)
    wanted = reference(state, x, **kind)
    upstream = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    ours = [y, *torch.autograd.grad(y, [x, *unit.parameters()], upstream), *map(unit.get_buffer, statistics)]
    theirs = [wanted, *torch.autograd.grad(wanted, [x, *parameters.values()], upstream), *map(state.get, statistics)]
    for name, a, b in zip(["output", "x", *parameters, *statistics], ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9), f"{name} or its gradient differs: {case}"


def cases() -> Iterator[Any]:
    """Every unit; the quick ones are a third, in which every two choices meet."""
    choices = itertools.product(enumerate(ORDERS), enumerate(BRANCHES), enumerate(MIXES), enumerate(SHORTCUTS))
    for numbers, (order, branch, mix, shortcut) in (zip(*case, strict=True) for case in choices):
        alone = mix == "Plain()"  # it has no shortcut, so that only one of them is its own
        if not alone or shortcut == "A":
            marks = [pytest.mark.slow] * (not alone and sum(numbers) % 3 > 0)
            yield pytest.param(order, branch, mix, shortcut, id=f"{order}-{branch}-{mix}-{shortcut}", marks=marks)


@pytest.mark.parametrize(("order", "branch", "mix", "shortcut"), list(cases()))
def test_equation(order: str, branch: str, mix: str, shortcut: str) -> None:
    generator = torch.Generator().manual_seed(0)
    width = OUT // 4 if branch.startswith("bottleneck") else OUT
    fields = {"stages": ((1, width),), "order": order, "mix": mix, **BRANCHES[branch][1], **SHORTCUTS[shortcut]}
    for (channels, stride), first in itertools.product(SIZES, (False, True)):
        unit = ResidualUnit(NetSpec(stem_width=channels, **fields), channels, width, stride, first=first).double()
        randomised(unit, generator)
        x = torch.randn(2, channels, 3, 4, dtype=torch.float64, generator=generator, requires_grad=True)
        kind = {"order": order, "branch": branch, "mix": mix, "shortcut": shortcut, "stride": stride, "first": first}
        for train in (True,) if first else (False, True):  # F is shorter in both alike
            case = f"channels {channels}, stride {stride}, first {first}, train {train}"
            check(unit.train(train), x, case, train=train, **kind)


# The layers of a basic unit as they run; "+" is the mix. A projection runs before F.
SEQUENCES = {
    ("post", "inner"): "conv1 bn1 relu1 conv2 bn2 + relu2",
    ("post", "projecting"): "downsample.0 downsample.1 conv1 bn1 relu1 conv2 bn2 + relu2",
    ("post", "first"): "conv1 bn1 relu1 conv2 bn2 + relu2",
    ("bn_after_add", "inner"): "conv1 bn1 relu1 conv2 + bn2 relu2",
    ("bn_after_add", "projecting"): "downsample.0 downsample.1 conv1 bn1 relu1 conv2 + bn2 relu2",
    ("bn_after_add", "first"): "conv1 bn1 relu1 conv2 + bn2 relu2",
    ("relu_before_add", "inner"): "conv1 bn1 relu1 conv2 bn2 relu2 +",
    ("relu_before_add", "projecting"): "downsample.0 downsample.1 conv1 bn1 relu1 conv2 bn2 relu2 +",
    ("relu_before_add", "first"): "conv1 bn1 relu1 conv2 bn2 relu2 +",
    ("relu_preact", "inner"): "relu1 conv1 bn1 relu2 conv2 bn2 +",
    ("relu_preact", "projecting"): "relu1 downsample.0 downsample.1 conv1 bn1 relu2 conv2 bn2 +",
    ("relu_preact", "first"): "conv1 bn1 relu2 conv2 bn2 +",
    ("full_preact", "inner"): "bn1 relu1 conv1 bn2 relu2 conv2 +",
    ("full_preact", "projecting"): "bn1 relu1 downsample.0 conv1 bn2 relu2 conv2 +",
    ("full_preact", "first"): "conv1 bn2 relu2 conv2 +",
}


def recorded(net: nn.Module, x: Tensor) -> str:
    """The names of the layers that run, in order."""
    ran: list[str] = []
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Linear, Mixing)
    for name, module in net.named_modules():
        if isinstance(module, kinds):
            label = name.removesuffix("mix") + "+" if isinstance(module, Mixing) else name
            module.register_forward_hook(lambda *_, label=label: ran.append(label))
    net(x)
    return " ".join(ran)


@pytest.mark.parametrize(("order", "place"), SEQUENCES)
def test_sequence_of_a_unit(order: str, place: str) -> None:
    spec = NetSpec(stages=((1, 4),), stem_width=4, order=order, shortcut="B")
    unit = ResidualUnit(spec, 4, 8 if place == "projecting" else 4, 1, first=place == "first")
    assert recorded(unit, torch.zeros(2, 4, 4, 4)) == SEQUENCES[order, place]


@pytest.mark.parametrize("order", ORDERS)
def test_sequence_of_a_net(order: str) -> None:
    """Only the net's first unit leaves out its pre-activation, and one more follows the last sum."""
    net = ResNet(NetSpec(stages=((2, 4), (1, 8, 2)), stem_width=4, order=order, shortcut="B"))
    units = [("layer1.0", "first"), ("layer1.1", "inner"), ("layer2.0", "projecting")]
    middle = [f"{name}.{op}" for name, place in units for op in SEQUENCES[order, place].split()]
    end = {"relu_preact": ["last_relu"], "full_preact": ["last_bn", "last_relu"]}.get(order, [])
    expected = ["conv1", "bn1", "relu", *middle, *end, "avgpool", "fc"]
    assert recorded(net, torch.zeros(2, 3, 8, 8)).split() == expected


@pytest.mark.parametrize(("order", "stem"), [("relu_preact", ["conv1", "bn1"]), ("full_preact", ["conv1"])])
def test_the_first_unit_may_have_its_own_activation(order: str, stem: list[str]) -> None:
    """Then the stem leaves out what that unit has, and what enters its shortcut is not activated (timm's resnetv2)."""
    spec = NetSpec(stages=((2, 4),), stem="imagenet", stem_width=4, order=order, shortcut="B", first_preact="unit")
    units = [f"layer1.{i}.{op}" for i in range(2) for op in SEQUENCES[order, "inner"].split()]
    end = ["last_bn", "last_relu"] if order == "full_preact" else ["last_relu"]
    expected = [*stem, "maxpool", *units, *end, "avgpool", "fc"]
    assert recorded(ResNet(spec), torch.zeros(2, 3, 16, 16)).split() == expected


def test_sequence_of_the_deep_stem() -> None:
    net = ResNet(NetSpec(stages=((1, 4),), stem="deep", stem_width=4))
    stem = "conv1.0 conv1.1 conv1.2 conv1.3 conv1.4 conv1.5 conv1.6 bn1 relu maxpool"
    convs = [m for m in net.conv1 if isinstance(m, nn.Conv2d)]
    assert recorded(net, torch.zeros(2, 3, 16, 16)).startswith(stem)
    assert [(c.out_channels, c.kernel_size[0], c.stride[0]) for c in convs] == [(2, 3, 2), (2, 3, 1), (4, 3, 1)]


def test_squeeze_excitation_and_scalar_end_the_branch() -> None:
    spec = NetSpec(stages=((1, 8),), stem_width=8, order="full_preact", se_reduction=4, branch_scalar=0.5)
    unit = ResidualUnit(spec, 8, 8, 1).double().eval()
    randomised(unit, torch.Generator().manual_seed(0))
    x = torch.randn(2, 8, 3, 3, dtype=torch.float64)
    s = unit.state_dict()
    F = unit.run(unit.branch_layers[: unit.branch_layers.index("se")], x)
    squeezed = tf.relu(F.mean((2, 3)) @ s["se.fc1.weight"][:, :, 0, 0].T + s["se.fc1.bias"])
    gate = torch.sigmoid(squeezed @ s["se.fc2.weight"][:, :, 0, 0].T + s["se.fc2.bias"])
    torch.testing.assert_close(unit(x), x + s["scalar.alpha"] * gate[:, :, None, None] * F)
    assert unit.branch_layers[-3:] == ("conv2", "se", "scalar")
    assert [type(unit.se), type(unit.scalar), unit.se.fc1.out_channels] == [SqueezeExcitation, BranchScalar, 2]


@pytest.mark.parametrize(
    ("channels", "reduction", "divisor", "inner"),
    [
        (64, 16, 1, 4),
        (64, 16, 8, 8),
        (128, 16, 8, 8),
        (256, 16, 8, 16),
        (320, 16, 8, 24),
        (40, 16, 1, 2),
        (8, 16, 1, 1),
    ],
)
def test_width_of_squeeze_excitation(channels: int, reduction: int, divisor: int, inner: int) -> None:
    """SENet divides; timm rounds to a multiple of 8, halves up, and to 8 at least."""
    assert SqueezeExcitation(channels, reduction, divisor).fc1.out_channels == inner


def test_stochastic_depth_keeps_the_expectation() -> None:
    p, n = 0.3, 20_000
    torch.manual_seed(0)
    dropped = StochasticDepth(p)(torch.ones(n, 2, 3, 3))
    per_image = dropped[:, 0, 0, 0]
    assert (dropped == per_image[:, None, None, None]).all(), "an image is kept or dropped as a whole"
    assert per_image.unique().tolist() == pytest.approx([0, 1 / (1 - p)])
    assert per_image.mean() == pytest.approx(1, abs=4 * (p / (1 - p) / n) ** 0.5)  # four standard errors


def test_stochastic_depth_skips_the_branch_of_some_images() -> None:
    spec = NetSpec(stages=((1, 4),), stem_width=4, order="relu_preact", stochastic_depth=0.5)
    unit = ResidualUnit(spec, 4, 4, 1, drop=0.5)
    torch.manual_seed(0)
    x = torch.randn(32, 4, 3, 3)
    y, F = unit(x), unit.run(unit.branch_layers[:-1], x)
    skipped = (y == x).flatten(1).all(1)
    assert 0 < skipped.sum() < 32
    torch.testing.assert_close(y[~skipped], (x + 2 * F)[~skipped])
    unit.eval()
    torch.testing.assert_close(unit(x), x + unit.run(unit.branch_layers[:-1], x))


def test_stochastic_depth_grows_by_unit() -> None:
    """p·l/L in unit l of L (Huang et al. 2016, eq. 4)."""
    net = zoo.on_meta(zoo.spec("cifar_resnet20", stochastic_depth=0.45))
    assert [unit.drop.p for _, unit in net.units()] == pytest.approx([0.05 * n for n in range(1, 10)])


@pytest.mark.parametrize("branch", ["single", "basic", "bottleneck"])
@pytest.mark.parametrize(("order", "f"), [("post", tf.relu), ("relu_preact", lambda y: y)])
@pytest.mark.parametrize("start", [{"zero_gamma": True}, {"branch_scalar": 0}], ids=["zero_gamma", "branch_scalar"])
def test_units_start_as_identity(branch: str, order: str, f: Callable[[Tensor], Tensor], start: dict[str, Any]) -> None:
    spec = NetSpec(stages=((2, 4), (2, 8)), stem_width=4, branch=branch, order=order, shortcut="B", **start)
    for name, unit in zoo.build(spec, seed=0).units():
        x = torch.randn(2, unit.in_channels, 4, 4)
        h = unit.h(unit.preact(x))
        torch.testing.assert_close(unit(x), f(h), msg=name)


@pytest.mark.parametrize("shortcut", ["A", "C"])
@pytest.mark.parametrize("order", ORDERS)
def test_without_norm(order: str, shortcut: str) -> None:
    net = zoo.build("cifar_resnet20", norm="none", order=order, shortcut=shortcut, seed=0)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert all(m.bias is not None for m in net.modules() if isinstance(m, nn.Conv2d))
    expected = [" ".join(op for op in SEQUENCES[order, "inner"].split() if "bn" not in op)]
    assert [recorded(net.layer2[1], torch.zeros(1, 32, 4, 4)).replace("downsample.0 ", "")] == expected
