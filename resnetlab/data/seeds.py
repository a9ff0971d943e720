"""Random numbers by purpose and position: no two uses share numbers, and none depends on what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_BLOCK = 4  # float64 numbers that Philox makes of one count


def seed_of(purpose: str, seed: int, epoch: int = 0) -> int:
    """The seed for one purpose in one epoch of a run, as `torch.Generator.manual_seed` takes it."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits


def uniform(purpose: str, seed: int, epoch: int, start: int, stop: int, draws: int) -> Tensor:
    """The random numbers of positions `start` to `stop` of an epoch: float64 N draws, in [0, 1).

    The numbers of a position don't depend on the requested range: the generator is counter-based (Philox, Salmon et
    al. 2011), and each position has its own counters.
    """
    blocks = -(-draws // _BLOCK)
    counting = np.random.Philox(key=seed_of(purpose, seed, epoch), counter=start * blocks)
    numbers = np.random.Generator(counting).random((stop - start, blocks * _BLOCK))
    return torch.from_numpy(numbers[:, :draws])


def epoch_order(seed: int, epoch: int, images: int) -> Tensor:
    """The order of an epoch: a permutation of the images, int64 N."""
    generator = torch.Generator().manual_seed(seed_of("order and augmentation", seed, epoch))
    return torch.randperm(images, generator=generator)


def balanced_order(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """The order of an epoch with equally many images of each class, up to one: indices, int64 N, some of them repeated.

    It is as long as an ordinary epoch. Of a class with more images than its part, some are left out; of one with fewer,
    all occur equally often, up to one. labels: int64 N; a class without images has no part.
    """
    generator = torch.Generator().manual_seed(seed_of("balanced order", seed, epoch))
    images = len(labels)
    shuffled = torch.randperm(images, generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    counts = labels.bincount()
    counts = counts[counts > 0]
    starts = counts.cumsum(0) - counts
    parts = torch.full_like(counts, images // len(counts))
    parts[torch.randperm(len(counts), generator=generator)[: images % len(counts)]] += 1
    within = torch.arange(images) - (parts.cumsum(0) - parts).repeat_interleave(parts)
    chosen = by_class[starts.repeat_interleave(parts) + within % counts.repeat_interleave(parts)]
    return chosen[torch.randperm(images, generator=generator)]
