"""Which operations a training step's time goes to, in ours and in a plain loop; milliseconds a step.

python -m benchmarks.operations [--quick] [--json] [--record FILE] [--runs N]

Torch's profiler records steps of ours (precision, channels_last and compile at auto; drawing the batch included) and of
a plain PyTorch loop around the same network on a batch that is there, in turn and with all cores, and counts the time
that each operation takes itself. Operations are put together by what they do; what has no row of its own is "the rest".
The profiler takes time too, most where maps are small.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import torch

from benchmarks.timing import Row, keep, options, run, show
from benchmarks.training import PLAIN, made_up, our_step, users_step
from resnetlab.machine import available_cores
from resnetlab.nets.zoo import build

STEPS = (("cifar_resnet20", 128), ("cifar_resnet56", 128), ("resnet50", 16))  # network, batch
REST = "the rest"
PURPOSES = {
    "aten::mkldnn_convolution": "convolutions, forward",
    "aten::convolution_backward": "convolutions, backward",
    "aten::native_batch_norm": "batch norm, forward",
    "aten::native_batch_norm_backward": "batch norm, backward",
    "_Norm": "batch norm, forward",
    "_NormBackward": "batch norm, backward",
    "aten::clamp_min": "ReLU, sums and copies",
    "aten::clamp_min_": "ReLU, sums and copies",
    "aten::relu": "ReLU, sums and copies",
    "aten::threshold_backward": "ReLU, sums and copies",
    "aten::add": "ReLU, sums and copies",
    "aten::add_": "ReLU, sums and copies",
    "aten::copy_": "ReLU, sums and copies",
}
ROWS = tuple(dict.fromkeys([*PURPOSES.values(), REST, "all"]))


def operations(step: Callable[[], object]) -> dict[str, float]:
    """Milliseconds of one step by purpose: the time that the operations take themselves."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    taken = dict.fromkeys(ROWS, 0.0)
    for event in profiler.key_averages():
        taken[PURPOSES.get(event.key, REST)] += event.self_cpu_time_total / 1000
    return taken | {"all": sum(taken.values())}


def medians_of(candidates: Sequence[Callable[[], object]], runs: int) -> list[dict[str, float]]:
    """The medians of each one's steps by purpose, taken in turn as in `timing.medians`."""
    for step in candidates:
        step()  # the first one allocates and chooses kernels
    steps = [[operations(step) for step in candidates] for _ in range(runs)]
    return [{name: statistics.median(each[name] for each in own) for name in ROWS} for own in zip(*steps, strict=True)]


def rows_of(name: str, batch: int, runs: int) -> list[Row]:
    """A row for each purpose, and one for all of them."""
    pixels, labels, recipe = made_up(name, batch)
    steps = [our_step(name, pixels, labels, recipe), users_step(build(name, seed=0), pixels / 255, labels, PLAIN)]
    ours, peer = medians_of(steps, runs)
    about = f"{name}, batch {batch}, {recipe.precision}"
    return [
        Row(
            f"{about}: {purpose}",
            "ms a step",
            ours[purpose],
            peer[purpose],
            f"the same network: {PLAIN}",
            peer[purpose] / ours[purpose] if ours[purpose] else None,
            None,
            runs,
        )
        for purpose in ROWS
    ]


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=10)
    parser.add_argument("--quick", action="store_true", help="cifar_resnet20 alone: seconds")
    chosen = parser.parse_args()
    torch.set_num_threads(available_cores())
    rows = [row for name, batch in STEPS[: 1 if chosen.quick else None] for row in rows_of(name, batch, chosen.runs)]
    show(rows, as_json=chosen.json)
    keep(rows, chosen.record)


if __name__ == "__main__":
    run(main)
