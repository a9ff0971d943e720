"""A network as a program of torch's: exported by torch.export, or compiled by AOTInductor."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from resnetlab.errors import UserError
from resnetlab.use.agreement import Scores
from resnetlab.use.deployed import WithNormalisation


def _program(module: WithNormalisation, pixels: Tensor) -> ExportedProgram:
    """The module's graph, for any number of images."""
    program = torch.export.export(module, (pixels,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine, which would go into the file
    return program


def to_torch(module: WithNormalisation, pixels: Tensor, description: dict[str, str]) -> bytes:
    """The content of a .pt2 file for `torch.export.load`; the description lies in it as extra files KEY.json.

    `pixels` is an example, uint8 N C H W with N of 2 or more; any N can be run.
    """
    buffer = io.BytesIO()
    torch.export.save(_program(module, pixels), buffer, extra_files={f"{k}.json": v for k, v in description.items()})
    return buffer.getvalue()


def torch_scores(content: bytes) -> Scores:
    """What the program in a .pt2 file answers."""
    return torch.export.load(io.BytesIO(content)).module()


def to_aoti(module: WithNormalisation, pixels: Tensor, description: dict[str, str]) -> bytes:
    """The content of a .pt2 file for `torch._inductor.aoti_load_package`, whose `get_metadata()` has the description.

    It is machine code for processors as this one, and needs the torch that made it. Raises UserError where no C++
    compiler is found.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError("AOTInductor needs a C++ compiler, e.g. g++: install one, or name it by CXX.") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.pt2"
        settings = {"aot_inductor.metadata": description}
        aoti_compile_and_package(_program(module, pixels), package_path=str(path), inductor_configs=settings)
        return path.read_bytes()


def aoti_scores(content: bytes) -> Scores:
    """What a compiled package answers."""
    from torch._inductor import aoti_load_package

    return aoti_load_package(io.BytesIO(content))
