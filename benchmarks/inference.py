"""Inference: a network's answers by the engine that `auto` takes, beside what users write by hand; images/s.

python -m benchmarks.inference [--quick] [--int8 cifar10:DIR --weights FILE] [--json] [--record FILE] [--runs N]

Ours takes pixels, uint8 N C H W on the CPU, and gives scores, by the engine that `--engine auto` chooses for the batch.
The peers take the same pixels and normalise them as users do, in torch: plain eager PyTorch in inference mode; and ONNX
Runtime and OpenVINO as their own guides have it, on a plain export of the network with torch.onnx.export, with their
defaults (OpenVINO's precision among them, which is bf16 where the processor knows it, and float32 beside it), told only
to use as many threads as torch. All are timed in turn in one process. The limit is the network's multiply-adds at the
rate that this machine has in float32 on large matrices.

With --int8 the network of FILE (akamaster's ResNet-56) is quantised by `export --int8` for both engines and calibrated
on training images of CIFAR-10; the rows compare its speed with OpenVINO's bf16, and its accuracy with float32's.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import Row, keep, medians, options, run, say_absent, show
from benchmarks.training import peer_of
from resnetlab.data.normalisation import Normalisation, imagenet
from resnetlab.data.open import open_data
from resnetlab.machine import available_cores
from resnetlab.measuring.complexity import complexity
from resnetlab.nets.zoo import build
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import chosen, graph_of, is_installed, made
from resnetlab.use.export import export
from resnetlab.use.exported import file_engine, read_exported
from resnetlab.use.exported_module import noise
from resnetlab.use.onnx_graph import PACKAGES, quiet

CASES = (("resnet50", 1), ("resnet50", 16), ("cifar_resnet56", 1), ("cifar_resnet56", 256))  # network, batch
QUICK = (("cifar_resnet56", 1), ("cifar_resnet56", 16))
INT8_BATCHES = (1, 256)
UNIT = "images/s"
SIDE = 2048  # of the matrices whose product gives the limit


def plain_onnx(net: nn.Module, x: Tensor) -> bytes:
    """What torch.onnx.export makes of a network, as users call it: normalised images of any number -> scores."""
    with quiet():
        program = torch.onnx.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    assert program is not None
    return program.model_proto.SerializeToString()


def by_hand(
    net: nn.Module, pixels: Tensor, example: Tensor, normalise: Normalisation
) -> dict[str, Callable[[], object]]:
    """The peers that are installed, by name, each as a call for the pixels of a batch; two images are the example."""

    @torch.inference_mode()
    def eager() -> Tensor:
        return net(normalise(pixels))

    found: dict[str, Callable[[], object]] = {"plain eager torch": eager}
    if not all(map(find_spec, PACKAGES[:2])):  # which torch's exporter needs
        return found
    threads, content = torch.get_num_threads(), plain_onnx(net, normalise(example))

    def given() -> np.ndarray:
        return normalise(pixels).numpy()

    if is_installed("onnxruntime"):
        import onnxruntime

        asked = onnxruntime.SessionOptions()
        asked.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(content, asked, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        found["ONNX Runtime by hand"] = lambda: session.run(None, {name: given()})
    if is_installed("openvino"):
        for words, hint in (("", {}), (", float32", {"INFERENCE_PRECISION_HINT": "f32"})):
            settings: dict[str, object] = {**hint, "INFERENCE_NUM_THREADS": threads}
            found[f"OpenVINO by hand{words}"] = openvino_by_hand(content, given, settings)
    return found


def openvino_by_hand(
    content: bytes, given: Callable[[], np.ndarray], settings: dict[str, object]
) -> Callable[[], object]:
    """A compiled model that is called, as OpenVINO's guide has it."""
    import openvino

    core = openvino.Core()
    model = core.compile_model(core.read_model(content), "CPU", settings)
    return lambda: model(given())


def multiply_adds_a_millisecond(runs: int) -> float:
    """What this machine's threads come to in float32 on square matrices, which torch multiplies near the limit."""
    left, right = torch.randn(2, SIDE, SIDE)
    (taken,) = medians([lambda: left @ right], runs)
    return SIDE**3 / taken


