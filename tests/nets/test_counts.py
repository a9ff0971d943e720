"""Parameters and multiply-adds of every named network, to the unit."""

from __future__ import annotations

import functools
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from resnetlab.nets import zoo


class Counted(NamedTuple):
    params: int
    conv_macs: int
    fc_macs: int
    output: tuple[int, ...]  # shape for a batch of two

    @property
    def macs(self) -> int:
        return self.conv_macs + self.fc_macs


@functools.cache
def count(name: str) -> Counted:
    """Count a network at its own input size: multiplications of convolutions and fc layers, no BN, ReLU, pool, sum."""
    spec = zoo.spec(name)
    net = zoo.on_meta(spec).eval()
    macs = {nn.Conv2d: 0, nn.Linear: 0}

    def add(module: nn.Module, _: tuple[Tensor, ...], out: Tensor) -> None:
        per_output = module.weight[0].numel()  # k² · c_in / groups, or fan-in
        macs[type(module)] += out[0].numel() * per_output

    params = sum(p.numel() for p in net.parameters())
    for module in net.modules():
        if type(module) in macs:
            module.register_forward_hook(add)
        elif isinstance(module, nn.BatchNorm2d):
            module.forward = nn.Identity().forward  # changes no shape, counts nothing, and is slow on meta
    with torch.no_grad():
        out = net(torch.zeros(2, spec.in_channels, spec.input_size, spec.input_size, device="meta"))
    return Counted(params, macs[nn.Conv2d], macs[nn.Linear], tuple(out.shape))


# He 2015, Table 1 gives the layers; the counts follow from them by hand. The torchvision nets agree with the
# numbers on torchvision's model pages: 11,689,512, 21,797,672, 25,557,032, 44,549,160, 60,192,808, 68,883,240,
# 126,886,696, 25,028,904, 88,791,336, 138,357,544, 138,365,992, 143,667,240, 143,678,248. Pre-activation moves
# batch norms about and drops those of the four projections: 2·(256 + 512 + 1024 + 2048) = 7,680 fewer.
IMAGENET = """
resnet18                          11,689,512   1,814,073,344
resnet18(shortcut=A)              11,515,688   1,794,805,760
resnet18(shortcut=C)              12,043,816   1,878,298,624
plain18                           11,515,688   1,794,805,760
resnet34                          21,797,672   3,663,761,408
resnet34(shortcut=A)              21,623,848   3,644,493,824
resnet34(shortcut=C)              22,716,840   3,830,747,136
plain34                           21,623,848   3,644,493,824
resnet50_v1                       25,557,032   3,857,973,248
resnet50_v1(shortcut=C)           40,128,552   6,324,224,000
resnet50                          25,557,032   4,089,184,256
resnet101_v1                      44,549,160   7,570,194,432
resnet101                         44,549,160   7,801,405,440
resnet152_v1                      60,192,808  11,282,415,616
resnet152                         60,192,808  11,513,626,624
resnet200_v1                      64,673,832  14,776,270,848
resnet200                         64,673,832  15,007,481,856
preresnet50                       25,549,352   4,089,184,256
preresnet101                      44,541,480   7,801,405,440
preresnet152                      60,185,128  11,513,626,624
preresnet200                      64,666,152  15,007,481,856
wide_resnet50_2                   68,883,240  11,398,021,120
wide_resnet101_2                 126,886,696  22,753,050,624
resnext50_32x4d                   25,028,904   4,230,479,872
resnext101_32x8d                  88,791,336  16,414,015,488
vgg16                            138,357,544  15,470,264,320
vgg16_bn                         138,365,992  15,470,264,320
vgg19                            143,667,240  19,632,062,464
vgg19_bn                         143,678,248  19,632,062,464
"""

