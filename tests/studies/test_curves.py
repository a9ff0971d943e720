"""Error curves of runs: what is drawn, what it is called, and which files are replaced."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from resnetlab.errors import UserError
from resnetlab.studies.figures.curves import check_out, error_curves, save_curves
from resnetlab.studies.figures.svg import LIGHT, STAND_INS

SIGNS = {".svg": b"<!-- resnetlab", ".png": b"\x89PNG", ".pdf": b"%PDF"}


def made(folder: Path, epochs: int = 3, data: str = "digits", factor: float = 1, **recipe: Any) -> Path:
    """A run folder with metrics, as far as plots read it."""
    folder.mkdir(parents=True)
    net = recipe.pop("net", "cifar_resnet20")
    settings = {"format": 1, "id": folder.name, "spec": {"name": net}, "recipe": recipe, "data": {"name": data}}
    (folder / "run.json").write_text(json.dumps(settings))
    lines: list[dict[str, Any]] = []
    for e in range(1, epochs + 1):
        lines.append({"step": 100 * e - 50, "lr": 0.1, "train_loss": 1.0, "train_error": 99.0})
        lines.append({"epoch": e, "step": 100 * e, "train_error": factor * 30 / e, "test_error": factor * 40 / e})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def names(*folders: Path) -> list[str]:
    (panel,) = error_curves(list(folders)).panels
    return [s.label.removesuffix(" test") for s in panel.series if not s.dashed]


def test_training_is_dashed_test_is_bold_by_iteration(tmp_path: Path) -> None:
    (panel,) = error_curves([made(tmp_path / "a"), made(tmp_path / "b", net="cifar_plain20", factor=2)]).panels
    assert (panel.title, panel.x_label, panel.y_limits) == ("digits", "iterations", (0.0, 90.0))
    assert [(s.label, s.dashed, s.colour) for s in panel.series] == [
        ("cifar_resnet20 training", True, 0),
        ("cifar_resnet20 test", False, 0),
        ("cifar_plain20 training", True, 1),
        ("cifar_plain20 test", False, 1),
    ]
    assert (panel.series[1].x, panel.series[1].mean) == ([100, 200, 300], [40, 20, pytest.approx(40 / 3)])
    assert panel.series[2].mean == [60, 30, 20]


def test_long_runs_are_in_thousands_of_iterations(tmp_path: Path) -> None:
    (panel,) = error_curves([made(tmp_path / "a", epochs=300)]).panels
    assert panel.x_label == "iterations (thousands)"
    assert panel.series[0].x[-1] == 30
    assert panel.y_limits == (0.0, 5.0), "what comes before the first tenth may leave the picture"


def test_runs_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    a = made(tmp_path / "a", seed=0, lr=0.1)
    assert names(a, made(tmp_path / "b", net="cifar_plain20", seed=0, lr=0.2)) == ["cifar_resnet20", "cifar_plain20"]
    assert names(a, made(tmp_path / "c", seed=1, lr=0.1)) == ["cifar_resnet20, seed 0", "cifar_resnet20, seed 1"]
    assert names(a, made(tmp_path / "d", seed=0, lr=0.05)) == ["cifar_resnet20, lr 0.1", "cifar_resnet20, lr 0.05"]
    assert names(a, made(tmp_path / "e", seed=0, lr=0.1)) == ["cifar_resnet20, a", "cifar_resnet20, e"]
    other = made(tmp_path / "f", net="cifar_plain20", data="cifar10")
    assert names(a, other) == ["cifar_resnet20, digits", "cifar_plain20, cifar10"]
    assert error_curves([a, other]).panels[0].title == "errors"


@pytest.mark.parametrize("ending", SIGNS)
def test_a_plot_replaces_a_plot_and_nothing_else(tmp_path: Path, ending: str) -> None:
    figure = error_curves([made(tmp_path / "a"), made(tmp_path / "b", net="cifar_plain20")])
    out = tmp_path / f"curves{ending}"
    save_curves(figure, out)
    first = out.read_bytes()
    assert first.startswith(SIGNS[ending])
    save_curves(figure, out)
    assert out.read_bytes() == first, "the same runs give the same file"
    out.write_bytes(SIGNS[ending][:4] + b" of somebody else")
    with pytest.raises(UserError, match="already exists and is not a plot of this command"):
        save_curves(figure, out)
    assert out.read_bytes().endswith(b"of somebody else")


def test_the_svg_has_the_names_and_the_png_the_colours(tmp_path: Path) -> None:
    from matplotlib.image import imread

    figure = error_curves([made(tmp_path / "a"), made(tmp_path / "b", net="cifar_plain20", factor=2)])
    save_curves(figure, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    words = [e.text for e in ElementTree.fromstring(text).iter() if e.text and e.tag.endswith("text")]
    assert {"cifar_resnet20", "cifar_plain20", "training", "test", "iterations", "error (%)", "digits"} <= set(words)
    assert re.search(r"prefers-color-scheme: dark", text)
    save_curves(figure, tmp_path / "x.png")
    image = imread(tmp_path / "x.png")
    pixels = {tuple(p) for p in (255 * image[..., :3]).round().astype(int).reshape(-1, 3).tolist()}
    for name in ("paper", "ink", "muted", "c0", "c5"):  # the grid is too fine to have a pixel of its own
        assert tuple(bytes.fromhex(LIGHT[name][1:])) in pixels, name
    assert not pixels & {tuple(bytes.fromhex(colour[1:])) for colour in STAND_INS.values()}


def test_errors_that_are_no_numbers_do_not_stop_a_plot(tmp_path: Path) -> None:
    save_curves(error_curves([made(tmp_path / "a", factor=float("nan"))]), tmp_path / "x.svg")
    assert (tmp_path / "x.svg").exists()


def test_what_can_not_be_drawn_is_named(tmp_path: Path) -> None:
    a = made(tmp_path / "a")
    with pytest.raises(UserError, match="new: has no whole epoch yet; leave it out, or wait"):
        error_curves([a, made(tmp_path / "new", epochs=0)])
    with pytest.raises(UserError, match="a: is given twice"):
        error_curves([a, tmp_path / "." / "a"])
    with pytest.raises(UserError, match="7 runs: no more than 6 can be told apart"):
        error_curves([a] * 7)
    (a / "metrics.jsonl").write_text("{\n")
    with pytest.raises(UserError, match=r"a/metrics.jsonl: damaged, line 1: not JSON .*; leave it out"):
        error_curves([a])
    with pytest.raises(UserError, match=r"x.gif: the suffix decides the format; give one of .svg, .png, .pdf"):
        check_out(tmp_path / "x.gif")
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(UserError, match=r"x.svg: can't be written \(it is a folder, not a regular file\)"):
        check_out(tmp_path / "x.svg")
