"""What stands around a network in a file: taken off by rules, and nothing of another network is dropped."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import resnetlab
from resnetlab.errors import UserError
from resnetlab.weights.interop import read_state, write_state
from resnetlab.weights.naming import State
from resnetlab.weights.wrapping import choose, is_no_networks, unwrapped

NAME = "resnet18"


@pytest.fixture(scope="module")
def state() -> State:
    """A ResNet-18 for two classes, an eighth as wide, as torchvision names it."""
    return resnetlab.build(NAME, num_classes=2, stem_width=8, stages=STAGES, seed=0).state_dict()


STAGES = ((2, 8, 1), (2, 16, 2), (2, 32, 2), (2, 64, 2))
INDEX = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7", "fc": "9"}


def under(prefix: str, state: State) -> State:
    return {prefix + key: tensor for key, tensor in state.items()}


def headless(state: State) -> State:
    return {key: tensor for key, tensor in state.items() if not key.startswith("fc.")}


def moved_head(state: State, to: str) -> State:
    return {key.replace("fc.", f"{to}.") if key.startswith("fc.") else key: t for key, t in state.items()}


def fc(state: State, name: str) -> State:
    """The head alone, called so."""
    return {f"{name}.{part}": state[f"fc.{part}"] for part in ("weight", "bias")}


def zeros(*names: str) -> State:
    """Matrices that are part of some head."""
    return {name: torch.zeros(4, 4) for name in names}


def numbered(state: State) -> State:
    """As nn.Sequential(*net.children()) names it."""
    return {f"{INDEX[key.partition('.')[0]]}.{key.partition('.')[2]}": tensor for key, tensor in state.items()}


def averaged(state: State) -> State:
    return {key: t + 1 if t.is_floating_point() else t for key, t in state.items()}


WHOLE: dict[str, Callable[[State], State]] = {
    "backbone": lambda s: under("backbone.", s),
    "resnet": lambda s: under("resnet.", s),
    "nested": lambda s: under("module.model.encoder_q.backbone.", s),
    "fsdp": lambda s: under("_fsdp_wrapped_module._orig_mod.", s),
    "opacus": lambda s: under("_module.", s),
    "dropout before fc": lambda s: moved_head(s, "fc.1"),
    "mmpretrain": lambda s: under("backbone.", headless(s)) | fc(s, "head.fc"),
    "Lightning with its own classifier": lambda s: under("net.", headless(s)) | fc(s, "classifier"),
    "a head of another name": lambda s: moved_head(s, "my_out"),
    "a head of convolution": lambda s: s | {"fc.weight": s["fc.weight"][:, :, None, None]},
    "Sequential(*children)": numbered,
    "Sequential of body and head": lambda s: under("0.", numbered(headless(s))) | fc(s, "1.8"),
    "transformers": lambda s: write_state(s, read_state(s).spec, "transformers"),
    "transformers in Lightning": lambda s: under("model.", write_state(s, read_state(s).spec, "transformers")),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_the_network_is_found_bit_by_bit(state: State, kind: str) -> None:
    found = read_state(WHOLE[kind](state))
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[key], tensor) for key, tensor in state.items())
    assert (found.left_out, found.choice, found.other_head) == ((), "", None)
    assert found.spec.num_classes == 2


EXTRA: dict[str, State] = {
    "AveragedModel": {"n_averaged": torch.tensor(5)},
    "thop": {"total_ops": torch.zeros(1, dtype=torch.float64), "layer1.0.total_params": torch.zeros(1)},
    "a loss": {"criterion.weight": torch.ones(2), "ce_loss.weight": torch.ones(2)},
    "a metric": {"train_acc.correct": torch.tensor(3.0), "val_accuracy.total": torch.tensor(3)},
    "class weights": {"class_weights": torch.ones(2)},
    "MoCo's queue": {"queue": torch.zeros(4, 8), "queue_ptr": torch.zeros(1, dtype=torch.int64)},
    "a count by any name": {"layer2.seen": torch.tensor(3), "flag": torch.tensor(True)},
}


@pytest.mark.parametrize("kind", EXTRA)
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_what_is_no_networks_is_left_out_and_named(state: State, kind: str, prefix: str) -> None:
    found = read_state(under(prefix, state) | EXTRA[kind])
    assert found.state.keys() == state.keys()
    assert set(found.left_out) == EXTRA[kind].keys()


ANOTHERS: dict[str, State] = {
    "squeeze-and-excitation": {"layer1.0.se.fc1.weight": torch.zeros(2, 8, 1, 1)},
    "a branch within": {"layer1.0.ema.conv1x1.weight": torch.zeros(8, 8, 1, 1)},
    "a branch beside": {"branch2.conv.weight": torch.zeros(8, 8, 3, 3)},
    "a blur pool": {"maxpool.1.filt": torch.zeros(8, 1, 3, 3)},
    "a scalar": {"layer1.0.alpha": torch.zeros(())},
    "a normalisation within": {"normalize.mean": torch.zeros(3)},
    "a third norm": {"layer1.0.bn3.num_batches_tracked": torch.tensor(0)},
    "a layer before the head": {"se1.fc.0.weight": torch.zeros(4, 64), "se1.fc.2.weight": torch.zeros(64, 4)},
    "positions": {"pos_embed": torch.zeros(4, 64)},
    "a second head": {"head.weight": torch.zeros(2, 2), "head.bias": torch.zeros(2)},
    "squeeze-and-excitation of matrices": {"layer1.0.se.fc.0.weight": torch.zeros(2, 8)},
    "a head of convolutions": {"classifier.0.weight": torch.zeros(8, 64, 3, 3)},
}


@pytest.mark.parametrize("kind", ANOTHERS)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_what_is_another_networks_stays_to_be_refused(state: State, kind: str, prefix: str) -> None:
    found = read_state(under(prefix, state) | under(prefix, ANOTHERS[kind]))
    assert found.left_out == ()
    assert found.state.keys() - state.keys() == ANOTHERS[kind].keys()


def test_a_head_of_convolutions_beside_a_backbone_stays(state: State) -> None:
    """As a segmentation network's, whose backbone strides elsewhere."""
    extra = {"classifier.0.weight": torch.zeros(8, 64, 3, 3), "classifier.1.weight": torch.zeros(8)}
    found = unwrapped(under("backbone.", headless(state)) | extra)
    assert found.state.keys() - state.keys() == extra.keys()


