"""Runs whose files are damaged or odd, field by field: every reader and command ends well or with one stated line."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from resnetlab.errors import UserError
from resnetlab.run_files import read_metrics, read_sent
from resnetlab.studies.figures.curves import error_curves, save_curves
from resnetlab.studies.frame.record import outcome
from resnetlab.training import checkpoint
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import Run, make_run
from resnetlab.training.runs import list_runs, summary
from resnetlab.weights.files import read_safetensors
from resnetlab.weights.load import load_described

Mutations = Callable[[Any], Sequence[Callable[[], Any]]]
RECIPE = recipe("digits", net="cifar_resnet8", epochs=2, validation_images=100, batch_size=300)
FILES = ("run.json", "metrics.jsonl", "result.json", "tracking.json", "lock", "last/state.json")
TENSORS = ("last/weights.safetensors", "last/state.safetensors", "best/weights.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run, and the same one stopped within its second epoch."""
    roots = {name: tmp_path_factory.mktemp(name) / "runs" for name in ("finished", "stopped")}
    for _ in train(make_run(RECIPE, roots["finished"]), threads=1):
        pass
    statuses = train(make_run(RECIPE, roots["stopped"]), threads=1, checkpoint_steps=1)
    next(status for status in statuses if status.epochs_done == 1)
    next(statuses)
    statuses.close()  # type: ignore[attr-defined]  # a generator
    for root in roots.values():
        (root / "damaged").mkdir()  # which is told in every list
        (root / "damaged" / "run.json").write_text("{")
        (made(root).folder / "tracking.json").write_text('{"mlflow": 1, "wandb": 0}')
    return roots


def made(root: Path) -> Run:
    return make_run(RECIPE, root)


@contextlib.contextmanager
def copied(root: Path, to: Path) -> Iterator[Run]:
    """The run in a copy of its root, removed afterwards."""
    shutil.copytree(root, to, symlinks=True)
    try:
        yield made(to)
    finally:
        shutil.rmtree(to)


def listed(run: Run) -> None:
    """Both runs of the folder are in the list, and nothing is raised."""
    found, others = list_runs(run.root)
    assert len(found) + len(others) == 2
    for one in found:
        json.dumps(one.to_dict(), allow_nan=False)
        one.when()
    assert {one.folder.name: one.state for one in found}["damaged"] == "damaged"


drawn: set[str] = set()


def plotted(run: Run) -> None:
    """What was read is drawn once, and not again where a damage has changed nothing of it."""
    figure = error_curves([run.folder])
    if repr(figure) not in drawn:
        save_curves(figure, run.root / "curves.svg")
        drawn.add(repr(figure))


def resumed(run: Run) -> None:
    """To its end, which is a step or two away, or read where it is finished."""
    for _ in train(run, threads=1):
        pass


def loaded(run: Run) -> None:
    """What predict, eval, explain, features, export, convert, serve and --from do first."""
    for which in ("last", "best"):
        load_described(run.folder, which=which)


def tracked(run: Run) -> None:
    read_metrics(run.folder)
    read_sent(run.folder)


def studied(run: Run) -> None:
    outcome(run)


READERS: dict[str, Callable[[Run], None]] = {
    f.__name__: f for f in (listed, plotted, resumed, loaded, tracked, studied)
}


def well_or_one_line(reader: Callable[[Run], None], run: Run) -> bool:
    """Whether it ended well; else it raised one line of words that names a file."""
    try:
        reader(run)
    except UserError as error:
        words = str(error)
    else:
        return True
    assert reader is not listed, words
    assert "\n" not in words
    assert str(run.root) in words
    return False


def documents(path: Path) -> list[Any]:
    """The JSON values of a file: one, or one in each line."""
    text = path.read_text()
    return list(map(json.loads, text.splitlines() if path.suffix == ".jsonl" else [text]))


def write(path: Path, values: list[Any]) -> None:
    if path.name == "state.json" and isinstance(values[0], dict):  # a damage that its checksum does not tell
        others = {key: value for key, value in values[0].items() if key != "checksum"}
        values = [{**others, "checksum": checkpoint.checksum(others)}]
    end = "\n" if path.suffix == ".jsonl" else ""
    path.write_text("".join(json.dumps(value) + end for value in values))


def mutated(path: Path, mutations: Mutations) -> Iterator[list[Any]]:
    """The file's values with one of them changed, in every way."""
    values = documents(path)
    for i, value in enumerate(values):
        for change in mutations(value):
            yield [*values[:i], change(), *values[i + 1 :]]


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("run.json", 17),  # each field with one odd value, not always the same
        ("metrics.jsonl", 7),
        ("result.json", 1),
        ("tracking.json", 1),
        pytest.param("run.json", 1, marks=pytest.mark.slow),
        pytest.param("metrics.jsonl", 1, marks=pytest.mark.slow),
    ],
)
def test_every_field_of_every_file(
    runs: dict[str, Path], tmp_path: Path, mutations: Mutations, name: str, step: int
) -> None:
    """With the readers that take no time."""
    ended, quick = {True: 0, False: 0}, [tracked] if name == "tracking.json" else [listed, tracked, studied]
    with copied(runs["finished"], tmp_path / "runs") as run:
        for values in islice(mutated(run.folder / name, mutations), None, None, step):
            write(run.folder / name, values)
            for reader in quick:
                ended[well_or_one_line(reader, run)] += 1
    assert min(ended.values()) > 5, "some do no harm, and some are told"


