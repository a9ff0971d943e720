"""The figure of the two READMEs, put in by one command from a record."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.readme import READMES, ROOT, put
from resnetlab.errors import UserError

RECORD = ROOT / "results/degradation-quick.json"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the READMEs and a record with its figure."""
    if not RECORD.is_file():
        pytest.skip("no results of studies are committed")
    (tmp_path / "results").mkdir()
    for name in READMES.values():
        shutil.copy(ROOT / name, tmp_path)
    shutil.copy(RECORD, tmp_path / "results")
    (tmp_path / "results/degradation-quick-curves.svg").touch()
    return tmp_path


def test_both_readmes_have_the_figure_and_say_what_it_is_of(place: Path) -> None:
    before = {name: (place / name).read_text(encoding="utf-8") for name in READMES.values()}
    put(root=place)
    after = {name: (place / name).read_text(encoding="utf-8") for name in READMES.values()}
    figure = "nets of 8, 20 and 56 layers on 8x8 digits](results/degradation-quick-curves.svg)"
    assert f"{figure}\n\n*Trained on 8x8 digits, a plain net of 20 layers ends with" in after["README.md"]
    panels = json.loads(RECORD.read_bytes())["figures"][0]["panels"][:2]
    ends = {line["label"]: line["mean"][-1] for panel in panels for line in panel["series"]}
    wanted = f"nets end with {ends['residual-20 training']:.0f} and {ends['residual-56 training']:.0f} %"
    assert wanted in after["README.md"].replace("\n", " ")
    assert "here 15 epochs, 5 seeds)" in after["README.md"].replace("\n", " ")
    assert "![8\u300120\u300156 " in after["README.zh.md"]
    for name in READMES.values():
        assert [line for line in after[name].splitlines() if line.startswith("#")] == [
            line for line in before[name].splitlines() if line.startswith("#")
        ]
        assert after[name].endswith(before[name][-2000:])
    put(root=place)
    assert after == {name: (place / name).read_text(encoding="utf-8") for name in READMES.values()}, "again, it stays"


def test_nothing_is_written_where_it_would_not_be_so(place: Path) -> None:
    before = (place / "README.md").read_bytes()
    with pytest.raises(UserError, match="no record of that name"):
        put(Path("degradation-cifar.json"), place)
    (place / "results/degradation-quick-curves.svg").unlink()
    with pytest.raises(UserError, match="is not there; write it with"):
        put(root=place)
    assert (place / "README.md").read_bytes() == before
