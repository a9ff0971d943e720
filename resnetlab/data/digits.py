"""The digits: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn (UCI, Alpaydin & Kaynak 1998)."""

from __future__ import annotations

import torch

from resnetlab.data.images import Data, Images


def read_digits(*_: object) -> Data:
    """Return the digits: 1,437 training and 360 test images of 1x8x8.

    Every fifth image is a test image, so both sides have the same writers. Grey levels 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits  # takes a second to import

    digits = load_digits()
    pixels = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8).unsqueeze(1)  # N 1 8 8
    images = Images(pixels, torch.from_numpy(digits.target).long())
    is_test = torch.arange(len(images)) % 5 == 0
    return Data("digits", images[~is_test], images[is_test], tuple(str(d) for d in range(10)))