HEADLESS: dict[str, tuple[Callable[[State], State], set[str]]] = {
    "alone": (headless, set()),
    "an encoder": (lambda s: under("module.encoder_q.", headless(s)), set()),
    "MoCo v2": (
        lambda s: under("encoder_q.", headless(s)) | zeros("encoder_q.fc.0.weight", "encoder_q.fc.2.weight"),
        {"fc.0.weight", "fc.2.weight"},
    ),
    "Barlow Twins": (
        lambda s: under("backbone.", headless(s)) | zeros("projector.0.weight", "projector.3.weight"),
        {"projector.0.weight", "projector.3.weight"},
    ),
    "SwAV": (lambda s: headless(s) | {"prototypes.weight": torch.zeros(9, 64)}, {"prototypes.weight"}),
    "a projector of one layer": (
        lambda s: under("backbone.", headless(s)) | fc(s, "projector"),
        {"projector.weight", "projector.bias"},
    ),
    "an embedding": (lambda s: headless(s) | fc(s, "fc_embed"), {"fc_embed.weight", "fc_embed.bias"}),
    "two heads": (
        lambda s: headless(s) | fc(s, "age") | fc(s, "sex"),
        {"age.weight", "age.bias", "sex.weight", "sex.bias"},
    ),
    "fastai": (
        lambda s: under("0.", numbered(headless(s))) | zeros("1.4.weight", "1.8.weight", "1.8.bias"),
        {"1.4.weight", "1.8.weight", "1.8.bias"},
    ),
}


@pytest.mark.parametrize("kind", HEADLESS)
def test_a_file_without_one_fully_connected_layer_says_what_it_has(state: State, kind: str) -> None:
    make, names = HEADLESS[kind]
    found = read_state(make(state))
    assert found.state.keys() == headless(state).keys()
    assert found.other_head is not None
    assert set(found.other_head) == names
    assert found.spec.num_classes == 1000


def test_mocos_last_layer_makes_what_is_in_its_queue(state: State) -> None:
    wide = read_state(under("encoder_q.", state) | {"queue": torch.zeros(64, 2), "queue_ptr": torch.tensor([3])})
    assert wide.other_head is not None
    many = read_state(under("encoder_q.", state) | {"queue": torch.zeros(1, 2), "queue_ptr": torch.tensor([3])})
    assert many.other_head is None  # as many classes as images in the queue
    found = read_state(under("encoder_q.", state) | {"queue": torch.zeros(2, 99), "queue_ptr": torch.tensor([3])})
    assert found.state.keys() == headless(state).keys()
    assert set(found.other_head or ()) == {"fc.weight", "fc.bias"}


