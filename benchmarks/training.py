"""A training step, loader included, beside loops as users write them and the convolutions alone; images/s.

python -m benchmarks.training [--quick] [--depths] [--json] [--record FILE] [--runs N] [--figure FROM_RECORD TO_SVG]

Ours is the step of `resnetlab train` with precision, channels_last and compile at auto. The peers are a loop of plain
PyTorch around the same network (around torchvision's or timm's where they import) in every setting that users know:
as it is, channels_last, bf16 autocast, compiled as a whole. The limit is the convolutions alone, forward and backward,
in the precision and layout of ours. Each is a process of its own, in which ours and the limit keep freed memory as
`train` does; their steps are timed in turn, with all cores.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from benchmarks.timing import Row, keep, medians_apart, options, run, say_absent, show
from resnetlab.data.images import Images
from resnetlab.data.loading import Augmentation, Batch, Loader
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.machine import available_cores, freed_memory_kept
from resnetlab.nets.zoo import build, spec
from resnetlab.storage import read_json
from resnetlab.studies.figures.draw import draw
from resnetlab.studies.figures.figure import Figure, Panel, Series
from resnetlab.training.precision import AUTOCAST, has_fast_bf16, resolved
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import make_stepper

# network, batch
STEPS = (("cifar_resnet20", 128), ("cifar_resnet56", 128), ("cifar_resnet110", 128), ("resnet18", 32), ("resnet50", 16))
QUICK = STEPS[:1]
DEPTHS, DEPTHS_BATCH = (20, 56, 110, 218, 434, 1202), 16
COMPILED_UP_TO = 110  # layers: compiling a network as a whole takes minutes beyond
FAST = {"precision": "auto", "channels_last": "auto", "compile": "auto"}


class Setting(NamedTuple):
    """How a user's loop may be set."""

    channels_last: bool = False
    bf16: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        return " + ".join(("plain loop", *(name for name, on in self._asdict().items() if on)))


PLAIN = Setting()
SETTINGS = [Setting(*on) for on in itertools.product((False, True), repeat=3)]


def peer_of(name: str) -> tuple[str, nn.Module]:
    """The same network of another library, if one imports; torchvision's wheel does not beside a CPU torch."""
    for library, make in (
        ("torchvision", lambda: getattr(importlib.import_module("torchvision.models"), name)()),
        ("timm", lambda: importlib.import_module("timm").create_model(name)),
    ):
        try:
            return library, make()
        except Exception:  # an import that fails half-way raises whatever it likes; then there is no such peer
            continue
    return "the same network", build(name, seed=0)


def users_step(net: nn.Module, x: Tensor, labels: Tensor, setting: Setting) -> Callable[[], None]:
    """One step of a plain loop as a call."""
    net.train()
    if setting.channels_last:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.contiguous(memory_format=torch.channels_last)
    called = torch.compile(net, dynamic=False) if setting.compiled else net
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
            loss = tf.cross_entropy(called(x), labels)
        loss.backward()
        optimiser.step()

    return step


def our_step(name: str, pixels: Tensor, labels: Tensor, recipe: Recipe) -> Callable[[], None]:
    """One step of ours with its batch, drawn, augmented and laid out, as a call."""
    net = build(name, seed=0).train()
    step = make_stepper(net, recipe, "cpu")
    images = Images(torch.cat([pixels] * 4), torch.cat([labels] * 4))  # an epoch of four batches
    loader = Loader(imagenet(), net.spec.num_classes, augmentation=Augmentation(augment="crop_flip"))

    def batches() -> Iterator[Batch]:
        for epoch in itertools.count():
            yield from loader.training(images, len(labels), 0, epoch)

    given = batches()

    def call() -> None:
        batch = next(given)
        step(batch._replace(x=step.laid_out(batch.x)), 0.01)

    return call


