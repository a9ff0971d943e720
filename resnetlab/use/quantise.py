"""int8 by ONNX Runtime: static quantisation, its ranges measured on real images."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from resnetlab.data.images import Data
from resnetlab.data.loading import labelled, placed_batches
from resnetlab.data.resizing import Resizing
from resnetlab.data.seeds import seed_of
from resnetlab.data.streaming import BadImages
from resnetlab.errors import UserError
from resnetlab.storage import temporary_folder

IMAGES = 512  # to calibrate with
FEW = 32  # with fewer, the ranges of values are those of these images rather than of all
BATCH = 32


def calibration_images(data: Data, size: int, unreadables: BadImages, resizing: Resizing) -> Iterator[Tensor]:
    """Batches of training images, uint8 N C H W: IMAGES of them, drawn by a fixed seed; files are resized and cropped
    to `size`.

    Where there are none to train on, they are test images. Raises UserError if none can be read.
    """
    images = data.train if len(data.train) else data.test
    generator = torch.Generator().manual_seed(seed_of("calibration images", 0))
    chosen = images[torch.randperm(len(images), generator=generator)[:IMAGES].sort().values]
    count = 0
    batches = placed_batches(chosen, 0, len(chosen), BATCH, size, 0, unreadables, resizing)
    for pixels, _ in labelled(chosen, batches):
        count += len(pixels)
        yield pixels
    if not count:
        raise UserError(
            f"{data.title}: none of {len(chosen)} calibration images can be read; see 'resnetlab data audit'."
        )


class _Reader:
    """Batches as ONNX Runtime asks for them."""

    def __init__(self, batches: Iterator[Tensor]):
        self.batches = batches

    def get_next(self) -> dict[str, object] | None:
        pixels = next(self.batches, None)
        return None if pixels is None else {"pixels": pixels.numpy()}


def quantised(content: bytes, batches: Iterator[Tensor]) -> bytes:
    """An ONNX file in int8 from one in float32: weights by channel, activations by tensor (Q and DQ nodes).

    On CIFAR-10 every setting tried came within 0.15 points of float32, so other reasons decide. Ranges
    are the least and the greatest value seen: entropy and percentiles need every activation of every image in memory.
    Weights have 7 bits: processors without VNNI add pairs of products in 16 bits, in which 2 * 255 * 64 still fits,
    and so the file answers alike on all of them. Batch norm that follows a sum stays float32: ONNX Runtime has no int8
    kernel for it. No other layer is left out.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with temporary_folder() as folder:
        float32, made = folder / "float32.onnx", folder / "int8.onnx"
        float32.write_bytes(content)
        quant_pre_process(float32, float32, skip_symbolic_shape=True)  # the exporter wrote the shapes
        nodes = onnx.load(float32).graph.node
        quantize_static(
            float32,
            made,
            _Reader(batches),
            quant_format=QuantFormat.QDQ,
            nodes_to_exclude=[node.name for node in nodes if node.op_type == "BatchNormalization"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        model = onnx.load(made)
        model.metadata_props.add(key="precision", value='"int8"')
        return model.SerializeToString()
