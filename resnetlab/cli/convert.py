"""`resnetlab convert`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli.options import NAMES, Json, Which, check

NAMING_SCHEMES = "resnetlab, torchvision, timm, akamaster, a-martyn, chenyaofo, transformers, fb or caffe"


def convert(
    source: Annotated[
        str, Parameter(help=f"A run folder, a weight file from resnetlab or another project, or {NAMES}.")
    ],
    out: Annotated[Path, Parameter(help="The file to write: .safetensors, .pth, .pt or .npz.")],
    /,
    *,
    to: Annotated[str, Parameter(help=f"The project whose names to use: {NAMING_SCHEMES}.")],
    net: Annotated[str | None, Parameter(help="The network's name, if the file does not determine it.")] = None,
    which: Which = "last",
    json: Json = False,
) -> None:
    """Write a network's weights with another project's parameter names; no value changes."""
    from resnetlab.weights.convert import convert as convert_file

    check(which)
    fetch_sources(source)
    spec = convert_file(source, out, to, net=net, which=which)
    if json:
        print(json_module.dumps({"written": str(out), "layout": to, "network": spec.name}))
    else:
        print(f"{out}: {spec.name} with the names of {to}")