# timm's networks, as timm 1.0.31 builds them: `benchmarks/parity.py` counts both. A deep stem of 32, 32 and 64 channels
# has 864 + 9,216 + 18,432 weights and 4·32 more of batch norm where the 7x7 has 9,408: 19,232 more.
TIMM = """
resnet10t                           5,435,488   1,097,259,008
resnet14t                          10,081,632   1,676,822,528
resnet18d                          11,708,744   2,053,713,920
resnet26                           15,995,176   2,342,256,640
resnet26d                          16,014,408   2,581,897,216
resnet26t                          16,011,872   2,550,286,336
resnet34d                          21,816,904   3,903,401,984
resnet50c                          25,576,264   4,328,824,832
resnet50d                          25,576,264   4,328,824,832
resnet50s                          25,680,808   5,444,337,664
resnet50t                          25,573,728   4,297,213,952
resnet101c                         44,568,392   8,041,046,016
resnet101d                         44,568,392   8,041,046,016
resnet101s                         44,672,936   9,156,558,848
resnet152c                         60,212,040  11,753,267,200
resnet152d                         60,212,040  11,753,267,200
resnet152s                         60,316,584  12,868,780,032
resnet200d                         64,693,064  15,247,122,432
resnext50d_32x4d                   25,048,136   4,470,120,448
resnext101_32x4d                   44,177,704   7,969,996,800
resnext101_32x16d                 194,026,792  36,163,289,088
resnext101_32x32d                 468,530,472  87,106,781,184
resnext101_64x4d                   83,455,272  15,460,270,080
seresnet18                         11,779,624   1,814,161,408
seresnet34                         21,960,416   3,663,920,128
seresnet50                         28,088,024   4,091,699,200
seresnet50t                        28,104,720   4,299,728,896
seresnet101                        49,326,872   7,806,148,608
seresnet152                        66,821,848  11,520,204,800
seresnet152d                       66,841,080  11,759,845,376
seresnet200d                       71,855,096  15,254,224,896
seresnet269d                      113,672,760  20,281,032,704
seresnext26d_32x4d                 16,809,512   2,711,740,416
seresnext26t_32x4d                 16,806,976   2,680,129,536
seresnext50_32x4d                  27,559,896   4,232,994,816
seresnext101_32x4d                 48,955,416   7,974,739,968
seresnext101_32x8d                 93,569,048  16,418,758,656
seresnext101d_32x8d                93,588,280  16,658,399,232
seresnext101_64x4d                 88,232,984  15,465,013,248
resnetv2_18                        11,687,720   1,814,073,344
resnetv2_18d                       11,706,952   2,053,713,920
resnetv2_34                        21,795,880   3,663,761,408
resnetv2_34d                       21,815,112   3,903,401,984
resnetv2_50                        25,549,352   4,089,184,256
resnetv2_50d                       25,568,584   4,328,824,832
resnetv2_50t                       25,566,048   4,297,213,952
resnetv2_101                       44,541,480   7,801,405,440
resnetv2_101d                      44,560,712   8,041,046,016
resnetv2_152                       60,185,128  11,513,626,624
resnetv2_152d                      60,204,360  11,753,267,200
"""

# 97,216 n − 21,926 and 14,155,776 n − 1,916,288 with option A; B adds 2,752 and 262,144; 100 classes add 5,850
# and 5,760; bottlenecks 92,736 n + 34,010 in pre-activation. He 2016 prints 10.2M for 1001 layers: BN left out.
CIFAR = """
cifar_resnet20                       269,722      40,551,040
cifar_resnet32                       464,154      68,862,592
cifar_resnet44                       658,586      97,174,144
cifar_resnet56                       853,018     125,485,696
cifar_resnet110                    1,727,962     252,887,680
cifar_resnet1202                  19,421,274   2,829,238,912
cifar_plain20                        269,722      40,551,040
cifar_plain32                        464,154      68,862,592
cifar_plain44                        658,586      97,174,144
cifar_plain56                        853,018     125,485,696
cifar_plain110                     1,727,962     252,887,680
cifar_plain1202                   19,421,274   2,829,238,912
cifar_resnet20(shortcut=B)           272,474      40,813,184
cifar_resnet56(shortcut=B)           855,770     125,747,840
cifar_resnet110(shortcut=B)        1,730,714     253,149,824
cifar_resnet20(num_classes=100)      275,572      40,556,800
cifar_resnet110(num_classes=100)   1,733,812     252,893,440
cifar_resnet110(shortcut=C)        1,826,202     266,781,312
cifar_preresnet20                    269,722      40,551,040
cifar_preresnet110                 1,727,962     252,887,680
cifar_preresnet164                 1,703,258     244,500,992
cifar_preresnet1001               10,327,706   1,487,849,984
cifar_preresnet164(num_classes=100)   1,726,388  244,524,032
cifar_preresnet1001(num_classes=100) 10,350,836 1,487,873,024
cifar_resnet164                    1,704,154     244,500,992
cifar_resnet1001                  10,328,602   1,487,849,984
cifar_wrn16_4                      2,748,890     392,612,352
cifar_wrn16_8                     10,961,370   1,548,145,664
cifar_wrn28_10                    36,479,194   5,243,328,768
cifar_wrn40_4                      8,949,210   1,298,582,016
"""

ROWS = [tuple(row.split()) for row in (IMAGENET + TIMM + CIFAR).strip().splitlines() if row]


