"""The optimiser of a recipe: SGD with momentum, Muon or AdamW, and what a checkpoint keeps of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.training.layer_groups import lr_factors
from resnetlab.training.muon import Muon, turned_weights
from resnetlab.training.recipe import Recipe

# AdamW's usual constants (Kingma & Ba 2015): the decay of the average of squared gradients, and the term added to its
# root. The decay of the average of gradients is the recipe's momentum.
BETA2, EPSILON = 0.999, 1e-8
USUAL_LR, USUAL_DECAY = (1e-5, 5e-3), 1e-3  # AdamW: rates outside this range, and lower decays, are likely SGD's


class _Kept(NamedTuple):
    """State that torch keeps for a parameter: its key, its name in a checkpoint, and whether it is a single number."""

    key: str
    name: str
    scalar: bool = False


_MOMENTUM = (_Kept("momentum_buffer", "momentum"),)
_MOMENTS = (_Kept("exp_avg", "exp_avg"), _Kept("exp_avg_sq", "exp_avg_sq"), _Kept("step", "step", scalar=True))
KEPT: dict[str, tuple[_Kept, ...]] = {"sgd": _MOMENTUM, "muon": _MOMENTUM, "adamw": _MOMENTS}  # by the recipe's name


def make_optimiser(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser, with weight decay λ on the parameters that the recipe chooses.

    sgd: v := μv + g + λw, w := w − lr·v. muon (muon.py) turns the units' convolutions that a batch norm follows, at its
    own rate, and leaves the rest to SGD. adamw (Loshchilov & Hutter 2019): w := w − lr·(λw + m̂/(√v̂ + ε)), where m̂ and
    v̂ are the bias-corrected averages of g and g²; the decay is not part of the gradient. Each group has an `lr_factor`,
    by which a step multiplies lr. Frozen parameters are in no group.
    """
    factors = lr_factors(net, recipe.layer_decay)
    turned: set[nn.Parameter] = set()
    if recipe.optimiser == "muon":
        turned = turned_weights(net)
        factors |= {weight: factors[weight] * recipe.muon_lr / recipe.lr for weight in turned}
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for p in net.parameters():
        if p.requires_grad:
            decayed = recipe.decay == "all" or p.ndim > 1
            groups.setdefault((factors[p], decayed, p in turned), []).append(p)
    described: list[dict[str, Any]] = [
        {
            "params": found,
            "lr_factor": factor,
            "weight_decay": recipe.weight_decay if decayed else 0.0,
            "orthogonal": orthogonal,
        }
        for (factor, decayed, orthogonal), found in groups.items()
    ]
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(described, lr=recipe.lr, betas=(recipe.momentum, BETA2), eps=EPSILON)
    kind = Muon if turned else torch.optim.SGD
    return kind(described, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def tensors_per_weight(recipe: Recipe) -> int:
    """The number of tensors that the optimiser keeps for each weight, in its shape."""
    if recipe.optimiser == "sgd" and not recipe.momentum:
        return 0
    return sum(not one.scalar for one in KEPT[recipe.optimiser])


def unusual_rates(recipe: Recipe) -> str:
    """A line about rates that look like another optimiser's, e.g. a named recipe's; "" if none does."""
    low, high = USUAL_LR
    odd = [f"lr={recipe.lr:g}"] if not low <= recipe.lr <= high else []
    odd += [f"weight_decay={recipe.weight_decay:g}"] if 0 < recipe.weight_decay < USUAL_DECAY else []
    if recipe.optimiser != "adamw" or not odd:
        return ""
    return (
        f"{' and '.join(odd)} {'look' if len(odd) > 1 else 'looks'} like SGD's; with optimiser=adamw, --lr is usually "
        "0.001 from scratch and 0.0001 for fine-tuning, and --weight-decay 0.05"
    )


def optimiser_state(optimiser: torch.optim.Optimizer, recipe: Recipe) -> dict[str, Tensor]:
    """The optimiser's state for the next step, by the names of a checkpoint; empty before the first step."""
    state: dict[str, Tensor] = {}
    for i, p in enumerate(parameters_of(optimiser)):
        for kept in KEPT[recipe.optimiser]:
            tensor = optimiser.state.get(p, {}).get(kept.key)
            if tensor is not None:
                state[f"{kept.name}.{i}"] = tensor.detach()
    return state


def wanted_state(optimiser: torch.optim.Optimizer, recipe: Recipe) -> dict[str, Tensor]:
    """All names that `optimiser_state` may return, each with a tensor of the right shape and type."""
    return {
        f"{kept.name}.{i}": torch.tensor(0.0) if kept.scalar else p
        for i, p in enumerate(parameters_of(optimiser))
        for kept in KEPT[recipe.optimiser]
    }


def check_state(optimiser: torch.optim.Optimizer, recipe: Recipe, state: dict[str, Tensor]) -> None:
    """Raise UserError for values that no optimiser could have written; names and shapes have been checked."""
    for i in range(len(parameters_of(optimiser))):
        names = [f"{kept.name}.{i}" for kept in KEPT[recipe.optimiser]]
        if (there := [name for name in names if name in state]) and len(there) < len(names):
            raise UserError(f"it lacks {next(name for name in names if name not in state)}")
    for name, tensor in state.items():
        if name.startswith("exp_avg_sq.") and (tensor < 0).any():
            raise UserError(f"in it {name} is negative")
        if name.startswith("step.") and not tensor >= 1:
            raise UserError(f"in it {name} is {tensor.item()}")


def restore_optimiser(optimiser: torch.optim.Optimizer, recipe: Recipe, state: dict[str, Tensor]) -> None:
    """Restore what `optimiser_state` returned, already checked, each tensor in its parameter's memory layout."""
    optimiser.state.clear()
    for i, p in enumerate(parameters_of(optimiser)):
        for kept in KEPT[recipe.optimiser]:
            name = f"{kept.name}.{i}"
            if name not in state:
                continue
            if kept.scalar:  # which torch counts on the processor
                tensor = state[name].detach().to("cpu", torch.float32, copy=True)
            else:
                tensor = torch.empty_like(p).copy_(state[name]).detach()
            optimiser.state[p][kept.key] = tensor


def parameters_of(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    """The parameters that it updates, in the order of its groups."""
    return [p for group in optimiser.param_groups for p in group["params"]]
