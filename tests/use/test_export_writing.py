"""What an export writes and prints: all of its files or none, and names of data in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from resnetlab.cli.export import _show
from resnetlab.errors import UserError
from resnetlab.use.export import Exported, write_all
from resnetlab.use.parity import Parity


def test_of_several_files_all_are_written_or_none(tmp_path: Path) -> None:
    network, weights = tmp_path / "net.xml", tmp_path / "net.bin"
    network.mkdir()
    with pytest.raises(UserError, match=r"net\.xml: can't be written"):
        write_all({network: b"network", weights: b"weights"})
    assert not weights.exists()
    network.rmdir()
    write_all({network: b"network", weights: b"weights"})
    assert (network.read_bytes(), weights.read_bytes()) == (b"network", b"weights")


def test_the_name_of_a_folder_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    parity = Parity("ants\n\x1b[31mbees", 4, 3, 2, 2)
    _show(Exported(Path("net.onnx"), "onnx", "resnet18", "int8", 10**6, (), parity))
    assert capsys.readouterr().out.splitlines()[1].startswith(r"ants\n\x1b[31mbees: top-1 50.00 %")