# The deepest ones take seconds each, and have but more units of the same kinds.
COUNTED = [pytest.param(*row, id=row[0], marks=[pytest.mark.slow] * (zoo.spec(row[0]).depth > 1000)) for row in ROWS]


@pytest.mark.parametrize(("name", "params", "macs"), COUNTED)
def test_counts(name: str, params: str, macs: str) -> None:
    counted = count(name)
    assert (f"{counted.params:,}", f"{counted.macs:,}") == (params, macs)
    classes = 100 if "=100" in name else 10 if name.startswith("cifar") else 1000
    assert counted.output == (2, classes)


def test_every_name_is_pinned() -> None:
    assert set(zoo.names()) <= {row[0] for row in ROWS}


@pytest.mark.parametrize(("name", "conv_macs"), [("vgg16", 15_346_630_656), ("vgg19", 19_508_428_800)])
def test_vgg_convolutions(name: str, conv_macs: int) -> None:
    """He 2015 prints 15.3e9 for VGG-16, its convolutions alone, and 19.6e9 for VGG-19, fc layers included."""
    assert count(name).conv_macs == conv_macs


def conv_weights(name: str) -> int:
    return sum(m.weight.numel() for m in zoo.on_meta(zoo.spec(name)).modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("layers", "weights"), [(164, 1_676_464), (1001, 10_175_920)])
def test_preactivation_convolutions(layers: int, weights: int) -> None:
    """He 2016, Table 4, prints 10.2M for 1001 layers, its convolutions alone, and 1.7M for 164."""
    assert conv_weights(f"cifar_preresnet{layers}") == weights


def test_34_layers_take_18_percent_of_vgg_19() -> None:
    """He 2015, section 3.3: "3.6 billion FLOPs, which is only 18% of VGG-19 (19.6 billion FLOPs)"."""
    assert int(100 * count("plain34").macs / count("vgg19").macs) == int(100 * 3.6 / 19.6) == 18


def test_option_c_has_thirteen_projections_more_than_b() -> None:
    """He 2015, section 4.1, of 34 layers: 16 units, of which 3 change sizes."""

    def projections(option: str) -> int:
        units = zoo.on_meta(zoo.spec(f"resnet34(shortcut={option})")).units()
        return sum(isinstance(m, nn.Conv2d) for _, unit in units for m in unit.downsample.modules())

    assert [projections(option) for option in "ABC"] == [0, 3, 16]


def test_152_layers_are_eight_times_as_deep_as_vgg() -> None:
    """He 2015, abstract."""
    assert zoo.spec("resnet152").depth == 8 * zoo.spec("vgg19").depth


def test_200_layers_have_16_units_more_than_152() -> None:
    """He 2016, section 5: on the maps of 28x28."""
    deep, other = ([stage.units for stage in zoo.spec(f"preresnet{layers}").stages] for layers in (200, 152))
    assert [a - b for a, b in zip(deep, other, strict=True)] == [0, 16, 0, 0]


@pytest.mark.parametrize("family", ["resnet", "plain"])
@settings(max_examples=6)
@given(n=st.integers(3, 30))
def test_closed_form(family: str, n: int) -> None:
    """9·(2·16² + 2·32² + 2·64²) + 4·(16 + 32 + 64) = 97,216 per n; six 3x3 layers of 2,359,296 MACs each."""
    counted = count(f"cifar_{family}{6 * n + 2}(branch=basic)")
    assert (counted.params, counted.macs) == (97_216 * n - 21_926, 14_155_776 * n - 1_916_288)


@pytest.mark.parametrize("gate", ["ExclusiveGate", "ShortcutGate"])
def test_gates(gate: str) -> None:
    """A gate has c_in·c_out weights and c_out biases: 18 units of 16, 32 and 64 channels, two of them wider."""
    assert count(f"cifar_resnet110(mix={gate}(-6))").params - count("cifar_resnet110").params == 96_224


def test_bottleneck_against_two_full_convolutions() -> None:
    """256 channels: two 3x3 layers 1,179,648 weights, a bottleneck of width 64 69,632; 16.94 times fewer."""

    def conv_weights(branch: str, width: int) -> int:
        spec = zoo.NetSpec(stages=((1, width),), stem_width=256, branch=branch)
        unit = zoo.on_meta(spec).stages()[0][0]
        return sum(m.weight.numel() for m in unit.modules() if isinstance(m, nn.Conv2d))

    assert (conv_weights("basic", 256), conv_weights("bottleneck", 64)) == (1_179_648, 69_632)
