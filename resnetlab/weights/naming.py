"""Other projects' parameter names, and the properties of networks that their files don't state: NAMING_SCHEMES."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from resnetlab.data.normalisation import KNOWN
from resnetlab.errors import UserError
from resnetlab.nets.orders import BranchName, OrderName
from resnetlab.nets.spec import ShortcutName, StemName, StrideAt, ZeroPadName
from resnetlab.weights.caffe import from_caffe, to_caffe

State = dict[str, Tensor]  # parameters and buffers by name
MeanStd = tuple[tuple[float, ...], tuple[float, ...]]  # of each channel, of pixels / 255


def renamed(state: State, rename: Callable[[str], str]) -> State:
    """The same tensors under other names. Raises UserError where two get the same."""
    made: State = {}
    for key, tensor in state.items():
        if made.setdefault(rename(key), tensor) is not tensor:
            raise UserError(f"two of its tensors map to {rename(key)}")
    return made


def _from_akamaster(key: str) -> str:
    return re.sub(r"^linear\.", "fc.", key).replace(".shortcut.", ".downsample.")


def _to_akamaster(key: str) -> str:
    return "module." + re.sub(r"^fc\.", "linear.", key).replace(".downsample.", ".shortcut.")


A_MARTYN = {"convIn": "conv1", "bnIn": "bn1", "fcOut": "fc"}
TO_A_MARTYN = {ours: theirs for theirs, ours in A_MARTYN.items()}


def _from_a_martyn(key: str) -> str:
    head, _, rest = key.partition(".")
    if found := re.fullmatch(r"stack(\d)(a?)", head):  # stack1.3 -> layer1.3; stack2a -> layer2.0
        return f"layer{found[1]}.0.{rest}" if found[2] else f"layer{found[1]}.{rest}"
    if found := re.fullmatch(r"stack(\d)b\.(\d{1,4})\.(.*)", key):  # stack2b.0 -> layer2.1
        return f"layer{found[1]}.{int(found[2]) + 1}.{found[3]}"
    return f"{A_MARTYN.get(head, head)}.{rest}"


def _to_a_martyn(key: str) -> str:
    if not (found := re.fullmatch(r"layer(\d)\.(\d+)\.(.*)", key)):
        head, _, rest = key.partition(".")
        return f"{TO_A_MARTYN[head]}.{rest}"
    stage, unit, rest = found[1], int(found[2]), found[3]
    if stage == "1":
        return f"stack1.{unit}.{rest}"
    return f"stack{stage}b.{unit - 1}.{rest}" if unit else f"stack{stage}a.{rest}"


FB_BRANCH = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2", "6": "conv3", "7": "bn3"}  # between them, ReLUs
FB_PATH = re.compile(r"(\d+)\.(\d+)\.0\.([01])\.(\d)\.(\w+)")  # stage, unit, branch or shortcut, layer, tensor


def _from_fb(state: State) -> State:
    top = sorted({int(key.split(".")[0]) for key in state if re.match(r"\d{1,2}\.", key)})
    first, last = ([i for i in top if i > 1] or [0])[0], max(top, default=0)

    def ours(key: str) -> str:
        if found := FB_PATH.fullmatch(key):
            stage, unit, shortcut, layer, tensor = found.groups()
            name = f"downsample.{layer}" if shortcut == "1" else FB_BRANCH.get(layer, layer)
            return f"layer{int(stage) - first + 1}.{unit}.{name}.{tensor}"
        if found := re.fullmatch(rf"(0|1|{last})(?:\.1)?\.(\w+)", key):  # converters put a view before the fc layer
            return f"{ {'0': 'conv1', '1': 'bn1'}.get(found[1], 'fc') }.{found[2]}"
        return key

    return renamed(state, ours)


def _to_fb(state: State) -> State:
    first = 4 if state["conv1.weight"].shape[-1] == 7 else 3  # conv, bn, ReLU and, on ImageNet, a max-pool
    last = max(int(key[5]) for key in state if key.startswith("layer")) + first + 2  # average pool, view, fc
    layers = {name: index for index, name in FB_BRANCH.items()} | {"conv1": "0", "bn1": "1", "fc": str(last)}

    def theirs(key: str) -> str:
        if not (found := re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(.*)", key)):
            name, _, tensor = key.partition(".")
            return f"{layers[name]}.{tensor}"
        stage, unit, name, rest = found.groups()
        path = f"1.{rest}" if name == "downsample" else f"0.{layers[name]}.{rest}"
        return f"{int(stage) + first - 1}.{unit}.0.{path}"

    return renamed(state, theirs)


# Of timm's pre-activation networks; its post-activation ones have our names.
TIMM_PREACT = {"norm": "last_bn", "head.fc": "fc", "stem.conv": "conv1"}
TIMM_DEEP = {f"stem.{kind}{i}": f"conv1.{3 * i - 3 + (kind == 'norm')}" for i in (1, 2, 3) for kind in ("conv", "norm")}
TIMM_UNIT = re.compile(r"stages\.(\d)\.blocks\.(\d{1,4})\.(?:(conv|norm)(\d)|(downsample\.conv))")


def _from_timm(state: State) -> State:
    deep = "stem.conv1.weight" in state  # with a deep stem its shortcut is pooled, whose projection comes second

    def ours(key: str) -> str:
        name, _, tensor = key.rpartition(".")
        if found := TIMM_UNIT.fullmatch(name):
            stage, unit, kind, number, shortcut = found.groups()
            layer = f"downsample.{int(deep)}" if shortcut else f"{'bn' if kind == 'norm' else kind}{number}"
            return f"layer{int(stage) + 1}.{unit}.{layer}.{tensor}"
        return f"{(TIMM_PREACT | TIMM_DEEP).get(name, name)}.{tensor}"

    return renamed(state, ours) if any(key.startswith("stages.") for key in state) else state


def _to_timm(state: State) -> State:
    names = {ours: theirs for theirs, ours in (TIMM_PREACT | TIMM_DEEP).items()}

    def theirs(key: str) -> str:
        name, _, tensor = key.rpartition(".")
        if found := re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.\d)", name):
            stage, unit, kind, number = found.groups()
            layer = f"{'norm' if kind == 'bn' else kind}{number}" if kind else "downsample.conv"
            return f"stages.{int(stage) - 1}.blocks.{unit}.{layer}.{tensor}"
        return f"{names[name]}.{tensor}"

    if "last_bn.weight" not in state:
        return state
    return renamed(state | {"fc.weight": state["fc.weight"][:, :, None, None]}, theirs)  # its head is a 1x1 convolution


HF_TENSORS = {"convolution": ("conv", "downsample.0"), "normalization": ("bn", "downsample.1")}
TO_HF = {ours: kind for kind, names in HF_TENSORS.items() for ours in names}
HF_PATH = re.compile(r"encoder\.stages\.(\d)\.layers\.(\d{1,4})\.(layer\.(\d)|shortcut)\.(\w+)\.(\w+)")


def _from_transformers(key: str) -> str:
    if found := HF_PATH.fullmatch(key):
        stage, unit, _, layer, kind, tensor = found.groups()
        main, shortcut = HF_TENSORS.get(kind, (kind, kind))
        name = f"{main}{int(layer) + 1}" if layer else shortcut
        return f"layer{int(stage) + 1}.{unit}.{name}.{tensor}"
    if found := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", key):
        return f"{HF_TENSORS[found[1]][0]}1.{found[2]}"
    return key


def _to_transformers(key: str) -> str:
    if found := re.fullmatch(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|(downsample\.\d))\.(\w+)", key):
        stage, unit, kind, number, shortcut, tensor = found.groups()
        layer = f"layer.{int(number) - 1}" if kind else "shortcut"
        unit = f"resnet.encoder.stages.{int(stage) - 1}.layers.{unit}"
        return f"{unit}.{layer}.{TO_HF[kind or shortcut]}.{tensor}"
    name, _, tensor = key.partition(".")
    return f"classifier.1.{tensor}" if name == "fc" else f"resnet.embedder.embedder.{TO_HF[name[:-1]]}.{tensor}"


@dataclass(frozen=True)
class NamingScheme:
    """The parameter names of a project, and its networks, which all have batch norm.

    Where a bottleneck strides, where option A puts its zeros, and whether a net is plain follow from the project's
    code, not from its files.
    """

    project: str
    mark: str | None  # a regular expression that some names match, and none of another scheme
    alike: bool = False  # its names are ours, except in networks whose names match the mark
    to_ours: Callable[[State], State] = dict
    to_theirs: Callable[[State], State] = dict
    first: str = r"layer1\.0\.conv1\.weight"  # a regular expression of a convolution's name that all networks have
    stems: tuple[StemName, ...] = ("imagenet",)
    branches: tuple[BranchName, ...] = ("basic", "bottleneck")
    shortcuts: tuple[ShortcutName, ...] = ("B",)
    stride_at: StrideAt = "3x3"
    zero_pad: ZeroPadName = "after"
    plain: bool = False  # has plain nets too, under the same names
    grouped: bool = False  # has grouped and wide bottlenecks
    squeezes: bool = False  # has squeeze-and-excitation
    orders: tuple[OrderName, ...] = ("post",)
    # What its networks were trained with, by activation order or number of classes; None: any other.
    normalisation: dict[int | str | None, MeanStd] = field(default_factory=dict)


IMAGENET: MeanStd = KNOWN["imagenet"]
CIFAR_FB: dict[int | str | None, MeanStd] = {
    10: ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    100: ((129.3 / 255, 124.1 / 255, 112.4 / 255), (68.2 / 255, 65.4 / 255, 70.4 / 255)),
}

# In the order in which files are tried: a network that torchvision also has counts as torchvision's, not timm's.
NAMING_SCHEMES: dict[str, NamingScheme] = {
    "caffe": NamingScheme(
        project="github.com/KaimingHe/deep-residual-networks",
        mark=r"res\d\w*_branch\d\w?\.\d",
        to_ours=from_caffe,
        to_theirs=to_caffe,
        first=r"res2a_branch2a\.0",
        stride_at="1x1",
        # The mean image's mean, turned from B, G, R; no scaling of pixels from 0 to 255.
        normalisation={None: ((122.7717 / 255, 115.9465 / 255, 102.9801 / 255), (1 / 255,) * 3)},
    ),
    "a-martyn": NamingScheme(
        project="github.com/a-martyn/resnet",
        mark=r"convIn\.weight",
        to_ours=partial(renamed, rename=_from_a_martyn),
        to_theirs=partial(renamed, rename=_to_a_martyn),
        first=r"stack1\.0\.conv1\.weight",
        stems=("cifar",),
        branches=("basic",),
        shortcuts=("A",),
        plain=True,
        normalisation={
            10: ((0.4918687901, 0.4918597647, 0.4918583862), (0.2469712170, 0.2469676698, 0.2469719877)),
        },
    ),
    "akamaster": NamingScheme(
        project="github.com/akamaster/pytorch_resnet_cifar10",
        mark=r"linear\.weight",
        to_ours=partial(renamed, rename=_from_akamaster),
        to_theirs=partial(renamed, rename=_to_akamaster),
        stems=("cifar",),
        branches=("basic",),
        shortcuts=("A", "B"),
        zero_pad="around",
        normalisation={None: IMAGENET},
    ),
    "fb": NamingScheme(
        project="github.com/facebookarchive/fb.resnet.torch",
        mark=r"0\.weight",
        to_ours=_from_fb,
        to_theirs=_to_fb,
        first=r"[34]\.0\.0\.0\.0\.weight",
        stems=("imagenet", "cifar"),
        shortcuts=("A", "B", "C"),
        normalisation={None: IMAGENET, **CIFAR_FB},
    ),
    "transformers": NamingScheme(
        project="github.com/huggingface/transformers",
        mark=r"embedder\.embedder\.convolution\.weight",
        to_ours=partial(renamed, rename=_from_transformers),
        to_theirs=partial(renamed, rename=_to_transformers),
        first=r"embedder\.embedder\.convolution\.weight",
        normalisation={None: IMAGENET},
    ),
    "torchvision": NamingScheme(
        "github.com/pytorch/vision", None, alike=True, grouped=True, normalisation={None: IMAGENET}
    ),
    "timm": NamingScheme(
        project="github.com/huggingface/pytorch-image-models",
        mark=r"stages\.\d\.blocks\.\d+\.conv1\.weight",
        alike=True,
        to_ours=_from_timm,
        to_theirs=_to_timm,
        first=r"layer1\.0\.conv1\.weight|stages\.0\.blocks\.0\.conv1\.weight",
        stems=("imagenet", "deep", "tiered"),
        shortcuts=("B", "D"),
        grouped=True,
        squeezes=True,
        orders=("post", "full_preact"),
        normalisation={"full_preact": ((0.5,) * 3, (0.5,) * 3), None: IMAGENET},
    ),
    "chenyaofo": NamingScheme(
        project="github.com/chenyaofo/pytorch-cifar-models",
        mark=None,
        alike=True,
        stems=("cifar",),
        branches=("basic",),
        normalisation={
            10: ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
            100: ((0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)),
        },
    ),
}
