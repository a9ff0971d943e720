"""A network as OpenVINO's files, .xml and .bin: OpenVINO reads the ONNX graph and writes it, and runs either."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from resnetlab.errors import UserError
from resnetlab.storage import temporary_folder
from resnetlab.use.checksum import KEY
from resnetlab.use.onnx_graph import Signature, import_trouble, last_line, to_onnx
from resnetlab.use.parity import Scores

if TYPE_CHECKING:
    from resnetlab.use.exported_module import WithNormalisation

TOLD = "framework"  # the part of a model's rt_info in which OpenVINO keeps what an ONNX file says of itself
HINTS = {"float32": "f32", "bf16": "bf16"}


def check_installed(*, int8: bool = False) -> None:
    """Raise UserError where a package is missing; int8: that quantises, too."""
    os.environ.setdefault("NNCF_CI", "1")  # before NNCF is imported, or it reports its use to its makers
    for name in ("openvino", *(("nncf",) if int8 else ())):
        if why := import_trouble(name):
            raise UserError(f"{name} can't be imported{why}: pip install 'resnetlab[openvino]'.")


def to_openvino(module: WithNormalisation, pixels: Tensor, description: dict[str, str]) -> tuple[bytes, ...]:
    """The contents of the .xml and the .bin, in float32; what `to_onnx` takes, raises, and says of itself."""
    check_installed()
    return written(read((to_onnx(module, pixels, description),)))


def written(model: Any) -> tuple[bytes, ...]:
    """The contents of the .xml and the .bin of a model."""
    import openvino

    with temporary_folder() as folder:
        path = folder / "network.xml"
        try:
            openvino.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as error:  # a full disk, of which it has no error of its own
            raise OSError(errno.EIO, last_line(error)) from error
        return path.read_bytes(), path.with_suffix(".bin").read_bytes()


def read(content: tuple[bytes, ...]) -> Any:
    """The model of an ONNX file, or of an .xml and its .bin. Raises UserError for what is none."""
    import openvino

    try:
        return openvino.Core().read_model(*content)
    except RuntimeError as error:
        raise UserError(last_line(error)) from error


def openvino_description(content: tuple[bytes, ...]) -> Signature:
    """What OpenVINO reads of files. Raises UserError for damaged ones."""
    model = read(content)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError(f"it has {len(model.inputs)} inputs and {len(model.outputs)} outputs")

    def described(port: Any) -> tuple[str, str, list[int]]:
        shape = [side.get_length() if side.is_static else -1 for side in port.get_partial_shape()]
        return min(port.get_names(), default=""), port.get_element_type().to_dtype().name, shape

    names = ("network", "classes", "preprocessing", "normalisation", "precision", "assumed", "accuracy", KEY)
    told = {name: model.get_rt_info([TOLD, name]).astype(str) for name in names if model.has_rt_info([TOLD, name])}
    return Signature(described(model.inputs[0]), described(model.outputs[0]), told)


def openvino_scores(content: tuple[bytes, ...], precision: str = "float32") -> Scores:
    """What OpenVINO answers on the CPU, on as many threads as torch takes.

    In float32 unless `precision` says bf16: by itself OpenVINO takes bf16 wherever the processor knows it.
    """
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,  # all threads at one batch
    }
    try:
        with signal_stack_kept():
            request = openvino.Core().compile_model(read(content), "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise UserError(last_line(error)) from error

    def scores(pixels: Tensor) -> Tensor:
        found = request.infer([pixels.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(found[0].copy())  # the request writes its next answer to the same place

    return scores


def quantised(content: tuple[bytes, ...], batches: Iterator[Tensor]) -> tuple[bytes, ...]:
    """OpenVINO's files in int8 from those in float32, by NNCF: static quantisation, with ranges of all the batches.

    Weights by channel, activations by tensor, with NNCF's own choice of ranges and of layers that stay float32, and its
    correction of biases. Raises UserError where a package is missing.
    """
    check_installed(int8=True)
    import logging

    import nncf

    nncf.set_log_level(logging.ERROR)
    model = read(content)
    images = [pixels.numpy() for pixels in batches]
    # Its progress is dropped, since standard output is the command's answer.
    with contextlib.redirect_stdout(io.StringIO()), signal_stack_kept():
        small = nncf.quantize(model, nncf.Dataset(images), subset_size=len(images))
    for number, operation in enumerate(small.get_ordered_ops()):
        kind = operation.get_type_name()
        if re.fullmatch(rf"{kind}_\d+", operation.get_friendly_name()):  # a count of all that this process made
            operation.set_friendly_name(f"{kind}_{number}")
    small.set_rt_info('"int8"', [TOLD, "precision"])
    return written(small)


class _Stack(ctypes.Structure):
    """stack_t of sigaltstack(2)."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextlib.contextmanager
def signal_stack_kept() -> Iterator[None]:
    """A context that restores this thread's alternate signal stack at its end.

    OpenVINO's CPU plugin sets one of its own when it is loaded, and frees it when it is unloaded. With two instances
    whose lives overlap, the last one restores the stack of the first, which is freed by then, and the next signal that
    Python handles (Ctrl-C, the end of a child process) ends the process with a segmentation fault.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    library, stack = ctypes.CDLL(None), _Stack()
    library.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(stack), None)
