"""What each of two processes does for test_distributed.py: python ranks.py FOLDER writes FOLDER/found{rank}.json."""

from __future__ import annotations

import json
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.data.images import Images
from resnetlab.data.loading import Batch, Loader
from resnetlab.data.normalisation import Normalisation
from resnetlab.data.open import open_data
from resnetlab.errors import ToldElsewhere, UserError
from resnetlab.measuring.accuracy import accuracy
from resnetlab.nets.zoo import build
from resnetlab.training.distributed import Distributed, align_buffers, joined, wrapped
from resnetlab.training.loop import train
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.step import Stepper
from resnetlab.training.sync_bn import synchronise

FLAT = Normalisation(torch.zeros(1, 1, 1), torch.ones(1, 1, 1))


def exchanges(distributed: Distributed) -> dict[str, Any]:
    """Sums, objects of the first rank, and a failure of the second."""
    found: dict[str, Any] = {
        "sums": distributed.sums([2**53 - 4, 0.1, distributed.rank]),
        "from first": distributed.broadcast_from_main(lambda: {"rank": distributed.rank}),
    }
    try:
        if distributed.rank == 1:
            distributed.exchange(failure="photo.jpg: can't be read")
        distributed.broadcast_from_main(lambda: 1)
    except UserError as error:
        found["failure"] = [str(error), isinstance(error, ToldElsewhere), distributed.failed]
    distributed.failed = False
    try:
        distributed.exchange(stop=signal.SIGTERM * distributed.rank)
    except Stopped as stopped:
        found["stopped by"] = stopped.number
    return found | {"at first": distributed.gather_to_main(2 * distributed.rank)}


def digits(count: int) -> Images:
    return open_data("digits").train[:count]  # type: ignore[return-value]


