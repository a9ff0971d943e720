"""Several processes that train one run: joining those that torchrun started, exchanging sums, averaging gradients.

The processes ("ranks", of which the first is the main one) meet on the host at every batch and evaluation, in
`Distributed.exchange`. There they learn how many images the others hold and whether one of them failed, in which case
all stop with its message, or was asked to stop, in which case all stop after the same step. Gradients are averaged by
torch's DistributedDataParallel, over NCCL on GPUs and Gloo on CPUs.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnetlab.data.loading import Batch
from resnetlab.errors import ToldElsewhere, UserError, counted, shown
from resnetlab.training.signals import Stop, Stopped
from resnetlab.training.sync_bn import synchronise

if TYPE_CHECKING:
    from resnetlab.nets.net import ResNet
    from resnetlab.nets.vgg import VGG

WAIT = timedelta(hours=2)  # for another process on the host: the first one may measure a whole data set
JOINING = timedelta(minutes=10)
LOCK_PATIENCE = 30.0  # seconds, after a restart
WIDTH = 6  # numbers in every exchange: a fixed count, so that a rank that fails can answer any exchange
T = TypeVar("T")


@dataclass
class Distributed:
    """This process among those of a run. With one process, nothing here waits."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # on this machine
    local_world_size: int = 1
    host: dist.ProcessGroup | None = None  # Gloo, for exchanges on the host
    weight: float = 1.0  # of this rank's mean gradient, where the mean over ranks has 1
    failed: bool = False  # all ranks know of the failure
    alone: bool = False  # this rank fails where it can't tell the others, which wait for its gradients

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def exchange(
        self, numbers: Sequence[float] = (), *, failure: str | None = None, stop: int = 0
    ) -> list[list[float]]:
        """Every rank's numbers, float64, in the order of the ranks; all ranks wait for one another.

        If a rank passes a failure instead, every rank raises it: the first a UserError, the others ToldElsewhere.
        If one passes the number of a signal that stops it, every rank raises Stopped.
        """
        if self.world_size == 1:
            return [list(numbers)]
        own = torch.zeros(2 + WIDTH, dtype=torch.float64)
        own[0], own[1] = failure is not None, stop
        own[2 : 2 + len(numbers)] = torch.tensor(numbers, dtype=torch.float64)
        rows = [torch.empty_like(own) for _ in range(self.world_size)]
        dist.all_gather(rows, own, group=self.host)
        failing = [rank for rank, row in enumerate(rows) if row[0]]
        if failing:
            self.failed = True
            words = [failure]
            dist.broadcast_object_list(words, src=failing[0], group=self.host)
            raise UserError(words[0]) if self.is_main else ToldElsewhere(words[0])
        if stopping := [int(row[1]) for row in rows if row[1]]:
            raise Stopped(stopping[0])
        return [row[2 : 2 + len(numbers)].tolist() for row in rows]

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """The sums over ranks: exact for counts below 2^53, and bit for bit the same on every rank."""
        return [sum(column) for column in zip(*self.exchange(numbers), strict=True)]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        self.exchange()

    def broadcast_from_main(self, make: Callable[[], T]) -> T:
        """Run `make` on the first rank only, and return its value on all of them."""
        if self.world_size == 1:
            return make()
        value: list[Any] = [make() if self.is_main else None]
        self.wait()  # if it failed, this says so
        dist.broadcast_object_list(value, src=0, group=self.host)
        return value[0]

    def gather_to_main(self, own: T) -> list[T]:
        """Every rank's value, in the order of the ranks, on the first rank; an empty list on the others."""
        if self.world_size == 1:
            return [own]
        every: list[Any] = [None] * self.world_size if self.is_main else []
        self.wait()  # if one failed, this says so
        dist.gather_object(own, every or None, dst=0, group=self.host)
        return every

    def main_first(self, make: Callable[[], T]) -> T:
        """Run `make` on each rank; the others begin when the first is done, and find on disk what it wrote."""
        value = make() if self.is_main else None
        self.wait()
        return value if value is not None else make()

    def in_step(self, batches: Iterator[Batch], due: Callable[[], bool]) -> Iterator[tuple[Batch, bool]]:
        """Yield this rank's share of each batch, with the first rank's value of `due`; sets `weight`.

        All ranks leave out a batch of which one has fewer than two images.
        """
        if self.world_size == 1:
            yield from ((batch, due()) for batch in batches)
            return
        while True:
            batch = next(batches, None)
            rows = self.exchange([-1 if batch is None else len(batch.labels), due()])
            sizes = [row[0] for row in rows]
            if batch is None or min(sizes) < 0:
                return
            if min(sizes) < 2:
                continue
            self.weight = len(batch.labels) * self.world_size / sum(sizes)
            yield batch._replace(smallest=int(min(sizes))), bool(rows[0][1])

    def until_stopped(self, batches: Iterator[T], stop: Stop) -> Iterator[T]:
        """Yield the same batches; once one rank is asked to stop, raise Stopped on all, at the latest with the next.

        The rank that is asked answers the exchange that the others are in or come to next, so that all have taken the
        same number of steps. That must be an `exchange`: torch's own exchanges can't be answered this way.
        """
        while True:
            try:
                with stop.at_once():
                    batch = next(batches, None)
            except Stopped as stopped:
                self.exchange(stop=stopped.number)
                raise
            if batch is None:
                return
            yield batch

    def purpose(self, words: str) -> str:
        """A purpose of random numbers that differs between ranks."""
        return f"{words}, rank {self.rank}" if self.rank else words


