"""`convert`: files of every kind with every project's names, and back; nothing is overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from safetensors import safe_open

import resnetlab
from resnetlab.cli.convert import NAMING_SCHEMES as NAMED
from resnetlab.data.normalisation import Normalisation
from resnetlab.errors import UserError
from resnetlab.nets import zoo
from resnetlab.weights.convert import convert
from resnetlab.weights.interop import OURS
from resnetlab.weights.load import load_with_metadata
from resnetlab.weights.metadata import ModelMetadata, weights_bytes
from resnetlab.weights.naming import NAMING_SCHEMES

PEER = "cifar_resnet8(zero_pad='around')"


class Command(Protocol):
    def __call__(self, *arguments: str) -> CompletedProcess[str]: ...


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    """A file as akamaster's project writes it."""
    tensors = resnetlab.build(PEER, seed=0).state_dict()
    state = {f"module.{name.replace('fc.', 'linear.')}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": state}, tmp_path / "peers.th")
    return tmp_path / "peers.th"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".npz"])
@pytest.mark.parametrize("naming", ["akamaster", OURS])
def test_there_and_back_keeps_every_bit(peers: Path, tmp_path: Path, naming: str, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert convert(peers, out, naming).spec.name == PEER
    described = naming == "akamaster" or suffix == ".safetensors"
    net, metadata = load_with_metadata(out, net=None if described else PEER)
    wanted = resnetlab.load(peers)
    assert net.spec == wanted.spec
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in wanted.state_dict().items())
    assert (metadata is not None) == described


def test_a_file_of_ours_keeps_the_preprocessing(peers: Path, tmp_path: Path) -> None:
    convert(peers, tmp_path / "ours.safetensors", OURS)
    metadata = load_with_metadata(tmp_path / "ours.safetensors")[1]
    before = load_with_metadata(peers)[1]
    assert metadata is not None
    assert before is not None
    assert torch.equal(metadata.normalisation.mean, before.normalisation.mean)
    assert torch.equal(metadata.normalisation.std, before.normalisation.std)


def test_a_file_of_ours_tells_its_network_where_nothing_else_is_known(tmp_path: Path) -> None:
    net = resnetlab.build("cifar_preresnet20", seed=0)
    torch.save(net.state_dict(), tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "x.safetensors", OURS, net="cifar_preresnet20")
    found, metadata = load_with_metadata(tmp_path / "x.safetensors")
    assert (found.spec, metadata) == (net.spec, None)


def test_safetensors_for_others_are_marked_as_torchs(peers: Path, tmp_path: Path) -> None:
    convert(peers, tmp_path / "x.safetensors", "akamaster")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "module.linear.weight" in set(file.keys())


def test_arrays_are_named_as_in_caffe(tmp_path: Path) -> None:
    torch.save(resnetlab.build("resnet18", seed=0).state_dict(), tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "x.npz", "caffe")
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["res2a_branch2a.0"].shape == (64, 64, 3, 3)
    before, after = (resnetlab.load(tmp_path / name).state_dict() for name in ("x.pth", "x.npz"))
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_nothing_but_tensors_is_given_to_numpy(peers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 1 writes whatever has a name as an array, so an option of later versions would be one."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(np, "savez", lambda file, **arrays: given.update(arrays))
    convert(peers, tmp_path / "x.npz", OURS)
    assert given.keys() == resnetlab.load(peers).state_dict().keys()


@pytest.mark.parametrize(
    ("naming", "out", "net", "reason"),
    [
        ("akamaster", "peers.th", None, "peers.th: the name must end in one of .safetensors, .pth, .pt, .npz"),
        ("akamaster", "there.pth", None, "there.pth: already exists"),
        ("akamaster", "no/folder.pth", None, "no/folder.pth: can't be written"),
        ("torchvisoin", "x.pth", None, "to='torchvisoin' is not known.* Did you mean torchvision"),
        (
            "a-martyn",
            "x.pth",
            None,
            "a-martyn can't hold cifar_resnet8.*it has zero_pad='around', but theirs has 'after'.* can: akamaster",
        ),
        ("akamaster", "x.pth", "cifar_resnet14", "peers.th: does not fit cifar_resnet14"),
    ],
)
def test_what_can_not_be_written_is_refused(
    peers: Path, tmp_path: Path, naming: str, out: str, net: str | None, reason: str
) -> None:
    (tmp_path / "there.pth").write_text("mine")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=reason):
        convert(peers, tmp_path / out, naming, net=net)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.pth").read_text() == "mine"


