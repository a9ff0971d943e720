"""The line that says what a command works with."""

from __future__ import annotations

import torch

from resnetlab.data.images import Data, Images
from resnetlab.data.understood import Understood

NETWORK = {
    "size": 64,
    "layout": "torchvision",
    "normalisation": "ImageNet's, assumed, since the file does not state one",
}


def data(train: int, test: int, classes: tuple[str, ...] = ("daisy", "tulip"), part: str = "val") -> Data:
    def images(count: int) -> Images:
        return Images(torch.zeros(count, 3, 8, 8, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))

    return Data("noise", images(train), images(test), classes, part)


def test_all_of_it_is_one_line() -> None:
    found = Understood.of(data(1036, 12), held_out=4, **NETWORK)
    assert str(found) == (
        "2 classes: daisy, tulip; 1,048 images, 12 tested (val) and 4 held out for validation; 64 pixels; "
        "parameter names: torchvision; normalisation: ImageNet's, assumed, since the file does not state one"
    )
    assert found.to_dict() == {
        "classes": 2,
        "class_names": ["daisy", "tulip"],
        "images": 1048,
        "tested": 12,
        "part": "val",
        "held_out": 4,
        "image_size": 64,
        "layout": "torchvision",
        "normalisation": "ImageNet's, assumed, since the file does not state one",
    }


def test_what_there_is_not_is_not_said() -> None:
    assert (
        str(Understood.of(data(0, 12, part="val alone")))
        == "2 classes: daisy, tulip; 12 images, all tested (val alone)"
    )
    assert str(Understood.of(data(1, 0, part=""))) == "2 classes: daisy, tulip; 1 image, 0 tested"
    alone = Understood(("0", "1"), named=False, size=8)
    assert str(alone) == "2 classes without names; 8 pixels"
    assert alone.to_dict() == {"classes": 2, "class_names": None, "image_size": 8}


def test_long_lists_and_names_are_shortened_and_stay_a_line() -> None:
    many = Understood(tuple(f"class {i}" for i in range(1000)))
    assert str(many) == "1,000 classes: class 0, class 1, class 2, class 3, class 4 and 995 more"
    assert len(many.to_dict()["class_names"]) == 1000
    assert str(Understood(("x" * 300, "a\nb"))) == f"2 classes: {'x' * 37}..., a\\nb"
    assert str(Understood(("one",))) == "1 class: one"
