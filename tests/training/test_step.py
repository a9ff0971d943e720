"""A training step equals SGD written out by hand; accumulation and clipping equal their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.nets.zoo import build
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import Stepper, make_stepper, micro_batches


@pytest.mark.parametrize("decay", ["all", "weights"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_three_steps_equal_the_formula(decay: str, nesterov: bool) -> None:
    torch.manual_seed(0)
    net = nn.Linear(5, 3).double()
    recipe = Recipe(lr=0.1, momentum=0.9, weight_decay=0.01, decay=decay, nesterov=nesterov)  # type: ignore[arg-type]
    step = Stepper(net, make_optimiser(net, recipe), recipe, "cpu")
    w, b = net.weight.detach().clone(), net.bias.detach().clone()
    v, vb = torch.zeros_like(w), torch.zeros_like(b)
    for lr in (0.1, 0.1, 0.01):
        x, labels = torch.randn(7, 5).double(), torch.randint(0, 3, (7,))
        p = torch.softmax(x @ w.T + b, 1)
        wrong = int((p.argmax(1) != labels).sum())
        error = p - nn.functional.one_hot(labels, 3)
        g = error.T @ x / 7 + 0.01 * w
        gb = error.mean(0) + (0.01 * b if decay == "all" else 0)
        v, vb = 0.9 * v + g, 0.9 * vb + gb
        w = w - lr * (g + 0.9 * v if nesterov else v)
        b = b - lr * (gb + 0.9 * vb if nesterov else vb)
        result = step(Batch(x, labels, None), lr)
        assert int(result.wrong) == wrong
        assert float(result.loss) == pytest.approx(float(-p[range(7), labels].log().sum()))
    torch.testing.assert_close(net.weight.detach(), w)
    torch.testing.assert_close(net.bias.detach(), b)


def test_decay_of_weights_leaves_batch_norm_and_biases() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = make_optimiser(net, Recipe(decay="weights")).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 1e-4), (3, 0.0)]
    groups = make_optimiser(net, Recipe(decay="all")).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(4, 1e-4)]


def some_batches(count: int = 3, size: int = 12, soft: bool = False) -> list[Batch]:
    draws = torch.Generator().manual_seed(5)
    found = []
    for _ in range(count):
        x = torch.randn(size, 3, 16, 16, generator=draws)
        labels = torch.randint(0, 10, (size,), generator=draws)
        targets = torch.rand(size, 10, generator=draws).softmax(1) if soft else None
        found.append(Batch(x, labels, targets))
    return found


def trained(recipe: Recipe, batches: list[Batch], net: str = "cifar_resnet8") -> tuple[Stepper, dict[str, Tensor]]:
    """The stepper after a step on each batch, and the network's state."""
    made = build(net, seed=1).train()
    step = Stepper(made, make_optimiser(made, recipe), recipe, "cpu")
    torch.manual_seed(3)
    for batch in batches:
        step(batch, 0.1)
    return step, made.state_dict()


@pytest.mark.parametrize("soft", [False, True])
def test_with_every_switch_off_the_weights_are_those_of_the_plain_loop_to_the_last_bit(soft: bool) -> None:
    recipe = Recipe(weight_decay=0.01)
    _, found = trained(recipe, some_batches(soft=soft))
    net = build("cifar_resnet8", seed=1).train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for x, labels, targets, *_ in some_batches(soft=soft):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x), labels if targets is None else targets).backward()
        optimiser.step()
    assert all(torch.equal(found[name], t) for name, t in net.state_dict().items())


