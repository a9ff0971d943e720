"""The gradient of the loss with respect to the pixels."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from resnetlab.measuring.units import check_batch, cross_entropy, own_draws, taking_gradients


def pixel_gradients(net: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """∂E/∂x of the batch's mean cross-entropy E at images x (N C H W, labels N): N C H W.

    As a training step would see it: batch norm takes the statistics of the batch, so that one image's gradient
    depends a little on the others. Computed on a copy; the network itself is left as it is.
    """
    labels = check_batch(x, labels, net)
    net = copy.deepcopy(net).train().requires_grad_(False)
    x = x.detach().clone().requires_grad_()
    with taking_gradients(), own_draws(x):
        (gradients,) = torch.autograd.grad(cross_entropy(net(x), labels), x)
    return gradients
