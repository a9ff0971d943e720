"""Weight files with a damaged byte, which torch reads without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.weights.files import read_file


def test_a_flipped_bit_among_the_numbers_is_found(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "x.pth")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[content.index(bytes(4000)) + 2003] ^= 64
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"not a complete torch file \(Bad CRC-32 .*\); copy or download it again"):
        read_file(tmp_path / "x.pth")


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(3)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_file(tmp_path / "x.pth").tensors["a"].tolist() == [1, 1, 1]
