"""A mix of one's own, added as CONTRIBUTING.md says under "Adding a mix": it builds, trains, is described, measured."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from resnetlab.cli.main import main
from resnetlab.data.loading import Batch
from resnetlab.errors import UserError
from resnetlab.measuring.propagation import shortcut_scale
from resnetlab.measuring.responses import branch_shares
from resnetlab.measuring.units import steps
from resnetlab.nets.mixing import MIXES, parse_mix
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import build, spec
from resnetlab.training.optimiser import make_optimiser
from resnetlab.training.recipe import Recipe
from resnetlab.training.step import Stepper


@dataclass(frozen=True)
class Normed:
    """y = √(1 − w)·h + √w·F: the variance is kept where h and F have the same and are independent."""

    w: float = 0.5

    def part(self, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
        return None

    def __call__(self, h: Tensor, F: Tensor, x: Tensor, part: nn.Module | None) -> Tensor:
        return (1 - self.w) ** 0.5 * h + self.w**0.5 * F


NET = "cifar_resnet8(mix=Normed(0.25))"


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The row of the table that a mix needs."""
    monkeypatch.setitem(MIXES, "Normed", Normed)  # type: ignore[arg-type]


@pytest.fixture
def net() -> ResNet:
    made = build(NET, seed=0)
    assert isinstance(made, ResNet)
    return made


def test_it_is_read_and_written_as_text() -> None:
    assert parse_mix("Normed(0.25)") == Normed(0.25)
    assert spec(NET).to_dict()["mix"] == "Normed(w=0.25)"
    assert spec("cifar_resnet8", mix=Normed(0.25)) == spec(NET).override(name=spec("cifar_resnet8").name)
    with pytest.raises(UserError, match="write Normed\\(w\\) with numbers"):
        parse_mix("Normed(1, 2)")


def test_a_network_with_it_trains(net: ResNet) -> None:
    recipe, before = Recipe(), {name: p.detach().clone() for name, p in net.named_parameters()}
    step = Stepper(net.train(), make_optimiser(net, recipe), recipe, "cpu")
    result = step(Batch(torch.randn(4, 3, 16, 16), torch.arange(4), None), 0.1)
    assert torch.isfinite(result.loss)
    assert all(not torch.equal(before[name], p) for name, p in net.named_parameters())


def test_it_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", NET, "--json"]) == 0
    assert "Normed(w=0.25)" in json.dumps(json.loads(capsys.readouterr().out))


def test_it_is_measured(net: ResNet) -> None:
    x = torch.randn(2, 3, 16, 16)
    for one in steps(net.eval(), net.stem(x)):
        torch.testing.assert_close(one.y, 0.75**0.5 * one.h + 0.5 * one.F)
    assert all(share is not None and share > 0 for share in branch_shares(net, [x]).values())
    with pytest.raises(UserError, match=r"Normed\(w=0.25\): its shortcut has no constant scale"):
        shortcut_scale(net.spec.mix)
