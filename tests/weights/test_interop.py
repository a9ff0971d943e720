"""Weights of other projects: each naming scheme to ours and back, what a file tells, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor

import resnetlab
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.spec import NetSpec, StageSpec
from resnetlab.nets.zoo import TIMM as TIMM_FAMILIES
from resnetlab.nets.zoo import on_meta, spec
from resnetlab.weights.interop import OURS, normalisation, read_state, write_state
from resnetlab.weights.naming import NAMING_SCHEMES, State

TORCHVISION: dict[str, dict[str, list[int]]] = json.loads(
    (Path(__file__).parents[1] / "nets" / "torchvision_names.json").read_text()
)

# Each naming scheme with networks that it holds; "/8" makes them an eighth as wide, which changes no name.
HELD = [
    *(("torchvision", name) for name in ("resnet18/8", "resnet50/8", "resnext50_32x4d", "wide_resnet50_2/8")),
    *(("timm", name) for name in ("resnet34/8", "resnet50/8", "resnet50c/8", "resnet26d/8", "resnet50s/8")),
    *(("timm", name) for name in ("resnet50t/8", "resnext50d_32x4d", "seresnet18", "seresnext26t_32x4d")),
    *(("timm", name) for name in ("resnetv2_18/8", "resnetv2_50/8", "resnetv2_34d/8", "resnetv2_50t/8")),
    *(("akamaster", f"cifar_resnet{depth}(zero_pad=around)") for depth in (20, 32, 44)),
    ("akamaster", "cifar_resnet20(shortcut=B, num_classes=100)"),
    *(("a-martyn", name) for name in ("cifar_resnet20", "cifar_resnet110", "cifar_plain32")),
    *(("chenyaofo", f"cifar_resnet{depth}(shortcut=B)") for depth in (20, 56)),
    *(("fb", name) for name in ("resnet18/8", "resnet50/8", "cifar_resnet20", "cifar_resnet20(shortcut=B)")),
    *(("fb", name) for name in ("resnet18(shortcut=A)/8", "resnet18(shortcut=C)/8")),
    *(("caffe", name) for name in ("resnet18/8", "resnet50_v1/8", "resnet101_v1/8", "resnet152_v1/8")),
    *((OURS, name) for name in ("cifar_preresnet20", "plain18/8")),
]


def network(name: str) -> ResNet:
    """The network, with a value of its own at every place of every tensor."""
    name, slash, _ = name.partition("/")
    found = spec(name)
    assert isinstance(found, NetSpec)
    if slash:
        stages = tuple(StageSpec(s.units, s.width // 8, s.stride) for s in found.stages)
        found = found.override(stages=stages, stem_width=found.stem_width // 8)
    net = resnetlab.build(found, seed=0)
    assert isinstance(net, ResNet)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        else:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return net.eval()


def assert_same(found: State, wanted: State, *, counters: bool = True) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        expected = tensor if counters or not name.endswith("num_batches_tracked") else torch.tensor(0)
        assert torch.equal(found[name], expected), name


@pytest.mark.parametrize(("naming", "name"), HELD)
def test_to_a_naming_scheme_and_back_keeps_every_bit(naming: str, name: str) -> None:
    net = network(name)
    theirs = write_state(net.state_dict(), net.spec, naming)
    told = naming not in ("a-martyn", OURS)
    found = read_state(theirs, None if told else name.partition("/")[0])
    assert_same(found.state, net.state_dict(), counters=naming != "caffe")  # Caffe counts no batches
    if told:
        assert found.spec == net.spec.override(input_size=found.spec.input_size)
        in_torchvision = naming == "timm" and re.fullmatch(r"resnet(34|50)/8", name)
        assert found.naming == ("torchvision" if in_torchvision else naming)


# What the projects call these, from their code or their files.
THEIRS = {
    "akamaster": ("cifar_resnet20(zero_pad=around)", {"fc.bias": "module.linear.bias"}),
    "a-martyn": (
        "cifar_plain20",
        {
            "conv1.weight": "convIn.weight",
            "bn1.running_var": "bnIn.running_var",
            "layer1.2.conv1.weight": "stack1.2.conv1.weight",
            "layer2.0.bn2.bias": "stack2a.bn2.bias",
            "layer3.2.conv2.weight": "stack3b.1.conv2.weight",
            "fc.weight": "fcOut.weight",
        },
    ),
    "fb": (
        "resnet50/8",
        {
            "conv1.weight": "0.weight",
            "bn1.bias": "1.bias",
            "layer1.0.conv1.weight": "4.0.0.0.0.weight",
            "layer1.0.downsample.1.weight": "4.0.0.1.1.weight",
            "layer4.2.bn3.running_mean": "7.2.0.0.7.running_mean",
            "fc.bias": "10.bias",
        },
    ),
    "timm": (
        "resnetv2_50d/8",
        {
            "conv1.0.weight": "stem.conv1.weight",
            "conv1.1.running_mean": "stem.norm1.running_mean",
            "conv1.6.weight": "stem.conv3.weight",
            "layer1.0.bn1.weight": "stages.0.blocks.0.norm1.weight",
            "layer1.0.downsample.1.weight": "stages.0.blocks.0.downsample.conv.weight",
            "layer4.2.conv3.weight": "stages.3.blocks.2.conv3.weight",
            "last_bn.bias": "norm.bias",
            "fc.bias": "head.fc.bias",
        },
    ),
    "caffe": (
        "resnet50_v1/8",
        {
            "layer1.0.conv1.weight": "res2a_branch2a.0",
            "layer1.0.downsample.0.weight": "res2a_branch1.0",
            "layer2.3.bn2.weight": "scale3d_branch2b.0",
            "layer3.5.bn3.running_var": "bn4f_branch2c.1",
            "bn1.bias": "scale_conv1.1",
            "bn1.running_mean": "bn_conv1.0",
            "fc.weight": "fc1000.0",
        },
    ),
}


@pytest.mark.parametrize("naming", THEIRS)
def test_names_are_the_projects(naming: str) -> None:
    name, pairs = THEIRS[naming]
    net = network(name)
    theirs = write_state(net.state_dict(), net.spec, naming)
    for ours, key in pairs.items():
        assert torch.equal(theirs[key], net.state_dict()[ours]), key


# Of timm 1.0.31: what its names and shapes are where it has what torchvision has not. See benchmarks/parity.py.
TIMM = """
resnet50d       layer1.0.downsample.1.weight  256,64,1,1     layer1.0.downsample.2.weight  256
resnet50c       layer1.0.downsample.0.weight  256,64,1,1     conv1.6.weight                64,32,3,3
resnet50s       conv1.3.weight                64,64,3,3      conv1.6.weight                128,64,3,3
resnet50t       conv1.0.weight                24,3,3,3       conv1.3.weight                32,24,3,3
seresnet18      layer1.0.se.fc1.weight        8,64,1,1       layer1.0.se.fc2.bias          64
seresnet50      layer4.0.se.fc1.weight        128,2048,1,1   layer1.0.se.fc1.bias          16
resnetv2_18     stem.conv.weight              64,3,7,7       head.fc.weight                1000,512,1,1
resnetv2_50t    stem.conv1.weight             24,3,3,3       stages.0.blocks.0.norm1.bias  64
resnetv2_101    norm.running_var              2048           stages.0.blocks.0.norm3.bias  64
"""


@pytest.mark.parametrize("row", TIMM.strip().splitlines(), ids=lambda row: row.split()[0])
def test_names_and_shapes_are_timms(row: str) -> None:
    name, *cells = row.split()
    theirs = write_state(on_meta(spec(name)).state_dict(), spec(name), "timm")
    for key, shape in zip(cells[::2], cells[1::2], strict=True):
        assert tuple(theirs[key].shape) == tuple(map(int, shape.split(","))), key


TIMMS = [f"{family}{name}" for family, (_, members) in TIMM_FAMILIES.items() for name in members.split()]


@pytest.mark.parametrize("name", TIMMS)
def test_every_network_of_timms_is_told_by_its_tensors(name: str) -> None:
    state = write_state(on_meta(spec(name)).state_dict(), spec(name), "timm")
    found = read_state(state)
    assert (found.spec, found.spec.name) == (spec(name), name)


def test_deep_caffe_nets_number_their_units() -> None:
    shallow = write_state(network("resnet50_v1/8").state_dict(), spec("resnet50_v1"), "caffe").keys()
    assert {"res2c_branch2a.0", "res3d_branch2a.0", "res4f_branch2a.0"} <= shallow
    for name, third, fourth in (("resnet101_v1", 4, 23), ("resnet152_v1", 8, 36)):
        names = write_state(on_meta(spec(name)).state_dict(), spec(name), "caffe").keys()
        units = [key[3:].removesuffix("_branch2a.0") for key in names if re.fullmatch("res.*_branch2a.0", key)]
        numbered = [*(f"3b{i}" for i in range(1, third)), "4a", *(f"4b{i}" for i in range(1, fourth))]
        assert units == ["2a", "2b", "2c", "3a", *numbered, "5a", "5b", "5c"]


def test_caffes_batch_norm_in_two_layers_and_a_bias_before_it() -> None:
    """As Caffe computes it: B, G, R in; (x + bias - mean / factor) / sqrt(variance / factor + eps) · γ + β."""
    net = network("resnet50_v1/8")
    theirs = write_state(net.state_dict(), net.spec, "caffe")
    theirs["conv1.1"] = torch.linspace(-1, 1, 8)
    theirs["bn_conv1.2"] = torch.tensor([999.98])
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    conv = tf.conv2d(x.flip(1), theirs["conv1.0"], theirs["conv1.1"], stride=2, padding=3)
    mean, variance = (theirs[f"bn_conv1.{i}"] / 999.98 for i in (0, 1))
    expected = tf.batch_norm(conv, mean, variance, theirs["scale_conv1.0"], theirs["scale_conv1.1"], eps=1e-5)
    net.load_state_dict(read_state(theirs).state)
    torch.testing.assert_close(net.run(("conv1", "bn1"), x), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("net", [None, "resnetv2_18"])
def test_a_bias_after_its_batch_norm_is_refused(net: str | None) -> None:
    made = network("resnetv2_18/8")
    theirs = write_state(made.state_dict(), made.spec, "timm") | {"stages.1.blocks.0.conv2.bias": torch.ones(16)}
    with pytest.raises(UserError, match=r"layer2\.0\.conv2\.bias can't be kept: .* Nothing was loaded"):
        read_state(theirs, net)


def test_early_caffes_blobs_of_four_dimensions() -> None:
    net = network("resnet18/8")
    theirs = write_state(net.state_dict(), net.spec, "caffe")
    wide = {k: v if v.ndim == 4 else v.reshape(*[1] * (4 - v.ndim), *v.shape) for k, v in theirs.items()}
    assert_same(read_state(wide).state, net.state_dict(), counters=False)


def torchvision_names(units: tuple[int, ...]) -> dict[str, list[int]]:
    """Names and shapes of torchvision's bottleneck networks."""
    shapes: dict[str, list[int]] = {}

    def conv(name: str, bn: str, c_in: int, c_out: int, kernel: int) -> None:
        shapes[f"{name}.weight"] = [c_out, c_in, kernel, kernel]
        shapes.update({f"{bn}.{t}": [c_out] for t in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{bn}.num_batches_tracked"] = []

    conv("conv1", "bn1", 3, 64, 7)
    c_in = 64
    for i, n in enumerate(units, 1):
        width = 32 * 2**i
        for j in range(n):
            unit = f"layer{i}.{j}"
            conv(f"{unit}.conv1", f"{unit}.bn1", c_in, width, 1)
            conv(f"{unit}.conv2", f"{unit}.bn2", width, width, 3)
            conv(f"{unit}.conv3", f"{unit}.bn3", width, 4 * width, 1)
            if j == 0:
                conv(f"{unit}.downsample.0", f"{unit}.downsample.1", c_in, 4 * width, 1)
            c_in = 4 * width
    return shapes | {"fc.weight": [1000, c_in], "fc.bias": [1000]}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnet152"])
def test_torchvisions_published_names_load_strictly(name: str) -> None:
    shapes = TORCHVISION.get(name) or torchvision_names((3, 8, 36, 3))
    found = read_state({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()})
    assert found.spec == spec(name)
    assert found.spec.name == name
    with torch.device("meta"):
        on_meta(found.spec).load_state_dict(found.state, strict=True, assign=True)


def test_the_rule_for_torchvisions_names() -> None:
    assert torchvision_names((3, 4, 6, 3)) == TORCHVISION["resnet50"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.module.", "model."])
def test_prefixes_of_wrappers_are_left_out(prefix: str) -> None:
    net = network("cifar_resnet20")
    theirs = {prefix + key: tensor for key, tensor in net.state_dict().items()}
    assert_same(read_state(theirs, "cifar_resnet20").state, net.state_dict())
    units = {key.replace("layer1.0.", "layer1.0._orig_mod."): tensor for key, tensor in net.state_dict().items()}
    assert_same(read_state(units, "cifar_resnet20").state, net.state_dict())
    with pytest.raises(UserError, match="two of its tensors map to conv1.weight"):
        read_state(theirs | {"conv1.weight": torch.zeros(1)})


def test_counters_may_be_missing_all_of_them_only() -> None:
    net = network("cifar_resnet20")
    old = {key: tensor for key, tensor in net.state_dict().items() if "num_batches" not in key}
    assert_same(read_state(old, "cifar_resnet20").state, net.state_dict(), counters=False)
    one = old | {"bn1.num_batches_tracked": torch.tensor(3)}
    assert read_state(one, "cifar_resnet20").state.keys() == one.keys()


def akamaster() -> Iterator[tuple[str, str]]:
    yield "cifar_resnet20", "around"
    yield "cifar_resnet20(zero_pad=after)", "after"
    yield "cifar_resnet20(zero_pad='around')", "around"


@pytest.mark.parametrize(("name", "expected"), list(akamaster()))
def test_the_scheme_says_where_the_zeros_stand_unless_the_name_does(name: str, expected: str) -> None:
    net = network("cifar_resnet20(zero_pad=around, num_classes=100)")
    found = read_state(write_state(net.state_dict(), net.spec, "akamaster"), name)
    assert isinstance(found.spec, NetSpec)
    assert (found.spec.zero_pad, found.spec.num_classes) == (expected, 100)


def test_the_scheme_says_where_a_bottleneck_strides_and_the_tensors_whether_shortcuts_project() -> None:
    caffe = network("resnet50_v1/8")
    state = read_state(write_state(caffe.state_dict(), caffe.spec, "caffe"), "resnet50")
    assert state.spec == spec("resnet50_v1")
    chenyaofo = network("cifar_resnet20(shortcut=B)")
    assert read_state(chenyaofo.state_dict(), "cifar_resnet20").spec == chenyaofo.spec


def test_what_a_file_does_not_tell_has_to_be_named() -> None:
    net = network("cifar_plain20")
    theirs = write_state(net.state_dict(), net.spec, "a-martyn")
    with pytest.raises(UserError, match="can be cifar_resnet20 or cifar_plain20, .* choose one with --net"):
        read_state(theirs)
    assert read_state(theirs, "cifar_plain20").spec == net.spec
    for name in ("plain18/8", "cifar_preresnet20", "cifar_resnet20"):
        with pytest.raises(UserError, match="does not say which network it holds; name it with --net"):
            read_state(network(name).state_dict())


@pytest.mark.parametrize("damage", [{}, {"conv1.weight": torch.zeros(4)}, {"fc.weight": torch.zeros(())}])
def test_tensors_of_no_network_are_told(damage: dict[str, Tensor]) -> None:
    state = network("resnet18/8").state_dict() | damage if damage else {"a": torch.zeros(1)}
    told = "does not say which network it holds" if damage else r"under names that are known \(a\); if it is one under"
    with pytest.raises(UserError, match=told):
        read_state(state)


def test_bottlenecks_of_one_unit_a_stage_project_where_sizes_change() -> None:
    """Each unit does, but for that reason: option B, not C."""
    net = resnetlab.build("resnet50(stages=((1,8),(1,16,2),(1,32,2),(1,64,2)), stem_width=8)", seed=0)
    assert isinstance(net.spec, NetSpec)
    assert read_state(net.state_dict()).spec == net.spec
    strides = read_state(write_state(net.state_dict(), net.spec, "transformers"), f"resnet50_v1{net.spec.name[8:]}")
    assert isinstance(strides.spec, NetSpec)
    assert strides.spec.stride_at == "1x1"


@pytest.mark.parametrize("factor", [torch.zeros(1), torch.ones(2)])
def test_a_caffe_batch_norm_without_statistics_is_refused(factor: Tensor) -> None:
    net = network("resnet18/8")
    theirs = write_state(net.state_dict(), net.spec, "caffe") | {"bn2a_branch2a.2": factor}
    with pytest.raises(UserError, match="third blob of bn2a_branch2a should be a single nonzero number"):
        read_state(theirs)


@pytest.mark.parametrize("shape", [(6, 64, 7, 7), (64,)])
def test_a_caffe_layer_fc_that_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    net = network("resnet18/8")
    (fc,) = {key.rpartition(".")[0] for key in write_state(net.state_dict(), net.spec, "caffe") if key.startswith("fc")}
    theirs = write_state(net.state_dict(), net.spec, "caffe") | {f"{fc}.0": torch.ones(shape)}
    with pytest.raises(UserError, match=rf"the first blob of {fc} should be a matrix; its shape is \({shape[0]},"):
        read_state(theirs)


@pytest.mark.parametrize(
    ("naming", "name", "reason"),
    [
        ("akamaster", "cifar_resnet20", "it has zero_pad='after', but theirs has 'around'"),
        ("a-martyn", "cifar_resnet20(zero_pad=around)", "it has zero_pad='around', but theirs has 'after'"),
        ("chenyaofo", "cifar_resnet20", "it has shortcut='A', but theirs has 'B'"),
        ("torchvision", "resnet50_v1", "it has stride_at='1x1', but theirs has '3x3'"),
        ("caffe", "resnet50", "it has stride_at='3x3', but theirs has '1x1'"),
        ("caffe", "resnext50_32x4d", "it has groups=32, but theirs has 1"),
        ("timm", "plain18", r"it has mix=Plain\(\), but theirs has Add\(\)"),
        ("torchvision", "preresnet50", "it has order='full_preact', but theirs has 'post'"),
        ("fb", "resnet18(mix=ShortcutGate(-6))", r"it has mix=ShortcutGate\(bias=-6.0\)"),
        ("torchvision", "resnet18(se_reduction=16)", "it has se_reduction=16"),
        ("torchvision", "resnet18(stages=((2,64),(2,128)))", r"have strides \[1, 1\], but theirs have \[1, 2, 2, 2\]"),
        ("timm", "preresnet50", "it has first_preact='stem', but theirs has 'unit'"),
        ("timm", "resnetv2_50(shortcut=D)", "it has shortcut='D' with stem='imagenet', but theirs has 'D' with deep"),
        ("timm", "seresnet50(se_reduction=4)", "it has se_reduction=4, but theirs has None or 16"),
        ("timm", "seresnet18(se_divisor=1)", "it has inner widths of squeeze-and-excitation that are not timm's"),
        ("torchvision", "resnet50d", "it has stem='deep', but theirs has 'imagenet'"),
        ("torchvision", "resnetv2_18", "it has order='full_preact', but theirs has 'post'"),
        ("timm", "vgg16", "only torchvision has names for VGG nets"),
        ("tensorflow", "resnet18", "naming='tensorflow' is not known: choose one of"),
    ],
)
def test_networks_that_a_project_does_not_have_are_refused(naming: str, name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        write_state({}, spec(name), naming)


def test_vgg_nets_have_torchvisions_names() -> None:
    state = on_meta(spec("vgg16_bn")).state_dict()
    assert read_state(write_state(state, spec("vgg16_bn"), "torchvision")).spec == spec("vgg16_bn")


def test_what_the_projects_trained_with() -> None:
    assert (
        normalisation("akamaster", spec("cifar_resnet20(zero_pad=around)"))
        == NAMING_SCHEMES["torchvision"].normalisation[None]
    )
    for (naming, name, classes), published in {  # of pixels from 0 to 255, as their code has them
        ("caffe", "resnet50_v1", 1000): (122.7717, 115.9465, 102.9801, 1, 1, 1),
        ("fb", "cifar_resnet20", 10): (125.3, 123.0, 113.9, 63.0, 62.1, 66.7),
        ("fb", "cifar_resnet20", 100): (129.3, 124.1, 112.4, 68.2, 65.4, 70.4),
        ("chenyaofo", "cifar_resnet20(shortcut=B)", 10): [
            255 * v for v in (0.4914, 0.4822, 0.4465, 0.2023, 0.1994, 0.2010)
        ],
        ("chenyaofo", "cifar_resnet20(shortcut=B)", 100): [
            255 * v for v in (0.5070, 0.4865, 0.4409, 0.2673, 0.2564, 0.2761)
        ],
    }.items():
        mean, std = normalisation(naming, spec(name, num_classes=classes)) or ((), ())
        assert [255 * v for v in (*mean, *std)] == pytest.approx(published)
    assert normalisation("a-martyn", spec("cifar_resnet20", num_classes=100)) is None
    assert normalisation("timm", spec("resnetv2_50")) == ((0.5,) * 3, (0.5,) * 3)
    assert normalisation("timm", spec("resnet50d")) == normalisation("torchvision", spec("resnet50"))
    assert normalisation("torchvision", spec("resnet18", in_channels=1)) is None
    assert normalisation("akamaster", spec("resnet18")) is None  # its names, but no network of its own
    assert normalisation(OURS, spec("resnet18")) is None
