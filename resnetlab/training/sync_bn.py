"""Batch norm over the batch of all processes, on GPUs and CPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def synchronise(net: nn.Module) -> None:
    """Make the batch norms of a network normalise by the batch of all ranks, in place.

    Tensors on a GPU use the kernels of torch's SyncBatchNorm, which does not support CPUs.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = GlobalBatchNorm  # parameters, buffers and hooks stay


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm by the mean and variance of the batch of all ranks (Ioffe & Szegedy 2015, alg. 1).

    As in torch, without momentum the running statistics are plain averages over the batches since their reset.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        if x.is_cuda:
            from torch.nn.modules._functions import SyncBatchNorm

            mean, var = self.running_mean, self.running_var
            group, ranks = dist.group.WORLD, dist.get_world_size()
            return SyncBatchNorm.apply(x, self.weight, self.bias, mean, var, self.eps, share, group, ranks)
        y, mean, var, count = _Normalised.apply(x, self.weight, self.bias, self.eps)
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
            unbiased = (var * count / (count - 1)).to(self.running_var.dtype)
            self.running_var.lerp_(unbiased, share)
        return y


class _Normalised(torch.autograd.Function):
    """y = weight · x̂ + bias, x̂ = (x − mean) / √(var + eps), with the mean and variance over all ranks.

    Returns y, and mean, variance (C, float64) and the number of values they are over.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        kind = torch.promote_types(x.dtype, torch.float32)
        wide = x.to(kind)
        own_mean = wide.mean((0, 2, 3))
        own_squares = (wide - _planes(own_mean)).square_().sum((0, 2, 3))
        own_count = own_mean.new_full((1,), x.numel() // x.shape[1])
        # The ranks' means and sums of squares put together (Chan et al. 1979).
        table = _every_rank(torch.cat([own_count, own_mean, own_squares]).double())  # ranks 1 + C + C
        counts, means, squares = table.split([1, x.shape[1], x.shape[1]], 1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (squares + counts * (means - mean).square()).sum(0) / count
        inverse = (var + eps).rsqrt()
        normal = (wide - _planes(mean.to(kind))).mul_(_planes(inverse.to(kind)))
        ctx.save_for_backward(normal, weight, inverse, count)
        ctx.mark_non_differentiable(mean, var, count)
        ctx.kind = x.dtype
        y = torch.addcmul(_planes(bias.to(kind)), normal, _planes(weight.to(kind)))
        return y.to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        normal, weight, inverse, count = ctx.saved_tensors
        gradient = gradient.to(normal.dtype)
        own = torch.cat([gradient.sum((0, 2, 3)), (gradient * normal).sum((0, 2, 3))])
        whole = _every_rank(own.double()).sum(0) / count
        of_bias, of_weight = own.chunk(2)  # of this rank: DDP adds them up
        mean, slope = (_planes(t.to(normal.dtype)) for t in whole.chunk(2))
        of_x = (gradient - mean).addcmul_(normal, slope, value=-1)
        of_x.mul_(_planes((weight * inverse).to(normal.dtype)))
        return of_x.to(ctx.kind), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _planes(t: Tensor) -> Tensor:
    return t[None, :, None, None]  # C -> 1 C 1 1


def _every_rank(own: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks, so that their sums have the same bits everywhere."""
    rows = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, own)
    return torch.stack(rows)
