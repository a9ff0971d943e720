"""Weights by name, fetched from a local server: once, checked, resumed, read with what their publisher states."""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

import resnetlab
from resnetlab.cli.main import main
from resnetlab.data.imagenet import class_names
from resnetlab.data.resizing import Resizing
from resnetlab.errors import UserError
from resnetlab.nets.zoo import names
from resnetlab.weights import hub_files, sources
from resnetlab.weights.load import load_described
from resnetlab.weights.published import TORCHVISION, TorchvisionFile
from resnetlab.weights.sources import fetch_weights, located, short_name

Net = Any
SMALL = "resnet18(stages=[(1, 8), (1, 8, 2), (1, 8, 2), (1, 8, 2)], stem_width=8)"
MODEL, CONFIG = "timm/resnet18.a1_in1k/model.safetensors", "timm/resnet18.a1_in1k/config.json"
TOLD: dict[str, Any] = {
    "architecture": "resnet18",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 160, 160],
        "test_input_size": [3, 288, 288],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.1, 0.2, 0.3],
    },
}


@pytest.fixture(scope="module")
def net() -> Net:
    return resnetlab.build(SMALL, seed=0)


@pytest.fixture
def torchvision(publisher: Any, net: Net, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A made-up file under resnet18's name, in the table and on the server."""
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    name = f"resnet18-{hashlib.sha256(content.getvalue()).hexdigest()[:8]}.pth"
    monkeypatch.setitem(TORCHVISION, "resnet18", TorchvisionFile(name, 69.758))
    publisher.files[f"models/{name}"] = content.getvalue()
    return publisher


@pytest.fixture
def hub(publisher: Any, net: Net) -> Any:
    """A made-up repository of timm's."""
    publisher.files |= {MODEL: save(net.state_dict(), {"format": "pt"}), CONFIG: json.dumps(TOLD).encode()}
    return publisher


def assert_same(found: Net, wanted: Net) -> None:
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in wanted.state_dict().items())


def test_torchvisions_file_is_fetched_once_and_kept_where_torchvision_keeps_it(torchvision: Any, net: Net) -> None:
    loaded = load_described("torchvision:resnet18")
    assert_same(loaded.net, net)
    assert loaded.classes == tuple(class_names().values())
    assert loaded.tells_size
    assert located("torchvision:resnet18") == Path(torch.hub.get_dir()) / "checkpoints" / TORCHVISION["resnet18"].name
    assert list(fetch_weights("torchvision:resnet18")) == []
    assert len(torchvision.asked) == 1


def test_a_download_goes_on_where_it_stopped(torchvision: Any, net: Net) -> None:
    torchvision.cut = 1000
    events = fetch_weights("torchvision:resnet18")
    while next(events).done < 1000:
        pass
    events.close()  # what Ctrl-C does to it
    assert_same(resnetlab.load("torchvision:resnet18"), net)
    assert torchvision.asked[1].endswith(" bytes=1000-")


