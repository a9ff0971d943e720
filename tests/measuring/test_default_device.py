"""A caller whose new tensors go to another device, as by torch.set_default_device("cuda"), measures the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from made_nets import made

from resnetlab.measuring.autocorrelation import white_noise
from resnetlab.measuring.calibration import reliability
from resnetlab.measuring.cost import training_step
from resnetlab.measuring.fully_connected import Variant, gaussian_points, input_gradients
from resnetlab.measuring.propagation import propagation
from resnetlab.measuring.responses import branch_shares, response_stds
from resnetlab.measuring.sensitivity import reactions
from resnetlab.measuring.signal import predicted
from resnetlab.measuring.starting import first_steps
from resnetlab.nets import zoo
from resnetlab.nets.net import ResNet

NET, PLAIN = made("cifar_resnet8"), made("cifar_plain8(norm=none)")
X, LABELS = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(2)
POINTS = gaussian_points(0)
CALLS: dict[str, Callable[[], object]] = {
    "responses": lambda: response_stds(NET, [X]),
    "shares": lambda: branch_shares(NET, [X]),
    "reactions": lambda: reactions(NET, [X], 0.1, seed=0),
    "propagation": lambda: propagation(NET, X, LABELS),
    "predicted": lambda: predicted(PLAIN, X),
    "first steps": lambda: first_steps(NET, X, LABELS, 0.1, batch=2, window=1, steps=1, seed=0),
    "reliability": lambda: reliability(X[0, 0, 0], X[0, 0, 0] > 0.5),
    "noise": lambda: white_noise((3,), 0).tolist(),
    "points": lambda: gaussian_points(0).sum().item(),
    "gradients": lambda: input_gradients(Variant("none", skip=True), 2, POINTS, 0).values.sum().item(),
    "step": lambda: training_step(NET, X)(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_measurements_do_not_depend_on_the_default_device(call: Callable[[], object]) -> None:
    expected = call()
    with torch.device("meta"):
        assert call() == expected


def test_a_network_is_drawn_on_the_cpu_and_put_on_the_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU takes no random numbers of the processor's generator."""
    drawn_on = []

    def initialise(net: ResNet, seed: int | None) -> None:
        drawn_on.extend({value.device.type for value in net.state_dict().values()})

    monkeypatch.setattr(zoo, "initialise", initialise)
    with torch.device("meta"):
        net = zoo.build("cifar_resnet8", seed=0)
    assert drawn_on == ["cpu"]
    assert {value.device.type for value in net.state_dict().values()} == {"meta"}
