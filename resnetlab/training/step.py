"""One training step, with the network prepared for it and the optimiser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as tf
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.training.averaging import Average
from resnetlab.training.layer_groups import freeze, training_mode
from resnetlab.training.optimiser import (
    check_state,
    make_optimiser,
    optimiser_state,
    parameters_of,
    restore_optimiser,
    wanted_state,
)
from resnetlab.training.precision import (
    as_written,
    autocast,
    check_switches,
    compile_net,
    compiled,
    gradient_scaler,
    recompute_units,
)
from resnetlab.training.recipe import Recipe
from resnetlab.weights.files import value_trouble


class StepResult(NamedTuple):
    """Sums over a batch, as tensors on its device, so that a step does not wait for them."""

    loss: Tensor  # summed cross-entropy, weighted by class if the recipe says so
    wrong: Tensor  # number of images whose highest score was not that of their label


def make_stepper(net: ResNet | VGG, recipe: Recipe, device: str, class_weights: Tensor | None = None) -> Stepper:
    """The network ready to be trained by the recipe: on the device, in its memory layout, with its groups frozen.

    The network itself is changed and trained. class_weights: float32 K, the factors of the loss by class. Raises
    UserError for switches of the recipe that the network or the machine does not allow.
    """
    freeze(net, recipe.freeze)
    net.to(device)
    for parameter in net.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=_memory_format(recipe))
    return Stepper(net, make_optimiser(net, recipe), recipe, device, class_weights)


def _memory_format(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


class Stepper:
    """Takes training steps by the recipe, and holds the state between steps apart from the network.

    It may compile the network's units or make them recompute, in place. `trained` is the module that a step calls: the
    network, or its DistributedDataParallel wrapper. Raises UserError if a switch of the recipe is not possible.
    """

    def __init__(
        self,
        net: nn.Module,
        optimiser: torch.optim.Optimizer,
        recipe: Recipe,
        device: str,
        class_weights: Tensor | None = None,
    ):
        self.net, self.optimiser, self.recipe = net, optimiser, recipe
        self.trained: nn.Module = net
        self.kind = torch.device(device).type
        self.scaler = gradient_scaler(recipe.precision, self.kind)
        self.average = Average(net, recipe.ema) if recipe.ema else None
        self.class_weights = class_weights.to(device) if class_weights is not None else None
        if isinstance(net, ResNet | VGG):
            check_switches(recipe, net.spec, self.kind)
        if recipe.checkpoint_activations:
            recompute_units(net)
        self.compiles = bool(recipe.compile) and compile_net(net, self.kind)  # with torch's compiler

    def __call__(self, batch: Batch, lr: float) -> StepResult:
        """Forward and backward on one batch, in parts if the recipe says so, and one update."""
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["lr_factor"]
        self.optimiser.zero_grad(set_to_none=True)
        losses, wrong = [], []
        with compiled(self.compiles):
            parts = micro_batches(batch, self.recipe.accumulate)
            for i, part in enumerate(parts):
                with self._sent_at(i == len(parts) - 1):
                    with autocast(self.recipe.precision, self.kind):
                        scores = self.trained(part.x)
                        loss = self._loss(scores, part)
                    loss = loss * (len(part.labels) / len(batch.labels))  # so that the parts' losses sum to the mean
                    (self.scaler.scale(loss) if self.scaler else loss).backward()
                losses.append(loss.detach())
                wrong.append((scores.detach().argmax(1) != part.labels).sum())
        self._update()
        return StepResult(torch.stack(losses).sum() * len(batch.labels), torch.stack(wrong).sum())

    def train(self) -> None:
        """Put the network into training mode, but for its frozen layer groups."""
        training_mode(self.trained, self.net, self.recipe.freeze)

    def laid_out(self, x: Tensor) -> Tensor:
        """Images, N C H W, in the recipe's memory layout."""
        return x.contiguous(memory_format=_memory_format(self.recipe))

    def _loss(self, scores: Tensor, part: Batch) -> Tensor:
        """The mean cross-entropy of a part of a batch, in which the recipe may give images the weights of their class.

        An image of several classes, by mixup or cutmix, has the mean of their weights. What label smoothing gives to
        the other classes has no weight of its own: with a rare class's it would outweigh the image's own class.
        """
        wanted = part.labels if part.targets is None else part.targets
        if self.class_weights is None:
            return tf.cross_entropy(scores, wanted)
        # Not torch's weighted mean, which divides by the weights of the images that happen to be in the part.
        if part.targets is None:
            return tf.cross_entropy(scores.float(), wanted, self.class_weights, reduction="sum") / len(part.labels)
        smoothing = self.recipe.label_smoothing
        sharp = (part.targets - smoothing / part.targets.shape[1]) / (1 - smoothing)
        weights = (sharp * self.class_weights).sum(1)  # no matrix product, which autocast would shorten
        return (weights * tf.cross_entropy(scores.float(), wanted, reduction="none")).mean()

    def _sent_at(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients are exchanged between processes with the last part of a batch only."""
        if last or not isinstance(self.trained, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.trained.no_sync()

    def _update(self) -> None:
        if self.recipe.clip_gradient:
            if self.scaler:
                self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(parameters_of(self.optimiser), self.recipe.clip_gradient)
        if self.scaler:
            self.scaler.step(self.optimiser)
            self.scaler.update()
        else:
            self.optimiser.step()
        if self.average:
            self.average.update()

    @contextlib.contextmanager
    def evaluated(self) -> Iterator[nn.Module]:
        """A context with the network to evaluate and save: with averaged weights if there are any.

        It computes layer by layer as written, even if it was compiled, as it will when its weights are loaded.
        """
        with as_written(self.compiles):
            if self.average:
                self.average.swap()
            try:
                yield self.net
            finally:
                if self.average:
                    self.average.swap()

    def _averages(self) -> dict[str, Tensor]:
        return {f"average.{name}": t for name, t in self.average.tensors.items()} if self.average else {}

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on apart from the network's own state, by name."""
        state = optimiser_state(self.optimiser, self.recipe) | self._averages()
        if self.average:
            state["average_steps"] = torch.tensor(self.average.steps)
        if self.scaler:
            values = self.scaler.state_dict()
            state["scaler.scale"] = torch.tensor(values["scale"], dtype=torch.float64)
            state["scaler.growth"] = torch.tensor(values["_growth_tracker"])
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned. Raises UserError, with nothing restored, if it doesn't fit."""
        kept = wanted_state(self.optimiser, self.recipe)  # before a step there is none
        average = self._averages()
        counts = {"average_steps": torch.tensor(0)} if self.average else {}
        if self.scaler:
            counts |= {"scaler.scale": torch.tensor(0.0), "scaler.growth": torch.tensor(0)}
        wanted = kept | average | counts
        for name, tensor in state.items():
            if name not in wanted:
                raise UserError(f"it has the extra {name}")
            if tensor.shape != wanted[name].shape:
                raise UserError(f"in it {name} is {tuple(tensor.shape)}, not {tuple(wanted[name].shape)}")
            if wrong := value_trouble(name, wanted[name], tensor):
                raise UserError(f"in it {name} {wrong}")
            if name in counts and not (tensor.isfinite() and tensor >= 0):
                raise UserError(f"in it {name} is {tensor.item()}")
        if lacking := [name for name in (*average, *counts) if name not in state]:
            raise UserError(f"it lacks {lacking[0]}")
        check_state(self.optimiser, self.recipe, state)
        restore_optimiser(self.optimiser, self.recipe, state)
        for name, t in average.items():
            t.copy_(state[name])
        if self.average:
            self.average.steps = int(state["average_steps"])
        if self.scaler:
            scaling = {"scale": float(state["scaler.scale"]), "_growth_tracker": int(state["scaler.growth"])}
            self.scaler.load_state_dict(self.scaler.state_dict() | scaling)


def micro_batches(batch: Batch, count: int) -> list[Batch]:
    """The batch in `count` parts whose sizes differ by at most one; fewer if a part would hold a single image.

    Where other processes have shares of it, all have as many parts as the smallest share allows.
    """
    count = max(1, min(count, (batch.smallest or len(batch.labels)) // 2))
    if count == 1:
        return [batch]
    targets = [None] * count if batch.targets is None else batch.targets.tensor_split(count)
    return [
        Batch(*part)
        for part in zip(batch.x.tensor_split(count), batch.labels.tensor_split(count), targets, strict=True)
    ]
