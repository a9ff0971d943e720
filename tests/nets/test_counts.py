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

ROWS = [tuple(row.split()) for row in (IMAGENET + CIFAR).strip().splitlines() if row]


@pytest.mark.parametrize(("name", "params", "macs"), ROWS, ids=[row[0] for row in ROWS])
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