def fields_of_a_run(roots: dict[str, Path], to: Path, mutations: Mutations, data: st.DataObject) -> None:
    which = data.draw(st.sampled_from(["finished", "stopped"]))
    with copied(roots[which], to) as run:
        names = [name for name in FILES if name != "lock" and (run.folder / name).exists()]
        for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=2, unique=True)):
            values = documents(run.folder / name)
            i = data.draw(st.integers(0, len(values) - 1))
            values[i] = data.draw(st.sampled_from(mutations(values[i])))()
            write(run.folder / name, values)
        for name in data.draw(st.permutations(["plotted", "loaded", "listed"])):
            well_or_one_line(READERS[name], run)
        well_or_one_line(resumed, run)
        well_or_one_line(listed, run)


@settings(max_examples=12, database=None)
@given(st.data())
def test_fields_of_a_run_and_all_readers(
    runs: dict[str, Path], tmp_path: Path, mutations: Mutations, data: st.DataObject
) -> None:
    fields_of_a_run(runs, tmp_path / "runs", mutations, data)


@pytest.mark.slow
@settings(max_examples=2000, database=None)
@given(st.data())
def test_many_fields_of_a_run_and_all_readers(
    runs: dict[str, Path], tmp_path: Path, mutations: Mutations, data: st.DataObject
) -> None:
    fields_of_a_run(runs, tmp_path / "runs", mutations, data)


def bytes_of_a_file(roots: dict[str, Path], to: Path, data: st.DataObject) -> None:
    """Cut, or with some bytes changed."""
    which = data.draw(st.sampled_from(["finished", "stopped"]))
    with copied(roots[which], to) as run:
        names = [name for name in (*FILES, *TENSORS) if (run.folder / name).exists()]
        path = run.folder / data.draw(st.sampled_from(names))
        content = bytearray(path.read_bytes())
        if content and data.draw(st.booleans()):
            for _ in range(data.draw(st.integers(1, 4))):
                most = data.draw(st.sampled_from([min(len(content), 600), len(content)]))  # the header, or anywhere
                content[data.draw(st.integers(0, most - 1))] = data.draw(st.integers(0, 255))
        else:
            del content[data.draw(st.integers(0, len(content))) :]
        path.write_bytes(content)
        for reader in READERS.values():
            well_or_one_line(reader, run)


@settings(max_examples=12, database=None)
@given(st.data())
def test_bytes_of_a_file(runs: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    bytes_of_a_file(runs, tmp_path / "runs", data)


@pytest.mark.slow
@settings(max_examples=1500, database=None)
@given(st.data())
def test_bytes_of_many_files(runs: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    bytes_of_a_file(runs, tmp_path / "runs", data)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**35)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # a socket's name may be short only
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


THINGS: dict[str, Callable[[Path], None]] = {
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "32 GiB": _sparse,
    "nothing": lambda path: None,
}


LIKE_OTHERS = ("a socket", "a device", "a link to nowhere", "a link to itself")
EVERYTHING = [pytest.param(thing, marks=[pytest.mark.slow] * (thing in LIKE_OTHERS)) for thing in THINGS]


@pytest.mark.parametrize("thing", EVERYTHING)
def test_something_else_in_place_of_a_file(runs: dict[str, Path], tmp_path: Path, thing: str) -> None:
    for name in (*FILES, *TENSORS, "run.json.part", "result.json.part"):
        with copied(runs["stopped"], tmp_path / "runs") as run:
            path = run.folder / name
            path.unlink(missing_ok=True)
            THINGS[thing](path)
            ends = {key: well_or_one_line(reader, run) for key, reader in READERS.items()}
            if thing == "a FIFO" and name in ("run.json", "metrics.jsonl", "lock"):
                assert summary(run.folder).words == f"{name}, it is a FIFO, not a regular file"
            if name == "run.json" and thing != "nothing":
                assert not ends["plotted"]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["last", "best", "last.old", "last.new", "last.damaged"])
