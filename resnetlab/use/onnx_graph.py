"""A network as an ONNX file: torch's exporter makes it, ONNX Runtime runs it."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.use.agreement import Scores
from resnetlab.use.deployed import WithNormalisation
from resnetlab.use.torch_program import without_their_own_warnings

# The version that torch's exporter writes its operators in; of others it converts. ONNX Runtime reads it since 1.14,
# and quantisation by channels, which came with 13, is in it.
OPSET = 18
MOST_BYTES = 2**31 - 2**24  # of weights; a file has less than 2 GiB, by protobuf
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def check_installed() -> None:
    """Raise UserError where a package is missing."""
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"{name}, which ONNX needs, can't be imported: pip install 'resnetlab[export]'.") from error


def to_onnx(module: WithNormalisation, pixels: Tensor, description: dict[str, str]) -> bytes:
    """The file's content: `pixels`, uint8 N C H W with any N, -> `scores`, float32 N K.

    `pixels` is an example with N of 2 or more; the description becomes its metadata_props. Raises UserError where a
    package is missing, and for a network that one file can't hold.
    """
    check_installed()
    if (size := sum(tensor.nbytes for tensor in module.state_dict().values())) > MOST_BYTES:
        raise UserError(f"the network has {size / 2**30:.1f} GiB of weights, and an ONNX file holds less than 2 GiB.")
    with _quiet():
        program = torch.onnx.export(
            module,
            (pixels,),
            input_names=["pixels"],
            output_names=["scores"],
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")  # stack traces, with the paths of this machine
    for key, value in description.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of itself, e.g. that torchvision is missing."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with without_their_own_warnings():
            yield
    finally:
        log.setLevel(level)


def onnx_scores(content: bytes) -> Scores:
    """What ONNX Runtime answers with a file, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def scores(pixels: Tensor) -> Tensor:
        (found,) = session.run(None, {"pixels": pixels.numpy()})
        return torch.from_numpy(found)

    return scores
