"""Files of weights by anybody: every kind that is read, and every kind that is refused, with one line."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import warnings
import zipfile
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import prune

import resnetlab
from resnetlab.errors import UserError
from resnetlab.weights.files import read_file
from resnetlab.weights.interop import write_state
from resnetlab.weights.load import load_with_metadata

NET = "cifar_resnet14(zero_pad=around)"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """A network's tensors with the names of akamaster."""
    net = resnetlab.build(NET, seed=0)
    return write_state(net.state_dict(), net.spec, "akamaster")


def _npz(content: dict[str, Tensor], path: Path) -> None:
    np.savez(path, **{name: tensor.numpy() for name, tensor in content.items()})


KINDS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "a.pth": torch.save,
    "a.th": lambda content, path: torch.save({"state_dict": content, "best_prec1": 91.7}, path),
    "a.pt": lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    "a.bin": lambda content, path: torch.save({"model": {"net": content}, "epoch": 3, "name": "x"}, path),
    "a.safetensors": lambda content, path: save_file(content, path),
    "a.npz": _npz,
    "wrongly-named.txt": torch.save,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_gives_the_same_network(state: dict[str, Tensor], tmp_path: Path, name: str) -> None:
    KINDS[name](state, tmp_path / name)
    net, metadata = load_with_metadata(tmp_path / name)
    assert net.spec == resnetlab.spec(NET)
    wanted = resnetlab.build(NET, seed=0).state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in net.state_dict().items())
    assert metadata is not None
    assert metadata.normalisation.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize("match", ["names", "order"])
def test_what_torch_has_pruned_is_read_as_it_computes(tmp_path: Path, match: str) -> None:
    net = resnetlab.build("cifar_resnet8", seed=0)
    for name, module in list(net.named_modules()):
        if name.endswith("conv1"):
            prune.random_unstructured(module, "weight", amount=0.3)
    torch.save(net.state_dict(), tmp_path / "pruned.pth")
    assert "layer1.0.conv1.weight_mask" in net.state_dict()
    found = resnetlab.load(tmp_path / "pruned.pth", net="cifar_resnet8", match=match)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(found(x), net.eval()(x))


def test_an_npz_file_of_the_other_byte_order_is_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    np.savez(tmp_path / "x.npz", **{name: array.astype(array.dtype.newbyteorder()) for name, array in arrays.items()})
    found = read_file(tmp_path / "x.npz").tensors
    assert found.keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in found.items())


def plus_one(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor + 1 for key, tensor in state.items()}


Content = Callable[[dict[str, Tensor], dict[str, Tensor]], dict[str, Any]]  # of the trained weights, and the averaged
BOTH: dict[str, Content] = {
    "timm": lambda own, ema: {"state_dict": own, "state_dict_ema": ema, "epoch": 3, "metric": 71.2},
    "torchvision": lambda own, ema: {"model": own, "model_ema": {**ema, "n_averaged": torch.tensor(3)}, "epoch": 3},
    "a dictionary within": lambda own, ema: {"state": {"model": own, "ema": {"shadow": ema}}, "rng": []},
    "beside its tensors": lambda own, ema: {**own, "ema": ema},
    "averages first": lambda own, ema: {"averaged": ema, "net": own},
}