def check_share(distributed: Distributed, batch_size: int, images: int) -> None:
    """Raise UserError unless each rank gets two images of every batch, which batch norm needs."""
    for count, words in ((batch_size, f"batch_size={batch_size}"), (images, f"{images} training images")):
        if distributed.world_size > 1 and count < 2 * distributed.world_size:
            raise UserError(
                f"{words}: fewer than two for each of {distributed.world_size} processes; start fewer processes."
            )


def check_same(distributed: Distributed, run: str) -> None:
    """Raise UserError unless all ranks have the first one's run: one path may hold different images on each machine."""
    wanted = distributed.broadcast_from_main(lambda: run)
    if run != wanted:
        raise UserError(
            f"process {distributed.rank} is to train run {run}, but the first process run {wanted}: their recipes or "
            "images differ; every machine needs the same."
        )


def wrapped(net: ResNet | VGG, distributed: Distributed, *, sync_bn: bool = False) -> nn.Module:
    """The network to train with: its gradients become those of the mean loss over the batches of all ranks.

    Each rank takes the mean over its own images; the scores' gradient is then scaled by Distributed.weight, before any
    layer sees it, so that shares may differ in size. Parameters and buffers start as the first rank's. The given
    network is trained in place, and is the one to evaluate and save. Only the first rank's running statistics of batch
    norm are kept (`align_buffers`).
    """
    if distributed.world_size == 1:
        return net
    if sync_bn:
        synchronise(net)
    # Training does not use the running statistics, so DDP need not broadcast them in every step; only evaluation needs
    # them. Every parameter always gets a gradient, since stochastic depth multiplies by zero.
    known = inspect.signature(DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # until torch 2.12
    parallel = DistributedDataParallel(net, **{option: False})  # type: ignore[arg-type]
    align_buffers(net, distributed)

    def weighted(module: nn.Module, x: Any, scores: Tensor) -> None:
        if scores.requires_grad:
            scores.register_hook(lambda gradient: gradient * distributed.weight)

    parallel.register_forward_hook(weighted)
    _rehearse(parallel, net)
    return parallel


def _rehearse(parallel: nn.Module, net: ResNet | VGG) -> None:
    """Take a step whose only effect is the order in which DDP sends gradients.

    DDP finds that order in its first step and uses it from the second one on. With three ranks or more the order
    affects rounding: without this, the first step of a resumed run would differ from that of an uninterrupted one.
    """
    before = [buffer.clone() for buffer in net.buffers()]
    parameter = next(net.parameters())
    x = parameter.new_zeros(2, *net.spec.image_shape)
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        parallel.train()
        parallel(x).sum().backward()
    net.zero_grad(set_to_none=True)
    for buffer, old in zip(net.buffers(), before, strict=True):
        buffer.copy_(old)


def align_buffers(net: nn.Module, distributed: Distributed) -> None:
    """Give every rank the first one's buffers."""
    if distributed.world_size == 1:
        return
    distributed.wait()  # on the host, where one may wait long
    for buffer in net.buffers():
        dist.broadcast(buffer, src=0)


def local_device(name: str, distributed: Distributed) -> str:
    """The device of this rank: on GPUs, each rank of a machine has its own."""
    if distributed.world_size == 1:
        return name
    if name.startswith("cuda:") and distributed.local_world_size > 1:
        raise UserError(
            f"device={shown(name)}: {distributed.local_world_size} processes on a machine can't share it; use cuda."
        )
    if name == "mps":
        raise UserError("device='mps': several processes can't share an Apple GPU; train with one, or on the cpu.")
    if name == "cuda" or (name == "auto" and torch.cuda.is_available()):
        if distributed.local_rank >= (count := torch.cuda.device_count()) > 0:
            raise UserError(
                f"{distributed.local_world_size} processes on a machine where torch finds {counted(count, 'GPU')}: "
                f"each process needs one of its own; give --nproc-per-node {count}."
            )
        return f"cuda:{distributed.local_rank}"
    return name


@contextlib.contextmanager
def joined(device: str = "cpu") -> Iterator[Distributed]:
    """Join the other processes that torchrun started; without torchrun this is the only one.

    An error inside stops all ranks: a UserError is raised on all of them, as itself on the first and as ToldElsewhere
    on the others, and so is the loss of a process, such as one that fails `alone`. Stopped is raised on all.
    """
    if _number("WORLD_SIZE", 1) == 1:
        yield Distributed()
        return
    distributed = _join(device)
    together = False
    try:
        yield distributed
        distributed.wait()
        together = True
    except Stopped:
        together = True
        raise
    except UserError as error:
        if not (distributed.failed or distributed.alone):
            _tell(distributed, error)
        raise
    except RuntimeError as error:
        if not _is_loss(error):
            raise
        words = _words_of_loss(error)
        raise UserError(words) if distributed.local_rank == 0 else ToldElsewhere(words) from error
    finally:
        # NCCL would wait here for processes that are gone; Gloo does not, but aborts the process if it is left open.
        if together or distributed.failed or dist.get_backend() == "gloo":
            dist.destroy_process_group()


def _tell(distributed: Distributed, error: UserError) -> None:
    """Raise the error on all ranks, which are in an exchange or will come to one."""
    try:
        distributed.exchange(failure=str(error))
    except RuntimeError as lost:  # a UserError is a ValueError
        if not _is_loss(lost):
            raise
        raise error from lost


def _is_loss(error: RuntimeError) -> bool:
    """Whether the error means that another process is gone: NCCL and the store have a class for it, Gloo only words."""
    words = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in words or "connection closed by peer" in words


def _words_of_loss(error: RuntimeError) -> str:
    """What to say of it: NCCL reports what keeps GPUs apart, such as too little shared memory, as the same error."""
    if not isinstance(error, dist.DistBackendError):
        return "another process of this run ended; see its message or torchrun's for the reason."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = f"{lines[0]} {lines[-1]}" if len(lines) > 1 else " ".join(lines)
    return (
        f"the GPUs can't exchange gradients: another process of this run ended, or NCCL fails ({said[:400]}); see the "
        "messages of the other processes, or set NCCL_DEBUG=INFO."
    )


def _number(name: str, default: int | None = None) -> int:
    """A whole number from the environment, as set by torchrun."""
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise UserError(f"{name}={shown(text)} in the environment must be a whole number; torchrun sets it.")
    return int(text)


def _join(device: str) -> Distributed:
    rank, count = _number("RANK"), _number("WORLD_SIZE")
    distributed = Distributed(rank, count, _number("LOCAL_RANK", 0), _number("LOCAL_WORLD_SIZE", 1))
    gpus = device != "cpu" and torch.cuda.is_available()
    where = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    try:
        if gpus and distributed.local_rank < torch.cuda.device_count():
            torch.cuda.set_device(distributed.local_rank)
        store = _store(rank)
        name = _name_of_this_start(store, rank, count)
        dist.init_process_group(
            "nccl" if gpus else "gloo", store=dist.PrefixStore(name, store), rank=rank, world_size=count
        )
        distributed.host = dist.new_group(backend="gloo", timeout=WAIT)
    except (dist.DistError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        words = f"{count} processes could not connect at {where} ({reason})."
        raise UserError(words) if distributed.local_rank == 0 else ToldElsewhere(words) from error
    return distributed


def _store(rank: int) -> dist.Store:
    """The store that torchrun's agent serves; if it serves none, the first rank does."""
    own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return dist.TCPStore(
        os.environ.get("MASTER_ADDR", "localhost"),
        _number("MASTER_PORT"),
        is_master=own and rank == 0,
        wait_for_workers=False,
        timeout=JOINING,
    )


def _name_of_this_start(store: dist.Store, rank: int, count: int) -> str:
    """A name that the processes of this start share and that no earlier start has used.

    The agent's store outlives a restart, with everything that the killed processes wrote; torch's init_process_group
    reads it and hangs (pytorch issue 135712). The restart count is not enough, since it does not change when machines
    join or leave. So the first rank invents a name, and leaves it for each other rank under a key which that invents.
    """
    store = dist.PrefixStore(f"resnetlab/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    own = uuid.uuid4().hex
    if rank:
        store.set(f"here/{rank}", own)
        name = store.get(f"name/{own}").decode()  # waits
        store.add(f"came/{name}", 1)
        return name
    deadline = time.monotonic() + JOINING.total_seconds()
    while store.add(f"came/{own}", 0) < count - 1:
        for other in range(1, count):
            if store.check([f"here/{other}"]):
                store.set(f"name/{store.get(f'here/{other}').decode()}", own)
        if time.monotonic() > deadline:
            raise TimeoutError(f"not all joined within {JOINING}")
        time.sleep(0.02)
    return own
