"""In a notebook: its bars, and the notebook of the guide, run as it stands."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from resnetlab.api import screen

PATIENCE = 3600  # seconds, after which a cell counts as hung
FIGURE_6 = Path(__file__).resolve().parents[2] / "docs" / "figure6.ipynb"


class Display:
    """What IPython.display shows, by where it stands."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def HTML(self, text: str) -> str:
        return text

    def display(self, text: str, *, display_id: bool) -> Any:
        self.shown.append(text)
        place = len(self.shown) - 1
        return SimpleNamespace(update=lambda text: self.shown.__setitem__(place, text))


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Display:
    """As in the kernel of a notebook."""
    found = Display()
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1), display=found)
    monkeypatch.setitem(sys.modules, "IPython", ipython)  # type: ignore[misc]
    monkeypatch.setitem(sys.modules, "IPython.display", found)  # type: ignore[misc]
    monkeypatch.setattr(screen, "SECONDS_BETWEEN_UPDATES", -1)
    return found


def test_bars_are_shown_below_the_cell(display: Display) -> None:
    with screen.progress_bars() as bars:
        first, second = bars.add_task("train <x>", words=""), bars.add_task("more", total=3, words="")
        assert display.shown == []
        bars.update(first, completed=1, total=4, words="error 5 %")
        bars.update(second, completed=2)
        bars.update(first, completed=4)
        assert [text.count("<progress") for text in display.shown] == [1, 1]
        assert 'train &lt;x&gt; <progress value="4" max="4"' in display.shown[0]
        assert "error 5 %" in display.shown[0]
        bars.remove_task(second)
    assert display.shown[1] == ""


def test_the_end_is_shown_however_soon_it_comes(display: Display, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "SECONDS_BETWEEN_UPDATES", 1e9)
    with screen.progress_bars() as bars:
        task = bars.add_task("all", total=3, words="")
        bars._bars[task].handle = display.display("", display_id=True)  # type: ignore[union-attr]
        bars.update(task, completed=3)
    assert 'value="3" max="3"' in display.shown[0]


def test_a_quiet_call_shows_no_bar(display: Display) -> None:
    with screen.silenced(), screen.counting("images") as count:
        count(1, 2)
    assert display.shown == []


def executed(folder: Path, **constants: str) -> Any:
    """The notebook of the guide after a run in the folder, with other values of the constants at its top."""
    for name in ("nbclient", "ipykernel"):
        pytest.importorskip(name, reason=f"needs {name}: pip install 'resnetlab[dev]'")
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(FIGURE_6, as_version=4)
    for name, value in constants.items():
        book.cells[1].source, count = re.subn(f"{name} = .*", f"{name} = {value}", book.cells[1].source)
        assert count == 1, "the notebook has no such constant"
    where = {"metadata": {"path": str(folder)}}
    return NotebookClient(book, timeout=PATIENCE, kernel_name="python3", resources=where).execute()


def outputs(book: Any, kind: str) -> list[str]:
    """All that is shown of a kind, e.g. image/svg+xml."""
    shown = [output["data"] for cell in book.cells for output in cell.get("outputs", []) if "data" in output]
    return [data[kind] for data in shown if kind in data]


of_its_packages = pytest.mark.filterwarnings("ignore")


@pytest.mark.slow
@of_its_packages
def test_the_notebook_of_the_guide_runs(tmp_path: Path) -> None:
    """Each cell, on the smallest networks."""
    book = executed(tmp_path, DEPTHS="(8,)", EPOCHS="1")
    assert len(outputs(book, "image/svg+xml")) == 2
    tables = "".join(outputs(book, "text/html"))
    for words in ("<progress", "ensemble of 2", "digit.png", "cifar_resnet8"):
        assert words in tables
    assert len(list((tmp_path / "runs").iterdir())) == 2


@of_its_packages
@pytest.mark.slow
def test_the_notebook_shows_figure_6(tmp_path: Path) -> None:
    """As it stands: the plain net of 56 layers does not learn, and the residual one does."""
    book = executed(tmp_path)
    (lines,) = (o["text"] for c in book.cells for o in c.get("outputs", []) if "training error" in o.get("text", ""))
    errors = {line.split()[0]: float(line.split()[3]) for line in lines.splitlines()}
    assert errors["cifar_plain56"] > 30 > 5 > errors["cifar_resnet56"]  # about 50, by the processor


def test_the_notebook_is_kept_with_what_it_shows() -> None:
    book = json.loads(FIGURE_6.read_text())
    assert len(outputs(SimpleNamespace(cells=book["cells"]), "image/svg+xml")) == 2
    assert not [o for cell in book["cells"] for o in cell.get("outputs", []) if o["output_type"] == "error"]
