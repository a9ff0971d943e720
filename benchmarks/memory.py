"""Memory of training, plain and with checkpoint_activations: bytes an image, and what saving them costs in time.

python -m benchmarks.memory [--quick] [--threads N] [--json] [--record FILE] [--runs N]

"resident" is what one image more adds to the most that a process ever held: steps of two sizes of batch, each in a
process of its own, so that weights, gradients and libraries fall out. "alive" is the same counted from the tensors that
torch's operations make, for which it does not matter what the allocator keeps; of networks of up to 200 layers. The
times are of steps taken in turn in one process. A ratio above 1 is in favour of checkpoint_activations.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch
import torch.nn.functional as tf

from benchmarks.timing import Row, keep, medians, options, positive, run, show
from resnetlab.machine import available_cores, most_bytes
from resnetlab.measuring.complexity import LiveBytes
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build, spec
from resnetlab.training.precision import recompute_units

# Network, and images of the smaller batch; the larger has twice as many. With few images the peak is not of their maps.
NETS = (("cifar_resnet1202", 32), ("resnet152", 12))
QUICK = (("resnet50", 2),)
COUNTED_UP_TO = 200  # layers: the time of counting rises with their square
MEBIBYTE = 2**20


def made(name: str, recomputed: bool) -> ResNet:
    """The network in training mode, with checkpoint_activations or without."""
    net = build(name, seed=0).train()
    assert isinstance(net, ResNet)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recomputed:
        recompute_units(net)
    return net


def step_of(net: ResNet, images: int) -> Callable[[], None]:
    """A forward and a backward pass on so many random images, as a call."""
    size, draws = net.spec.input_size, torch.Generator().manual_seed(0)
    x = torch.randn(images, 3, size, size, generator=draws).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, net.spec.num_classes, (images,), generator=draws)

    def step() -> None:
        net.zero_grad(set_to_none=True)
        tf.cross_entropy(net(x), labels).backward()

    return step


def _send_peak(to: Connection, name: str, recomputed: bool, images: int, threads: int) -> None:
    torch.set_num_threads(threads)
    step_of(made(name, recomputed), images)()
    to.send(most_bytes())


def resident(name: str, recomputed: bool, images: int, threads: int) -> float:
    """Bytes that an image adds to the peak of a process, between batches of `images` and of twice as many."""
    peaks = []
    context = multiprocessing.get_context("spawn")
    for count in (images, 2 * images):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_send_peak, args=(sender, name, recomputed, count, threads))
        process.start()
        sender.close()
        peaks.append(receiver.recv())
        process.join()
    return (peaks[1] - peaks[0]) / images


def alive(name: str, recomputed: bool) -> float:
    """Bytes an image at once in the tensors of a step, counted: what a batch of three has more than one of two."""
    peaks = []
    for count in (2, 3):
        step = step_of(made(name, recomputed), count)
        with LiveBytes(torch.empty(0), set()) as live:
            step()
        peaks.append(live.peak)
    return peaks[1] - peaks[0]


def rows_of(name: str, images: int, threads: int, runs: int) -> list[Row]:
    """Memory both ways by both measures, and time."""
    rows = []
    for what, measure in (
        ("resident", lambda on: resident(name, on, images, threads)),
        ("alive", lambda on: alive(name, on)),
    ):
        if what == "alive" and spec(name).depth > COUNTED_UP_TO:
            continue
        plain, less = (measure(on) / MEBIBYTE for on in (False, True))
        rows.append(Row(f"{name}: {what}", "MiB an image", less, plain, "plain", plain / less, None, 1))
    plain, slower = medians([step_of(made(name, on), images) for on in (False, True)], runs)
    rows.append(Row(f"{name}: time of a step", "ms", slower, plain, "plain", plain / slower, None, runs))
    return rows


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=3)
    parser.add_argument("--quick", action="store_true", help="resnet50 alone: under a minute on a quiet machine")
    parser.add_argument("--threads", type=positive, default=available_cores(), help="threads of torch")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    nets, runs = (QUICK, 1) if chosen.quick else (NETS, chosen.runs)
    rows = [row for name, images in nets for row in rows_of(name, images, chosen.threads, runs)]
    show(rows, as_json=chosen.json)
    keep(rows, chosen.record)


if __name__ == "__main__":
    run(main)
