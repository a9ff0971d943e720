"""`resnetlab convert`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetlab.cli.networks import Json
from resnetlab.cli.use import WHICH, Which
from resnetlab.errors import check_choice

NAMING_SCHEMES = "resnetlab, torchvision, timm, akamaster, a-martyn, chenyaofo, transformers, fb or caffe"


def convert(
    source: Annotated[str, Parameter(help="A run folder or a file of weights, ours or a peer's.")],
    out: Annotated[Path, Parameter(help="The file to write: .safetensors, .pth, .pt or .npz.")],
    /,
    *,
    to: Annotated[str, Parameter(help=f"Whose names: {NAMING_SCHEMES}.")],
    net: Annotated[str | None, Parameter(help="The network, where the file does not tell it.")] = None,
    which: Which = "last",
    json: Json = False,
) -> None:
    """Write a network's weights with another project's parameter names; every value stays what it is."""
    from resnetlab.weights.convert import convert as convert_file

    check_choice("which", which, WHICH)
    spec = convert_file(source, out, to, net=net, which=which)
    if json:
        print(json_module.dumps({"written": str(out), "layout": to, "network": spec.name}))
    else:
        print(f"{out}: {spec.name} with the names of {to}")
