"""What the papers print of their networks: sizes, costs and errors, to stand beside ours."""

from __future__ import annotations

from dataclasses import dataclass

from resnetlab.nets.zoo import Spec
from resnetlab.nets.zoo import spec as named_spec


@dataclass(frozen=True)
class Reported:
    """A paper's figures of a network; None where it prints none."""

    source: str
    parameters: float | None = None
    multiply_adds: float | None = None
    error: float | None = None  # test error in %; ImageNet: top-1, 10-crop; CIFAR: CIFAR-10, augmented


_T1, _T6 = "He 2015, Tables 1 to 3", "He 2015, Table 6"
_P2, _P4 = "He 2016, Table 2", "He 2016, Table 4"
_W = "Zagoruyko & Komodakis 2016"

REPORTED: dict[str, Reported] = {
    "plain18": Reported(_T1, multiply_adds=1.8e9, error=27.94),
    "resnet18": Reported(_T1, multiply_adds=1.8e9),  # the printed 27.88 % is of option A, and this net is option B
    "plain34": Reported(_T1, multiply_adds=3.6e9, error=28.54),
    "resnet34": Reported(_T1, multiply_adds=3.6e9, error=24.52),
    "resnet50_v1": Reported(_T1, multiply_adds=3.8e9, error=22.85),
    "resnet101_v1": Reported(_T1, multiply_adds=7.6e9, error=21.75),
    "resnet152_v1": Reported(_T1, multiply_adds=11.3e9, error=21.43),
    "vgg16": Reported(_T1, multiply_adds=15.3e9, error=28.07),
    "vgg19": Reported(_T1, multiply_adds=19.6e9),
    "cifar_resnet20": Reported(_T6, parameters=0.27e6, error=8.75),
    "cifar_resnet32": Reported(_T6, parameters=0.46e6, error=7.51),
    "cifar_resnet44": Reported(_T6, parameters=0.66e6, error=7.17),
    "cifar_resnet56": Reported(_T6, parameters=0.85e6, error=6.97),
    "cifar_resnet110": Reported(_T6, parameters=1.7e6, error=6.43),
    "cifar_resnet1202": Reported(_T6, parameters=19.4e6, error=7.93),
    "cifar_preresnet110": Reported(_P2, error=6.37),
    "cifar_resnet164": Reported(_P2, error=5.93),
    "cifar_resnet1001": Reported("He 2016, Table 3", error=7.61),
    "cifar_preresnet164": Reported(_P4, parameters=1.7e6, error=5.46),
    "cifar_preresnet1001": Reported(_P4, parameters=10.2e6, error=4.92),
    "cifar_wrn28_10": Reported(_W, parameters=36.5e6, error=4.00),
    "cifar_wrn16_8": Reported(_W, parameters=11.0e6, error=4.27),
    "cifar_wrn40_4": Reported(_W, parameters=8.9e6, error=4.53),
}


def reported(spec: Spec) -> tuple[str, Reported] | None:
    """What a paper prints of this very network, and the network's name there.

    A v1.5 net gets the figures of its v1 form, which has its size and error but another cost. A network with
    other classes, another input or other units than the paper's gets none.
    """
    if not spec.name or "(" in spec.name or spec != named_spec(spec.name):
        return None
    for name in (spec.name, f"{spec.name}_v1"):
        if name in REPORTED:
            return name, REPORTED[name]
    return None
