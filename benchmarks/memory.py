"""Memory of training, plain and with checkpoint_activations: bytes an image, and what saving them costs in time.

python -m benchmarks.memory [--quick] [--freed] [--threads N] [--json] [--record FILE] [--runs N]

"resident" is what one image more adds to the most that a process ever held: steps of two sizes of batch, each in a
process of its own, so that weights, gradients and libraries fall out. "alive" is the same counted from the tensors that
torch's operations make, for which it does not matter what the allocator keeps; of networks of up to 200 layers. The
times are of steps taken in turn in one process. A ratio above 1 is in favour of checkpoint_activations.

With --freed: steps of `resnetlab train` in which glibc keeps freed memory, as in a training, against those in which it
returns it. Each is a process of its own, in turn; the time and page faults of a step, and the most that was held.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as tf

from benchmarks.timing import Row, in_a_process, keep, medians, options, positive, run, show
from benchmarks.training import STEPS, made_up, our_step
from resnetlab.machine import available_cores, freed_memory_kept, most_bytes
from resnetlab.measuring.complexity import LiveBytes
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build, spec
from resnetlab.training.precision import recompute_units

# Network, and images of the smaller batch; the larger has twice as many. With few images the peak is not of their maps.
NETS = (("cifar_resnet1202", 32), ("resnet152", 12))
QUICK = (("resnet50", 2),)
COUNTED_UP_TO = 200  # layers: the time of counting rises with their square
MEBIBYTE = 2**20
WARM_UP_STEPS, TIMED_STEPS = 5, 15


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


def peak_of(name: str, recomputed: bool, images: int, threads: int) -> int:
    """The most bytes that this process held after a step."""
    torch.set_num_threads(threads)
    step_of(made(name, recomputed), images)()
    return most_bytes()


def resident(name: str, recomputed: bool, images: int, threads: int) -> float:
    """Bytes that an image adds to the peak of a process, between batches of `images` and of twice as many."""
    peaks = [in_a_process(peak_of, name, recomputed, count, threads) for count in (images, 2 * images)]
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


class Freed(NamedTuple):
    """What steps came to in a process in which freed memory was kept, or was not."""

    milliseconds: float  # a step, median
    faults: float  # a step
    peak: float  # MiB


def steps_of(name: str, batch: int, kept: bool, threads: int) -> Freed:
    """Steps of `resnetlab train` in this process."""
    torch.set_num_threads(threads)
    pixels, labels, recipe = made_up(name, batch)
    with freed_memory_kept(kept):
        step = our_step(name, pixels, labels, recipe)
        for _ in range(WARM_UP_STEPS):
            step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        (taken,) = medians([step], TIMED_STEPS)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        return Freed(taken, faults / TIMED_STEPS, most_bytes() / MEBIBYTE)


def freed_rows(name: str, batch: int, threads: int, runs: int) -> list[Row]:
    """A step with freed memory kept against one without: medians over processes."""
    found: dict[bool, list[Freed]] = {False: [], True: []}
    for kept in (False, True) * runs:
        found[kept].append(in_a_process(steps_of, name, batch, kept, threads))
    rows = []
    for field, unit in zip(Freed._fields, ("ms", "page faults a step", "MiB"), strict=True):
        returned, held = (statistics.median(getattr(one, field) for one in found[kept]) for kept in (False, True))
        what = f"{name}, batch {batch}: {field}"
        rows.append(Row(what, unit, held, returned, "freed memory returned", returned / max(held, 1), None, runs))
    return rows


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=3)
    parser.add_argument("--quick", action="store_true", help="one network, once: under a minute on a quiet machine")
    parser.add_argument("--freed", action="store_true", help="what keeping freed memory gains instead")
    parser.add_argument("--threads", type=positive, default=available_cores(), help="threads of torch")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    runs = 1 if chosen.quick else chosen.runs
    if chosen.freed:
        steps = STEPS[:1] if chosen.quick else STEPS
        rows = [row for name, batch in steps for row in freed_rows(name, batch, chosen.threads, runs)]
    else:
        nets = QUICK if chosen.quick else NETS
        rows = [row for name, images in nets for row in rows_of(name, images, chosen.threads, runs)]
    show(rows, as_json=chosen.json)
    keep(rows, chosen.record)


if __name__ == "__main__":
    run(main)
