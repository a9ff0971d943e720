"""A network as an ONNX file: torch's exporter makes it, ONNX Runtime runs it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from resnetlab.errors import UserError, out_of_memory
from resnetlab.use.checksum import unset
from resnetlab.use.parity import Scores
from resnetlab.use.torch_program import without_their_own_warnings

if TYPE_CHECKING:
    from resnetlab.use.exported_module import WithNormalisation

# The version of operators that torch's exporter writes; it has to convert to others. It includes quantisation by
# channels, which came with 13.
OPSET = 18
MOST_BYTES = 2**31 - 2**24  # of weights; a file has less than 2 GiB, by protobuf
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# Before ONNX Runtime is imported, or it reports its use to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def check_installed() -> None:
    """Raise UserError where a package is missing."""
    for name in PACKAGES:
        if why := import_trouble(name):
            raise UserError(
                f"{name}, which ONNX export needs, can't be imported{why}: pip install 'resnetlab[export]'."
            )


def import_trouble(package: str) -> str:
    """Why a package can't be imported, as " (reason)"; "" if it can be.

    One that does not fit another, or a library of the system, raises whatever it likes.
    """
    try:
        importlib.import_module(package)
    except Exception as error:
        return f" ({last_line(error)})"
    return ""


def to_onnx(module: WithNormalisation, pixels: Tensor, description: dict[str, str]) -> bytes:
    """The file's content: `pixels`, uint8 N C H W with any N, -> `scores`, float32 N K.

    `pixels` is an example with N of 2 or more; the description becomes its metadata_props, with a checksum that
    `checksum.sealed` sets. Raises UserError where a package is missing, and for a network that one file can't hold.
    """
    check_installed()
    if (size := sum(tensor.nbytes for tensor in module.state_dict().values())) > MOST_BYTES:
        raise UserError(f"the network has {size / 2**30:.1f} GiB of weights, but an ONNX file holds less than 2 GiB.")
    model = _exported(module, pixels)
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    for key, value in (description | unset()).items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def _exported(module: WithNormalisation, pixels: Tensor) -> Any:
    """The model as torch's exporter makes it. Raises UserError if that fails."""
    try:
        with quiet():
            program = torch.onnx.export(
                module,
                (pixels,),
                input_names=["pixels"],
                output_names=["scores"],
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except Exception as error:  # of any kind, where the versions of its packages don't fit each other
        if out_of_memory(error):
            raise
        raise UserError(
            f"torch's ONNX exporter fails ({last_line(error)}); do the versions of torch, onnx and onnxscript fit each "
            "other?"
        ) from error
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself, e.g. that torchvision is missing."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with without_their_own_warnings():
            yield
    finally:
        log.setLevel(level)


def _session(content: bytes) -> Any:
    """ONNX Runtime with a file, on the CPU, on as many threads as torch takes. Raises UserError for a damaged one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is raised
    # Its threads wait for work in a loop, which between two passes takes the cores from what prepares the next one.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of kinds of its own, one for each code
        if out_of_memory(error):
            raise
        raise UserError(last_line(error)) from error


def last_line(error: BaseException) -> str:
    """The last nonempty line of an error, shortened, without the place in their source that these libraries begin with.

    ONNX Runtime's, a file and a C++ signature, stands in the same line and can be longer than all that is shown.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    return re.sub(r"/\S+\.(cc|h):\d+ .*?\) ", "", line, count=1)[:200].rstrip(".!")


class Signature(NamedTuple):
    """The input and output of a graph, and its file's metadata: texts by key."""

    takes: tuple[str, str, list[int]]  # name, type, shape: -1 is any number
    gives: tuple[str, str, list[int]]
    told: dict[str, str]


def onnx_description(content: bytes) -> Signature:
    """What ONNX Runtime reads of a file. Raises UserError for a damaged one."""
    session = _session(content)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(f"it has {len(inputs)} inputs and {len(outputs)} outputs")

    def described(port: Any) -> tuple[str, str, list[int]]:
        kind = {"tensor(float)": "float32"}.get(port.type, port.type.removeprefix("tensor(").removesuffix(")"))
        return port.name, kind, [side if isinstance(side, int) else -1 for side in port.shape]

    return Signature(described(inputs[0]), described(outputs[0]), session.get_modelmeta().custom_metadata_map)


def onnx_scores(content: bytes) -> Scores:
    """What ONNX Runtime answers with a file, on the CPU, on as many threads as torch takes."""
    session = _session(content)

    def scores(pixels: Tensor) -> Tensor:
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(found)

    return scores
