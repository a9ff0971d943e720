"""A network as a program of torch's: exported by torch.export, or compiled by AOTInductor."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.export import ExportedProgram

from resnetlab.errors import UserError
from resnetlab.storage import temporary_folder
from resnetlab.use.parity import Scores

if TYPE_CHECKING:
    from resnetlab.use.exported_module import WithNormalisation

# What torch's exporters warn of in torch's own code.
THEIR_OWN = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"`torch.jit.script_method` is", DeprecationWarning),
)


@contextlib.contextmanager
def without_their_own_warnings() -> Iterator[None]:
    """Without the warnings of THEIR_OWN."""
    with warnings.catch_warnings():
        for message, category in THEIR_OWN:
            warnings.filterwarnings("ignore", message, category)
        yield


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
    with without_their_own_warnings():
        program = _program(module, pixels)
        torch.export.save(program, buffer, extra_files={f"{key}.json": text for key, text in description.items()})
    return buffer.getvalue()


def torch_scores(content: bytes) -> Scores:
    """What the program in a .pt2 file answers."""
    with without_their_own_warnings():
        return torch.export.load(io.BytesIO(content)).module()


def to_aoti(module: WithNormalisation, pixels: Tensor, description: dict[str, str]) -> bytes:
    """The content of a .pt2 file for `torch._inductor.aoti_load_package`, whose `get_metadata()` has the description.

    It is machine code for processors like this one, and needs the torch version that made it. Raises UserError if there
    is no C++ compiler, or it fails.
    """
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise UserError("AOTInductor needs a C++ compiler, e.g. g++: install one, or name it in CXX.") from error
    with temporary_folder() as folder, without_their_own_warnings():
        path = folder / "network.pt2"
        settings = {"aot_inductor.metadata": description}
        try:
            aoti_compile_and_package(_program(module, pixels), package_path=str(path), inductor_configs=settings)
        except CppCompileError as error:
            reason = next((line for line in error.output.splitlines() if "error" in line), "without a message")
            raise UserError(f"the C++ compiler failed on AOTInductor's code ({reason.strip()[:200]}).") from error
        return path.read_bytes()


def aoti_scores(content: bytes) -> Scores:
    """What a compiled package answers."""
    from torch._inductor import aoti_load_package

    with without_their_own_warnings():
        return aoti_load_package(io.BytesIO(content))
