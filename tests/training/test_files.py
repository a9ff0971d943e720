"""Training from image files: the same from workers, resumed, evaluated; a folder with every kind of bad file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from resnetlab.data.open import open_data
from resnetlab.errors import UserError
from resnetlab.training import loop
from resnetlab.training.dry_run import dry_run
from resnetlab.training.evaluate import evaluate
from resnetlab.training.loop import train
from resnetlab.training.recipe import Recipe
from resnetlab.training.run import Run, make_run

MODERN: dict[str, Any] = {
    "augment": "resized_crop_flip",
    "policy": "trivialaugment",
    "colour_jitter": 0.2,
    "erasing": 0.25,
    "mixup": 0.2,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
}


def picture(hue: int, seed: int) -> Image.Image:
    """One colour with noise, of a size of its own: quickly learnt."""
    random = np.random.default_rng(seed)
    height, width = random.integers(24, 60, 2)
    noise = random.integers(-40, 40, (height, width, 3))
    return Image.fromarray((np.array([hue, 128, 255 - hue]) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two classes, 20 pictures each to train on and 7 to test on."""
    folder = tmp_path_factory.mktemp("colours")
    for side, count in (("train", 20), ("val", 7)):
        for name, hue in (("red", 220), ("blue", 40)):
            (folder / side / name).mkdir(parents=True)
            for i in range(count):
                picture(hue, 100 * hue + i + len(side)).save(folder / side / name / f"{i}.jpg")
    return folder


def recipe(folder: Path, **changes: Any) -> Recipe:
    settings = {"net": "cifar_resnet8", "epochs": 2, "batch_size": 12, "lr": 0.02, "normalise": "channel_mean_std"}
    return Recipe(**{**settings, "data": f"folder:{folder}", "image_size": 16, **changes})


def finish(r: Recipe, root: Path, workers: int = 0, stop_after: int = 0) -> Run:
    run = make_run(r, root)
    statuses = train(run, threads=1, workers=workers)
    for status in statuses:
        if stop_after and status.epochs_done == stop_after:
            statuses.close()  # type: ignore[attr-defined]
            break
    return run


def written(run: Run) -> tuple[bytes, str]:
    return (run.folder / "last/weights.safetensors").read_bytes(), (run.folder / "metrics.jsonl").read_text()


def test_a_folder_is_learnt_and_evaluated(colours: Path, tmp_path: Path) -> None:
    run = finish(recipe(colours, epochs=4), tmp_path)
    result = run.result()
    assert result is not None
    assert result["test_error"] == 0.0
    found = evaluate([run.folder], open_data(str(colours))).accuracy
    assert (found.images, found.top1) == (14, 100.0)
    assert "unreadable" in json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])


def learnt(run: Run) -> tuple[dict[str, bytes], str]:
    """The same without what the weight file says of where the data lies."""
    tensors = load_file(run.folder / "last/weights.safetensors")
    return {name: t.numpy().tobytes() for name, t in tensors.items()}, written(run)[1]


