"""What the study `scaling` measures: how a batch passes networks, and whether one of them is the plain net."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as tf

from resnetlab.measuring.propagation import propagation
from resnetlab.studies.frame.measurement import MeasurementContext


def start(subject: MeasurementContext) -> dict[str, Any]:
    """How a batch passes a network that is not trained."""
    return asdict(propagation(subject.built(subject.settings["net"]), *_batch(subject)))


def trained(subject: MeasurementContext) -> dict[str, Any]:
    """How a batch passes a network that is trained."""
    return asdict(propagation(subject.net, *_batch(subject)))


def same(subject: MeasurementContext) -> dict[str, Any]:
    """Whether a network is the plain one as a function: the largest difference of scores and of weights' gradients."""
    # On the CPU, where the same sums are added up in the same order each time.
    net = subject.built(subject.settings["net"]).cpu()
    plain = subject.built(f"cifar_plain{net.spec.depth}").cpu()
    x, labels = (tensor.cpu() for tensor in _batch(subject))
    results = []
    for one in (net, plain):
        scores = one.train()(x)
        gradients = torch.autograd.grad(tf.cross_entropy(scores, labels), list(one.parameters()))
        results.append(torch.cat([scores.detach().flatten(), *(g.flatten() for g in gradients)]))
    return {"numbers": len(results[0]), "largest_difference": float((results[0] - results[1]).abs().max())}


def _batch(subject: MeasurementContext) -> tuple[torch.Tensor, torch.Tensor]:
    return subject.batch(subject.settings["images"], "train")