def convolutions_of(name: str, x: Tensor, recipe: Recipe) -> Callable[[], None]:
    """The convolutions of a step alone, forward and backward, each on an input of its own: the limit."""
    net = build(name, seed=0)
    dtype = AUTOCAST[recipe.precision] or torch.float32
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    net.to(dtype=dtype, memory_format=layout)  # type: ignore[call-overload]
    inputs: list[tuple[nn.Conv2d, Tensor]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        drawn = torch.randn(args[0].shape).to(dtype=dtype, memory_format=layout)
        inputs.append((module, drawn.requires_grad_(bool(inputs))))  # the first needs no gradient

    hooks = [m.register_forward_hook(note) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net(x.to(dtype=dtype, memory_format=layout))
    for hook in hooks:
        hook.remove()

    def run() -> None:
        for module, given in inputs:
            out = module(given)
            out.backward(out.detach())
            given.grad = module.weight.grad = None

    return run


def made_up(name: str, batch: int) -> tuple[Tensor, Tensor, Recipe]:
    """Random pixels (uint8, N 3 H W) and labels (N) for a network, and the recipe that `auto` comes to for it here."""
    size = spec(name).input_size
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8, generator=draws)
    labels = torch.randint(0, 10, (batch,), generator=draws)
    settled = Recipe(**FAST, batch_size=batch)  # type: ignore[arg-type]
    recipe = settled.override(**resolved(settled, spec(name), "cpu"))
    return pixels, labels, recipe


_for_the_process = contextlib.ExitStack()


def made_alone(name: str, batch: int, setting: Setting | None, *, limit: bool = False) -> Callable[[], None]:
    """In a process of its own: a step of a peer with that setting, or without one ours or its convolutions alone."""
    torch.set_num_threads(available_cores())
    pixels, labels, recipe = made_up(name, batch)
    if setting is not None:
        return users_step(peer_of(name)[1], pixels / 255, labels, setting)
    _for_the_process.enter_context(freed_memory_kept())
    return convolutions_of(name, pixels / 255, recipe) if limit else our_step(name, pixels, labels, recipe)


def rows_of(name: str, batch: int, settings: list[Setting], runs: int) -> list[Row]:
    """Ours against the plain loop, and against the fastest of the peers' settings."""
    peers = [partial(made_alone, name, batch, setting) for setting in settings]
    every = [partial(made_alone, name, batch, None), partial(made_alone, name, batch, None, limit=True), *peers]
    ours, limit, *theirs = (1000 * batch / taken for taken in medians_apart(every, runs))
    found = dict(zip(map(str, settings), theirs, strict=True))
    best = max(found, key=found.__getitem__)
    library, (*_, recipe) = peer_of(name)[0], made_up(name, batch)
    what = f"training step of {name}, batch {batch}, {recipe.precision}"
    return [
        Row(what, "images/s", ours, found[peer], f"{library}: {peer}", ours / found[peer], limit, runs)
        for peer in dict.fromkeys((str(PLAIN), best))
    ]


class Recorded(TypedDict):
    """What is read of a record."""

    rows: list[Row]


def figure_of(rows: list[Row]) -> Figure:
    """Images a second against depth: ours, the plain loop, the fastest peer, and the convolutions alone.

    Raises UserError for rows of anything but --depths.
    """
    lines: dict[str, dict[float, float]] = {
        name: {} for name in ("convolutions alone", "ours", "best peer", "plain loop")
    }
    for row in rows:
        named = re.search(r"training step of cifar_resnet(\d+)", row.what)
        if not named or row.limit is None or row.peer is None:
            raise UserError(f"--figure needs a record of --depths, which has no row {row.what!r}.")
        depth = float(named[1])
        lines["convolutions alone"][depth], lines["ours"][depth] = row.limit, row.ours
        lines["plain loop" if str(row.peer_name).endswith(str(PLAIN)) else "best peer"][depth] = row.peer
    series = [
        Series(name, name == "convolutions alone", i, list(points), (y := list(points.values())), y, y)
        for i, (name, points) in enumerate(lines.items())
        if points
    ]
    panel = Panel("", "layers", "images/s", series, x_log=True, y_log=True)
    return Figure("depths", "Speed of a training step against depth", [panel])


def main() -> None:
    """Measure, print and record."""
    parser = options(str(__doc__).splitlines()[0], runs=7)
    parser.add_argument("--quick", action="store_true", help="cifar_resnet20 alone, peers uncompiled: a minute")
    parser.add_argument("--depths", action="store_true", help="CIFAR nets of 20 to 1,202 layers instead")
    parser.add_argument("--figure", type=Path, nargs=2, help="draw a record of --depths to an SVG file; time nothing")
    chosen = parser.parse_args()
    if chosen.quick and chosen.depths:
        parser.error("--quick and --depths exclude each other")
    if chosen.figure:
        record, picture = chosen.figure
        recorded = [Row(**row) for row in read_json(record, Recorded)["rows"]]
        if not recorded:
            raise UserError(f"{record}: has no rows.")
        picture.write_text(draw(figure_of(recorded), "depths") + "\n", encoding="utf-8")
        return
    say_absent(("torchvision", "timm"))
    uncompiled = [setting for setting in SETTINGS if not setting.compiled]
    quick = [setting for setting in uncompiled if has_fast_bf16("cpu") or not setting.bf16]
    if chosen.depths:
        cases = [(f"cifar_resnet{d}", DEPTHS_BATCH, SETTINGS if d <= COMPILED_UP_TO else uncompiled) for d in DEPTHS]
    else:
        cases = [(*case, quick if chosen.quick else SETTINGS) for case in (QUICK if chosen.quick else STEPS)]
    rows: list[Row] = []
    for name, batch, settings in cases:
        rows += rows_of(name, batch, settings, chosen.runs)
        keep(rows, chosen.record)  # a network takes minutes, and a later one may fail
    show(rows, as_json=chosen.json)


if __name__ == "__main__":
    run(main)
