"""Standard streams as shells hand them over: closed, without UTF-8; and the names that then go through them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.cli.streams import lines_of_input
from resnetlab.data.normalisation import imagenet
from resnetlab.errors import UserError
from resnetlab.weights.metadata import ModelMetadata, weights_bytes

CLASSES = ("caf\u00e9", "\u871c\u8702")  # of Latin-1, and not
Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]
Run = Callable[..., tuple[int, bytes, bytes]]
C_LOCALE = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}  # and Python takes it at its word


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of classes with such names, and images of them."""
    folder = tmp_path_factory.mktemp("names")
    for side in ("train", "val"):
        for k, name in enumerate(CLASSES):
            (folder / "data" / side / name).mkdir(parents=True)
            for i in range(3):
                Image.new("RGB", (40, 40), (100 * k, 50 * i, 9)).save(folder / "data" / side / name / f"{name}{i}.png")
    net = build("cifar_resnet8", num_classes=2)
    card = ModelMetadata(net.spec, CLASSES, imagenet(), {"data": "folder:data"})
    (folder / "net.safetensors").write_bytes(weights_bytes(net, card))
    return folder


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with streams of an encoding: exit code, output, errors. Its input is `given`; None is closed."""

    def run(line: str, encoding: str = "utf-8", given: bytes | None = b"") -> tuple[int, bytes, bytes]:
        written = [io.BytesIO(), io.BytesIO()]
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.stdin", None if given is None else io.TextIOWrapper(io.BytesIO(given)))
        for name, stream in zip(("stdout", "stderr"), written, strict=True):
            monkeypatch.setattr(f"sys.{name}", io.TextIOWrapper(stream, encoding, errors="strict"))
        code = main(line.split())
        if given is None:
            sys.stdin.close()
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = (stream.getvalue() for stream in written)
        return code, out, err

    return run


@pytest.fixture
def shell(folder: Path) -> Shell:
    """Run a command line in bash, `resnetlab` being this one."""

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        line = f'resnetlab() {{ "{sys.executable}" -m resnetlab "$@"; }}; {line}'
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        return subprocess.run(["bash", "-c", line], cwd=folder, env=environment, capture_output=True, timeout=300)

    return run


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
@pytest.mark.parametrize(
    "command",
    [
        "predict net.safetensors data/val",
        "data audit data --workers 1",
        "eval net.safetensors --data data --workers 0",
    ],
)
def test_no_name_ends_a_command(run: Run, command: str, encoding: str) -> None:
    code, out, _ = run(command, encoding)
    assert code == 0
    text = out.decode(encoding)
    assert command.startswith("eval") or (CLASSES[1] in text if encoding == "utf-8" else "\\u871c\\u8702" in text)


def test_an_error_names_what_the_terminal_lacks(run: Run) -> None:
    code, _, err = run(f"predict {CLASSES[1]} x.png", "latin-1")
    assert (code, err) == (2, b"error: \\u871c\\u8702: no such run folder or weight file.\n")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_ascii_and_csv_can_be_read(run: Run, encoding: str) -> None:
    rows = json.loads(run("predict net.safetensors data/val --json", encoding)[1].decode("ascii"))["images"]
    assert {c["class"] for row in rows for c in row["classes"]} == set(CLASSES)
    table = run("predict net.safetensors data/val --csv", encoding)[1].decode(encoding)
    assert len(list(csv.DictReader(io.StringIO(table)))) == 6 * 2


def test_a_locale_without_utf8(shell: Shell) -> None:
    """There the names of files are other texts, too; the classes are what they are everywhere."""
    done = shell("resnetlab predict net.safetensors data/val --json", **C_LOCALE)
    rows = json.loads(done.stdout.decode("ascii"))["images"]
    assert (done.returncode, {c["class"] for row in rows for c in row["classes"]}) == (0, set(CLASSES))
    done = shell("resnetlab eval net.safetensors --data data --workers 0", **C_LOCALE)
    assert (done.returncode, b"of 6 images right" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize("command", ["predict net.safetensors", "features net.safetensors --nearest 1", "explain RUN"])
@pytest.mark.parametrize("given", [b"", None], ids=["empty", "closed"])
def test_an_input_without_names(run: Run, tmp_path: Path, command: str, given: bytes | None) -> None:
    command = command.replace("RUN", f"net.safetensors --out {tmp_path}")
    assert run(command, given=given) == (
        2,
        b"",
        b"error: no image given: name files, folders of images, or patterns.\n",
    )


def test_names_that_find_print0_separates(run: Run, folder: Path) -> None:
    """A name may hold the end of a line, but no NUL."""
    names = sorted((folder / "data/val").rglob("*.png"))
    given = b"".join(os.fsencode(name) + b"\0" for name in names)
    code, out, _ = run("predict net.safetensors --json", given=given)
    assert (code, len(json.loads(out)["images"])) == (0, len(names))


@pytest.mark.parametrize("command", ["nets", "describe resnet152"])
def test_a_reader_that_leaves_early_ends_the_command_quietly(shell: Shell, command: str) -> None:
    done = shell(f"resnetlab {command} | true; echo ${{PIPESTATUS[0]}}")
    assert (done.stdout, done.stderr) == (b"0\n", b"")


def test_a_training_whose_progress_nobody_reads_goes_on(shell: Shell, tmp_path: Path) -> None:
    command = f"resnetlab train digits --net cifar_resnet8 --epochs 2 --warmup none --threads 1 --runs {tmp_path}/runs"
    done = shell(f"({command}; echo $? > {tmp_path}/code) 2>&1 | head -1")
    assert done.stdout.startswith(b"cifar_resnet8 on digits: ")
    assert (tmp_path / "code").read_text() == "0\n"
    (made,) = (tmp_path / "runs").iterdir()
    assert (made / "result.json").exists()


def test_an_input_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "x").open("w") as written_only:
        monkeypatch.setattr("sys.stdin", written_only)
        with pytest.raises(UserError, match="the list of files on standard input can't be read"):
            lines_of_input()


@pytest.mark.slow
def test_streams_that_the_shell_has_closed(shell: Shell, folder: Path) -> None:
    done = shell("resnetlab describe resnt <&- >&-; echo $?; resnetlab describe cifar_resnet8 >&- 2>&-; echo $?")
    assert (done.stdout, done.stderr.count(b"\n")) == (b"2\n0\n", 1)
    done = shell("resnetlab features net.safetensors data/val --out made.npz <&- >&- 2>&-; echo $?")
    assert done.stdout == b"0\n"
    assert (folder / "made.npz").read_bytes().startswith(b"PK"), "no file takes the number of a closed stream"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_a_list_with_a_byte_order_mark(run: Run, encoding: str) -> None:
    names = [f"data/val/{CLASSES[1]}/{CLASSES[1]}{i}.png" for i in range(2)]
    code, out, _ = run("predict net.safetensors --json", given="\r\n".join([*names, ""]).encode(encoding))
    assert [(row["file"], row["error"]) for row in json.loads(out)["images"]] == [(name, "") for name in names]
    assert code == 0


def test_lists_of_names_that_are_no_utf8(run: Run, folder: Path) -> None:
    source = folder / "data" / "val" / CLASSES[0] / f"{CLASSES[0]}0.png"
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.png"), "wb") as file:
        file.write(source.read_bytes())
    code, out, err = run("predict net.safetensors --top 1", given=b"caf\xe9.png\n")
    assert (code, err) == (0, b"")
    assert out.startswith(b"caf\\xe9.png: ")
    _, out, _ = run("predict net.safetensors --csv", given=b"caf\xe9.png\n")
    assert out.splitlines()[1].startswith(b"caf\\xe9.png,1,")
    _, out, _ = run("predict net.safetensors --json", given=b"caf\xe9.png\n")
    _, similar, _ = run("features net.safetensors --nearest 1 --json caf\udce9.png")
    assert json.loads(out)["images"][0]["file"] == json.loads(similar)["nearest"][0]["file"] == "caf\\xe9.png"
    code, _, err = run("predict net.safetensors", given=b"\xff\xfea\0b")  # UTF-16 that ends within a character
    assert (code, err.count(b"\n")) == (2, 1)
    assert b"standard input can't be read" in err