def test_the_command(peers: Path, resnetlab: Command) -> None:
    done = resnetlab("convert", "peers.th", "--to", "resnetlab", "out.safetensors", "--json")
    assert json.loads(done.stdout) == {
        "written": "out.safetensors",
        "layout": "resnetlab",
        "network": PEER,
        "not_in_file": [],
    }
    again = resnetlab("convert", "peers.th", "out.safetensors", "--to", "resnetlab")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "error: out.safetensors: already exists; remove it, or choose another name.\n"


def test_the_help_names_every_naming_scheme() -> None:
    assert set(NAMED.replace(" or ", ", ").split(", ")) == {OURS, *NAMING_SCHEMES}


def test_what_a_file_has_no_place_for_is_said(tmp_path: Path, resnetlab: Command) -> None:
    """A run's classes, size and normalisation go into our safetensors only; a reader would take the scheme's."""
    spec = zoo.spec("resnet18(input_size=64)", num_classes=3)
    ones = torch.ones(3, 1, 1)
    card = ModelMetadata(spec, ("ant", "bee", "fly"), Normalisation(0.5 * ones, 0.25 * ones), {"data": "folder:x"})
    (tmp_path / "ours.safetensors").write_bytes(weights_bytes(zoo.build(spec, seed=0), card))
    known = ("the names of its classes", "the size of its images (64 pixels)", "the normalisation of its images")
    assert convert(tmp_path / "ours.safetensors", tmp_path / "a.pth", "torchvision").not_in_file == known
    which = ("which network it is (resnet18)",)
    assert convert(tmp_path / "ours.safetensors", tmp_path / "b.pth", OURS).not_in_file == (*which, *known)
    assert convert(tmp_path / "ours.safetensors", tmp_path / "c.safetensors", OURS).not_in_file == ()
    done = resnetlab("convert", "ours.safetensors", "d.pth", "--to", "torchvision")
    assert done.stdout == (
        "d.pth: resnet18 with the names of torchvision\n"
        "such a file has no place for the names of its classes, the size of its images (64 pixels), the normalisation "
        "of its images\n"
    )


def test_what_a_reader_takes_anyway_is_not_missed(peers: Path, tmp_path: Path) -> None:
    assert convert(peers, tmp_path / "x.pth", "akamaster").not_in_file == ()


def test_a_normalisation_that_is_given(peers: Path, tmp_path: Path) -> None:
    convert(peers, tmp_path / "x.safetensors", OURS, normalise="0.5/0.2,0.3,0.4")
    metadata = load_with_metadata(tmp_path / "x.safetensors")[1]
    assert metadata is not None
    assert metadata.normalisation.mean.flatten().tolist() == [0.5] * 3
    torch.testing.assert_close(metadata.normalisation.std.flatten(), torch.tensor([0.2, 0.3, 0.4]))
    with pytest.raises(UserError, match="can state a normalisation; leave --normalise out"):
        convert(peers, tmp_path / "x.pth", OURS, normalise="cifar10")
    assert not (tmp_path / "x.pth").exists()


@pytest.mark.parametrize(
    "text", ["cifar", "0.5", "0.5/0.2/0.1", "1,2/3", "a/b", "0.5/0", "nan/1", "0.5/-1", "", "1/inf"]
)
def test_a_normalisation_that_can_not_be(peers: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="normalise=.*(must be imagenet, cifar10, cifar100, or MEAN/STD|means must be)"):
        convert(peers, tmp_path / "x.safetensors", OURS, normalise=text)
