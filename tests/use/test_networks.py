"""The table of networks: the costs that `describe` counts, the paper's error, the weights that there are."""

from __future__ import annotations

import json

import pytest

from resnetlab.cli.main import main
from resnetlab.errors import UserError
from resnetlab.measuring.reported import REPORTED
from resnetlab.nets.zoo import names
from resnetlab.use.networks import ORDERS, named_weights, network_rows
from resnetlab.weights import packaged
from resnetlab.weights.published import TORCHVISION


def test_a_row() -> None:
    (row,) = network_rows("cifar_resnet20")
    assert (row.name, row.depth, row.input) == ("cifar_resnet20", 20, (3, 32, 32))
    assert (row.parameters, row.multiply_adds) == (269_722, 40_551_040)
    assert (row.paper_error, row.paper) == (8.75, "He 2015, Table 6")
    assert row.top1 == packaged.stated("cifar_resnet20").measured["top1"]
    assert [w.source for w in network_rows("resnet50")[0].weights] == [
        "torchvision:resnet50",
        "torchvision:resnet50.v2",
    ]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("wrn", ["cifar_wrn16_4", "cifar_wrn16_8", "cifar_wrn28_10", "cifar_wrn40_4"]),
        ("vgg1?", ["vgg16", "vgg19"]),
        ("cifar_plain[25]*", ["cifar_plain20", "cifar_plain56"]),
        ("cifar_resnet68", ["cifar_resnet68"]),
        ("cifar_resnet20(shortcut=B)", ["cifar_resnet20(shortcut='B')"]),
    ],
)
def test_patterns(pattern: str, found: list[str]) -> None:
    assert [row.name for row in network_rows(pattern)] == found


def test_what_matches_nothing() -> None:
    with pytest.raises(UserError, match=r"no network's name matches 'resnett\*'\. Did you mean resnet"):
        network_rows("resnett*")
    with pytest.raises(UserError, match="network 'renset50' is not known. Did you mean resnet50"):
        network_rows("renset50")


@pytest.mark.parametrize("order", ORDERS)
def test_orders_put_what_has_no_figure_last(order: str) -> None:
    rows = network_rows("cifar_", order)
    assert len(rows) == len([name for name in names() if name.startswith("cifar_")])
    figures = {"error": "paper_error", "accuracy": "top1"}
    values = [getattr(row, figures.get(order, order.replace("-", "_"))) for row in rows]
    there = [value for value in values if value is not None]
    assert values == there + [None] * (len(values) - len(there))
    assert there == sorted(there, reverse=order == "accuracy")


def test_weights_of_the_tables_are_of_networks_that_are_listed() -> None:
    listed = {w.source for name in names() for w in named_weights(name)}
    published = {f"torchvision:{name}" for name in TORCHVISION if not name.startswith("resnext101_64x4d")}
    assert published <= listed
    assert {f"pretrained:{name}" for name in packaged.names()} <= listed
    assert set(REPORTED) <= set(names())


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nets", "resnet50", "--sort", "error", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["networks"]
    assert [row["name"] for row in told][:2] == ["resnet50", "resnet50_v1"]
    assert told[0]["weights"][0] == {"source": "torchvision:resnet50", "data": "imagenet", "top1": 76.13}
    assert main(["nets", "vgg16"]) == 0
    shown = capsys.readouterr().out
    assert "138,357,544" in shown
    assert "torchvision:vgg16 71.59" in shown
    assert main(["nets", "vgg16", "--sort", "size"]) == 2


def test_a_network_is_one_row_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nets", "wide_*"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "wide_resnet101_2 " in line]
    first = ["wide_resnet101_2", "101", "3x224x224", "126,886,696", "22,753,050,624", "torchvision:wide_resnet101_2"]
    assert [[cell for cell in row if cell != "│"][:6] for row in rows] == [first]


@pytest.mark.parametrize(
    ("command", "name"), [("describe", "pretrained:cifar_resnet20"), ("compare", "torchvision:resnet50.v2")]
)
def test_the_name_of_weights_is_told_from_that_of_a_network(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, name]) == 2
    network = name.partition(":")[2].removesuffix(".v2")
    wanted = f"error: {name}: the name of weights, not of a network; 'resnetlab describe {network}' shows the network"
    assert capsys.readouterr().err.startswith(wanted)
