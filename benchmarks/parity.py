"""Networks with the names and weights of torchvision's and timm's own classes: whether they give the same scores.

python -m benchmarks.parity [NAME ...] [--json] [--record FILE]

Needs torchvision and timm, which nothing else here imports. Each peer's network gets random weights and statistics;
its state_dict is read like a file of weights, has to determine its network, and is written back, to the same bits. Then
both are given the same images. Nothing is timed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import RECORD, record_path, run
from resnetlab.errors import UserError
from resnetlab.machine import machine
from resnetlab.nets import zoo
from resnetlab.weights.interop import read_state, write_state

SIDE, IMAGES = 96, 2
LIMIT = 1e-6  # of the largest score
TORCHVISION = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"),
    *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
)
TIMM = tuple(f"{family}{name}" for family, (_, members) in zoo.TIMM.items() for name in members.split())


@dataclass(frozen=True)
class Row:
    """A network and its peer."""

    network: str
    peer: str  # the package, its version, the class
    parameters: int
    difference: float  # the largest between two scores
    largest: float  # of the peer's scores
    same_bits: bool  # of the weights written back


def main() -> None:
    """Compare, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks to compare; default: all that a peer has")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--record", type=record_path, help=RECORD)
    chosen = parser.parse_args()
    pairs = [("torchvision", name) for name in TORCHVISION] + [("timm", name) for name in TIMM]
    if unknown := set(chosen.names) - {name for _, name in pairs}:
        raise UserError(
            f"no peer has {', '.join(sorted(unknown))}: choose from {', '.join(name for _, name in pairs)}."
        )
    pairs = [(package, name) for package, name in pairs if not chosen.names or name in chosen.names]
    needed = dict.fromkeys(["torchvision", *(package for package, _ in pairs)])  # timm imports torchvision
    if absent := [package for package in needed if not importlib.util.find_spec(package)]:
        raise UserError(f"not installed: {', '.join(absent)}; to install: pip install {' '.join(absent)}")
    rows = []
    for package, name in pairs:
        rows.append(compared(package, name))
        print(line(rows[-1]), file=sys.stderr, flush=True)
    if chosen.json:
        print(json.dumps([asdict(row) for row in rows]))
    if chosen.record:
        record: dict[str, Any] = {"machine": machine(), "side": SIDE, "images": IMAGES, "limit": LIMIT}
        chosen.record.write_text(json.dumps(record | {"rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    if any(row.difference > LIMIT * row.largest or not row.same_bits for row in rows):
        raise SystemExit("some networks differ from their peers")


def line(row: Row) -> str:
    """A row of the table in docs/weights.md."""
    return f"| `{row.network}` | {row.parameters:,} | {row.difference:.1g} of {row.largest:.3g} | {row.peer} |"


@torch.inference_mode()
def compared(package: str, name: str) -> Row:
    """One network of a peer's and ours. Raises SystemExit if its tensors don't determine the network of its name."""
    torch.manual_seed(0)
    peer, version = made_by(package, name)
    randomise(peer)
    state = peer.eval().state_dict()
    found = read_state(dict(state))
    if found.spec != zoo.spec(name):
        raise SystemExit(f"{name}: read as {found.spec.name}")
    ours = zoo.on_meta(found.spec).eval()
    ours.load_state_dict(found.state, strict=True, assign=True)
    back = write_state(ours.state_dict(), found.spec, package)
    same = back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)
    x = torch.randn(IMAGES, 3, SIDE, SIDE)
    theirs, mine = peer(x), ours(x)
    difference = (theirs - mine).abs().max().item()
    kind = f"{package} {version} {type(peer).__name__}"
    return Row(name, kind, sum(p.numel() for p in ours.parameters()), difference, theirs.abs().max().item(), same)


def made_by(package: str, name: str) -> tuple[nn.Module, str]:
    """The peer's network of this name, and the package's version."""
    define_operators()
    module: Any = importlib.import_module(package)
    make = module.create_model if package == "timm" else module.models.get_model
    return make(name), module.__version__.partition("+")[0]


@torch.no_grad()
def randomise(net: nn.Module) -> None:
    """Batch norm with statistics and factors of its own in every channel, negative factors among them."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, -1.0), (module.bias, -0.5), (module.running_mean, -0.5)):
                uniform(tensor, low)
            uniform(module.running_var, 0.5)


def uniform(tensor: Tensor | None, low: float) -> None:
    """Numbers from low to 1.5."""
    assert tensor is not None
    tensor.uniform_(low, 1.5)


LIBRARIES: list[torch.library.Library] = []


def define_operators() -> None:
    """Declare the operators that torchvision's compiled part would: its wheels for GPUs don't load beside a torch for
    CPUs, and none of its networks uses them.
    """
    found = importlib.util.find_spec("torchvision")
    assert found
    assert found.origin
    if LIBRARIES or hasattr(torch.ops.torchvision, "nms"):
        return
    text = Path(found.origin).with_name("_meta_registrations.py").read_text(encoding="utf-8")
    LIBRARIES.append(torch.library.Library("torchvision", "DEF"))
    for name in sorted(set(re.findall(r'(?:register_meta\("|"torchvision::)(\w+)"', text))):
        LIBRARIES[0].define(f"{name}(Tensor x) -> Tensor")


if __name__ == "__main__":
    run(main)
