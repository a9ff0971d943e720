"""The digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn (UCI, Alpaydin & Kaynak 1998)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from resnetlab.data.images import Data, Images


def read_digits(*_: object) -> Data:
    """Return the digits: 1,437 training and 360 test images of 1x8x8.

    Every fifth image is a test image, so both sides have the same writers. Grey levels 0..16 become 0..255.
    """
    rows = _rows()
    pixels = torch.from_numpy(rows[:, :-1]).reshape(-1, 1, 8, 8).mul(255 / 16).round().to(torch.uint8)  # N 1 8 8
    images = Images(pixels, torch.from_numpy(rows[:, -1]).long())
    is_test = torch.arange(len(images)) % 5 == 0
    return Data("digits", images[~is_test], images[is_test], tuple(str(d) for d in range(10)))


def _rows() -> np.ndarray:
    """An image's 64 grey levels and its label, float64 N 65: from scikit-learn's file; its import takes a second."""
    package = find_spec("sklearn")
    if package and package.origin:
        file = Path(package.origin).parent / "datasets/data/digits.csv.gz"
        if file.is_file():
            return np.loadtxt(file, delimiter=",")
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.column_stack((digits.data, digits.target))