@pytest.mark.parametrize("how", [{}, MODERN, {"augment": "scale_crop_flip_colour", "normalise": "pixel_mean"}])
def test_workers_and_an_interruption_change_nothing(colours: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    unbroken = finish(recipe(colours, **how), tmp_path / "a")
    with_workers = finish(recipe(colours, **how), tmp_path / "b", workers=2)
    assert written(with_workers) == written(unbroken)
    finish(recipe(colours, **how), tmp_path / "c", stop_after=1)
    assert written(finish(recipe(colours, **how), tmp_path / "c", workers=1)) == written(unbroken)


def test_a_pack_of_originals_is_the_same_run(colours: Path, tmp_path: Path) -> None:
    from resnetlab.data.pack import pack

    pack(open_data(str(colours)), tmp_path / "pack", workers=1)
    from_folder = finish(recipe(colours, **MODERN), tmp_path / "a")
    from_pack = finish(recipe(colours, **MODERN, data=f"pack:{tmp_path / 'pack'}"), tmp_path / "b")
    assert from_pack.id == from_folder.id
    assert learnt(from_pack) == learnt(from_folder)


def bad_files(folder: Path) -> set[str]:
    """Write every kind of file that can't be read into a folder; return their names."""
    whole = io.BytesIO()
    picture(100, 1).save(whole, "JPEG")
    png = io.BytesIO()
    picture(100, 2).save(png, "PNG")
    bomb = bytearray(png.getvalue())
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # the width and height of its header
    contents = {
        "truncated.jpg": whole.getvalue()[: len(whole.getvalue()) // 2],
        "truncated.png": png.getvalue()[: len(png.getvalue()) // 2],
        "empty.jpg": b"",
        "text.jpg": b"no picture\n",
        "bomb.png": bytes(bomb),
        "garbage.jpg": b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return set(contents)


def good_files(folder: Path) -> None:
    """Write every unusual kind that can be read."""
    base = picture(220, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    base.save(folder / "turned.jpg", exif=exif)
    base.convert("CMYK").save(folder / "cmyk.jpg")
    base.convert("L").save(folder / "grey.jpg")
    base.convert("P").save(folder / "palette.png")
    base.convert("RGBA").save(folder / "alpha.png")
    base.convert("LA").save(folder / "grey_alpha.png")
    Image.fromarray(np.arange(900, dtype=np.uint16).reshape(30, 30) * 70).save(folder / "deep.png")
    base.save(folder / "frames.gif", save_all=True, append_images=[picture(10, 4)])
    base.save(folder / "picture.webp")
    base.save(folder / "png_inside.jpg", "PNG")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_with_every_kind_of_file(tmp_path: Path, workers: int) -> None:
    for side in ("train", "val"):
        for name in ("red", "blue"):
            (tmp_path / "data" / side / name).mkdir(parents=True)
            good_files(tmp_path / "data" / side / name)
    bad = bad_files(tmp_path / "data/train/red")
    with pytest.raises(UserError, match=f"data/train/red/({'|'.join(sorted(bad))}): can't be read"):
        finish(recipe(tmp_path / "data"), tmp_path / "runs", workers)
    skipping = recipe(tmp_path / "data", unreadable="skip", unreadable_limit=6, batch_size=26)
    run = finish(skipping, tmp_path / "runs", workers)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["unreadable"] for line in lines] == [6, 6]
    with pytest.raises(UserError, match="exceeds unreadable_limit=5"):
        finish(recipe(tmp_path / "data", unreadable="skip", unreadable_limit=5), tmp_path / "runs", workers)
    for name in bad:
        (tmp_path / "data/train/red" / name).rename(tmp_path / "data/val/red" / name)
    with pytest.raises(UserError, match="data/val/red/.*: can't be read"):
        finish(recipe(tmp_path / "data"), tmp_path / "runs", workers)
    run = finish(skipping, tmp_path / "runs", workers)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["unreadable"] for line in lines] == [6, 6]


def test_a_folder_of_unreadable_files_only(tmp_path: Path) -> None:
    for path in ("train/red", "train/blue", "val/red"):
        (tmp_path / path).mkdir(parents=True)
        bad_files(tmp_path / path)
    with pytest.raises(UserError, match="neither this nor any other training image can be read"):
        finish(recipe(tmp_path, unreadable="skip"), tmp_path / "runs")
    with pytest.raises(UserError, match="no batch of 12 has two readable images"):
        finish(recipe(tmp_path, unreadable="skip", normalise="imagenet"), tmp_path / "runs")


def test_nothing_can_be_evaluated(colours: Path, tmp_path: Path) -> None:
    for name in ("red", "blue"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "val" / name).mkdir(parents=True)
        for i in range(3):
            picture(100, i).save(tmp_path / "train" / name / f"{i}.jpg")
        bad_files(tmp_path / "val" / name)
    with pytest.raises(UserError, match="none of the test images can be read; see 'resnetlab data audit'"):
        finish(recipe(tmp_path, unreadable="skip", unreadable_limit=100), tmp_path / "runs")
    with pytest.raises(UserError, match="none of 6 test images can be read; see 'resnetlab data audit'"):
        dry_run(make_run(recipe(tmp_path, unreadable="skip"), tmp_path / "runs"), threads=1)


def test_another_error_of_an_evaluation_is_not_one_of_unreadable_images(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("something else")

    monkeypatch.setattr(loop, "accuracy", fails)
    with pytest.raises(ValueError, match="something else") as caught:
        finish(recipe(colours, epochs=1), tmp_path / "runs")
    assert not isinstance(caught.value, UserError)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": "digits"}, "image_size=16: the images of digits have 8 pixels; leave it out"),
        (
            {"net": "cifar_resnet8(in_channels=1)"},
            r"net='cifar_resnet8\(in_channels=1\)': the data decide in_channels, which is 3 for colours\d; leave",
        ),
        (
            {"net": "cifar_resnet8(num_classes=7)"},
            r"the data decide num_classes, which is 2 for colours\d; leave",
        ),
        (
            {"data": "digits", "image_size": None, "augment": "resized_crop_flip"},
            "files; .* allows only 'none', 'crop_flip', ",
        ),
        ({"augment": "crop_flip", "crop_padding": 17}, "crop_padding=17: the images have 16 pixels; give 0 to 16"),
        ({"image_size": 4}, "image_size=4 must be 8 to 4096"),
        ({"validation_images": 39}, r"colours\d has 40 training images, so choose 0 to 38"),
        ({"unreadable": "ignore"}, "unreadable"),
    ],
)
def test_what_does_not_fit(colours: Path, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make_run(recipe(colours, **changes), tmp_path)


def test_held_out_files(colours: Path, tmp_path: Path) -> None:
    run = finish(recipe(colours, validation_images=10, epochs=1), tmp_path)
    line = json.loads((run.folder / "metrics.jsonl").read_text())
    assert {"validation_error", "test_error"} <= set(line)
    train_files, held = run.data.hold_out(10)
    assert (len(train_files), len(held)) == (30, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes"), [("hymenoptera", 2), ("imagenette", 10)])
def test_real_photographs_from_folder_and_pack(real_images: Any, tmp_path: Path, name: str, classes: int) -> None:
    """An epoch of a ResNet-18 at 64 pixels: the same bits from the folder and from a pack; the loss has fallen."""
    from resnetlab.data.pack import pack

    folder = real_images(name)
    settings = {"net": "resnet18", "image_size": 64, "batch_size": 32, "augment": "resized_crop_flip", "epochs": 1}
    first = finish(recipe(folder, **settings), tmp_path / "a", workers=1)
    pack(open_data(str(folder)), tmp_path / "pack", workers=1)
    second = finish(recipe(folder, **settings, data=f"pack:{tmp_path / 'pack'}"), tmp_path / "b")
    assert learnt(first) == learnt(second)
    line = json.loads(written(first)[1].splitlines()[-1])
    assert line["train_loss"] < 1.6 * torch.tensor(float(classes)).log().item()
    assert len(first.data.classes) == classes
