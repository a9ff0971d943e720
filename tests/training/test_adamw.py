"""AdamW: the update is that of Loshchilov & Hutter, its decay is decoupled, and a run with it resumes to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build
from resnetlab.training.distributed import Distributed
from resnetlab.training.launch import launch
from resnetlab.training.optimiser import make_optimiser, tensors_per_weight
from resnetlab.training.recipe import Recipe
from resnetlab.training.recipes import recipe
from resnetlab.training.step import Stepper, make_stepper

ADAMW = Recipe(optimiser="adamw", lr=0.001, weight_decay=0.05)


def stepper(values: Recipe) -> Stepper:
    net = build("cifar_resnet8", seed=0)
    return Stepper(net, make_optimiser(net, values), values, "cpu")


def batches(count: int) -> list[Batch]:
    draws = torch.Generator().manual_seed(1)
    return [
        Batch(torch.randn(8, 3, 32, 32, generator=draws), torch.randint(0, 10, (8,), generator=draws), None)
        for _ in range(count)
    ]


def by_hand(w: Tensor, gradients: list[Tensor], lr: float, decay: float) -> Tensor:
    """Loshchilov & Hutter 2019, algorithm 2, in double precision."""
    w, m, v = w.double(), torch.zeros(w.shape).double(), torch.zeros(w.shape).double()
    for t, g in enumerate(map(Tensor.double, gradients), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - lr * (m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8) + decay * w)
    return w


def test_it_is_the_update_of_the_paper_whose_decay_is_no_part_of_the_gradient() -> None:
    net = build("cifar_resnet8", seed=0)
    optimiser = make_optimiser(net, ADAMW)
    weight = net.get_parameter("layer1.0.conv1.weight")
    before = weight.detach().clone()
    gradients = [torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimiser.step()
    torch.testing.assert_close(weight.detach(), by_hand(before, gradients, 0.001, 0.05).float())
    # A gradient of any size gives a step of the same size, so a decay in the gradient would vanish beside a large one.
    grown = by_hand(before, [1000 * g for g in gradients], 0.001, 0.05).float()
    torch.testing.assert_close(weight.detach(), grown, atol=1e-6, rtol=1e-4)


def test_decay_and_rates_are_by_group_as_with_sgd() -> None:
    net = build("cifar_resnet8", seed=0)
    groups = make_optimiser(net, ADAMW.override(decay="weights", layer_decay=0.5)).param_groups
    assert {g["weight_decay"] for g in groups} == {0.0, 0.05}
    assert {g["lr_factor"] for g in groups} == {1.0, 0.5, 0.25, 0.125, 0.0625}
    assert {(g["betas"], g["eps"]) for g in groups} == {((0.9, 0.999), 1e-8)}, "Kingma & Ba 2015, algorithm 1"
    (group, *_) = make_optimiser(net, ADAMW.override(momentum=0.8)).param_groups
    assert group["betas"] == (0.8, 0.999)


def test_what_it_keeps_is_restored_to_the_bit() -> None:
    first, second = stepper(ADAMW), stepper(ADAMW)
    three = batches(3)
    for batch in three[:2]:
        first(batch, 0.001)
    second.net.load_state_dict(first.net.state_dict())
    second.restore({name: t.clone() for name, t in first.state().items()})
    for each in (first, second):
        each(three[2], 0.001)
    assert all(torch.equal(a, b) for a, b in zip(first.net.parameters(), second.net.parameters(), strict=True))
    assert len(first.state()) == 3 * sum(1 for _ in first.net.parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"exp_avg.1": None}, "it lacks exp_avg.1"),
        ({"step.0": torch.tensor(0.0)}, "step.0 is 0.0"),
        ({"exp_avg_sq.2": "negative"}, "exp_avg_sq.2 is negative"),
        ({"momentum.0": torch.tensor(0.0)}, "it has the extra momentum.0"),
        ({"step.0": torch.tensor([1.0])}, r"step.0 is \(1,\), not \(\)"),
        ({"step.0": torch.tensor(float("nan"))}, "step.0 is not finite"),
    ],
)
def test_a_state_that_no_step_leaves_is_refused(change: dict[str, object], message: str) -> None:
    made = stepper(ADAMW)
    made(batches(1)[0], 0.001)
    state = made.state()
    for name, value in change.items():
        if value is None:
            del state[name]
        else:
            if value == "negative":
                state[name] = state[name].clone()
                state[name].view(-1)[0] = -1
            else:
                state[name] = value  # type: ignore[assignment]
    with pytest.raises(UserError, match=message):
        made.restore(state)


def test_what_is_restored_replaces_what_was_there_and_is_a_copy_in_the_weights_layout() -> None:
    values = ADAMW.override(channels_last=True)
    first, second = (make_stepper(build("cifar_resnet8", seed=0), values, "cpu") for _ in range(2))
    before_a_step = first.state()
    first(batches(1)[0], 0.001)
    state = {name: t.contiguous().clone() for name, t in first.state().items()}
    given = {name: t.clone() for name, t in state.items()}
    second.restore(state)
    weight = second.net.get_parameter("layer1.0.conv1.weight")
    assert second.optimiser.state[weight]["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    second(batches(1)[0], 0.001)
    assert all(torch.equal(state[name], t) for name, t in given.items())
    second.restore(before_a_step)
    assert second.state().keys() == before_a_step.keys() == set()


@pytest.mark.parametrize(
    ("steps", "message"),
    [(-1, "average_steps is -1"), (float("nan"), "average_steps is nan"), (None, "it lacks average_steps")],
)
def test_a_count_of_averaged_steps_that_can_not_be_is_refused(steps: float | None, message: str) -> None:
    made = stepper(ADAMW.override(ema=0.9))
    made(batches(1)[0], 0.001)
    state = {name: t for name, t in made.state().items() if name != "average_steps"}
    if steps is not None:
        state["average_steps"] = torch.tensor(steps)
    with pytest.raises(UserError, match=message):
        made.restore(state)


def test_a_recipe_with_nesterov_momentum_loses_it_unless_it_is_asked_for() -> None:
    assert recipe("finetune").nesterov
    assert not recipe("finetune", optimiser="adamw").nesterov
    with pytest.raises(UserError, match="leave it out with optimiser='adamw'"):
        recipe("finetune", optimiser="adamw", nesterov=True)


def test_rates_that_look_like_those_of_sgd_are_told(tmp_path: Path) -> None:
    def told(**changes: object) -> list[str]:
        return launch(recipe("digits", **changes), tmp_path, Distributed(), device="cpu").warnings()

    assert told() == told(optimiser="adamw", lr=0.001, weight_decay=0.05) == []
    assert told(optimiser="adamw", lr=0.001, weight_decay=0.0) == []
    (line,) = told(optimiser="adamw")
    assert line.startswith("lr=0.05 and weight_decay=0.0001 look like SGD's; with optimiser=adamw, --lr is usually")


def test_the_dry_run_counts_what_each_keeps() -> None:
    kept = [tensors_per_weight(Recipe(optimiser=name)) for name in ("sgd", "muon", "adamw")]  # type: ignore[arg-type]
    assert kept == [1, 1, 2]
    without = [tensors_per_weight(Recipe(optimiser=name, momentum=0.0)) for name in ("sgd", "muon", "adamw")]  # type: ignore[arg-type]
    assert without == [0, 1, 2]
