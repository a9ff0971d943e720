"""Networks unit by unit: the parts make up the whole, and no measurement changes the network."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from made_nets import made
from torch import Tensor, nn

from resnetlab.errors import UserError
from resnetlab.measuring import boosting, lesion, paths, responses, sensitivity
from resnetlab.measuring.accuracy import accuracy
from resnetlab.measuring.construction import deepened, deviation
from resnetlab.measuring.cost import training_step, unit_cost
from resnetlab.measuring.gates import carries
from resnetlab.measuring.padding import padded_units
from resnetlab.measuring.pixel_gradients import pixel_gradients
from resnetlab.measuring.predictions import log_probabilities
from resnetlab.measuring.propagation import propagation
from resnetlab.measuring.signal import layers_per_unit, predicted, signals
from resnetlab.measuring.starting import first_steps
from resnetlab.measuring.units import keeps_size, steps, without_branch
from resnetlab.nets.net import ResNet
from resnetlab.nets.zoo import on_meta, spec

X, LABELS = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(6)
BATCHES = [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])]
NETS = ["cifar_resnet8", "cifar_plain8", "cifar_preresnet8", "cifar_resnet11(branch='bottleneck', shortcut='B')"]
MEASUREMENTS: dict[str, Callable[[ResNet], object]] = {
    "responses": lambda net: responses.response_stds(net, [X]),
    "branch shares": lambda net: responses.branch_shares(net, [X]),
    "lesion": lambda net: lesion.errors_without_each(net, BATCHES),
    "several lesions": lambda net: lesion.error_of(net, BATCHES, deleted=[0]),
    "paths": lambda net: paths.Unrolled(net, X, LABELS).norm_by_length(1, seed=0),
    "alignments": lambda net: boosting.alignments(net, BATCHES),
    "read-outs": lambda net: boosting.read_outs(net, BATCHES),
    "sensitivity": lambda net: sensitivity.reactions(net, [X], 0.01, seed=0),
    "accuracy": lambda net: accuracy(net, BATCHES),
    "probabilities": lambda net: log_probabilities(net, X).tolist(),
}


@pytest.mark.parametrize("name", NETS)
def test_the_steps_make_up_the_network(name: str) -> None:
    net = made(name)
    taken = list(steps(net, net.stem(X)))
    assert [step.name for step in taken] == [name for name, _ in net.units()]
    assert torch.equal(net.head(taken[-1].unit.f(taken[-1].y)), net(X))


def test_a_unit_that_changes_channels_or_subsamples_does_not_keep_sizes() -> None:
    net = made("cifar_resnet8(stages=[(2, 16), (1, 16, 2), (1, 32)])")
    assert [keeps_size(unit) for _, unit in net.units()] == [True, True, False, False]


@pytest.mark.parametrize("name", [*NETS, "cifar_resnet8(mix=Scale(0.5, 2))"])
def test_without_its_branch_a_unit_hands_on_its_shortcut(name: str) -> None:
    net = made(name)
    for step in steps(net, net.stem(X)):
        if net.spec.is_plain and not keeps_size(step.unit):
            with pytest.raises(ValueError, match="changes sizes"):
                without_branch(step.unit, step.x)
            continue
        features = step.x.relu()  # as they come from a unit before
        x = step.unit.preact(features)
        share = 0.5 if "Scale" in name else 1
        wanted = features if net.spec.is_plain else step.unit.f(share * step.unit.h(x))
        assert torch.equal(without_branch(step.unit, features), wanted)


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_no_measurement_changes_the_network(measure: Callable[[ResNet], object]) -> None:
    net = made("cifar_resnet8").train()
    net.layer2.eval()  # a part that is frozen stays so
    net(X).sum().backward()
    before = snapshot(net)
    measure(net)
    after = snapshot(net)
    assert before[0] == after[0]
    for one, other in zip(before[1], after[1], strict=True):
        assert torch.equal(one, other)


def snapshot(net: nn.Module) -> tuple[list[object], list[Tensor]]:
    """Modes and hooks of every module; every value and gradient."""
    modes: list[object] = [(m.training, len(m._forward_hooks)) for m in net.modules()]
    tensors = [v.clone() for v in net.state_dict().values()]
    return modes, tensors + [p.grad.clone() for p in net.parameters() if p.grad is not None]


GRADIENTS: dict[str, Callable[[ResNet], object]] = {
    "paths": lambda net: paths.Unrolled(net, X, LABELS),
    "alignments": lambda net: boosting.alignments(net, BATCHES),
    "propagation": lambda net: propagation(net, X, LABELS),
    "signals": lambda net: signals(net, X, LABELS),
    "pixel gradients": lambda net: pixel_gradients(net, X, LABELS),
    "first steps": lambda net: first_steps(net, X, LABELS, 0.1, batch=4, window=1, steps=1, seed=0),
    "training step": lambda net: training_step(net, X)(),
}


@pytest.mark.parametrize("measure", GRADIENTS.values(), ids=GRADIENTS)
def test_gradients_are_taken_where_they_are_off_or_refused(measure: Callable[[ResNet], object]) -> None:
    """In inference mode torch would give zeros for some of them."""
    net = made("cifar_resnet8")
    with torch.no_grad():
        measure(net)
    with torch.inference_mode(), pytest.raises(UserError, match="within torch.inference_mode"):
        measure(net)


@pytest.mark.parametrize("name", ["signals", "pixel gradients", "first steps", "training step"])
def test_dropout_of_a_measurement_leaves_torchs_random_state(name: str) -> None:
    net, before = made("cifar_resnet8(mix=DropoutShortcut(0.5))"), torch.get_rng_state()
    GRADIENTS[name](net)
    assert torch.equal(torch.get_rng_state(), before)


OF_UNITS: dict[str, Callable[[ResNet], object]] = {
    **{name: measure for name, measure in MEASUREMENTS.items() if name not in ("accuracy", "probabilities")},
    **{name: GRADIENTS[name] for name in ("paths", "alignments", "propagation")},
    "same-sized units": lesion.same_sized,
    "random deletion": lambda net: lesion.random_deletion(net, 0, random.Random(0)),
    "random swaps": lambda net: lesion.random_swaps(net, 0, random.Random(0)),
    "gates": lambda net: carries(net, X),
    "padding": lambda net: padded_units(net, X),
    "a deeper net": lambda net: deepened(net, [1]),
    "He's recursion": lambda net: predicted(net, X),
    "layers per unit": layers_per_unit,
}


@pytest.mark.parametrize("measure", OF_UNITS.values(), ids=OF_UNITS)
def test_a_network_without_units_is_refused(measure: Callable[[Any], object]) -> None:
    with pytest.raises(UserError, match="vgg16: has no units to measure; give a residual network"):
        measure(on_meta(spec("vgg16")))
    with pytest.raises(UserError, match="Conv2d: has no units to measure"):
        measure(nn.Conv2d(3, 10, 1))
    with pytest.raises(UserError, match="'cifar_resnet8' is no network; give one that build or load returns"):
        measure("cifar_resnet8")


def test_what_needs_a_network_of_ours_says_so() -> None:
    for measure in (lambda net: signals(net, X, LABELS), lambda net: log_probabilities(net, X, whole=True)):
        with pytest.raises(UserError, match="Conv2d: has no units to measure"):
            measure(nn.Conv2d(3, 10, 1))
    with pytest.raises(UserError, match="VGGSpec.* has no units to count"):
        unit_cost(spec("vgg16"))  # type: ignore[arg-type]


LABELLED: dict[str, Callable[[ResNet, object], object]] = {
    "lesion": lesion.errors_without_each,
    "several lesions": lesion.error_of,
    "alignments": boosting.alignments,
    "read-outs": boosting.read_outs,
}


@pytest.mark.parametrize("measure", LABELLED.values(), ids=LABELLED)
@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([(X, LABELS[:, None])], r"labels of shape \(6, 1\)"),
        ([(X, torch.eye(6, 10, dtype=torch.long))], r"labels of shape \(6, 10\)"),
        ([(X, LABELS[:4])], r"labels of shape \(4,\) .* for 6 images"),
        ([(X, LABELS.float())], "float32 for 6 images: give one whole number for each"),
        ([], "no images to measure"),
        ([(X[:0], LABELS[:0])], "no images to measure"),
        (X, "batches is one tensor"),
        ([X[:2]], "a batch is a Tensor: give pairs of images, N C H W, and labels, N"),
        ([(X, LABELS.tolist())], "labels=.*: give images and labels as tensors"),
        ([(X, LABELS > 2)], "torch.bool for 6 images"),
        ([(X[0], LABELS[:3])], r"images of shape \(3, 8, 8\) and torch.float32: give floating-point numbers, N C H W"),
        ([(X, LABELS + 5)], "a label is 10, and the network's 10 classes are numbered from 0 to 9"),
        ([(X, LABELS - 100)], "a label is -100, and"),  # which torch's cross-entropy leaves out
    ],
)
def test_labels_that_are_none_are_refused(
    measure: Callable[[ResNet, object], object], batches: object, words: str
) -> None:
    """Compared with scores, labels of another shape would count one image several times."""
    with pytest.raises(UserError, match=words):
        measure(made("cifar_resnet8"), batches)


def test_labels_of_any_whole_type_are_the_same() -> None:
    net = made("cifar_resnet8")
    for measure in LABELLED.values():
        assert measure(net, [(X, LABELS.to(torch.uint8))]) == measure(net, [(X, LABELS)])


OF_IMAGES: dict[str, Callable[[ResNet, Tensor], object]] = {
    "responses": lambda net, x: responses.response_stds(net, [x]),
    "branch shares": lambda net, x: responses.branch_shares(net, [x]),
    "lesion": lambda net, x: lesion.error_of(net, [(x, LABELS)]),
    "lesions": lambda net, x: lesion.errors_without_each(net, [(x, LABELS)]),
    "alignments": lambda net, x: boosting.alignments(net, [(x, LABELS)]),
    "read-outs": lambda net, x: boosting.read_outs(net, [(x, LABELS)]),
    "sensitivity": lambda net, x: sensitivity.reactions(net, [x], 0.01, seed=0),
    "paths": lambda net, x: paths.Unrolled(net, x, LABELS),
    "propagation": lambda net, x: propagation(net, x, LABELS),
    "pixel gradients": lambda net, x: pixel_gradients(net, x, LABELS),
    "padding": padded_units,
    "deviation": lambda net, x: deviation(net, net, x),
}


@pytest.mark.parametrize("measure", OF_IMAGES.values(), ids=OF_IMAGES)
def test_images_that_the_network_does_not_take_are_refused(measure: Callable[[ResNet, Tensor], object]) -> None:
    """Those of numpy are float64, and most libraries have N H W C."""
    net = made("cifar_resnet8")
    with pytest.raises(UserError, match="images are torch.float64 on cpu, and the network is torch.float32 on cpu"):
        measure(net, X.double())
    with pytest.raises(UserError, match=r"images of shape \(6, 8, 8, 3\) have 8 channels, and the network takes 3"):
        measure(net, X.permute(0, 2, 3, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which converts them
        measure(net, X.bfloat16())


SINGLE: dict[str, Callable[[ResNet, Any, Any], object]] = {
    "paths": paths.Unrolled,
    "propagation": propagation,
    "signals": signals,
    "pixel gradients": pixel_gradients,
}


@pytest.mark.parametrize("measure", SINGLE.values(), ids=SINGLE)
def test_a_batch_that_is_none_is_refused(measure: Callable[[ResNet, Any, Any], object]) -> None:
    net = made("cifar_resnet8")
    for x, labels, words in (
        (X, LABELS[:4], r"labels of shape \(4,\) .* for 6 images"),
        (X, LABELS.float(), "float32 for 6 images"),
        (X, LABELS + 5, "a label is 10, and the network's 10 classes"),
        (X, torch.full((6,), -100), "a label is -100, and"),
        (X[:0], LABELS[:0], "no images to measure: the batch is empty"),
        (X.byte(), LABELS, "and torch.uint8: give floating-point numbers"),
        (X.tolist(), LABELS, "images=.* must be a tensor N C H W"),
    ):
        with pytest.raises(UserError, match=words):
            measure(net, x, labels)


UNLABELLED: dict[str, Callable[[ResNet, Any], object]] = {
    "responses": responses.response_stds,
    "branch shares": responses.branch_shares,
    "sensitivity": lambda net, batches: sensitivity.reactions(net, batches, 0.01, seed=0),
}


@pytest.mark.parametrize("measure", UNLABELLED.values(), ids=UNLABELLED)
def test_batches_of_images_that_are_none_are_refused(measure: Callable[[ResNet, Any], object]) -> None:
    net = made("cifar_resnet8")
    for batches, words in (
        ([], "no images to measure: the batches are empty"),
        ([X[:0]], "no images to measure"),
        (X, "batches is one tensor"),
        (BATCHES, "a batch is a tuple: give images alone, a tensor N C H W, without labels"),
        ([X[0]], r"images of shape \(3, 8, 8\)"),
        ([X.byte()], "torch.uint8: give floating-point numbers"),
    ):
        with pytest.raises(UserError, match=words):
            measure(net, batches)
    assert measure(net, [X[:0], X]) == measure(net, [X])


IMAGES: dict[str, Callable[[Tensor], object]] = {
    "gates": lambda x: carries(made("cifar_resnet8(mix=ExclusiveGate(-2))"), x),
    "padding": lambda x: padded_units(made("cifar_resnet8"), x),
    "a deeper net": lambda x: deepened(made("cifar_plain8"), [2, 1, 1], images=x),
    "deviation": lambda x: deviation(made("cifar_resnet8"), made("cifar_resnet8"), x),
    "He's recursion": lambda x: predicted(made("cifar_plain8(norm='none')"), x),
}


@pytest.mark.parametrize("measure", IMAGES.values(), ids=IMAGES)
def test_images_that_are_none_are_refused(measure: Callable[[Tensor], object]) -> None:
    with pytest.raises(UserError, match="no images to measure: the batch is empty"):
        measure(X[:0])
    with pytest.raises(UserError, match="images of shape"):
        measure(X[0])


def test_scores_that_are_not_finite_are_wrong() -> None:
    """As `accuracy` counts them; the highest of scores that are all NaN would be the first."""
    net = made("cifar_resnet8")
    net.fc.bias.data.fill_(torch.nan)
    batches = [(X, torch.zeros(6, dtype=torch.long))]
    assert lesion.error_of(net, batches) == accuracy(net, batches).error == 100
    assert lesion.errors_without_each(net, batches) == [100] * 3
    assert [found.error for found in boosting.read_outs(net, batches)] == [100] * 4


def test_a_network_without_an_answer_has_the_error_of_its_first_class() -> None:
    """Not that of `accuracy`, 0, which would say that nothing was lost."""
    net = made("cifar_resnet8")
    net.fc.weight.data.zero_()
    net.fc.bias.data.zero_()
    assert lesion.error_of(net, BATCHES) == pytest.approx(100 * 5 / 6)
    assert accuracy(net, BATCHES).error == 0


@pytest.mark.parametrize("measure", MEASUREMENTS.values(), ids=MEASUREMENTS)
def test_a_measurement_is_the_same_twice_and_in_either_mode(measure: Callable[[ResNet], object]) -> None:
    net = made("cifar_resnet8")
    assert measure(net) == measure(net) == measure(net.train())