@pytest.mark.parametrize("kind", BOTH)
def test_averaged_weights_are_offered_and_taken(
    state: dict[str, Tensor], tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(BOTH[kind](state, plus_one(state)), tmp_path / "x.pth")
    mean = resnetlab.build(NET, seed=0).state_dict()["bn1.running_mean"]
    own, averaged = (resnetlab.load(tmp_path / "x.pth", which=which) for which in ("last", "ema"))
    assert torch.equal(own.state_dict()["bn1.running_mean"], mean)
    assert torch.equal(averaged.state_dict()["bn1.running_mean"], mean + 1)
    said = [record.getMessage() for record in caplog.records if "using" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith(f"{tmp_path}/x.pth: using ")
    assert "; --which ema uses the averaged ones" in said[0]
    assert ", averaged weights; skipped " in said[1]


OTHER_PLACES: dict[str, Callable[[dict[str, Tensor]], dict[str, Any]]] = {
    "Composer": lambda state: {"state": {"model": state, "optimizers": {"SGD": {"state": {"w": {"exp_avg": C}}}}}},
    "model_state": lambda state: {"model_state": state, "epoch": 1},
    "by no known name": lambda state: {"my_weights": state, "epoch": 1},
    "an optimiser's averages by name": lambda state: {"net": state, "optim": {"conv1.weight": {"momentum_buffer": C}}},
    "shadow parameters without names": lambda state: {"net": state, "ema": {"shadow_params": [C] * 9}},
    "of torchvision's references": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1, path=Path("/x"))},
    "with numbers of NumPy": lambda state: {"state_dict": state, "best_acc1": np.float64(71.2), "all": np.zeros(3)},
    "that holds itself": lambda state: _within_itself({"model": state}),
}
C = torch.zeros(4, 4, 3, 3)


def _within_itself(content: dict[str, Any]) -> dict[str, Any]:
    content["self"] = content
    return content