def rows_of(name: str, batch: int, runs: int) -> list[Row]:
    """The chosen engine against plain torch, and against the best of the others by hand."""
    net = build(name, seed=0).eval()
    classifier = Classifier(net, tuple(map(str, range(net.spec.num_classes))), imagenet(3), whole=True, device="cpu")
    engine = chosen(graph_of(classifier), "auto", batch=batch, told=lambda line: print(line, file=sys.stderr))
    pixels = noise(classifier.shape, batch)
    library, theirs = peer_of(name)
    peers = by_hand(theirs.eval(), pixels, noise(classifier.shape, 2), classifier.normalise)
    most = 1000 * multiply_adds_a_millisecond(runs) / complexity(net.spec).multiply_adds
    ours, *others = (1000 * batch / taken for taken in medians([partial(engine.scores, pixels), *peers.values()], runs))
    found = dict(zip(peers, others, strict=True))
    best = max(list(found)[1:] or list(found), key=found.__getitem__)
    what = f"inference of {name}, batch {batch}, {engine}"
    return [
        Row(what, UNIT, ours, found[peer], f"{library}: {peer}", ours / found[peer], most, runs)
        for peer in dict.fromkeys((next(iter(found)), best))
    ]


def int8_rows(weights: Path, data: str, net: str | None, runs: int) -> list[Row]:
    """int8 of each engine: its speed against OpenVINO's bf16, and how much accuracy is left of float32's."""
    images, classifier = open_data(data), Classifier.open(weights, net=net)
    rows: list[Row] = []
    bf16 = made(graph_of(classifier), "openvino", "bf16")
    with tempfile.TemporaryDirectory() as folder:
        for to, name in (("openvino", "network.xml"), ("onnx", "network.onnx")):
            found = export(classifier, Path(folder) / name, to, calibrate=images, data=images)
            file = read_exported(Path(folder) / name)
            engine = file_engine(file, file.engines[0])
            agreed = found.parity
            assert agreed
            what = f"{classifier.name} on {images.name}'s {agreed.images:,} test images, {engine}"
            ratio = agreed.exported_top1 / agreed.pytorch_top1
            top1 = agreed.exported_top1, agreed.pytorch_top1
            rows.append(Row(what, "% top-1", *top1, "torch in float32", ratio, None, 1))
            for batch in INT8_BATCHES:
                pixels = noise(classifier.shape, batch)
                every = [partial(engine.scores, pixels), partial(bf16.scores, pixels)]
                ours, theirs = (1000 * batch / taken for taken in medians(every, runs))
                what = f"inference of {classifier.name}, batch {batch}, {engine}"
                rows.append(Row(what, UNIT, ours, theirs, "openvino in bf16", ours / theirs, None, runs))
    return rows


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=9)
    parser.add_argument("--quick", action="store_true", help="cifar_resnet56 alone, at batches of 1 and 16: a minute")
    parser.add_argument("--int8", metavar="cifar10:DIR", help="int8 instead, calibrated and tested on this data")
    parser.add_argument("--weights", type=Path, help="with --int8: the weight file")
    parser.add_argument("--net", help="with --int8: the network, if the file does not determine it")
    given = parser.parse_args()
    if bool(given.int8) != bool(given.weights):
        parser.error("--int8 and --weights belong together")
    if given.net and not given.int8:
        parser.error("--net belongs to --int8")
    if given.quick and given.int8:
        parser.error("--quick and --int8 exclude each other")
    say_absent(("torchvision", "timm", *PACKAGES, "openvino"))
    torch.set_num_threads(available_cores())
    if given.int8:
        rows = int8_rows(given.weights, given.int8, given.net, given.runs)
    else:
        rows = [row for name, batch in (QUICK if given.quick else CASES) for row in rows_of(name, batch, given.runs)]
    show(rows, as_json=given.json)
    keep(rows, given.record)


if __name__ == "__main__":
    run(main)
