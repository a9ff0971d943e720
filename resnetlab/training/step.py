"""One training step, and the optimiser it takes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.training.recipe import Recipe


class StepResult(NamedTuple):
    """Sums over a batch, as tensors on its device, so that a step waits for nothing."""

    loss: Tensor  # summed cross-entropy
    wrong: Tensor  # images whose highest score was not their label


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with momentum, v := μv + g + λw, w := w − lr·v, with weight decay λ on what the recipe says."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    decayed = [p for p in parameters if recipe.decay == "all" or p.ndim > 1]
    free = [p for p in parameters if recipe.decay != "all" and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(
        [g for g in groups if g["params"]], lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov
    )


def training_step(net: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, lr: float) -> StepResult:
    """Forward, backward and update on one batch."""
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    scores = net(batch.x)
    loss = tf.cross_entropy(scores, batch.labels if batch.targets is None else batch.targets)
    loss.backward()
    optimiser.step()
    scores = scores.detach()
    return StepResult(loss.detach() * len(batch.labels), (scores.argmax(1) != batch.labels).sum())


class Stepper:
    """Takes training steps, and holds all that the next one depends on beside the network's own tensors."""

    def __init__(self, net: nn.Module, optimiser: torch.optim.Optimizer, recipe: Recipe, device: str) -> None:
        self.net, self.optimiser = net, optimiser
        self.parameters = [p for group in optimiser.param_groups for p in group["params"]]

    def __call__(self, batch: Batch, lr: float) -> StepResult:
        return training_step(self.net, self.optimiser, batch, lr)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint holds of it: the momentum, once a step was taken."""
        buffers = {f"momentum.{i}": self._buffer(p) for i, p in enumerate(self.parameters)}
        return {name: buffer for name, buffer in buffers.items() if buffer is not None}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave. Raises UserError, with nothing taken over, where it doesn't fit."""
        wanted = {f"momentum.{i}": p for i, p in enumerate(self.parameters)}
        for name, tensor in state.items():
            if name not in wanted:
                raise UserError(f"it has {name} besides")
            if tensor.shape != wanted[name].shape:
                raise UserError(f"in it {name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
        for name, tensor in state.items():
            p = wanted[name]
            self.optimiser.state[p]["momentum_buffer"] = torch.empty_like(p).copy_(tensor)  # in p's memory layout

    def _buffer(self, p: Tensor) -> Tensor | None:
        return self.optimiser.state.get(p, {}).get("momentum_buffer")
