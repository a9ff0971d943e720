"""A batch that does not fit goes through in halves, and gives what it gives in one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.halving import in_halves

NO_MEMORY = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 1024 bytes."


def of_at_most(most: int, sizes: list[int]) -> nn.Module:
    """A network that memory suffices for with so many images."""

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            if len(x) > most:
                raise RuntimeError(NO_MEMORY)
            return x.flatten(1)[:, :4]

    return Net()


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10])
def test_halves_give_the_whole(most: int) -> None:
    x, labels = torch.randn(10, 1, 3, 3), torch.arange(10) % 4
    sizes: list[int] = []
    net = of_at_most(most, sizes)
    assert torch.equal(torch.cat(in_halves(net, x)), x.flatten(1)[:, :4])
    fitting = [size for size in sizes if size <= most]
    assert sum(fitting) == 10
    found, wanted = accuracy(net, [(x, labels)]), accuracy(of_at_most(10, []), [(x, labels)])
    assert replace(found, loss=0) == replace(wanted, loss=0)
    assert found.loss == pytest.approx(wanted.loss, rel=1e-5)


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        in_halves(of_at_most(0, []), torch.zeros(4, 1, 3, 3))


def test_other_errors_are_not_tried_again() -> None:
    calls: list[int] = []

    def wrong(x: Tensor) -> Tensor:
        calls.append(len(x))
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        in_halves(wrong, torch.zeros(4, 1))
    assert calls == [4]
