"""`resnetlab nets`, `resnetlab describe` and `resnetlab compare`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from resnetlab.cli.options import Json, print_json
from resnetlab.errors import UserError

if TYPE_CHECKING:
    from resnetlab.measuring.complexity import Complexity
    from resnetlab.measuring.reported import Reported
    from resnetlab.nets.zoo import Spec
    from resnetlab.use.networks import NetworkRow

Net = Annotated[
    str, Parameter(help="The network's name, e.g. resnet50, cifar_resnet110 or 'cifar_resnet110(mix=Scale(0.5, 1))'.")
]

Pattern = Annotated[str | None, Parameter(help="Only networks whose name contains this, or matches it with * and ?.")]
Sort = Annotated[
    Literal["name", "depth", "parameters", "multiply-adds", "error", "accuracy"] | None,
    Parameter(help="Sort by this, best accuracy or smallest first; default: family by family."),
]


def nets(pattern: Pattern = None, /, *, sort: Sort = None, json: Json = False) -> None:
    """List the networks: size, cost, the error that the paper prints, and the accuracy of weights that you can use.

    resnetlab nets 'cifar_*' --sort error
    resnetlab predict pretrained:cifar_resnet20 IMAGE ...
    """
    from resnetlab.nets.zoo import PATTERNS
    from resnetlab.use.networks import network_rows

    rows = network_rows(pattern, sort)
    if json:
        print_json({"networks": [asdict(row) for row in rows], "patterns": list(PATTERNS)})
        return
    from resnetlab.api.screen import console, print_table

    headers = ("network", "depth", "input", "parameters", "multiply-adds", "paper's error %", "weights: top-1 %")
    print_table(headers, [_listed(row) for row in rows], left=("network", "input", "weights: top-1 %"))
    console().print(
        "paper's error: on CIFAR-10, or ImageNet's top-1 with 10 crops; weights: those in the package on CIFAR-10, "
        "torchvision's on ImageNet, as torchvision states it\nCIFAR networks can have any depth: "
        + ", ".join(PATTERNS),
        style="dim",
    )


def _listed(row: NetworkRow) -> tuple[str, ...]:
    weights = (f"{w.source} {w.top1:.2f}" for w in row.weights)
    return (
        row.name,
        str(row.depth),
        "x".join(map(str, row.input)),
        f"{row.parameters:,}",
        f"{row.multiply_adds:,}",
        f"{row.paper_error:.2f}" if row.paper_error else "",
        "\n".join(weights),
    )


def describe(net: Net | None = None, /, *, json: Json = False) -> None:
    """Show a network's layers, shapes, parameters, multiply-adds and memory; without a name, list all names."""
    from resnetlab.measuring.complexity import complexity
    from resnetlab.nets.zoo import PATTERNS, names

    if net is None:
        if json:
            print_json({"names": names(), "patterns": list(PATTERNS)})
        else:
            print("\n".join([*names(), "", "and any depth of: " + ", ".join(PATTERNS)]))
        return
    counted = complexity(_spec(net))
    if json:
        print_json(counted.to_dict())
    else:
        _show(counted)


def _spec(name: str) -> Spec:
    """The network of a name. Raises UserError, which says so if the name is that of weights or of a run."""
    from resnetlab.nets.zoo import spec

    try:
        return spec(name)
    except UserError as error:
        kind, colon, network = name.partition(":")
        if colon and kind in ("pretrained", "torchvision"):
            raise UserError(
                f"{name}: the name of weights, not of a network; 'resnetlab describe {network.partition('.')[0]}' "
                "shows the network, and 'resnetlab nets' the accuracy of its weights."
            ) from error
        if _is_run(name):
            raise UserError(
                f"{name}: a run, not the name of a network; 'resnetlab runs show {name}' shows it."
            ) from error
        raise


def _is_run(name: str) -> bool:
    from resnetlab.run_files import SETTINGS, source_path
    from resnetlab.storage import is_there

    try:
        return is_there(source_path(name) / SETTINGS)
    except (OSError, ValueError):  # names that no file system takes
        return False


def compare(net: Net, /, *nets: Net, json: Json = False) -> None:
    """Show networks side by side, with the figures printed in the papers, if any."""
    from resnetlab.measuring.complexity import complexity
    from resnetlab.measuring.reported import reported

    specs = [_spec(name) for name in (net, *nets)]  # refuse a wrong name before counting takes its time
    rows = [(complexity(s), reported(s)) for s in specs]
    if json:
        counts = [{k: v for k, v in c.to_dict().items() if k != "layers"} for c, _ in rows]
        printed = [{"network": p[0], **asdict(p[1])} if p else None for _, p in rows]
        print_json({"networks": [c | {"printed": p} for c, p in zip(counts, printed, strict=True)]})
        return
    from resnetlab.api.screen import console, print_table

    headers = ("network", "depth", "input", "parameters", "multiply-adds", "training", "inference", "error %")
    console().print("ours, with the paper's figures in brackets", style="italic")
    print_table(headers, [_cells(c, p) for c, p in rows], left=("network", "input"), least=COMPARE_WIDTH)
    for source in sorted({p[1].source for _, p in rows if p}):
        console().print(f"printed in {source}", style="dim")
    console().print(
        "multiply-adds as the papers count; training and inference: activation memory per image, float32; "
        "error: top-1 with 10 crops on ImageNet, or CIFAR-10 test error; v1: for the paper's form of the network",
        style="dim",
    )


COMPARE_WIDTH = 120  # columns that the widest row of `compare` needs


def _cells(c: Complexity, found: tuple[str, Reported] | None) -> tuple[str, ...]:
    name, p = found or ("", None)
    other = " v1" if p and name != c.name else ""  # the paper's form of a v1.5 net
    return (
        c.name,
        str(c.depth),
        "x".join(map(str, c.input)),
        f"{c.parameters:,}" + _beside(p.parameters if p else None, 1e6, "M"),
        f"{c.multiply_adds:,}" + _beside(p.multiply_adds if p else None, 1e9, f"G{other}"),
        _mebibytes(c.training_bytes),
        _mebibytes(c.inference_bytes),
        f"({p.error:.2f}{other})" if p and p.error else "",
    )


def _show(c: Complexity) -> None:
    from resnetlab.api.screen import console, print_table

    headers = ("layer", "kind", "output", "parameters", "multiply-adds")
    rows = [
        (
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}" if layer.multiply_adds else "",
        )
        for layer in c.layers
    ]
    print_table(headers, rows, left=("layer", "kind"))
    facts = {
        "network": c.name,
        "depth": f"{c.depth} weight layers on the main path",
        "input": " x ".join(map(str, c.input)),
        "parameters": f"{c.parameters:,}",
        "multiply-adds": f"{c.multiply_adds:,}  as the papers count (they call them FLOPs)",
        "FLOPs": f"{c.flops:,}  2 x multiply-adds",
        "activations": f"{_mebibytes(c.training_bytes)} kept in training, at most {_mebibytes(c.inference_bytes)} in "
        "inference; per image, float32",
    }
    for key, value in facts.items():
        console().print(f"{key:<14} {value}")


def _beside(value: float | None, unit: float, letter: str) -> str:
    return f" ({value / unit:.4g}{letter})" if value else ""


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
