"""What data means by what it is opened for: a split is drawn to train, and nothing is trained on in an evaluation."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from made_folders import messages, names, write

from resnetlab.cli.main import main
from resnetlab.data.files import Files
from resnetlab.data.folder import ALL
from resnetlab.data.images import Data, Purpose
from resnetlab.data.open import open_data
from resnetlab.data.pack import INDEX, pack, read_index
from resnetlab.data.walk import SPLIT
from resnetlab.errors import UserError

RUN = '{"id": "0123", "spec": {}, "recipe": {}}'
CLASSES = [f"{label}/{i}.png" for label in "abc" for i in range(10)]


def tree(folder: Path) -> set[str]:
    return {os.path.join(place, name) for place, _, files in os.walk(folder) for name in files}


def counts(data: Data) -> tuple[int, int, str]:
    return len(data.train), len(data.test), data.part


def test_a_folder_without_a_split_is_tested_whole_and_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, *CLASSES)
    before = tree(tmp_path)
    data = open_data(str(tmp_path), "evaluate")
    assert counts(data) == (0, 30, ALL)
    assert names(data.test) == sorted(CLASSES)
    assert (data.classes, data.shape) == (("a", "b", "c"), None)
    seen = open_data(str(tmp_path), "read")
    assert counts(seen) == (24, 6, "drawn, a fifth of each class")
    assert tree(tmp_path) == before
    trained = open_data(str(tmp_path))
    assert counts(trained) == (24, 6, f"by {SPLIT}")
    assert trained.fingerprint == seen.fingerprint  # what is read is what a training will have


def test_a_split_that_is_written_down_keeps_its_meaning(tmp_path: Path) -> None:
    write(tmp_path, *CLASSES)
    trained = open_data(str(tmp_path))
    write(tmp_path, "a/new.png", "d/1.png")  # d: one image, which no training could split
    before = tree(tmp_path)
    data = open_data(str(tmp_path), "evaluate")
    assert names(data.test) == [*names(trained.test), "d/1.png"]
    assert data.part == f"by {SPLIT}"
    assert tree(tmp_path) == before
    image = tmp_path / names(trained.test)[0]
    image.rename(image.with_suffix(".jpg"))  # it stays a test image; only a training writes down its name
    written = (tmp_path / SPLIT).read_bytes()
    assert len(open_data(str(tmp_path), "evaluate").test) == len(data.test)
    assert (tmp_path / SPLIT).read_bytes() == written


def test_where_the_split_could_not_be_written_down_the_run_tells_it(tmp_path: Path) -> None:
    write(tmp_path, *CLASSES)
    trained = open_data(str(tmp_path), "read").fingerprint  # as a training on a disk that is read-only
    assert open_data(str(tmp_path), "evaluate", trained_on={"another"}).part == ALL
    data = open_data(str(tmp_path), "evaluate", trained_on={"another", trained})
    assert counts(data) == (24, 6, "drawn as in training")
    assert data.fingerprint == trained
    write(tmp_path, "d/1.png")  # no split can be drawn
    assert open_data(str(tmp_path), "evaluate", trained_on={trained}).part == ALL


@pytest.mark.parametrize("test", ["val", "valid", "validation", "test"])
@pytest.mark.parametrize("purpose", ["evaluate", "read"])
def test_a_test_part_alone(tmp_path: Path, test: str, purpose: Purpose) -> None:
    write(tmp_path, f"{test}/a/1.png", f"{test}/b/1.png", f"{test}/c/")
    data = open_data(str(tmp_path), purpose)
    assert counts(data) == (0, 2, f"{test} alone")
    assert data.classes == ("a", "b", "c")
    with pytest.raises(UserError, match=f"it has '{test}' but no 'train' with classes in it"):
        open_data(str(tmp_path))


def test_training_images_under_another_name_are_not_passed_over(tmp_path: Path) -> None:
    """What audits, packs or describes a data set for training must not take its test part for all of it."""
    write(tmp_path, "training/a/1.png", "training/b/1.png", "validation/a/1.png", "validation/b/1.png")
    for purpose in ("train", "read"):
        with pytest.raises(UserError, match="training: seems to be part of a split; name the two parts 'train'"):
            open_data(str(tmp_path), purpose)
    assert counts(open_data(str(tmp_path), "evaluate")) == (0, 2, "validation alone")


@pytest.mark.parametrize("recipe", ["imagenet_paper", "finetune"])
def test_a_dry_run_on_a_test_part_alone_says_that_it_lacks_training_images(
    tmp_path: Path, recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "val/a/1.png", "val/b/1.png")
    options = ("--net", "cifar_resnet8", "--image-size", "32", "--dry-run", "--data", str(tmp_path))
    assert main(["train", recipe, *options]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {tmp_path}: has no training images, val alone."


def test_a_whole_data_set_means_the_same_for_all(tmp_path: Path) -> None:
    write(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/1.png")
    every = [open_data(str(tmp_path), purpose) for purpose in ("train", "evaluate", "read")]
    assert {data.fingerprint for data in every} == {every[0].fingerprint}
    assert [counts(data) for data in every] == [(2, 1, "val")] * 3
    assert counts(open_data(str(tmp_path / "train"), "evaluate")) == (0, 2, f"the training images of {tmp_path.name}")
    assert counts(open_data(str(tmp_path / "val"), "evaluate")) == (0, 1, ALL)  # of one class


def test_two_test_parts_are_not_chosen_from(tmp_path: Path) -> None:
    write(tmp_path, "val/a/1.png", "val/b/1.png", "test/a/1.png", "test/b/1.png")
    with pytest.raises(UserError, match=f"val and test exist.* to evaluate, give {tmp_path}/val or the other"):
        open_data(str(tmp_path), "evaluate")


def test_what_audit_stats_pack_and_a_dry_run_read_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "own", *CLASSES)
    before = tree(tmp_path / "own")
    own = str(tmp_path / "own")
    assert main(["data", "audit", own, "--workers", "1"]) == 0
    assert main(["data", "stats", own, "--image-size", "8", "--workers", "1"]) == 0
    assert main(["data", "pack", own, str(tmp_path / "packed"), "--workers", "1"]) == 0
    net = ["--net", "cifar_resnet8", "--image-size", "8", "--epochs", "1"]
    assert main(["train", "finetune", "--data", own, *net, "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    assert tree(tmp_path / "own") == before
    assert "3 classes: a, b, c; 30 images, 6 tested (drawn, a fifth of each class)" in capsys.readouterr().err


def test_a_test_part_alone_is_audited_and_packed_but_has_no_statistics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, packed = write(tmp_path / "own", "val/a/1.png", "val/b/1.png"), tmp_path / "packed"
    assert main(["data", "audit", str(own), "--workers", "1", "--html", str(tmp_path / "page.html")]) == 0
    assert main(["data", "pack", str(own), str(packed), "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert "2 classes: a, b; 2 images, all tested (val alone)" in err
    assert "0 training and 2 test images" in out
    assert f"to evaluate on it: --data pack:{packed}" in out
    assert counts(open_data(f"pack:{packed}", "evaluate")) == (0, 2, "test images only")
    for text in (str(own), f"pack:{packed}"):
        assert main(["data", "stats", text]) == 2
        assert "has no training images to measure" in capsys.readouterr().err
    with pytest.raises(UserError, match="packed: a pack with test images only"):
        open_data(f"pack:{packed}")


def test_a_pack_of_a_folder_without_a_split_means_what_the_folder_means(tmp_path: Path) -> None:
    write(tmp_path / "own", *CLASSES)
    own, packed = str(tmp_path / "own"), f"pack:{tmp_path / 'packed'}"
    pack(open_data(own, "read"), tmp_path / "packed", workers=1)
    assert pack(open_data(own, "read"), tmp_path / "packed", workers=1)[1]  # there already
    every, before = [open_data(text, "evaluate") for text in (own, packed)], tree(tmp_path)
    assert [counts(data) for data in every] == [(0, 30, ALL)] * 2
    assert every[0].fingerprint == every[1].fingerprint
    seen = open_data(packed, "read")
    assert (seen.drawn, seen.fingerprint) == (True, open_data(own, "read").fingerprint)
    again = open_data(packed, "evaluate", trained_on={seen.fingerprint})
    assert counts(again) == (24, 6, "by the pack")
    assert tree(tmp_path) == before
    trained = open_data(packed)  # from now on there is what was trained on
    assert trained.fingerprint == open_data(own).fingerprint
    written = [json.loads((tmp_path / name / SPLIT).read_text())["test"] for name in ("own", "packed")]
    assert written[0] == written[1] == names(trained.test)
    assert counts(open_data(packed, "evaluate")) == (24, 6, "by the pack")
    assert pack(open_data(own, "read"), tmp_path / "packed", workers=1)[1]


def test_the_split_of_a_pack_is_the_same_text_in_every_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "own", *(f"{label}/é{i}.png" for label in "ab" for i in range(2)))
    pack(open_data(str(tmp_path / "own"), "read"), tmp_path / "packed", workers=1)
    with monkeypatch.context() as plain:  # ASCII, of which other bytes become surrogates
        plain.setattr(os, "fsdecode", lambda name: name.decode("ascii", "surrogateescape"))
        open_data(f"pack:{tmp_path / 'packed'}")
    assert open_data(f"pack:{tmp_path / 'packed'}").part == "by the pack"


def test_another_split_beside_a_pack_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "own", *CLASSES)
    pack(open_data(str(tmp_path / "own"), "read"), tmp_path / "packed", workers=1)
    trained, split = open_data(f"pack:{tmp_path / 'packed'}"), tmp_path / "packed" / SPLIT
    told = json.loads(split.read_text())
    split.write_text(json.dumps(told | {"test": told["test"][:-1]}))
    for purpose in ("train", "evaluate", "read"):
        with pytest.raises(UserError, match=f"{SPLIT}: names other test images than the pack; delete it"):
            open_data(f"pack:{tmp_path / 'packed'}", purpose)
    split.write_text("{")
    with pytest.raises(UserError, match=f"{SPLIT}: damaged .*; restore it, or delete it"):
        open_data(f"pack:{tmp_path / 'packed'}")
    split.unlink()
    assert open_data(f"pack:{tmp_path / 'packed'}").fingerprint == trained.fingerprint


def test_a_pack_of_a_folder_with_a_split_is_of_the_format_that_all_versions_read(tmp_path: Path) -> None:
    write(tmp_path / "own", *CLASSES)
    open_data(str(tmp_path / "own"))
    pack(open_data(str(tmp_path / "own"), "read"), tmp_path / "packed", workers=1)
    assert not read_index(tmp_path / "packed")[0].drawn
    content = (tmp_path / "packed" / INDEX).read_bytes()
    assert b'\\"format\\": 1' in content
    assert b"drawn" not in content
    assert counts(open_data(f"pack:{tmp_path / 'packed'}", "evaluate")) == (24, 6, "by the pack")


# What resnetlab writes among the classes


def test_what_resnetlab_wrote_is_no_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"{label}/{i}.png" for label in "ab" for i in range(5)), "a/explained/1.png", "pictures/1.png")
    plain = {"runs/net-1/run.json": "runs", "a run/run.json": "a run", "report/evaluation.json": "the report of an"}
    for name in [*plain, "packed/index.safetensors", "half/index.safetensors.part", "pictures/.resnetlab"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(RUN)
    write(tmp_path, "runs/curves.png", "runs/net-1/curves.png", "a run/curves.png")  # plots
    (tmp_path / "a/explained/.resnetlab").write_text("")
    for name in ("run.json", "evaluation.json", "x/run.json"):  # of others, beside images: a class all the same
        (tmp_path / "b" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "b" / name).write_text("{}")
    for name in ("lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle", "__MACOSX"):
        write(tmp_path, f"{name}/x.png")
    data = open_data(str(tmp_path))
    assert data.classes == ("a", "b")
    assert len(data.train) + len(data.test) == 10
    said = [record.getMessage() for record in caplog.records]
    for name, words in {**{k.partition("/")[0]: v for k, v in plain.items()}, "packed": "a pack"}.items():
        assert any(line.startswith(f"{tmp_path / name}: skipped, {words}") for line in said), name
    assert f"{tmp_path}/a/explained: skipped, pictures that resnetlab wrote" in said
    assert not any("lost+found" in line for line in said)


def test_the_same_below_train_and_val(tmp_path: Path) -> None:
    write(tmp_path, *(f"{side}/{label}/1.png" for side in ("train", "val") for label in "ab"))
    for side in ("train", "val"):
        (tmp_path / side / "runs/one").mkdir(parents=True)
        (tmp_path / side / "runs/one/run.json").write_text(RUN)
    assert open_data(str(tmp_path)).classes == ("a", "b")


def test_a_pack_of_where_it_lies_stays_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(tmp_path, *CLASSES)
    monkeypatch.chdir(tmp_path)
    assert main(["data", "pack", ".", "packed", "--workers", "1"]) == 0
    assert main(["data", "pack", ".", "packed", "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path.name}: packed in" in said, "called as its folder is"
    assert f"{tmp_path.name}: already packed" in said
    assert "packed: skipped, a pack that resnetlab wrote" in caplog.text
    assert isinstance(open_data("pack:packed", "evaluate").test, Files)


def test_a_class_without_images_is_not_blamed_on_a_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, *(f"ants/{i}.png" for i in range(3)), "bees/")
    assert counts(open_data(str(tmp_path), "evaluate")) == (0, 3, ALL)
    assert messages(caplog) == [f"{tmp_path}: no images of 'bees', so only other classes are tested"]
