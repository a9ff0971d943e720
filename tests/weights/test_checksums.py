"""Weight files with a damaged byte, which torch reads without a word."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

from resnetlab.errors import UserError
from resnetlab.weights.checksums import check_sums
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


NAME = "né"
LISTED, END = b"PK\1\2", b"PK\5\6"  # where an entry of the archive's list begins, and the archive's end
DAMAGE = {  # after what, and how many bytes from its first one; what is written there, and what is said
    "no deflated block": (NAME.encode(), 3, b"\xff", "Error -3 while decompressing"),
    "an encrypted part": (LISTED, 8, b"\x01", "is encrypted"),
    "a compression of no known kind": (LISTED, 10, b"\x63", "compression"),
    "a name that is no text": (LISTED, 46, b"\xff", "can't decode byte"),
    "a part before the file": (END, 17, b"\x40", "Invalid argument"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_whatever_is_damaged_is_one_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(NAME, bytes(range(256)) * 9)
    content = bytearray(path.read_bytes())
    after, far, new, words = DAMAGE[case]
    at = content.index(after) + far
    content[at : at + len(new)] = new
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"x\.pth: not a complete torch file \(.*({words}).*\); copy or download it"):
        check_sums(path)