@pytest.mark.parametrize("last", [False, True])
def test_weights_of_convolutions_have_the_recipes_memory_layout(last: bool) -> None:
    step = make_stepper(build("cifar_resnet8", seed=1), Recipe(channels_last=last), "cpu")
    weight = step.net.get_parameter("layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    assert step.laid_out(torch.zeros(2, 3, 4, 4)).stride() == ((48, 1, 12, 3) if last else (48, 16, 4, 1))


@pytest.mark.parametrize(("images", "parts", "sizes"), [(12, 3, [4, 4, 4]), (11, 3, [4, 4, 3]), (5, 4, [3, 2])])
def test_parts_differ_by_one_image_at_most_and_none_holds_a_single_one(
    images: int, parts: int, sizes: list[int]
) -> None:
    batch = some_batches(1, images, soft=True)[0]
    found = micro_batches(batch, parts)
    assert [len(part.labels) for part in found] == sizes
    for got, whole in zip(zip(*(part[:3] for part in found), strict=True), batch[:3], strict=True):
        assert torch.equal(torch.cat(got), whole)


def test_a_process_with_a_larger_share_makes_as_many_parts_as_the_smallest_allows() -> None:
    """Processes exchange gradients with each last part, and batch norm's sums within each: all need as many."""
    batch = some_batches(1, 8)[0]
    assert [len(micro_batches(batch._replace(smallest=n), 3)) for n in (0, 8, 5, 3, 2)] == [3, 3, 2, 1, 1]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("parts", [2, 3, 4])
def test_accumulation_over_uneven_parts_equals_the_large_batch(parts: int, soft: bool) -> None:
    """Without batch norm, in double precision; 11 images in 2, 3 or 4 parts."""
    batches, results, states = some_batches(3, 11, soft), [], []
    for accumulate in (1, parts):
        net = build("cifar_resnet8(norm=none)", seed=1).double()
        recipe = Recipe(accumulate=accumulate)
        step = Stepper(net, make_optimiser(net, recipe), recipe, "cpu")
        doubles = [Batch(b.x.double(), b.labels, None if b.targets is None else b.targets.double()) for b in batches]
        results.append([step(batch, 0.01) for batch in doubles])
        states.append(net.state_dict())
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(several, one)
    torch.testing.assert_close(states[1], states[0])


def test_batch_norm_sees_the_parts_one_by_one() -> None:
    step, _ = trained(Recipe(accumulate=3), some_batches(2))
    assert int(step.net.bn1.num_batches_tracked) == 6  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0.05, 1e4])
def test_the_gradient_is_cut_to_its_largest_norm(limit: float) -> None:
    net, plain = build("cifar_resnet8", seed=1), build("cifar_resnet8", seed=1)
    batch = some_batches(1)[0]
    recipe = Recipe(clip_gradient=limit, weight_decay=0, momentum=0)
    Stepper(net, make_optimiser(net, recipe), recipe, "cpu")(batch, 1.0)
    nn.functional.cross_entropy(plain(batch.x), batch.labels).backward()
    gradients = [p.grad for p in plain.parameters() if p.grad is not None]
    norm = float(torch.cat([g.flatten() for g in gradients]).norm())
    assert 0.05 < norm < 1e4
    for p, q, g in zip(plain.parameters(), net.parameters(), gradients, strict=True):
        torch.testing.assert_close(q.detach(), p.detach() - min(1, limit / norm) * g)


SWITCHES: list[dict[str, Any]] = [
    {},
    {"precision": "bf16"},
    {"precision": "fp16", "clip_gradient": 1.0},
    {"accumulate": 3},
    {"ema": 0.9},
    {"checkpoint_activations": True},
    {"channels_last": True, "precision": "bf16", "accumulate": 2, "ema": 0.99, "checkpoint_activations": True},
]


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_a_restored_stepper_goes_on_to_the_same_bits(switches: dict[str, Any]) -> None:
    """And the whole, run twice, gives the same bits: every switch is reproducible on a CPU."""
    recipe, batches = Recipe(**switches), some_batches(3, 6)
    unbroken, wanted = trained(recipe, batches)
    first, half = trained(recipe, batches[:1])
    net = build("cifar_resnet8", seed=9)
    net.load_state_dict(half)
    net.train()
    second = Stepper(net, make_optimiser(net, recipe), recipe, "cpu")
    second.restore({name: t.clone() for name, t in first.state().items()})
    for batch in batches[1:]:
        second(batch, 0.1)
    assert all(torch.equal(t, wanted[name]) for name, t in net.state_dict().items())
    left, right = second.state(), unbroken.state()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"accumulate": 65}, "accumulate=65: a batch of 128 has fewer than two images per part"),
        ({"accumulate": 0}, "accumulate=0 must be 1 to"),
        ({"ema": 1}, "ema=1.0 must be at least 0 .none. and below 1"),
        ({"clip_gradient": -1}, "clip_gradient=-1.0 must be 0"),
        (
            {"precision": "fp61"},
            "precision='fp61' is not known: choose one of auto, fp32, bf16, fp16. Did you mean fp16",
        ),
        ({"channels_last": "aut"}, "channels_last='aut' must be true or false or auto"),
    ],
)
def test_fields_that_can_not_be_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Recipe(**fields)
