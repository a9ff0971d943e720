"""`~` in every option that is a path: what no shell expands, as in --runs=~/runs or in a file, the command does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import cyclopts
import pytest
from PIL import Image

from resnetlab import build
from resnetlab.cli.main import app, main
from resnetlab.weights.hub import from_pretrained, save_pretrained
from resnetlab.weights.load import load
from resnetlab.weights.metadata import weights_bytes

Captured = pytest.CaptureFixture[str]

# What an option that is text means: places are expanded where they are read, the others are no places.
PLACES = {"RECIPE", "SOURCE", "SOURCES", "IMAGES", "DATA", "RUN", "OTHER", "MORE"}
PLACES |= {"--from", "--data", "--calibrate", "--weights"}
NO_PLACES = {"NET", "NETS", "NAME", "--net", "--which", "--device", "--views", "--unit", "--label", "--at", "--host"}
NO_PLACES |= {"--to", "--unreadable", "--ray", "--classes", "--name", "--normalise", "PATTERN"}


def commands(of: cyclopts.App, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], cyclopts.App]]:
    for name, inner in of.resolved_commands().items():
        if not name.startswith("-"):
            yield from commands(inner, (*path, name))
    if path and of.default_command:
        yield path, of


def kinds(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    return {kind for inner in get_args(hint) for kind in kinds(inner)} if get_origin(hint) else {hint}


COMMANDS = dict(commands(app))
OPTIONS = [(path, option) for path, of in COMMANDS.items() for option in of.assemble_argument_collection()]
PATHS = [(path, option) for path, option in OPTIONS if Path in kinds(option.hint)]


def test_the_commands_are_walked() -> None:
    assert {("train",), ("data", "pack"), ("runs",), ("study", "report")} <= set(COMMANDS)
    assert len(PATHS) > 12


@pytest.mark.parametrize(("path", "option"), PATHS, ids=lambda value: " ".join(getattr(value, "names", value)))
def test_every_path_option_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: tuple[str, ...], option: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tokens = list(path)
    for other in (o for at, o in OPTIONS if at == path and (o.required or o.name == option.name)):
        value = "~/here" if other.name == option.name else "torchvision"
        tokens.append(f"{other.name}={value}" if other.name.startswith("--") else value)
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    found = bound.arguments[option.field_info.name]
    assert found == tmp_path / "here"


def test_every_option_of_text_is_known_as_a_place_or_none() -> None:
    """A new option that names a place belongs into PLACES, and into the test below."""
    texts = {option.name for _, option in OPTIONS if str in kinds(option.hint)}
    assert texts <= PLACES | NO_PLACES


@pytest.mark.parametrize(
    "arguments",
    [
        "train ~/x.toml",
        "train digits --data=~/x.toml",
        "train digits --data=cifar10:~/x.toml",
        "train finetune --data=digits --augment none --from=~/x.toml",
        "train TOML",
        "eval ~/x.toml --data digits",
        "eval WEIGHTS --data=folder:~/x.toml",
        "predict ~/x.toml a.png",
        "explain ~/x.toml a.png",
        "features ~/x.toml a.png --nearest 1",
        "export ~/x.toml",
        "export WEIGHTS --calibrate=~/x.toml --int8",
        "serve ~/x.toml --port 0",
        "convert ~/x.toml out.pth --to timm",
        "study run responses --weights cifar_resnet20=~/missing.toml --data cifar10:x",
        "runs plot ~/folder",
        "data pack ~/x.toml packed",
        "data audit folder:~/x.toml",
        "data stats ~/x.toml",
    ],
)
def test_every_place_in_text_is_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: str
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "folder").mkdir(parents=True)
    here.mkdir()
    (home / "x.toml").write_text("no such thing")
    net = build("cifar_resnet8", in_channels=1)
    (here / "weights.safetensors").write_bytes(weights_bytes(net, net.spec))
    (here / "start.toml").write_text("recipe = 'finetune'\ndata = 'digits'\naugment = 'none'\nstart = '~/x.toml'")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    places = {"TOML": "start.toml", "WEIGHTS": "weights.safetensors"}
    assert main([places.get(word, word) for word in arguments.split()]) == 2
    said = capsys.readouterr().err
    *before, error = said.splitlines()
    assert str(home) in error
    assert not [
        line for line in before if "the file does not state" not in line
    ]  # what weights without a description lack
    assert sorted(path.name for path in here.iterdir()) == ["start.toml", "weights.safetensors"]


def test_images_and_networks_below_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    net = build("cifar_resnet8")
    (tmp_path / "x.safetensors").write_bytes(weights_bytes(net, net.spec))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(tmp_path / name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for names in (["~/a.png", "~/b.png"], ["~/[ab].png"], ["~"]):
        assert main(["predict", "~/x.safetensors", *names, "--top", "1"]) == 0
        said = capsys.readouterr().out.splitlines()
        assert [line.partition(": ")[0] for line in said] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert load("~/x.safetensors").spec == net.spec
    save_pretrained("~/x.safetensors", "~/hub")
    assert (tmp_path / "hub" / "config.json").exists()
    assert from_pretrained("~/hub").spec == net.spec


@pytest.mark.parametrize(
    "arguments", ["runs --runs=~nosuchuser/x", "train digits --runs=~nosuchuser/x", "eval ~nosuchuser/x --data digits"]
)
def test_a_home_of_nobody_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert "~nosuchuser/x: no home folder is known for '~nosuchuser'; write the whole path" in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_converter_leaves_other_options_alone() -> None:
    _, bound, _ = app.parse_args(["explain", "run", "--label", "~x"], exit_on_error=False, print_error=False)
    assert bound.arguments["label"] == "~x"
