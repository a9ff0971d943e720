"""Steps on a GPU, with their batches: on one device, and without waiting for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from made_steps import RECIPES, WAYS, batches, losses
from stand_in_gpu import StandIn

from resnetlab.data.operations import equalize
from resnetlab.training.recipe import Recipe


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_batches_are_made_without_waiting_and_are_the_processors(way: dict[str, Any], gpu: StandIn) -> None:
    wanted = batches(way, "cpu")
    gpu.waits.clear()
    found = batches(way, "cuda")
    # The images, and the results at the end, are moved once.
    assert +gpu.waits == {"copy": 4 + len(found)}
    assert len(found) == len(wanted) >= 6
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("values", RECIPES.values(), ids=RECIPES)
def test_steps_wait_for_nothing_and_are_the_processors(values: dict[str, Any], gpu: StandIn) -> None:
    found = losses(Recipe(**values), "cuda", gpu.waits.clear)
    assert not +gpu.waits
    assert torch.equal(found.cpu(), losses(Recipe(**values), "cpu"))


def test_an_operation_that_counts_and_looks_up_does_not_wait(gpu: StandIn) -> None:
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    there = x.to("cuda")
    wanted = equalize(x)
    gpu.waits.clear()
    found = equalize(there)
    assert gpu.waits["bincount"] + gpu.waits["_local_scalar_dense"] == 0
    assert torch.equal(found.cpu(), wanted)


def test_the_stand_in_has_a_gpus_rules(gpu: StandIn) -> None:
    there, here = torch.arange(4).to("cuda"), torch.arange(4)
    assert str(there.device) == "cuda:0"
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        _ = there + here
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        there.index_select(0, here)
    gpu.waits.clear()
    for wait, name in (
        (lambda: there.sum().item(), "_local_scalar_dense"),
        (lambda: bool(there.any()), "_local_scalar_dense"),
        (lambda: there.cpu(), "copy"),
        (lambda: here.to("cuda"), "copy"),
        (lambda: torch.tensor(1.0, device="cuda"), "copy"),
        (lambda: there.bincount(), "bincount"),
        (lambda: there[there > 1], "index"),
    ):
        wait()
        assert +gpu.waits == {name: 1}, name
        gpu.waits.clear()
    with pytest.raises(AssertionError, match="read before it has arrived"):
        there.to("cpu", non_blocking=True)
    here.pin_memory().to("cuda", non_blocking=True)
    torch.zeros(2, device="cuda")
    assert not +gpu.waits
