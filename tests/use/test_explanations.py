"""Explanations: of the likeliest class or of the one that is asked for, however its name is encoded."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab import build
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.use.classifier import Classifier
from resnetlab.use.explanations import check_method, explain_images

CLASSES = ("\u00e9lan", "bee", "")  # a name may be empty, too


@pytest.fixture
def classifier() -> Classifier:
    net = build("cifar_resnet8", num_classes=3, input_size=8, seed=0).eval()
    return Classifier(net, CLASSES, imagenet(), whole=True, device="cpu")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "1.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return path


@pytest.mark.parametrize("method", ["grad_cam", "occlusion"])
def test_the_likeliest_class_is_explained_or_the_one_that_is_asked_for(
    classifier: Classifier, image: Path, tmp_path: Path, method: str
) -> None:
    chances = classifier.probabilities(classifier.prepare(image.read_bytes())[None])[0].tolist()
    pictures = set()
    for label in (None, *CLASSES):
        out = tmp_path / f"explained {label}"
        (found,) = explain_images(classifier, [str(image)], out, method=method, label=label)
        chosen = chances.index(max(chances)) if label is None else CLASSES.index(label)
        assert (found.name, found.probability) == (CLASSES[chosen], pytest.approx(chances[chosen]))
        pictures.add(found.picture.read_bytes())
    assert len(pictures) > 1, "each class has its own heat"


def test_a_label_is_found_in_any_encoding_and_a_unit_is_of_grad_cam(classifier: Classifier) -> None:
    assert check_method(classifier, "grad_cam", None, None) is None
    assert check_method(classifier, "occlusion", None, unicodedata.normalize("NFD", CLASSES[0])) == CLASSES[0]
    assert check_method(classifier, "grad_cam", "layer1.0", "") == ""
    with pytest.raises(UserError, match="label='be' is not known: choose one of .* Did you mean bee"):
        check_method(classifier, "grad_cam", None, "be")
    with pytest.raises(UserError, match="--unit works with grad_cam only"):
        check_method(classifier, "occlusion", "layer1.0", None)


def test_a_picture_replaces_no_file(classifier: Classifier, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "explained"
    first, second = (next(explain_images(classifier, [str(image)], out, label=label)).picture for label in CLASSES[:2])
    assert (first.name, second.name) == ("1.png", "1-2.png")
    assert first.read_bytes() != second.read_bytes()
    photo = out / "3.png"  # among the pictures, where it would be replaced by its own
    photo.write_bytes(image.read_bytes())
    assert next(explain_images(classifier, [str(photo)], out)).picture == out / "3-2.png"
    assert photo.read_bytes() == image.read_bytes()


def test_long_names_are_cut(classifier: Classifier, image: Path, tmp_path: Path) -> None:
    for letter in "x\u82b1":
        long = tmp_path / f"{letter * (251 // len(letter.encode()))}.png"
        long.write_bytes(image.read_bytes())
        (found,) = explain_images(classifier, [str(long)], tmp_path / "explained")
        assert not found.error
        assert long.stem.startswith(found.picture.stem)


def test_without_a_picture_no_folder_is_made_or_marked(classifier: Classifier, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "explained"
    assert next(explain_images(classifier, [str(tmp_path / "absent.png")], out)).error
    with pytest.raises(UserError, match="layer9"):
        list(explain_images(classifier, [str(image)], out, unit="layer9"))
    assert not out.exists()