def test_what_comes_before_the_network_is_not_its_head(state: State) -> None:
    """Its own normalisation, which would be lost."""
    found = read_state(under("1.", headless(state)) | {"0.mean": torch.zeros(3), "0.std": torch.ones(3)})
    assert found.state.keys() - state.keys() == {"0.mean", "0.std"}


PAIRS = {
    "MoCo": ("encoder_q.", "encoder_k."),
    "Lightning": ("model.", "ema_model.module."),
    "BYOL": ("online_encoder.", "target_encoder."),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_averages_beside_are_offered(state: State, kind: str) -> None:
    trained, average = PAIRS[kind]
    both = under(trained, state) | under(average, averaged(state))
    found = read_state(both)
    assert torch.equal(found.state["conv1.weight"], state["conv1.weight"])
    assert "skipped " in found.choice
    assert found.choice.endswith("; --which ema uses the averaged ones")
    asked = read_state(both, which="ema")
    assert torch.equal(asked.state["conv1.weight"], state["conv1.weight"] + 1)
    assert ", averaged weights; skipped " in asked.choice


def test_torchs_averaged_model_is_its_own_average(state: State) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1))
    names = torch.optim.swa_utils.AveragedModel(net).state_dict().keys()
    assert "n_averaged" in names
    assert all(name == "n_averaged" or name.startswith("module.") for name in names)
    assert read_state(under("module.", state) | {"n_averaged": torch.tensor(1)}, which="ema").left_out == (
        "n_averaged",
    )
    with pytest.raises(UserError, match="holds no averaged weights; leave --which ema out"):
        read_state(state, which="ema")


def test_two_networks_of_one_module_are_refused(state: State) -> None:
    with pytest.raises(UserError, match=r"several networks \(flow, rgb\), and it is not clear which one to use"):
        read_state(under("rgb.", state) | under("flow.", state))
    with pytest.raises(UserError, match=r"several networks \(one without a prefix, branch2\)"):
        read_state(state | under("branch2.", state))


@pytest.mark.parametrize(
    ("names", "which", "taken", "words"),
    [
        (["state_dict"], "last", 0, ""),
        (["model", "optimizer.copy", "state_dict"], "last", 2, "using state_dict; skipped model, optimizer.copy"),
        (["model_ema"], "last", 0, "using model_ema, averaged weights: it holds no others"),
        (["teacher", "student"], "last", 1, "using student; skipped teacher; --which ema uses the averaged ones"),
        (["teacher", "student"], "ema", 0, "using teacher, averaged weights; skipped student"),
        (["state.model", "state.ema"], "ema", 1, "using state.ema, averaged weights; skipped state.model"),
    ],
)
def test_one_of_several_is_taken_by_name(names: list[str], which: str, taken: int, words: str) -> None:
    assert choose(names, which, ("state_dict", "model", "student")) == (taken, words)


def test_several_without_a_known_name_are_refused() -> None:
    with pytest.raises(UserError, match=r"holds several networks \(a, b\).*; save only one of them"):
        choose(["a", "b"], "last", ("model",))
    with pytest.raises(UserError, match=r"holds several networks \(ema, swa\)"):
        choose(["model", "ema", "swa"], "ema")


@pytest.mark.parametrize("word", ["averagepool.weight", "lossless.weight", "metric_fc.weight", "accent.weight"])
def test_a_name_like_a_losss_is_none(word: str) -> None:
    assert not is_no_networks(word, torch.zeros(2))


def test_prefixes_of_other_projects(state: State) -> None:
    net = resnetlab.build("cifar_resnet8(zero_pad=around)", seed=0)
    for name in ("a-martyn", "akamaster", "fb"):
        held = resnetlab.build("cifar_resnet8" if name != "akamaster" else net.spec, seed=0)
        theirs = {key.removeprefix("module."): t for key, t in write_state(held.state_dict(), held.spec, name).items()}
        found = read_state(under("backbone.", theirs), "cifar_resnet8")
        assert found.naming == name
        assert all(torch.equal(found.state[key], tensor) for key, tensor in held.state_dict().items())


def test_vgg_nets_too() -> None:
    def small(t: Tensor) -> Tensor:
        return torch.zeros(()).expand(t.shape)

    names = {key: small(t) for key, t in resnetlab.build("vgg16", input_size=32).state_dict().items()}
    assert read_state(under("backbone.", names)).spec.name == "vgg16"