def test_a_file_that_is_not_the_published_one_is_not_used(torchvision: Any) -> None:
    torchvision.wrong = True
    with pytest.raises(UserError, match=r"its SHA-256 should begin with [0-9a-f]{8}, but is "):
        located("torchvision:resnet18")
    place = Path(torch.hub.get_dir()) / "checkpoints"
    assert list(place.iterdir()) == []
    (place / TORCHVISION["resnet18"].name).write_bytes(b"by hand")
    with pytest.raises(UserError, match=r"exists, but is not the published file of torchvision:resnet18"):
        located("torchvision:resnet18")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "torchvision:resnet51",
            r"resnet51: no such weights.*choose one of resnet18, .*Did you mean resnet5",
        ),
        ("pretrained:cifar_resnet57", r"pretrained:cifar_resnet57: the package has no such weights"),
        ("pretrained:resnet50", r"torchvision's are called torchvision:resnet50\."),
        ("hf:resnet50", r"write hf:OWNER/NAME"),
        ("hf:../..", r"write hf:OWNER/NAME"),
        ("hf:éclair/ours", r"write hf:OWNER/NAME"),
        ("timm/éclair", r"timm/éclair: no such run folder or weight file"),
        ("hf:owner/name@../../x", r"write hf:OWNER/NAME"),
        ("owner/name", r"no such run folder or weight file \(a repository .* is written hf:owner/name\)"),
        ("cifar_resnet20", "it is the name of a network; weights for it are pretrained:cifar_resnet20"),
        ("resnet50", "weights for it are torchvision:resnet50, torchvision:resnet50.v2"),
        ("Pretrained:x", r"weight file \(names of weights begin with pretrained:, torchvision:, hf:\)\."),
        ("plain34", "plain34: no such run folder or weight file: it is the name of a network; train it first"),
        ("timm/../x", r"no such run folder or weight file\."),
        ("runs/gone", r"runs/gone: no such run folder or weight file\."),
    ],
)
def test_names_of_nothing(source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resnetlab.load(source)


def test_without_a_network_one_line_says_what_to_do(
    publisher: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = "http://127.0.0.1:9/"  # the port of discard, which no one serves
    for name in ("RESNETLAB_TORCHVISION_URL", "HF_ENDPOINT"):
        monkeypatch.setenv(name, nobody)
    for source, advice in (
        ("torchvision:resnet50", "or download http://127.0.0.1:9/resnet50-0676ba61.pth by hand, put it into"),
        ("timm/resnet50.a1_in1k", "or download model.safetensors of the repository by hand"),
    ):
        assert main(["predict", source, "x.png"]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "127.0.0.1:9 can't be reached" in said
        assert advice in said


def test_a_repository_is_fetched_once_with_its_preprocessing(
    hub: Any, net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_described("timm/resnet18.a1_in1k")
    assert [record.getMessage() for record in caplog.records] == [
        "timm/resnet18.a1_in1k: downloading model.safetensors",
    ]
    assert_same(loaded.net, net)
    assert loaded.metadata is not None
    assert loaded.metadata.normalisation.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert loaded.metadata.normalisation.std.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert (loaded.net.spec.input_size, loaded.tells_size) == (160, True)
    assert loaded.resizing == Resizing(0.95, "bicubic")
    assert loaded.resizing.short_side(160) == 168
    assert loaded.classes == tuple(class_names().values())
    assert [line.split()[0] for line in hub.asked] == ["HEAD", *4 * ["GET"]]
    assert load_described("timm/resnet18.a1_in1k", image_size=96).net.spec.input_size == 96
    assert_same(resnetlab.from_pretrained("timm/resnet18.a1_in1k"), net)
    assert len(hub.asked) == 5


@pytest.mark.parametrize(
    "changes",
    [
        *({"std": [0.1, wrong, 0.3]} for wrong in (0, -0.2, math.inf, math.nan, "x")),
        *({"mean": [0.1, wrong, 0.3]} for wrong in (math.inf, math.nan, None)),
        *({"crop_pct": wrong} for wrong in (0, -1, math.inf, math.nan)),
        {"input_size": [160]},
    ],
)
def test_a_config_of_impossible_values_states_nothing(tmp_path: Path, changes: dict[str, Any]) -> None:
    def stated(changes: dict[str, Any]) -> Any:
        (tmp_path / "config.json").write_text(json.dumps({**TOLD, "pretrained_cfg": TOLD["pretrained_cfg"] | changes}))
        return hub_files.preprocessing(tmp_path)

    assert stated({}).std == (0.1, 0.2, 0.3)
    assert stated(changes) is None


def test_a_revision_an_old_file_and_a_repository_that_was_renamed(hub: Any, net: Net) -> None:
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    hub.files = {"owner/new/pytorch_model.bin": content.getvalue()}
    hub.renamed = {"owner/old": "owner/new"}
    hub.revisions += ("v1",)
    assert_same(resnetlab.load("hf:owner/old"), net)
    assert_same(resnetlab.load("hf:owner/new@v1"), net)
    assert_same(resnetlab.from_pretrained("owner/new", revision="v1"), net)
    assert load_described("hf:owner/new@v1").classes is None
    with pytest.raises(UserError, match=r"hf:owner/new: the hub has no such repository at v2, or neither"):
        resnetlab.load("hf:owner/new@v2")


def test_a_config_that_is_not_what_the_hub_states_is_not_used(hub: Any, net: Net) -> None:
    hub.wrong_config = True
    loaded = load_described("timm/resnet18.a1_in1k")
    assert_same(loaded.net, net)
    assert (loaded.resizing, loaded.tells_size) == (None, True)
    assert not (hub_files.place("timm/resnet18.a1_in1k") / "config.json").exists()


def test_a_config_that_breaks_off_is_fetched_again(hub: Any) -> None:
    """Nothing is loaded without it: it may say that the network is another than its tensors show."""
    hub.cut = 10
    with pytest.raises(UserError, match=r"breaks off in config\.json \(IncompleteRead\(10 .*\. Check the network"):
        load_described("timm/resnet18.a1_in1k")
    assert load_described("timm/resnet18.a1_in1k").resizing == Resizing(0.95, "bicubic")


def test_what_the_hub_states_counts_wherever_its_files_lie(hub: Any, net: Net) -> None:
    """On its own host, too, a redirect to the file's place has the hash that the place does not state."""
    hub.elsewhere = "/"
    assert_same(resnetlab.load("timm/resnet18.a1_in1k"), net)


def test_what_the_hub_sends_is_checked_by_the_hash_that_it_states(hub: Any) -> None:
    hub.wrong = True
    with pytest.raises(UserError, match=r"its SHA-256 should be [0-9a-f]{64}, but is "):
        resnetlab.load("timm/resnet18.a1_in1k")
    hub.wrong, hub.states_hashes = False, False
    with pytest.raises(UserError, match=r"the hub states no SHA-256 of model.safetensors, so a download can't be"):
        resnetlab.load("timm/resnet18.a1_in1k")


def test_a_token_is_told_to_the_hub_alone(hub: Any, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.private = True
    with pytest.raises(UserError, match=r"answers 401 .* needs your token, in HF_TOKEN"):
        resnetlab.load("timm/resnet18.a1_in1k")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert_same(resnetlab.load("timm/resnet18.a1_in1k"), net)
    assert set(hub.tokens) == {("127.0.0.1", "Bearer hf_secret")}
    monkeypatch.setenv("HF_ENDPOINT", "http://example.org")
    assert hub_files._token("http://example.org/x") == ""


def test_what_huggingface_hub_has_fetched_is_used(hub: Any, net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    with pytest.raises(UserError, match=r"is not in the cache, and HF_HUB_OFFLINE is set"):
        resnetlab.load("timm/resnet18.a1_in1k")
    kept = sources.hub_files.cache_folder().parent / "huggingface/hub/models--timm--resnet18.a1_in1k"
    for path, content in (("refs/main", b"abc\n"), ("snapshots/abc/model.safetensors", hub.files[MODEL])):
        (kept / path).parent.mkdir(parents=True)
        (kept / path).write_bytes(content)
    assert_same(resnetlab.load("timm/resnet18.a1_in1k"), net)
    assert hub.asked == []


def test_a_folder_of_that_name_comes_before_the_hub(
    hub: Any, net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    resnetlab.save_pretrained(net, "timm/mine")
    assert_same(resnetlab.load("timm/mine"), net)
    assert hub.asked == []


def test_the_commands_take_names(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (200, 200), (200, 30, 90)).save("x.png")
    assert main(["predict", "timm/resnet18.a1_in1k", "x.png", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["images"][0]["classes"][0]["class"] in class_names().values()
    assert "does not state" not in told.err
    assert "model.safetensors: " in told.err  # lines of the download
    assert main(["convert", "timm/resnet18.a1_in1k", "x.pth", "--to", "fb"]) == 0
    assert main(["features", "timm/resnet18.a1_in1k", "x.png", "--out", "x.npz"]) == 0
    assert "downloading" not in capsys.readouterr().err


def test_fine_tuning_from_a_name(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    for i in range(8):
        folder = tmp_path / "data" / ("train", "val")[i % 2] / "ab"[i // 4]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (30 * i, 0, 99)).save(folder / f"{i}.png")
    fields = ["--epochs", "1", "--least-iterations", "0", "--warmup", "none", "--batch-size", "2", "--image-size", "32"]
    fields += ["--validation-images", "0"]
    assert main(["train", "finetune", "--data", "data", "--from", "timm/resnet18.a1_in1k", *fields, "--json"]) == 0
    run = Path(json.loads(capsys.readouterr().out.splitlines()[-1])["run"])
    settings = json.loads((run / "run.json").read_text())
    assert settings["recipe"]["start"] == "timm/resnet18.a1_in1k"
    assert "fc is new: 1000 -> 2 classes" in settings["start"]["note"]


def test_what_files_are_called_that_are_made_of_a_source(tmp_path: Path) -> None:
    (tmp_path / "net.pth").write_bytes(b"")
    (tmp_path / "my-flowers-0a1b2c3d4e5f").mkdir()
    (tmp_path / "my-flowers-0a1b2c3d4e5f/run.json").write_text("{}")
    wanted: dict[str, str] = {
        str(tmp_path / "my-flowers"): "my-flowers",
        str(tmp_path / "0a1b2c3d4e5f"): "my-flowers-0a1b2c3d4e5f",
        str(tmp_path / "my-flowers-0a1b2c3d4e5f"): "my-flowers-0a1b2c3d4e5f",
        "pretrained:cifar_resnet20": "cifar_resnet20",
        "timm/resnet50.a1_in1k": "resnet50.a1_in1k",
        "hf:owner/name@v1": "name-v1",
        str(tmp_path / "net.pth"): "net",
        str(tmp_path): tmp_path.name,
    }
    assert {source: short_name(source) for source in wanted} == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"interpolation": "lanczos"},
            "resizes images with lanczos interpolation (here bilinear), so the accuracy may differ",
        ),
        ({"crop_mode": "squash"}, "resizes images to a crop share of 0.95, crop mode squash (here 0.875, center), so"),
        ({"input_size": [3, 160, 96]}, "takes images of 96 x 160 pixels (here squares), so"),
        ({"crop_pct": 1.1}, "resizes images to a crop share of 1.1, crop mode center (here 0.875, center), so"),
    ],
)
def test_what_a_project_does_otherwise_is_said(
    hub: Any, caplog: pytest.LogCaptureFixture, change: dict[str, object], said: str
) -> None:
    hub.files[CONFIG] = json.dumps(TOLD | {"pretrained_cfg": TOLD["pretrained_cfg"] | change}).encode()
    loaded = load_described("timm/resnet18.a1_in1k")
    assert any(f"its project {said}" in message for message in caplog.messages)
    assert loaded.metadata is not None
    assert loaded.metadata.normalisation.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])


def test_timms_older_config_without_pretrained_cfg(hub: Any) -> None:
    hub.files[CONFIG] = json.dumps({"architecture": "resnet18"} | TOLD["pretrained_cfg"]).encode()
    loaded = load_described("timm/resnet18.a1_in1k")
    assert loaded.metadata is not None
    assert loaded.metadata.normalisation.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert (loaded.net.spec.input_size, loaded.resizing) == (160, Resizing(0.95, "bicubic"))


def test_what_config_json_leaves_out_is_timms_default(hub: Any) -> None:
    cfg = {key: value for key, value in TOLD["pretrained_cfg"].items() if key not in ("interpolation", "crop_pct")}
    hub.files[CONFIG] = json.dumps(TOLD | {"pretrained_cfg": cfg | {"test_crop_pct": 1.0}}).encode()
    assert load_described("timm/resnet18.a1_in1k").resizing == Resizing(0.875, "bicubic")
    assert load_described("timm/resnet18.a1_in1k", image_size=288).resizing == Resizing(1.0, "bicubic")
    assert load_described("timm/resnet18.a1_in1k", image_size=256).resizing == Resizing(0.875, "bicubic")


def test_torchvisions_short_side_is_its_files(torchvision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_described("torchvision:resnet18").resizing is None  # 256 to 224, as everywhere
    monkeypatch.setitem(TORCHVISION, "resnet18", replace(TORCHVISION["resnet18"], short_side=232))
    loaded = load_described("torchvision:resnet18")
    assert loaded.resizing is not None
    assert loaded.resizing.short_side(224) == 232
    assert loaded.classes == tuple(class_names().values())


def test_nets_for_cifar_see_whole_images(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TOLD | {"architecture": "resnet18"}))
    net = resnetlab.build("cifar_resnet20(shortcut=B)", seed=0)
    (tmp_path / "model.safetensors").write_bytes(save(net.state_dict(), {"format": "pt"}))
    loaded = load_described(tmp_path, net="cifar_resnet20(shortcut=B)")
    assert loaded.resizing is None


@pytest.mark.parametrize(
    "config",
    [b"", b"[]", b"{}", b'{"pretrained_cfg": 1}', json.dumps(TOLD).replace("160, 160", "160").encode()]
    + [json.dumps(TOLD).replace("0.95", value).encode() for value in ("0", "NaN", '"x"')],
)
def test_a_config_that_says_nothing_of_use(config: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(config)
    assert hub_files.preprocessing(tmp_path) is None


def test_torchvisions_table() -> None:
    for name, published in TORCHVISION.items():
        network = name.removesuffix(".v2")
        assert re.fullmatch(rf"{network}-[0-9a-f]{{8}}\.pth", published.name)
        assert published.sha256 == published.name[-12:-4]
        assert network in names() or network == "resnext101_64x4d"  # which is a resnext101_32x8d of other groups
        assert 0 < published.top1 < 100
        assert published.preprocessing.size == 224
        assert published.preprocessing.resizing.interpolation == "bilinear"
        longer = name.endswith(".v2") or network == "resnext101_64x4d"  # trained by the longer recipe
        assert published.preprocessing.resizing.short_side(224) == (232 if longer else 256)
