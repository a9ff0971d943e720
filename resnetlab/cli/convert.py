"""`resnetlab convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from resnetlab.api.fetching import fetch_sources
from resnetlab.cli.options import READ, Json, Net, Reading, RunOrWeights, Which, check, print_json

NAMING_SCHEMES = "resnetlab, torchvision, timm, akamaster, a-martyn, chenyaofo, transformers, fb or caffe"


def convert(
    source: RunOrWeights,
    out: Annotated[Path, Parameter(help="The file to write: .safetensors, .pth, .pt or .npz.")],
    /,
    *,
    to: Annotated[str, Parameter(help=f"The project whose names to use: {NAMING_SCHEMES}.")],
    net: Net = None,
    which: Which = "last",
    reading: Reading = READ,
    json: Json = False,
) -> None:
    """Write a network's weights with another project's parameter names; no value changes."""
    from resnetlab.weights.convert import convert as convert_file

    check(which)
    fetch_sources(source)
    made = convert_file(source, out, to, net=net, which=which, **vars(reading))
    if json:
        answer = {"written": str(out), "layout": to, "network": made.spec.name, "not_in_file": made.not_in_file}
        print_json(answer)
        return
    print(f"{out}: {made.spec.name} with the names of {to}")
    if made.not_in_file:
        print(f"such a file has no place for {', '.join(made.not_in_file)}")