@pytest.mark.parametrize("kind", OTHER_PLACES)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_network_is_found_wherever_it_lies(
    state: dict[str, Tensor], tmp_path: Path, kind: str, zipped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(OTHER_PLACES[kind](state), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    wanted = resnetlab.build(NET, seed=0).state_dict()
    found = resnetlab.load(tmp_path / "x.pth").state_dict()
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in found.items())
    assert not caplog.records


def test_what_is_no_tensor_beside_the_networks_is_left_out(
    state: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({**state, "epoch": 3, "extra_state": None, "n_averaged": torch.tensor(1)}, tmp_path / "x.pth")
    resnetlab.load(tmp_path / "x.pth")
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == f"{tmp_path}/x.pth: left out, not part of the network: epoch, extra_state, n_averaged."


def test_networks_that_can_not_be_told_apart_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"a": state, "b": plus_one(state)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x.pth: holds several networks \(a, b\).*; save only one of them"):
        resnetlab.load(tmp_path / "x.pth")
    torch.save(state, tmp_path / "y.pth")
    with pytest.raises(UserError, match=r"y.pth: holds no averaged weights; leave --which ema out"):
        resnetlab.load(tmp_path / "y.pth", which="ema")
    with pytest.raises(UserError, match="which='first' is not known: choose one of last, best, ema"):
        resnetlab.load(tmp_path / "y.pth", which="first")


@pytest.mark.parametrize(
    "kept",
    [
        defaultdict(list, {"loss": [1.0]}),
        deque([1, 2], maxlen=4),
        Counter("ab"),
        frozenset({1}),
        range(3),
        slice(1, 2),
        SimpleNamespace(lr=0.1),
        complex(1, 2),
    ],
    ids=lambda kept: type(kept).__name__,
)
def test_what_trainings_keep_beside_a_network_is_passed_over(
    state: dict[str, Tensor], tmp_path: Path, kept: object
) -> None:
    torch.save({"state_dict": state, "history": kept}, tmp_path / "x.pth")
    assert resnetlab.load(tmp_path / "x.pth").spec.name == resnetlab.spec(NET).name


def test_what_stands_for_settings_keeps_nothing_and_calls_nothing(tmp_path: Path) -> None:
    """Names that are no part of tensors are stood in for; what they are made with is not looked at."""
    torch.save({"a": Path("/x"), "b": argparse.Namespace(n=1), "c": np.float64(1)}, tmp_path / "x.pth")
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(UserError, match="x.pth: holds no network's tensors, only 'a', 'b', 'c'"):
        read_file(tmp_path / "x.pth")
    added = set(torch.serialization.get_safe_globals()) - before  # torch itself may add some as it is imported
    assert all(kind.__module__.startswith("torch.") for kind in added)


def test_a_files_old_name_in_a_folder(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert resnetlab.load(tmp_path).spec == resnetlab.spec(NET)


def test_caffes_blobs_may_be_lists(tmp_path: Path) -> None:
    net = resnetlab.build("resnet18", seed=0)
    layers: dict[str, list[Tensor]] = {}
    for name, blob in sorted(write_state(net.state_dict(), net.spec, "caffe").items()):
        layers.setdefault(name.rpartition(".")[0], []).append(blob)
    torch.save(layers, tmp_path / "caffe.pth")
    found = resnetlab.load(tmp_path / "caffe.pth").state_dict()
    assert all(torch.equal(tensor, found[key]) for key, tensor in net.state_dict().items())


class Trap:
    """Opened without care, it would write a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_execute_code_is_refused(tmp_path: Path, zipped: bool) -> None:
    path, trace = tmp_path / "trap.pth", tmp_path / "executed"
    torch.save({"state_dict": {"a": Trap(trace)}}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        UserError, match=r"trap.pth: rejected, since opening it could execute code: it holds \w+.system"
    ):
        read_file(path)
    assert not trace.exists()


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"it holds torch.nn.modules.linear.Linear, not only tensors"):
        read_file(tmp_path / "x.pth")


def _cut(share: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save({"a": torch.rand(1000)}, path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return write


def _cut_old(path: Path) -> None:
    torch.save({"a": torch.rand(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:2000])


def _flipped(path: Path) -> None:
    torch.save({"a": torch.rand(1000)}, path)
    content = bytearray(path.read_bytes())
    place = content.index(b"_rebuild_tensor_v2")
    content[place : place + 8] = b"\xff" * 8
    path.write_bytes(content)


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        for _ in range(64):
            file.write(bytes(2**20))


def _objects(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.array([{}], dtype=object))
    path.with_suffix(".npz").rename(path)


def _zip_of_text(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("read.me", "hello")


def _program(path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(path))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "is empty"),
    "HTML": (lambda p: p.write_text("\n<!DOCTYPE html><title>404"), "a web page, not weights"),
    "LFS": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid"), "a Git LFS pointer"),
    "text": (lambda p: p.write_text("hello"), r"not a weight file \(safetensors, torch or npz\)"),
    "random": (lambda p: p.write_bytes(bytes(range(7, 200))), "not a weight file"),
    "folder": (lambda p: p.mkdir(), "it is a folder, not a regular file"),
    "huge": (_huge, "too large for a network's weights, with 1,024 GiB"),
    "half a zip": (_cut(0.5), "not a complete file, it is truncated"),
    "nearly all": (_cut(0.99), "not a complete file, it is truncated"),
    "flipped bytes": (_flipped, "not a complete torch file"),
    "half an old file": (_cut_old, "not a complete torch file"),
    "old header": (lambda p: p.write_bytes(b"\x80\x02"), "not a complete torch file"),
    "plain pickle": (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "a pickle of another protocol than torch's"),
    "zip of text": (_zip_of_text, r"a zip archive of read.me, not weights; unpack it"),
    "TorchScript": (_program, "a TorchScript program"),
    "npz of objects": (_objects, "not a complete npz file of numbers"),
    "bad npy": (_bomb, "not a complete npz file of numbers"),
    "one tensor": (lambda p: torch.save(torch.zeros(1), p), "holds a Tensor, not tensors by name"),
    "arrays of NumPy": (
        lambda p: torch.save({"conv1.weight": np.zeros((1, 1, 3, 3))}, p),
        "its arrays are NumPy's, which are read from .npz files only",
    ),
    "protocol 4": (
        lambda p: torch.save({"a": torch.zeros(1)}, p, pickle_protocol=4),
        "a pickle of another protocol than torch's, .*could execute code; save",
    ),
    "list": (lambda p: torch.save([torch.zeros(1)], p), "holds a list, not tensors by name"),
    "number": (lambda p: torch.save({"a": torch.zeros(1), "epoch": 3}, p), "'epoch' in it is a int, not a tensor"),
    "an optimiser": (
        lambda p: torch.save({"state": {0: {"a": torch.zeros(1)}}}, p),
        "no network's tensors, only 'state'",
    ),
    "an empty dictionary": (lambda p: torch.save({}, p), "tensors, only an empty dictionary"),
    "numbered": (lambda p: torch.save({1: torch.zeros(1)}, p), "a tensor's name is 1, not a text"),
    "sparse": (lambda p: torch.save({"a": torch.eye(2).to_sparse()}, p), "a in it is not a plain tensor"),
    "no values": (lambda p: torch.save({"a": torch.zeros(1, device="meta")}, p), "a in it is not a plain tensor"),
    "inflated": (lambda p: torch.save({"a": torch.zeros(1).expand(10**12)}, p), "a in it is larger than the file"),
}


@pytest.mark.parametrize(("suffix", "content"), [(".xml", b"<?xml "), (".onnx", b"\x08\n"), (".pt2", b"PK\x03\x04")])
def test_an_exported_file_is_named_as_one(tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"net{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=rf"net\{suffix}: an exported file; give the run folder or weight file that"):
        read_file(tmp_path / f"net{suffix}")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_file_of_weights_is_refused_with_one_line(tmp_path: Path, kind: str) -> None:
    write, reason = REFUSED[kind]
    write(tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x\.pth: .*({reason})") as caught:
        read_file(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _bomb(tmp_path / "x.npz")
    monkeypatch.setattr("resnetlab.weights.files.MOST_BYTES", 2**25)
    with pytest.raises(UserError, match="x.npz: unpacks to 0 GiB, too large"):
        read_file(tmp_path / "x.npz")


def test_a_safetensors_file_whose_length_looks_like_another_kind_is_read(tmp_path: Path) -> None:
    """The file starts with the length of its header, 0x4B50 here: "PK"."""
    name = "a"
    while True:
        save_file({"a": torch.ones(1)}, tmp_path / "x.safetensors", {"text": name})
        if (tmp_path / "x.safetensors").read_bytes().startswith(b"PK"):
            break
        name += "a" * max(1, 0x4B50 - int.from_bytes((tmp_path / "x.safetensors").read_bytes()[:8], "little"))
    assert read_file(tmp_path / "x.safetensors").tensors.keys() == {"a"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"module.layer2.0.conv2.weight": None}, r"it lacks layer2.0.conv2.weight \(32, 32, 3, 3\)"),
        ({"module.layer2.0.bn1.num_batches_tracked": None}, "it lacks layer2.0.bn1.num_batches_tracked"),
        ({"module.extra.weight": torch.zeros(2, 3)}, r"it has the extra extra.weight \(2, 3\)"),
        ({"module.linear.bias": torch.zeros(3)}, r"in it fc.bias is \(3,\), not \(10,\)"),
        ({"module.layer1.0.conv1.weight": torch.zeros(16, 16, 1, 1)}, r"conv1.weight is \(16, 16, 1, 1\), not"),
        ({"module.linear.weight": torch.zeros(10, 64, dtype=torch.int64)}, "in it fc.weight is of torch.int64"),
    ],
)
@pytest.mark.parametrize("net", [None, "cifar_resnet14"])
def test_a_peers_tensors_that_do_not_fit_are_listed_and_not_loaded(
    state: dict[str, Tensor], tmp_path: Path, changes: dict[str, Tensor | None], reason: str, net: str | None
) -> None:
    torch.save({k: v for k, v in (state | changes).items() if v is not None}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=rf"x.pth: does not fit cifar_resnet14.*: .*{reason}.*Nothing was loaded"):
        resnetlab.load(tmp_path / "x.pth", net=net)


def test_another_depth_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"does not fit cifar_resnet20.*: it lacks layer1.2.conv1.weight"):
        resnetlab.load(tmp_path / "x.pth", net="cifar_resnet20")


def test_a_file_of_ours_may_say_nothing_but_its_network(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_preresnet20", seed=0)
    described = {"resnetlab": json.dumps({"spec": net.spec.to_dict()})}
    save_file(net.state_dict(), tmp_path / "x.safetensors", described)
    found, metadata = load_with_metadata(tmp_path / "x.safetensors")
    assert (found.spec, metadata) == (net.spec, None)