@pytest.mark.parametrize("thing", [*EVERYTHING, "a link to a folder"])
def test_something_else_in_place_of_a_folder(runs: dict[str, Path], tmp_path: Path, name: str, thing: str) -> None:
    with copied(runs["stopped"], tmp_path / "runs") as run:
        path, aside = run.folder / name, tmp_path / "aside"
        if path.exists():
            path.rename(aside)
        else:
            aside.mkdir()
        content = sorted(aside.rglob("*"))
        make = THINGS.get(thing, lambda path: path.symlink_to(aside))
        make(path)
        for reader in READERS.values():
            well_or_one_line(reader, run)
        assert sorted(aside.rglob("*")) == content, "nothing is written or removed through a link"
        shutil.rmtree(aside)


def test_a_run_of_links_is_read_and_its_links_are_not_written_through(runs: dict[str, Path], tmp_path: Path) -> None:
    """As data stores keep files; the folder of a run may be a link too, and then is trained in."""
    with copied(runs["finished"], tmp_path / "runs") as run:
        store = shutil.copytree(run.folder, tmp_path / "store")
        before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
        for path in [p for p in run.folder.rglob("*") if p.is_file() and p.name != "lock"]:
            path.unlink()
            path.symlink_to(store / path.relative_to(run.folder))
        assert all(well_or_one_line(reader, run) for reader in READERS.values())
        assert summary(run.folder).state == "finished"
        (run.folder / "result.json").unlink()
        with pytest.raises(UserError, match=r"metrics\.jsonl: .*it is a symbolic link, not a regular file"):
            resumed(run)
        assert {p: p.read_bytes() for p in before} == before
    with copied(runs["stopped"], tmp_path / "runs") as run:
        run.folder.rename(tmp_path / "elsewhere")
        run.folder.symlink_to(tmp_path / "elsewhere")
        resumed(run)
        assert summary(run.folder).state == "finished"


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(runs: dict[str, Path], tmp_path: Path) -> None:
    with copied(runs["stopped"], tmp_path / "runs") as run:
        (run.folder / "lock").unlink()
        (run.folder / "lock").symlink_to(tmp_path / "victim")
        with pytest.raises(UserError, match=r"lock: damaged, it is a symbolic link, not a regular file; remove it"):
            resumed(run)
        assert not (tmp_path / "victim").exists()
        assert summary(run.folder).state == "unfinished"


def _rewritten(place: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = load_file(place / file)
    change(tensors)
    card = read_safetensors(place / file)[1]
    save_file(tensors, place / file, card or None)
    path = place / "state.json"
    if path.exists():
        state = json.loads(path.read_text())
        state["sha256"][file] = checkpoint.sha256((place / file).read_bytes())
        write(path, [state])


NUMBERS = {
    "nan": lambda t: torch.full_like(t, float("nan")) if t.is_floating_point() else t,
    "inf": lambda t: torch.full_like(t, float("inf")) if t.is_floating_point() else t,
    "negative": lambda t: -torch.ones_like(t.float()).to(t.dtype),
    "huge": lambda t: torch.full_like(t, 3e38) if t.is_floating_point() else t,
    "float64": lambda t: t.double() * 1e300,
    "float16": lambda t: t.half(),
    "complex": lambda t: t.to(torch.complex64),
    "float8": lambda t: t.float().to(torch.float8_e4m3fn),
    "int64": lambda t: t.float().nan_to_num().to(torch.int64),
    "bool": lambda t: t.bool(),
    "no dimension": lambda t: t.flatten()[0].clone(),
    "one more": lambda t: t[None].clone(),
    "empty": lambda t: t.flatten()[:0].clone(),
    "random bytes": lambda t: torch.arange(t.numel()).reshape(t.shape).to(t.dtype),
}


def tensors_of_a_run(roots: dict[str, Path], to: Path, data: st.DataObject) -> None:
    with copied(roots["stopped"], to) as run:
        place = run.folder / data.draw(st.sampled_from(["last", "best"]))
        file = data.draw(st.sampled_from(sorted(p.name for p in place.glob("*.safetensors"))))

        def change(tensors: dict[str, Any]) -> None:
            name = data.draw(st.sampled_from(sorted(tensors)))
            how = data.draw(st.sampled_from([*NUMBERS, "remove", "rename", "extra"]))
            if how in NUMBERS:
                tensors[name] = NUMBERS[how](tensors[name])
            elif how == "extra":
                tensors["extra.weight"] = torch.zeros(3)
            else:
                tensor = tensors.pop(name)
                if how == "rename":
                    tensors[f"{name}0"] = tensor

        _rewritten(place, file, change)
        shutil.rmtree(run.folder / "last.old", ignore_errors=True)  # which would take its place
        well_or_one_line(loaded, run)
        well_or_one_line(resumed, run)


@settings(max_examples=12, database=None)
@given(st.data())
def test_tensors_of_a_run(runs: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    tensors_of_a_run(runs, tmp_path / "runs", data)


@pytest.mark.slow
@settings(max_examples=1500, database=None)
@given(st.data())
def test_many_tensors_of_a_run(runs: dict[str, Path], tmp_path: Path, data: st.DataObject) -> None:
    tensors_of_a_run(runs, tmp_path / "runs", data)
