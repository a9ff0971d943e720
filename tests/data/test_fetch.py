"""`resnetlab data fetch`: archives unpacked whole and within their folder, the table, what the command says."""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetlab.cli.main import main
from resnetlab.data.cifar import LAYOUTS
from resnetlab.data.fetch import DownloadProgress, fetch
from resnetlab.data.open import PUBLISHED
from resnetlab.errors import UserError

NAME = "train-images-idx3-ubyte.gz"
CONTENT = bytes(range(256)) * 2000  # what the server has under that name
Serve = Callable[..., Any]


def words(events: list[DownloadProgress]) -> str:
    return "\n".join(event.words for event in events if event.words)


FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"


def archive(*members: tuple[str, bytes | str, bytes], complete: bool = True) -> bytes:
    """A .tar.gz of (name, content or link target, type) beside CIFAR-10's files."""
    wanted = [(f"{FOLDER}/{n}", n.encode(), tarfile.REGTYPE) for n in LAYOUTS["cifar10"].files] if complete else []
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, content, kind in (*wanted, *members):
            member = tarfile.TarInfo(name)
            member.type = kind
            if isinstance(content, str):
                member.linkname = content
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return made.getvalue()


LONG = archive((f"{FOLDER}/long", b" ".join(b"%d" % i for i in range(200_000)), tarfile.REGTYPE))


def run_archive(server: Any, dest: Path) -> list[DownloadProgress]:
    (source,) = server.source(unpacks_to=FOLDER).values()
    return list(fetch("cifar10", dest, sources={"cifar10": source}))


def test_an_archive_is_unpacked_whole(tmp_path: Path, serve: Serve) -> None:
    server = serve(files={ARCHIVE: archive((FOLDER, b"", tarfile.DIRTYPE), (f"{FOLDER}/x/y", b"z", tarfile.REGTYPE))})
    (tmp_path / f"{FOLDER}.part" / FOLDER).mkdir(parents=True)  # of a process that was killed
    assert words(run_archive(server, tmp_path)) == "unpacking\nfinished"
    assert sorted(p.name for p in tmp_path.iterdir()) == [FOLDER, ARCHIVE]
    assert (tmp_path / FOLDER / "data_batch_3").read_bytes() == b"data_batch_3"
    assert (tmp_path / FOLDER / "x" / "y").read_bytes() == b"z"
    (tmp_path / ARCHIVE).unlink()
    assert words(run_archive(server, tmp_path)) == "already complete"
    assert len(server.asked) == 1
    (tmp_path / FOLDER / "data_batch_3").unlink()
    with pytest.raises(UserError, match="exists, but lacks data_batch_3. Move it away"):
        run_archive(server, tmp_path)


def test_an_archive_that_was_fetched_by_hand_is_unpacked(tmp_path: Path, serve: Serve) -> None:
    server = serve(files={ARCHIVE: archive()})
    (tmp_path / ARCHIVE).write_bytes(server.files[ARCHIVE])
    assert words(run_archive(server, tmp_path)) == "unpacking\nfinished"
    assert server.asked == []


@pytest.mark.parametrize(
    ("member", "shown"),
    [
        (("../escaped", b"x", tarfile.REGTYPE), "../escaped"),
        ((f"{FOLDER}/../../escaped", b"x", tarfile.REGTYPE), "/../../escaped"),
        (("/tmp/escaped", b"x", tarfile.REGTYPE), "/tmp/escaped"),
        ((f"{FOLDER}/link", "../../..", tarfile.SYMTYPE), "link"),
        ((f"{FOLDER}/link", "/etc/passwd", tarfile.SYMTYPE), "link"),
        ((f"{FOLDER}/hard", "/etc/passwd", tarfile.LNKTYPE), "hard"),
        ((f"{FOLDER}/pipe", "", tarfile.FIFOTYPE), "pipe"),
        ((f"{FOLDER}/device", "", tarfile.CHRTYPE), "device"),
    ],
)
def test_an_archive_with_anything_but_plain_files_inside_is_refused(
    tmp_path: Path, serve: Serve, member: tuple[str, bytes | str, bytes], shown: str
) -> None:
    dest = tmp_path / "a" / "b"
    with pytest.raises(UserError, match=f"rejected, '.*{re.escape(shown)}' in it is not a plain file"):
        run_archive(serve(files={ARCHIVE: archive(member)}), dest)
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()] == [f"a/b/{ARCHIVE}"]
    assert not (dest / FOLDER).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive()[:-20], "damaged"),
        (gzip.compress(b"no archive" * 100), "damaged"),
        (b"no archive at all", "damaged"),
        (LONG[: len(LONG) // 2], "damaged"),
        (archive(("other/file", b"x", tarfile.REGTYPE), complete=False), f"{ARCHIVE}: lacks {FOLDER}/data_batch_1"),
        (
            archive((f"{FOLDER}/meta", b"x", tarfile.REGTYPE), complete=False),
            f"{ARCHIVE}: lacks {FOLDER}/data_batch_1",
        ),
    ],
    ids=["cut", "no tar", "no gzip", "half", "another folder", "one file"],
)
def test_an_archive_that_is_not_the_data_is_named(tmp_path: Path, serve: Serve, content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_archive(serve(files={ARCHIVE: content}), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [ARCHIVE]


def test_the_table_is_complete() -> None:
    assert [sum(f.size for f in source.files) for source in PUBLISHED.values()] == [
        170_498_071,
        169_001_437,
        11_594_722,
        30_878_645,
    ]
    for name, source in PUBLISHED.items():
        assert all(place.startswith("http") and place.endswith("/") for place in source.places)
        assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in source.files)
        folders = [file.unpacks_to for file in source.files if file.unpacks_to]
        assert folders == ([LAYOUTS[name].folder] if name in LAYOUTS else [])


def test_the_command_answers(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setitem(PUBLISHED, "mnist", server.source()["mnist"])
    dest = tmp_path / "a folder"
    assert main(["data", "fetch", "mnist", str(dest), "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer.pop("seconds") >= 0
    assert answer == {"name": "mnist", "folder": str(dest), "files": [NAME], "bytes": len(CONTENT)}
    assert f"{NAME}: finished" in captured.err
    assert main(["data", "fetch", "mnist", str(dest)]) == 0
    assert capsys.readouterr().out == f"mnist: already complete\nto train with it: --data 'mnist:{dest}'\n"


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setitem(PUBLISHED, "mnist", server.source()["mnist"])

    def press(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("rich.filesize.decimal", press)
    assert main(["data", "fetch", "mnist", str(tmp_path)]) == 130
    assert f"a partial download); to resume: resnetlab data fetch mnist {tmp_path}" in capsys.readouterr().err
    assert (tmp_path / f"{NAME}.part").stat().st_size > 0
