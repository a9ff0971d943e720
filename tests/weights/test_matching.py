"""`--match order`: files with names that nobody here knows, paired with a network by order and shape, or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import resnetlab
from resnetlab.cli.main import main
from resnetlab.errors import UserError
from resnetlab.nets.net import ResNet
from resnetlab.weights.interop import IN_ORDER, read_in_order
from resnetlab.weights.load import load_described
from resnetlab.weights.matching import blocks_of, layers_of, match_order
from resnetlab.weights.naming import State

Rename = Callable[[str], str]


def network(name: str) -> ResNet:
    """With a value of its own at every place of every tensor."""
    net = resnetlab.build(name, seed=0)
    assert isinstance(net, ResNet)
    generator = torch.Generator().manual_seed(0)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    return net


def substituted(*pairs: tuple[str, str]) -> Rename:
    def rename(key: str) -> str:
        for pattern, replacement in pairs:
            key = re.sub(pattern, replacement, key)
        return key

    return rename


# As public CIFAR files call them: stages, units, layers, shortcuts, stem and head.
NAMINGS: dict[str, Rename] = {
    "bn and linear": substituted((r"^conv1", "conv"), (r"^bn1", "bn"), (r"^fc", "linear"), ("downsample", "shortcut")),
    "stage1.block1": substituted((r"layer(\d)\.(\d)", r"stage\1.block\2"), (r"downsample\.0", "shortcut.conv")),
    "stage_2.0.conv_1": substituted(
        (r"layer(\d)", r"stage_\1"),
        (r"(conv|bn)(\d)", r"\1_\2"),
        (r"downsample\.0", "shortcut"),
        (r"^fc", "classifier"),
    ),
    "layer1.layer.0": substituted((r"(layer\d)\.", r"\1.layer."), (r"downsample\.", "skip."), (r"^fc", "output")),
    "features.0": substituted((r"^conv1", "features.0"), (r"^bn1", "features.1"), (r"layer(\d)", r"blocks.\1")),
    "names of no kind": substituted((r"downsample", "s"), (r"layer", "g"), (r"conv", "c"), (r"bn", "n"), (r"fc", "f")),
    "under a prefix": lambda key: f"module.net.encoder.{key}".replace("downsample", "proj"),
    "every name marked as a shortcut": lambda key: f"skip_net.{key}",
}
NETS = ("cifar_resnet8", "cifar_resnet8(shortcut=B)", "cifar_plain8", "cifar_preresnet8", "cifar_wrn10_1")


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("net", NETS)
def test_names_of_all_kinds(naming: str, net: str, tmp_path: Path) -> None:
    wanted = network(net)
    state = {NAMINGS[naming](key): tensor for key, tensor in wanted.state_dict().items()}
    assert len(state) == len(wanted.state_dict())
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.pth")
    loaded = load_described(tmp_path / "theirs.pth", net=net, match="order")
    assert (loaded.net.spec, loaded.naming, loaded.metadata) == (wanted.spec, IN_ORDER, None)
    assert all(torch.equal(tensor, wanted.state_dict()[key]) for key, tensor in loaded.net.state_dict().items())


def moved(state: State, unit: str, order: tuple[str, ...]) -> State:
    """The tensors with those of each unit in another order of its layers."""
    rest = [key for key in state if not key.startswith(unit)]
    own = [key for name in order for key in state if key.startswith(f"{unit}.{name}.")]
    at = min(list(state).index(key) for key in own)
    return {key: state[key] for key in (*rest[:at], *own, *rest[at:])}


@pytest.mark.parametrize(
    "order",
    [
        ("downsample.0", "downsample.1", "conv1", "bn1", "conv2", "bn2"),
        ("conv1", "conv2", "bn1", "bn2", "downsample.0", "downsample.1"),
        ("bn1", "conv1", "bn2", "conv2", "downsample.0", "downsample.1"),
    ],
)
def test_layers_of_a_unit_in_another_order(order: tuple[str, ...]) -> None:
    wanted = network("cifar_resnet8(shortcut=B)").state_dict()
    state = moved(moved(dict(wanted), "layer2.0", order), "layer3.0", order)
    assert list(state) != list(wanted)
    theirs = {key.replace("downsample", "shortcut"): tensor for key, tensor in state.items()}
    found = match_order(theirs, "cifar_resnet8(shortcut=B)").state
    assert all(torch.equal(tensor, found[key]) for key, tensor in wanted.items())


def test_a_shortcut_without_a_mark_is_told_by_its_shape() -> None:
    """The batch norm behind it goes with it, wherever the two stand."""
    wanted = network("cifar_resnet8(shortcut=B)").state_dict()
    order = ("downsample.0", "downsample.1", "conv1", "bn1", "conv2", "bn2")
    state = {key.replace("downsample", "s"): tensor for key, tensor in moved(dict(wanted), "layer2.0", order).items()}
    found = match_order(state, "cifar_resnet8(shortcut=B)").state
    assert all(torch.equal(tensor, found[key]) for key, tensor in wanted.items())


@pytest.mark.parametrize("word", ["short_cut", "ShortCut", "down_sample", "Skip", "proj", "identity"])
def test_a_mark_tells_a_shortcut_where_its_shape_does_not(word: str) -> None:
    net = "cifar_resnet11(stem_width=64, stages=((1,64,1),(1,64,2)))"
    wanted = network(net).state_dict()
    found = match_order({key.replace("downsample", word): tensor for key, tensor in wanted.items()}, net).state
    assert all(torch.equal(tensor, found[key]) for key, tensor in wanted.items())


def test_in_preactivation_a_batch_norm_does_not_belong_to_the_convolution_before_it() -> None:
    net = "cifar_preresnet8(shortcut=C)"
    wanted = network(net).state_dict()
    order = ("downsample.0", "bn1", "conv1", "bn2", "conv2")
    found = match_order(moved(dict(wanted), "layer1.0", order), net).state
    assert all(torch.equal(tensor, found[key]) for key, tensor in wanted.items())


def test_a_batch_norm_belongs_to_a_convolution_with_as_many_channels() -> None:
    for channels, paired in ((16, True), (32, False)):
        layers = layers_of({"conv.weight": torch.ones(16, 3, 3, 3), "norm.running_mean": torch.ones(channels)})
        assert blocks_of(layers) == ([tuple(layers)] if paired else None)


def test_where_zeros_stand_is_said_by_the_name() -> None:
    wanted = network("cifar_resnet8(zero_pad=around)")
    found = match_order(dict(wanted.state_dict()), "cifar_resnet8(zero_pad=around)")
    assert found.spec == wanted.spec


def test_what_the_file_knows_better() -> None:
    wanted = network("cifar_resnet8(shortcut=B, num_classes=7)")
    state = {NAMINGS["bn and linear"](key): tensor for key, tensor in wanted.state_dict().items()}
    assert match_order(state, "cifar_resnet8").spec == wanted.spec
    old = {key: tensor for key, tensor in state.items() if "num_batches" not in key} | {"conv.bias": torch.ones(16)}
    assert "conv1.bias" in match_order(old, "cifar_resnet8").state


def test_a_bias_before_batch_norm_and_a_head_of_1x1(tmp_path: Path) -> None:
    wanted = network("cifar_resnet8")
    state = {f"x.{key}": tensor for key, tensor in wanted.state_dict().items() if "num_batches" not in key}
    state["x.fc.weight"] = state["x.fc.weight"][:, :, None, None]
    shift = torch.linspace(-1, 1, 16)
    biased = {"x.conv1.weight": state.pop("x.conv1.weight"), "x.conv1.bias": shift} | state
    biased["x.bn1.running_mean"] = biased["x.bn1.running_mean"] + shift
    torch.save(biased, tmp_path / "x.pth")
    found = resnetlab.load(tmp_path / "x.pth", net="cifar_resnet8", match="order")
    torch.testing.assert_close(found.state_dict(), wanted.state_dict(), rtol=0, atol=1e-6)


BIASED = "can't be kept: a convolution's bias needs its batch norm after it, .* Nothing was loaded"


@pytest.mark.parametrize("key", ["layer1.0.conv1", "layer2.0.conv1", "layer1.0.conv2"])
@pytest.mark.parametrize("first", ["stem", "unit"])
def test_a_bias_after_its_batch_norm_is_refused(key: str, first: str, tmp_path: Path) -> None:
    net = f"cifar_preresnet8(first_preact={first}, stages=((1,16,1),(1,16,2)))"
    state = network(net).state_dict()
    torch.save({**state, f"{key}.bias": torch.ones(16)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: {key}\.bias {BIASED}"):
        resnetlab.load(tmp_path / "x.pth", net=net, match="order")


@pytest.mark.parametrize("order", ["full_preact", "relu_preact"])
def test_a_bias_before_its_batch_norm_in_preactivation(order: str) -> None:
    net = f"cifar_resnet8(order={order})"
    state, key = network(net).state_dict(), "conv1" if order == "full_preact" else "layer1.0.conv2"
    norm = key.replace("conv", "bn") + ".running_mean"
    found = read_in_order({**state, f"{key}.bias": torch.ones(16)}, net)[0].state
    assert found.keys() == state.keys()
    assert torch.equal(found[norm], state[norm] - 1)


CONVS_FIRST = ("conv1", "conv2", "downsample.0", "bn1", "bn2", "downsample.1")
AMBIGUOUS: dict[str, tuple[str, Callable[[State], State], str]] = {
    "a bottleneck's last layer and its shortcut": (
        "cifar_resnet11(stem_width=64, stages=((1,64,1),(1,64,2)))",
        lambda s: {key.replace("downsample", "s"): tensor for key, tensor in s.items()},
        "layer1.0.conv3 and layer1.0.downsample.0 have the same shape, and its names do not say which",
    ),
    "batch norms apart from their convolutions, without marks": (
        "cifar_resnet8(shortcut=B)",
        lambda s: {k.replace("downsample", "s"): t for k, t in moved(s, "layer2.0", CONVS_FIRST).items()},
        "layer2.0.bn1 and layer2.0.downsample.1 have the same shape",
    ),
    "a last batch norm before the units": (
        "cifar_preresnet8",
        lambda s: {k: s[k] for k in sorted(s, key=lambda k: "last_bn" not in k)},
        "bn1 would be bn1, but comes after last_bn, which would be layer3.0.bn2",
    ),
    "units sorted as text": (
        "cifar_resnet68",
        lambda s: {k: s[k] for k in sorted(s)},
        "layer1.2.bn1 comes after layer1.10.conv2, as if sorted by name",
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_is_ambiguous_is_refused(case: str) -> None:
    net, change, reason = AMBIGUOUS[case]
    with pytest.raises(UserError, match=reason):
        match_order(change(dict(network(net).state_dict())), net)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (None, "--match order needs the network's name: give --net"),
        ("cifar_resnet14", "does not fit cifar_resnet14: 2 of its layers have weights of 16x16x3x3"),
        ("cifar_resnet8(num_classes=5)", "does not fit .*: 1 of its layers have weights of 10x64"),
        ("vgg16", "is for residual and plain networks, and vgg16 is neither"),
    ],
)
def test_other_networks_are_refused(net: str | None, reason: str, tmp_path: Path) -> None:
    torch.save(network("cifar_resnet8").state_dict(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=reason):
        resnetlab.load(tmp_path / "x.pth", net=net, match="order")


def test_a_file_whose_names_alone_differ_is_told_of_the_way(tmp_path: Path) -> None:
    state = {NAMINGS["stage_2.0.conv_1"](key): t for key, t in network("cifar_resnet8").state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"Nothing was loaded\. If only its names differ, give --match order\.$"):
        resnetlab.load(tmp_path / "x.pth", net="cifar_resnet8")
    with pytest.raises(UserError, match=r"Nothing was loaded\.$"):
        resnetlab.load(tmp_path / "x.pth", net="cifar_resnet14")
    ours = {key: t for key, t in network("cifar_resnet8").state_dict().items() if key != "fc.bias"}
    torch.save(ours, tmp_path / "x.pth")  # no name differs: one is missing
    with pytest.raises(UserError, match=r"fc\.bias \(10,\)\. Nothing was loaded\.$"):
        resnetlab.load(tmp_path / "x.pth", net="cifar_resnet8")


def test_files_without_an_order_of_their_own_are_refused(tmp_path: Path) -> None:
    save_file(network("cifar_resnet8").state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="sorts its tensors by name, .* give the file that torch.save wrote"):
        resnetlab.load(tmp_path / "x.safetensors", net="cifar_resnet8", match="order")
    with pytest.raises(UserError, match="match='size' is not known: choose one of names, order"):
        resnetlab.load(tmp_path / "x.safetensors", match="size")


def test_the_pairs_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = {NAMINGS["stage_2.0.conv_1"](key): t for key, t in network("cifar_resnet8").state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    resnetlab.load(tmp_path / "x.pth", net="cifar_resnet8", match="order")
    lines = [message.removeprefix(f"{tmp_path / 'x.pth'}: ") for message in caplog.messages]
    assert lines[0] == "paired by order:"
    assert [line.split() for line in lines[1:3]] == [
        ["conv_1", "->", "conv1", "(16x3x3x3)"],
        ["bn_1", "->", "bn1", "(16)"],
    ]
    assert len(lines) == 1 + 2 * 7 + 1 + 1  # and what the file can't show


def test_eval_says_what_it_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = "cifar_resnet8(in_channels=1)"
    state = {NAMINGS["bn and linear"](key): tensor for key, tensor in network(net).state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    given = ["--data", "digits", "--net", net, "--match", "order", "--normalise", "0.3/0.4", "--device", "cpu"]
    assert main(["eval", str(tmp_path / "x.pth"), *given]) == 0
    said = capsys.readouterr()
    assert "top-1" in said.out
    assert "parameter names: by order; normalisation: 0.3/0.4, as given" in said.err
    assert main(["eval", str(tmp_path / "x.pth"), *given[:-3], "2/0"]) == 2


@pytest.mark.parametrize(
    ("net", "field"),
    [
        ("cifar_resnet8", "zero_pad"),
        ("cifar_preresnet8", "first_preact"),
        ("resnet50(stages=((1,8),(1,16,2)), stem_width=8)", "stride_at"),
    ],
)
def test_what_order_and_shapes_can_not_show_is_said(
    net: str, field: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(network(net).state_dict(), tmp_path / "x.pth")
    resnetlab.load(tmp_path / "x.pth", net=net, match="order")
    value = repr(getattr(network(net).spec, field))
    other = f"{net[:-1]}, {field}=...)" if "(" in net else f"{net}({field}=...)"
    said = f"the file doesn't show {field}; {value} is assumed, unless --net '{other}'"
    assert any(said in message for message in caplog.messages)
    caplog.clear()
    stated = f"{net.removesuffix(')')}, {field}={value})" if "(" in net else f"{net}({field}={value})"
    resnetlab.load(tmp_path / "x.pth", net=stated, match="order")
    assert not any(f"doesn't show {field}" in message for message in caplog.messages)


def test_order_is_not_recommended_for_pre_activation(tmp_path: Path) -> None:
    """Projects differ in what its shortcuts see, which a file does not show."""
    for net, hinted in (("cifar_resnet8", True), ("cifar_preresnet8", False)):
        state = {key.replace("layer", "group"): tensor for key, tensor in network(net).state_dict().items()}
        torch.save(state, tmp_path / "x.pth")
        with pytest.raises(UserError, match="does not fit") as refused:
            resnetlab.load(tmp_path / "x.pth", net=net)
        assert ("give --match order" in str(refused.value)) is hinted
