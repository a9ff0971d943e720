"""Answers: the fully convolutional form is the network itself; averages and counts against numbers made by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor, nn

from resnetlab.measuring.predictions import Predictions, average, log_probabilities, over_views, scores_over_places
from resnetlab.nets.net import ResNet
from resnetlab.nets.vgg import VGG
from resnetlab.nets.zoo import build, on_meta, spec

NETS = [
    "resnet18(shortcut=A)",
    "resnet50",
    "plain18",
    "resnet18(order=full_preact)",
    "cifar_resnet8",
    "cifar_preresnet11",
    "vgg16",
]


def made(name: str) -> ResNet | VGG:
    """With batch norm's statistics as after a training, not 0 and 1."""
    net = build(name, num_classes=3).eval()
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.running_mean, -0.5, 0.5)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    return net


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NETS)
@torch.inference_mode()
def test_the_fully_convolutional_form_gives_exactly_the_one_crop_answer(name: str) -> None:
    torch.manual_seed(0)
    net = made(name)
    x = images(2, 3, net.spec.input_size, net.spec.input_size)
    assert torch.equal(scores_over_places(net, x), net(x))


@pytest.mark.parametrize("name", NETS)
@torch.inference_mode()
def test_larger_images_get_the_mean_of_what_convolutions_give_at_each_place(name: str) -> None:
    torch.manual_seed(0)
    net = made(name)
    x = images(1, 3, net.spec.input_size + 32, net.spec.input_size + 64, seed=1)
    if isinstance(net, ResNet):
        scores = tf.conv2d(net.features(x)[-1], net.fc.weight[:, :, None, None], net.fc.bias)
    else:
        scores, side = net.features(x), 7
        for layer in net.classifier:
            if isinstance(layer, nn.Linear):
                scores = tf.conv2d(scores, layer.weight.view(layer.out_features, -1, side, side), layer.bias)
                side = 1
            else:
                scores = layer(scores)
        assert scores.shape == (1, 3, 2, 3)
    torch.testing.assert_close(scores_over_places(net, x), scores.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_vgg_net_for_small_images_has_no_such_form() -> None:
    with pytest.raises(ValueError, match="for images of 64 pixels has no fully convolutional form"):
        scores_over_places(on_meta(spec("vgg16", input_size=64)), images(1, 3, 64, 64))


def test_mirror_images_and_places_are_averaged_by_their_softmax() -> None:
    net, x = made("cifar_resnet8"), images(2, 3, 32, 40)
    with torch.inference_mode():
        both = (net(x).softmax(1) + net(x.flip(3)).softmax(1)) / 2
        scores = scores_over_places(net, x)
    assert torch.allclose(log_probabilities(net, x, mirrored=True).exp().float(), both, atol=1e-6)
    whole = log_probabilities(net, x, whole=True).exp().float()
    assert torch.allclose(whole, scores.softmax(1), atol=1e-6)
    assert torch.equal(log_probabilities(net, x).argmax(1), net(x).argmax(1))


def test_an_average_of_probabilities_loses_no_small_one() -> None:
    one = torch.tensor([[0.2, 0.8]], dtype=torch.float64).log()
    other = torch.tensor([[0.6, 0.4]], dtype=torch.float64).log()
    assert average([one, other]).exp().tolist() == [[pytest.approx(0.4), pytest.approx(0.6)]]
    assert torch.equal(average([one]), one)
    tiny = torch.tensor([[-2000.0, -1900.0]], dtype=torch.float64)
    assert average([tiny, tiny]).tolist() == [[pytest.approx(-2000), pytest.approx(-1900)]]


def test_views_of_several_shapes_go_in_groups_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetlab.measuring.predictions.PIXELS_AT_ONCE", 2 * 4 * 4)
    batches: list[tuple[int, ...]] = []

    def answer(x: Tensor) -> Tensor:
        batches.append(tuple(x.shape))
        return x.double().mean((2, 3))

    parts = [
        [torch.full((2, side, 4), value) for side, value in views]
        for views in ([(4, 1.0), (6, 3.0)], [(4, 5.0), (4, 7.0)], [(6, 9.0)])
    ]
    found = over_views(answer, parts)
    wanted = [average([torch.tensor([v, v], dtype=torch.float64) for v in values]) for values in ([1, 3], [5, 7], [9])]
    assert torch.allclose(found, torch.stack(wanted))
    assert batches == [(2, 2, 4, 4), (1, 2, 4, 4), (1, 2, 6, 4), (1, 2, 6, 4)]


def test_what_counts_as_right() -> None:
    """By hand: right; second; sixth; a tie with the label; scores that are not finite."""
    rows = torch.tensor(
        [[9, 1, 1, 1, 1, 1.5], [9, 8, 1, 1, 1, 1], [1, 2, 3, 4, 5, 6], [7, 7, 1, 1, 1, 1], [0, 1, 2, 3, 4, math.nan]],
        dtype=torch.float64,
    ).log_softmax(1)
    labels = torch.tensor([0, 1, 0, 1, 4])
    found = Predictions.of(rows, labels)
    assert found.rank[:4].tolist() == [0, 1, 5, 0]
    assert found.predicted.tolist() == [0, 0, 5, 1, -1]
    assert found.right.tolist() == [True, False, False, True, False]
    assert found.tied.tolist() == [False, False, False, True, False]
    assert found.confidence[2].item() == pytest.approx(math.exp(6) / sum(math.exp(v) for v in range(1, 7)))
    assert found.confidence[4] == 0
    assert found.loss[2].item() == pytest.approx(math.log(sum(math.exp(v) for v in range(1, 7))) - 1)
    counted = Predictions.joined([Predictions.of(rows[:2], labels[:2]), Predictions.of(rows[2:], labels[2:])]).accuracy
    assert (counted.images, counted.top1_correct, counted.top5_correct) == (5, 2, 3)
    few = Predictions.of(torch.full((1, 3), math.nan, dtype=torch.float64), torch.tensor([0]))
    assert few.accuracy.top5_correct == 0  # though there are fewer than five classes
