"""Our 3x3 convolutions and their gradients beside torch's, in float32 and channels_last; ms a batch.

python -m benchmarks.convolutions [--quick] [--json] [--record FILE] [--runs N]

The layers are those of CIFAR's networks with 128 images and of ResNet-18 with 32, and they are called in turn, with all
cores. Ours are compiled for this machine's instruction sets; a training uses them where AVX2 is the best of these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.timing import Row, keep, medians, options, run, show
from resnetlab.machine import available_cores, freed_memory_kept
from resnetlab.nets.convolution import convolution, gradient_of_input, gradient_of_weight

# channels, side of the map, images
LAYERS = ((16, 32, 128), (32, 16, 128), (64, 8, 128), (64, 56, 32), (128, 28, 32), (256, 14, 32), (512, 7, 32))
QUICK = 3  # of them


def rows_of(channels: int, side: int, images: int, runs: int) -> list[Row]:
    """A row for the convolution, and one for each of its gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(images, channels, side, side)] * 2 + [(channels, channels, 3, 3)]
    x, dy, weight = (
        torch.randn(shape, generator=generator).contiguous(memory_format=torch.channels_last) for shape in shapes
    )

    def gradients(of_x: bool) -> tuple[Tensor | None, ...]:
        # stride, padding and dilation; neither transposed nor grouped
        form = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
        found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
            dy, x, weight, None, *form, [of_x, not of_x, False]
        )
        return found

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "forward": (partial(convolution, x, weight), partial(torch.conv2d, x, weight, padding=1)),
        "the input's gradient": (partial(gradient_of_input, dy, weight), partial(gradients, True)),
        "the weights' gradient": (partial(gradient_of_weight, x, dy), partial(gradients, False)),
    }
    ms = medians([call for pair in pairs.values() for call in pair], runs)
    about = f"{channels} channels, side {side}, batch {images}"
    return [
        Row(f"{about}: {what}", "ms", ours, peer, "torch", peer / ours, None, runs)
        for what, ours, peer in zip(pairs, ms[::2], ms[1::2], strict=True)
    ]


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=15)
    parser.add_argument("--quick", action="store_true", help="the layers of CIFAR's networks alone: seconds")
    chosen = parser.parse_args()
    torch.set_num_threads(available_cores())
    with freed_memory_kept():
        rows = [row for layer in LAYERS[: QUICK if chosen.quick else None] for row in rows_of(*layer, chosen.runs)]
    show(rows, as_json=chosen.json)
    keep(rows, chosen.record)


if __name__ == "__main__":
    run(main)
