"""Seeds by purpose, so that order, dropout and the held-out images do not draw the same numbers."""

from __future__ import annotations

import hashlib


def seed_of(purpose: str, seed: int, epoch: int = 0) -> int:
    """The seed for one purpose in one epoch of a run, as `torch.Generator.manual_seed` takes it."""
    digest = hashlib.sha256(f"{purpose}:{seed}:{epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits
