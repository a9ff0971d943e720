"""Costs: counted against hand-made sums, timed without changing what is timed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from resnetlab.errors import UserError
from resnetlab.measuring.complexity import complexity
from resnetlab.measuring.cost import (
    cuda_peak_bytes,
    forward_pass,
    interleaved,
    network_costs,
    training_step,
    unit_cost,
)
from resnetlab.nets.spec import NetSpec, StageSpec
from resnetlab.nets.zoo import build, spec


def test_a_unit_costs_what_its_convolutions_do() -> None:
    found = unit_cost(NetSpec(stages=(StageSpec(1, 64),), stem_width=256, branch="bottleneck", input_size=56))
    weights = 256 * 64 + 9 * 64 * 64 + 64 * 256
    assert (found.weights, found.multiply_adds) == (weights, weights * 56 * 56)
    # A batch norm keeps its input and a ReLU its output, on 64, 64 and 256 channels; each convolution takes a ReLU's.
    assert found.training_bytes == 4 * 56 * 56 * (2 * 64 + 2 * 64 + 2 * 256)


def test_a_unit_that_projects_costs_its_projection_too() -> None:
    plain = NetSpec(stages=(StageSpec(2, 8),), stem_width=8, input_size=8)
    projecting = plain.override(shortcut="C")
    assert unit_cost(projecting).weights - unit_cost(plain).weights == 8 * 8


def test_networks_are_counted_and_timed_in_every_round() -> None:
    specs = [spec("cifar_resnet8", input_size=8), spec("cifar_resnet8", shortcut="C", input_size=8)]
    found = network_costs(specs, batch=2, rounds=3, training=True)
    for one, cost in zip(specs, found, strict=True):
        counted = complexity(one)
        assert (cost.parameters, cost.multiply_adds) == (counted.parameters, counted.multiply_adds)
        assert (cost.batch, len(cost.seconds), cost.peak_bytes) == (2, 3, None)
        assert min(cost.seconds) > 0


@pytest.mark.parametrize("changes", [{"batch": 0}, {"rounds": 0}])
def test_nothing_to_time_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(UserError, match="=0 must be 1 or more"):
        network_costs([spec("cifar_resnet8", input_size=8)], **{"batch": 2, "rounds": 1, **changes}, training=False)


@pytest.mark.parametrize("make", [training_step, forward_pass])
def test_what_is_timed_is_a_copy(make: object) -> None:
    net = build("cifar_resnet8", seed=0).train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    x = torch.randn(2, 3, 8, 8)
    call = make(net, x)  # type: ignore[operator]
    call()
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert net.training


def test_a_step_computes_gradients_of_weights_and_of_an_input_that_asks() -> None:
    seen: list[str] = []

    class Noting(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                self.weight.register_hook(lambda _: seen.append("weight"))
                if x.requires_grad:
                    x.register_hook(lambda _: seen.append("input"))
            return super().forward(x)

    conv = Noting(1, 1, 1)
    training_step(conv, torch.ones(1, 1, 2, 2))()
    assert seen == ["weight"]
    training_step(conv, torch.ones(1, 1, 2, 2, requires_grad=True))()
    assert sorted(seen[1:]) == ["input", "weight"]


@pytest.mark.parametrize(("make", "training"), [(training_step, True), (forward_pass, False)])
def test_calls_repeat_the_same_work(make: object, training: bool) -> None:
    """Each finds the mode it is meant for, the same weights, and no gradient of the call before."""
    seen: list[tuple[bool, bool, float, bool]] = []

    class Noting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight, fresh = float(self.weight.detach().sum()), self.weight.grad is None and x.grad is None
            seen.append((self.training, torch.is_grad_enabled(), weight, fresh))
            return super().forward(x)

    net = Noting(2, 3).train(not training)
    call = make(net, torch.ones(4, 2, requires_grad=True))  # type: ignore[operator]
    seen.clear()  # of what tells it the shape of the scores
    for _ in range(3):
        call()
    assert seen == [(training, training, float(net.weight.detach().sum()), True)] * 3


def test_calls_are_taken_in_turn_after_one_that_is_not_counted() -> None:
    order: list[str] = []
    taken = interleaved([lambda: order.append("a"), lambda: order.append("b")], rounds=2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert [len(seconds) for seconds in taken] == [2, 2]


@pytest.mark.parametrize(("device", "backend"), [("cuda:1", "cuda"), ("mps", "mps")])
def test_a_gpu_is_waited_for_before_and_after_each_call(
    device: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    monkeypatch.setattr(f"torch.{backend}.synchronize", lambda *_: order.append("waited"))
    interleaved([lambda: order.append("called")], rounds=2, device=device)
    assert order == ["called", *2 * ["waited", "called", "waited"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_peak_on_a_gpu_is_beyond_what_was_held() -> None:
    kept = torch.zeros(2**20, device="cuda")
    peak = cuda_peak_bytes(lambda: torch.zeros(2**20, device="cuda").sum().item(), "cuda")  # type: ignore[arg-type,return-value]
    assert peak is not None
    assert 2**22 <= peak < 2**23
    assert kept.numel() == 2**20
