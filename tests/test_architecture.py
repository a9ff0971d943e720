"""The architecture's rules: imports go one way, and the command line starts without torch."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "resnetlab"
# Who may import whom, what lies beside the rooms aside:
# nets, data -> measuring | weights -> training -> studies | use -> report -> api -> cli.
ROOT = ("cache", "errors", "machine", "paths", "run_files", "schema", "storage")
MAY_IMPORT = {
    "nets": {"nets"},
    "data": {"data"},
    "measuring": {"nets", "data", "measuring"},
    "weights": {"nets", "data", "weights"},
    "training": {"nets", "data", "measuring", "weights", "training"},
    "studies": {"nets", "data", "measuring", "weights", "training", "studies"},
    "use": {"nets", "data", "measuring", "weights", "training", "use"},
    "report": {"nets", "data", "measuring", "training", "studies", "report"},
    "api": {"nets", "data", "measuring", "weights", "training", "studies", "use", "report", "api"},
    "cli": {"nets", "data", "measuring", "weights", "training", "studies", "use", "report", "api", "cli"},
}
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 400  # of a file
LONGEST = 60  # lines of a function, its signature and docstring included
LONGEST_COMMAND = 40  # of the functions of cli/

CHINESE = re.compile(r"[\u4e00-\u9fff]")
parsed = cache(ast.parse)


def imports_of(path: Path, *, names: bool = False) -> list[str]:
    """Every module that a file imports, at its top or inside functions, for types or to run.

    names: with what is imported from each, which may be a module.
    """
    found = []
    for node in ast.walk(parsed(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found.append(str(node.module))
            found += [f"{node.module}.{alias.name}" for alias in node.names] if names else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    parts = path.relative_to(PACKAGE).parts
    for module in imports_of(path):
        names = module.split(".")
        if names[0] != "resnetlab" or len(parts) == 1 or len(names) == 1 or names[1] in ROOT:
            continue
        assert names[1] in MAY_IMPORT[parts[0]], f"{'/'.join(parts)} imports {module}"


def module_of(path: Path) -> str:
    """The name of a file's module, without the package's."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {module_of(path): set() for path in FILES}
    for path in FILES:
        for module in imports_of(path, names=True):
            if (name := module.removeprefix("resnetlab.")) in graph:
                graph[module_of(path)].add(name)
    assert circles(graph) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}}) == [("a", "b", "c"), ("d", "e")]


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """The groups of modules of which each one imports, by way of others, all of its group."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        found, ahead = set[str](), [*graph[start]]
        while ahead:
            if (name := ahead.pop()) not in found:
                found.add(name)
                ahead += graph[name]
        reached[start] = found
    return sorted({tuple(sorted(b for b in reached[a] if a in reached[b])) for a in graph if a in reached[a]})


def test_every_room_has_a_rule() -> None:
    assert {p.relative_to(PACKAGE).parts[0] for p in FILES if len(p.relative_to(PACKAGE).parts) > 1} <= set(MAY_IMPORT)


def test_nets_import_torch_only() -> None:
    known = sys.stdlib_module_names | {"torch", "resnetlab"}
    for path in (PACKAGE / "nets").glob("*.py"):
        assert {m.split(".")[0] for m in imports_of(path)} <= known, path.name


def test_no_file_imports_torchvision() -> None:
    assert not [p.name for p in FILES for m in imports_of(p) if m.split(".")[0] == "torchvision"]


def test_no_code_holds_chinese_text() -> None:
    """Texts in two languages stand side by side in a catalogue, where a reader of either can mend them."""
    found = {str(p.relative_to(PACKAGE)) for p in FILES if CHINESE.search(p.read_text(encoding="utf-8"))}
    assert sorted(found) == []


def test_the_command_line_starts_without_the_slow_imports() -> None:
    code = "import sys, resnetlab.cli.main; print([m for m in ('torch', 'matplotlib', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_every_file_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(parsed(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    name, text = path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")
    most = LONGEST_COMMAND if name.startswith("cli/") else LONGEST
    long = {function for function, lines in lengths_of(text).items() if lines > most}
    assert long == set()
    assert len(text.splitlines()) <= MOST_LINES


def test_files_of_tests_and_benchmarks_are_short() -> None:
    files = [path for folder in ("tests", "benchmarks") for path in (PACKAGE.parent / folder).rglob("*.py")]
    assert len(files) > 100
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_functions_are_measured_whole() -> None:
    text = "def f(\n  a,\n):\n  b = 1\n  def g():\n    pass\n  return b\nclass C:\n  async def h(self):\n    pass\n"
    assert lengths_of(text) == {"f": 7, "g": 2, "h": 2}


def lengths_of(text: str) -> dict[str, int]:
    """The lines of each function of a module, methods and inner ones too; of several of a name the most."""
    lengths: dict[str, int] = {}
    for node in ast.walk(parsed(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno
            lengths[node.name] = max(lengths.get(node.name, 0), node.end_lineno - node.lineno + 1)
    return lengths
