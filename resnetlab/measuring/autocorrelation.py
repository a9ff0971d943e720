"""Autocorrelation of sequences and of maps, noise to compare it with, and the effective rank of a mini-batch."""

from __future__ import annotations

import torch
from torch import Tensor

VANISHED = 1e-8  # the norm below which a gradient has vanished: what is left of it is rounding, not noise


def autocorrelation(sequence: Tensor, lags: int) -> list[float] | None:
    """ACF(k) = Σ z_i z_{i+k} / Σ z_i² for k = 0 … lags, z being the sequence (P) less its mean.

    None if the sequence has vanished or is constant: rounding errors are white noise too (Balduzzi et al. 2017,
    Figure 2).
    """
    values = sequence.double()
    z = values - values.mean()
    if values.norm() < VANISHED or (values == values[0]).all():  # z of a constant may be the rounding of its mean
        return None
    return [(z[: len(z) - k] @ z[k:] / (z @ z)).item() for k in range(lags + 1)]


def spatial_autocorrelation(maps: Tensor, lags: int) -> list[float] | None:
    """The mean of z_p z_q over pixels p, q that lie k apart in a row or column, in parts of the mean of z².

    maps: N C H W; z: a map less its own mean. Means over all maps together, for k = 0 … lags, lags < H, W; at a lag
    that few pairs have, as many count as there are. None if all maps are constant.
    """
    values = maps.double()
    z = values - values.mean((-2, -1), keepdim=True)
    square = z.square().mean()
    if (values == values[..., :1, :1]).all():  # z of a constant may be the rounding of its mean
        return None
    found = []
    for k in range(lags + 1):
        across = (z[..., k:] * z[..., : z.shape[-1] - k]).mean()
        down = (z[..., k:, :] * z[..., : z.shape[-2] - k, :]).mean()
        found.append(((across + down) / 2 / square).item())
    return found


def white_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Independent values of N(0, 1)."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), device="cpu")


def brown_noise(points: int, seed: int) -> Tensor:
    """The running sum of white noise: a random walk, covariance min(s, t)."""
    return white_noise((points,), seed).cumsum(0)


def effective_rank(rows: Tensor) -> float | None:
    """The stable rank tr(AᵀA) / ‖A‖₂² of A: the rows (N, then any shape), each scaled to length 1.

    1 where all point one way, and at most the smaller of their number and length. Rows of zeros are left out; None if
    no other is there (Balduzzi et al. 2017, section 3, without the scaling: it keeps a few long gradients from counting
    for all).
    """
    rows = rows.flatten(1).double()
    rows = rows[rows.norm(dim=1) > 0]
    if not len(rows):
        return None
    rows = rows / rows.norm(dim=1, keepdim=True)
    return (len(rows) / torch.linalg.matrix_norm(rows, 2) ** 2).item()


def relative_rank(rows: Tensor, seed: int) -> float | None:
    """The effective rank of rows in parts of that of white noise of their shape; None as `effective_rank`."""
    rank, white = effective_rank(rows), effective_rank(white_noise(tuple(rows.shape), seed))
    return rank / white if rank and white else None
