"""The size of the maps after the stem and every stage, and the names of the units."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from resnetlab.nets import zoo

# Channels x side after the stem, then after each stage: He 2015, Table 1 and section 4.2; He 2016, section 5;
# Zagoruyko & Komodakis 2016, Table 1.
SHAPES = """
resnet18                   64x56   64x56   128x28   256x14   512x7
plain34                    64x56   64x56   128x28   256x14   512x7
resnet50                   64x56  256x56   512x28  1024x14  2048x7
resnet50_v1                64x56  256x56   512x28  1024x14  2048x7
resnet50c                  64x56  256x56   512x28  1024x14  2048x7
resnet50d                  64x56  256x56   512x28  1024x14  2048x7
resnet50s                 128x56  256x56   512x28  1024x14  2048x7
resnet50t                  64x56  256x56   512x28  1024x14  2048x7
resnetv2_50d               64x56  256x56   512x28  1024x14  2048x7
resnet152                  64x56  256x56   512x28  1024x14  2048x7
preresnet152               64x56  256x56   512x28  1024x14  2048x7
wide_resnet50_2            64x56  256x56   512x28  1024x14  2048x7
resnext50_32x4d            64x56  256x56   512x28  1024x14  2048x7
cifar_resnet20             16x32   16x32    32x16     64x8
cifar_plain20              16x32   16x32    32x16     64x8
cifar_resnet110            16x32   16x32    32x16     64x8
cifar_resnet164            16x32   64x32   128x16    256x8
cifar_preresnet164         16x32   64x32   128x16    256x8
cifar_wrn28_10             16x32  160x32   320x16    640x8
"""
ROWS = [(row.split()[0], row.split()[1:]) for row in SHAPES.strip().splitlines()]


@pytest.mark.parametrize(("name", "shapes"), ROWS, ids=[name for name, _ in ROWS])
def test_shapes(name: str, shapes: list[str]) -> None:
    spec = zoo.spec(name)
    net = zoo.on_meta(spec).eval()
    seen: list[str] = []

    def note(_: nn.Module, inputs: tuple[torch.Tensor], out: torch.Tensor) -> None:
        for x in [*inputs, out] if not seen else [out]:  # what enters the first stage is the stem's output
            seen.append(f"{x.shape[1]}x{x.shape[2]}")
            assert x.shape[2] == x.shape[3]

    for stage in net.stages():
        stage.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(1, 3, spec.input_size, spec.input_size, device="meta"))
    assert seen == shapes


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("resnet18", [2, 2, 2, 2]),
        ("resnet34", [3, 4, 6, 3]),
        ("resnet50", [3, 4, 6, 3]),
        ("resnet101", [3, 4, 23, 3]),
        ("resnet152", [3, 8, 36, 3]),
        ("preresnet200", [3, 24, 36, 3]),
        ("resnet10t", [1, 1, 1, 1]),
        ("resnetv2_34d", [3, 4, 6, 3]),
        ("seresnet269d", [3, 30, 48, 8]),
        ("cifar_resnet110", [18, 18, 18]),
        ("cifar_preresnet164", [18, 18, 18]),
        ("cifar_preresnet1001", [111, 111, 111]),
        ("cifar_resnet1202", [200, 200, 200]),
        ("cifar_resnet110(branch=single)", [36, 36, 36]),  # the one-layer skip of He 2016, Table 3: 3n+2
        ("cifar_wrn28_10", [4, 4, 4]),
        ("cifar_wrn16_8", [2, 2, 2]),
    ],
)
def test_units(name: str, counts: list[int]) -> None:
    net = zoo.on_meta(zoo.spec(name))
    assert [len(stage) for stage in net.stages()] == counts
    names = [f"layer{i}.{j}" for i, count in enumerate(counts, 1) for j in range(count)]
    assert [name for name, _ in net.units()] == names
    assert all(net.get_submodule(name) is unit for name, unit in net.units())


def test_stride_is_in_the_first_unit_of_a_stage() -> None:
    net = zoo.on_meta(zoo.spec("resnet18"))
    assert [unit.stride for _, unit in net.units()] == [1, 1, 2, 1, 2, 1, 2, 1]
    assert [unit.in_channels for _, unit in net.units()] == [64, 64, 64, 128, 128, 256, 256, 512]
    assert [unit.out_channels for _, unit in net.units()] == [64, 64, 128, 128, 256, 256, 512, 512]


def test_tiered_stem() -> None:
    """24, 32 and 64 channels, the first at half the resolution."""
    convs = [m for m in zoo.on_meta(zoo.spec("resnet50t")).conv1 if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.stride[0], c.kernel_size[0]) for c in convs] == [(24, 2, 3), (32, 1, 3), (64, 1, 3)]


@pytest.mark.parametrize(("name", "strides"), [("resnet50", (1, 2, 1)), ("resnet50_v1", (2, 1, 1))])
def test_stride_of_a_bottleneck(name: str, strides: tuple[int, ...]) -> None:
    """v1.5 strides in the 3x3; the paper's release (`res3a_branch2a`) in the first 1x1."""
    unit = zoo.on_meta(zoo.spec(name)).stages()[1][0]
    assert tuple(c.stride[0] for c in (unit.conv1, unit.conv2, unit.conv3)) == strides


@pytest.mark.parametrize("name", [name for name in zoo.names() if "wrn" not in name])
def test_depth_is_the_number_in_the_name(name: str) -> None:
    """A deep stem has two layers more than the name counts, as in He et al. 2019."""
    found = zoo.spec(name)
    deep = getattr(found, "stem", "") in ("deep", "tiered")
    assert found.depth == int(re.search(r"(?:net|plain|vgg|next|v2_)(\d+)", name)[1]) + 2 * deep


@pytest.mark.parametrize("name", [name for name in zoo.names() if "wrn" in name])
def test_the_number_in_a_wide_nets_name_counts_projections_and_not_fc(name: str) -> None:
    net = zoo.on_meta(zoo.spec(name))
    projections = sum(any(isinstance(m, nn.Conv2d) for m in unit.downsample.modules()) for _, unit in net.units())
    assert int(re.search(r"wrn(\d+)", name)[1]) == net.spec.depth + projections - 1


@pytest.mark.parametrize(
    "name", ["cifar_resnet20", "cifar_preresnet20(shortcut=C)", "cifar_resnet20(stem=deep, shortcut=D)"]
)
@pytest.mark.parametrize("side", [1, 7, 33])
def test_other_input_sizes(name: str, side: int) -> None:
    """Odd maps: F, the shortcut, also a pooled one, and the gate round up alike, or their sum would fail."""
    for mix in ("Add()", "ExclusiveGate(-1)"):
        net = zoo.on_meta(zoo.spec(name, mix=mix)).eval()
        assert net(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 10)


@pytest.mark.parametrize(("name", "groups"), [("vgg16", [2, 2, 3, 3, 3]), ("vgg19_bn", [2, 2, 4, 4, 4])])
def test_vgg(name: str, groups: list[int]) -> None:
    """Five groups of 3x3 convolutions (Simonyan & Zisserman 2015, Table 1), dropout 0.5 after both hidden fc layers."""
    net = zoo.on_meta(zoo.spec(name)).eval()
    kinds = "".join(
        {"Conv2d": "c", "BatchNorm2d": "b", "ReLU": "r", "MaxPool2d": " "}[type(m).__name__] for m in net.features
    )
    assert kinds.split() == [("cbr" if name.endswith("bn") else "cr") * count for count in groups]
    assert [type(m).__name__ for m in net.classifier] == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear"]
    assert [m.p for m in net.classifier if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert net(torch.zeros(2, 3, 64, 96, device="meta")).shape == (2, 1000), "pooled to 7x7 from any size"


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50", "preresnet200", "resnetv2_18d", "cifar_resnet20", "cifar_preresnet20"]
)
def test_features_are_the_maps_after_each_stage_with_their_strides(name: str) -> None:
    torch.manual_seed(0)
    net = zoo.build(name, num_classes=5).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        maps = net.features(x)
        assert [64 // m.shape[2] for m in maps] == net.feature_strides
        assert torch.equal(net.fc(net.avgpool(maps[-1]).flatten(1)), net(x))
    assert [m.shape[1] for m in maps] == [stage[-1].out_channels for stage in net.stages()]