def steps(
    net: nn.Module, distributed: Distributed, *, sync_bn: bool, batch_size: int, accumulate: int = 1
) -> dict[str, Tensor]:
    """Four steps in float64, two of uneven shares, on the same batches however many ranks there are."""
    values = Recipe(lr=0.05, momentum=0.9, nesterov=True, accumulate=accumulate)
    stepper = Stepper(net, make_optimiser(net, values), values, "cpu")
    stepper.trained = wrapped(net, distributed, sync_bn=sync_bn)
    images = digits(3 * batch_size + batch_size // 2 + 1)
    loader = Loader(FLAT, 10, rank=distributed.rank, ranks=distributed.world_size)
    for batch, _ in distributed.in_step(loader.training(images, batch_size, 0, 0), lambda: False):
        stepper(batch._replace(x=batch.x.double()), 0.05)
    return net.state_dict()


def furthest(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def equal_on_all(distributed: Distributed, state: dict[str, Tensor]) -> bool:
    mine = [float(v.double().sum()) for v in state.values()] + [
        float(v.double().square().sum()) for v in state.values()
    ]
    theirs = distributed.broadcast_from_main(lambda: mine)
    return distributed.sums([mine == theirs])[0] == distributed.world_size


def gradients(distributed: Distributed) -> dict[str, Any]:
    """Two processes against one at the same global batch, without batch norm and with a synchronised one."""
    found: dict[str, Any] = {}
    cases = (
        ("plain", "cifar_plain8(norm=none, in_channels=1)", False),
        ("batch norm", "cifar_resnet8(in_channels=1)", True),
    )
    for name, net, sync_bn in cases:
        for batch_size in (16, 13):
            # The ranks' own start is not the same: it is to become the first one's.
            one, two = build(net, seed=0).double(), build(net, seed=distributed.rank).double()
            alone = steps(one, Distributed(), sync_bn=False, batch_size=batch_size)
            together = steps(two, distributed, sync_bn=sync_bn, batch_size=batch_size)
            if not sync_bn:  # in parts too: only the last one's backward pass exchanges gradients
                parts = steps(
                    build(net, seed=distributed.rank).double(),
                    distributed,
                    sync_bn=False,
                    batch_size=batch_size,
                    accumulate=3,
                )
                found[f"{name} {batch_size} in parts"] = furthest(alone, parts)
            found[f"{name} {batch_size}"] = furthest(alone, together)
            found[f"{name} {batch_size} equal"] = equal_on_all(distributed, together)
    # Shares of 8 and 7 images would have 4 and 3 parts, and batch norm's exchanges would not match.
    net = build("cifar_resnet8(in_channels=1)").double()
    found["many parts"] = equal_on_all(distributed, steps(net, distributed, sync_bn=True, batch_size=15, accumulate=8))
    net = build("cifar_resnet8(in_channels=1)").double()
    found["without sync_bn"] = furthest(alone, steps(net, distributed, sync_bn=False, batch_size=13))
    found["buffers before"] = equal_on_all(distributed, net.state_dict())
    first = {k: v.clone() for k, v in net.state_dict().items()}
    align_buffers(net, distributed)
    found["buffers after"] = equal_on_all(distributed, net.state_dict())
    found["buffers are the first's"] = furthest(first, net.state_dict()) == 0 if distributed.is_main else None
    return found


def batch_norm(distributed: Distributed) -> dict[str, Any]:
    """The layer against torch's own on the whole batch: outputs, gradients, statistics, for uneven shares."""
    torch.manual_seed(0)
    whole, slope = torch.randn(7, 3, 4, 5).double() + 100, torch.randn(7, 3, 4, 5).double()
    a, b = distributed.rank * 2, 2 if distributed.is_main else 7
    found = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        one, two = nn.Sequential(nn.BatchNorm2d(3)).double(), nn.Sequential(nn.BatchNorm2d(3)).double()
        with torch.no_grad():
            for norm in (one[0], two[0]):
                norm.weight.copy_(torch.tensor([1.0, 2, 3]))
        synchronise(two)
        x, part = whole.clone().requires_grad_(), whole[a:b].contiguous(memory_format=layout).requires_grad_()
        y, own = one(x), two(part)
        (y * slope).sum().backward()
        (own * slope[a:b]).sum().backward()
        assert x.grad is not None
        assert part.grad is not None
        weight = distributed.sums(two[0].weight.grad.tolist())
        differences = [
            (own - y[a:b]).detach().abs().max(),
            (part.grad - x.grad[a:b]).abs().max(),
            (two[0].running_mean - one[0].running_mean).abs().max(),
            (two[0].running_var - one[0].running_var).abs().max(),
            (one[0].weight.grad - torch.tensor(weight, dtype=torch.float64)).abs().max(),
        ]
        found[str(layout)] = max(map(float, differences))
        assert own.is_contiguous(memory_format=layout)
        two.eval()
        kept = two[0].running_mean, two[0].running_var, two[0].weight, two[0].bias
        assert torch.equal(two(part), tf.batch_norm(part, *kept))
    return found


def evaluation(distributed: Distributed) -> dict[str, Any]:
    """Each image is counted once for any number of them; a rank may have none."""
    net, found = build("cifar_resnet8(in_channels=1)"), {}
    for count in (1, 2, 7, 360):
        images = digits(count)
        alone = accuracy(net, Loader(FLAT, 10).evaluation(images, 100))
        mine = Loader(FLAT, 10, rank=distributed.rank, ranks=distributed.world_size).evaluation(images, 100)
        together = accuracy(net, mine, distributed.sums)
        found[str(count)] = [
            together.images,
            (alone.top1_correct, alone.top5_correct) == (together.top1_correct, together.top5_correct),
            abs(alone.loss - together.loss),
        ]
    return found


def short_shares(distributed: Distributed) -> list[int]:
    """Which batches are left out where the second rank can read too few of them."""

    def batches() -> Iterator[Batch]:
        for size in ([3, 4, 2, 5], [5, 1, 2, 0])[distributed.rank]:
            yield Batch(torch.zeros(size, 1, 2, 2), torch.zeros(size).long(), None)

    return [round(distributed.weight * 100) for _ in distributed.in_step(batches(), lambda: False)]


EVERYTHING: dict[str, Any] = {
    "net": "cifar_resnet8(mix=DropoutShortcut(0.3), stochastic_depth=0.2)",
    "augment": "crop_flip",
    "schedule": "plateau",
    "patience": 1,
    "warmup": "train_error",
    "warmup_lr": 0.01,
    "warmup_steps": 30,
    "validation_images": 101,
    "batch_size": 63,
    "mixup": 0.2,
    "ema": 0.9,
    "accumulate": 2,
    "epochs": 2,
}


def runs(distributed: Distributed, folder: Path) -> dict[str, Any]:
    """Whole runs, in the folders that their names say."""
    found: dict[str, Any] = {"fields": EVERYTHING}
    for name, changes in (("a", {}), ("b", {}), ("c", {}), ("sync", {"sync_bn": True}), ("one", {})):
        values = EVERYTHING if name in "abc" else {"net": "cifar_resnet8", "epochs": 1, "bn_reestimate": 3} | changes
        run = distributed.main_first(lambda n=name, v=values: make_run(recipe("digits", **v), folder / n))  # type: ignore[misc]
        own = Distributed() if name == "one" else distributed
        if name == "c":
            found["stopped at"] = stopped_in_evaluation(run, distributed)
        if name != "one" or distributed.is_main:
            statuses = list(train(run, threads=1, distributed=own))
            found[name] = [str(run.folder), statuses[-1].train_error, statuses[-1].test_error]
    fine = {"start": found["a"][0], "freeze": 2, "layer_decay": 0.5, "epochs": 1, "batch_size": 63}
    run = distributed.main_first(lambda: make_run(recipe("digits", **fine), folder / "fine"))
    statuses = list(train(run, threads=1, distributed=distributed))
    found["fine"] = [str(run.folder), statuses[-1].train_error, statuses[-1].test_error]
    theirs = distributed.broadcast_from_main(lambda: {k: v for k, v in found.items() if k != "one"})
    return found | {"same words": all(theirs[k] == found[k] for k in ("a", "b", "sync", "fine"))}


def stopped_in_evaluation(run: Run, distributed: Distributed) -> int:
    """The step at which the run stops when the second rank is asked to in its first evaluation."""
    stop = Stop(alone=False)
    try:
        for status in train(run, threads=1, distributed=distributed, stop=stop):
            if status.next == "evaluating" and distributed.rank == 1:
                stop.receive(signal.SIGTERM)
    except Stopped as stopped:
        return stopped.step
    return 0


def too_small(distributed: Distributed, folder: Path) -> list[str]:
    try:
        run = make_run(recipe("digits", net="cifar_resnet8", batch_size=3), folder / "small")
        list(train(run, threads=1, distributed=distributed))
    except UserError as error:
        return [str(error)]
    return []


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    with joined("cpu") as distributed:
        found = {
            "exchanges": exchanges(distributed),
            "gradients": gradients(distributed),
            "batch norm": batch_norm(distributed),
            "evaluation": evaluation(distributed),
            "short shares": short_shares(distributed),
            "runs": runs(distributed, folder),
            "too small": too_small(distributed, folder),
        }
        (folder / f"found{distributed.rank}.json").write_text(json.dumps(found))
        distributed.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
