"""Downloads: whole and checked or one clear line, whatever the server does."""

from __future__ import annotations

import errno
import hashlib
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resnetlab import storage
from resnetlab.data.fetch import DownloadProgress, fetch
from resnetlab.data.open import Published
from resnetlab.errors import UserError

CONTENT = bytes(range(256)) * 2000  # what the server has
NAME = "train-images-idx3-ubyte.gz"
WAITS = (0.01, 0.01)
Serve = Callable[..., Any]


def closed_place() -> str:
    """An address where nobody answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def run(
    server: Any, dest: Path, timeout: float = 3600, waits: tuple[float, ...] = WAITS, **source: str
) -> list[DownloadProgress]:
    return list(fetch("mnist", dest, sources=server.source(**source), timeout=timeout, waits=waits))


def words(events: list[DownloadProgress]) -> str:
    return "\n".join(event.words for event in events if event.words)


def test_fetches_files_and_leaves_them_alone_when_asked_again(tmp_path: Path, serve: Serve) -> None:
    server = serve(files={NAME: CONTENT, "second": b"x"})
    events = run(server, tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder" / NAME).read_bytes() == CONTENT
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["second", NAME]
    assert events[-1] == DownloadProgress("second", 1, 1, len(CONTENT) + 1, "finished")
    done = [e.done for e in events if e.file == NAME]
    assert done == sorted(done)
    assert len(done) > 4
    again = run(server, tmp_path / "new" / "folder")
    assert [(e.words, e.received) for e in again] == [("already complete", 0)] * 2
    assert len(server.asked) == 2


def test_a_cut_connection_goes_on_where_it_was(tmp_path: Path, serve: Serve) -> None:
    server = serve(cuts=[200_000, 100_000])
    events = run(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [(wanted, unless) for _, wanted, unless in server.asked] == [
        (None, None),
        ("bytes=200000-", '"1"'),
        ("bytes=300000-", '"1"'),
    ]
    assert server.sent == events[-1].received == len(CONTENT)
    assert words(events).count("closed the connection; retrying in 0.01 s") == 2


def test_another_part_than_the_one_that_was_asked_for_is_not_taken(tmp_path: Path, serve: Serve) -> None:
    server = serve(cuts=[200_000], shift=512)
    assert "sent a different part than requested" in words(run(server, tmp_path))
    assert [wanted for _, wanted, _ in server.asked] == [None, "bytes=200000-", None]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_weak_mark_is_no_condition_for_the_rest(tmp_path: Path, serve: Serve) -> None:
    """If-Range takes strong ones only (RFC 9110, section 13.1.5): a server would send everything anew."""
    server = serve(cuts=[200_000], etag='W/"1"')
    run(server, tmp_path)
    assert [(wanted, unless) for _, wanted, unless in server.asked] == [(None, None), ("bytes=200000-", None)]
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_connection_that_breaks_often_but_gets_farther_is_not_given_up(tmp_path: Path, serve: Serve) -> None:
    run(serve(cuts=[50_000] * 9), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_another_call_goes_on_with_the_part(tmp_path: Path, serve: Serve) -> None:
    server = serve(cuts=[200_000, 0, 0])
    with pytest.raises(UserError, match=r"closed the connection\. 200,000 of 512,000 bytes are kept in .*\.part"):
        run(server, tmp_path)
    assert len((tmp_path / f"{NAME}.part").read_bytes()) == 200_000
    server.asked.clear()
    events = run(server, tmp_path)
    assert server.asked == [(f"/{NAME}", "bytes=200000-", None)]
    assert events[-1].received == 312_000
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_an_interrupted_call_keeps_its_part(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    events = fetch("mnist", tmp_path, sources=server.source())
    done = next(events).done
    events.close()  # what Ctrl-C does to it
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT[:done]
    run(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [False, 416])
def test_a_server_without_ranges_sends_it_anew(tmp_path: Path, serve: Serve, ranges: bool | int) -> None:
    server = serve(cuts=[200_000], ranges=ranges)
    assert run(server, tmp_path)[-1].received == 712_000
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_sent_anew(tmp_path: Path, serve: Serve) -> None:
    server = serve(cuts=[200_000])
    for event in fetch("mnist", tmp_path, sources=server.source(), waits=WAITS):
        server.etag = '"2"' if event.words else server.etag
    assert [wanted for _, wanted, _ in server.asked] == [None, "bytes=200000-"]
    assert server.sent == 712_000
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize("kept", [b"", CONTENT, CONTENT + b"more", b"wrong" * 1000, b"x" * len(CONTENT)])
def test_whatever_part_is_there_the_file_is_right(tmp_path: Path, serve: Serve, kept: bytes) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(kept)
    run(serve(), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == [NAME]


def test_a_wrong_byte_once_is_fetched_again(tmp_path: Path, serve: Serve) -> None:
    server = serve(corrupt=1)
    assert "its checksum is wrong" in words(run(server, tmp_path))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.asked] == [None, None]


def test_a_wrong_byte_always_names_both_checksums(tmp_path: Path, serve: Serve) -> None:
    server = serve(corrupt=9)
    wanted = hashlib.sha256(CONTENT).hexdigest()
    found = hashlib.sha256(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])).hexdigest()
    with pytest.raises(
        UserError, match=f"should be {wanted}, but is {found}. Try again later, or download {server.url}"
    ):
        run(server, tmp_path)
    assert len(server.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_mirrors_stand_in(tmp_path: Path, serve: Serve) -> None:
    bad = [serve(statuses=[404]), serve(statuses=[500] * 9), serve(length=7)]
    good = serve()
    (source,) = good.source().values()
    places = (closed_place(), *(b.url for b in bad), good.url)
    events = list(fetch("mnist", tmp_path, sources={"mnist": Published(places, source.files)}, waits=WAITS))
    assert (tmp_path / NAME).read_bytes() == CONTENT
    for said in ("can't be reached (Connection refused)", "answers 404 Not Found", "answers 500 Internal Server Error"):
        assert said in words(events)
    assert "has a different file, of 512,007 bytes instead of 512,000" in words(events)
    assert [len(b.asked) for b in bad] == [1, 3, 1]


def test_a_mirror_with_the_wrong_file_is_followed_by_the_next(tmp_path: Path, serve: Serve) -> None:
    bad, good = serve(corrupt=9), serve()
    (source,) = good.source().values()
    list(fetch("mnist", tmp_path, sources={"mnist": Published((bad.url, good.url), source.files)}, waits=WAITS))
    assert (tmp_path / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"statuses": [404]}, "answers 404 Not Found"),
        ({"statuses": [500] * 3}, "answers 500 Internal Server Error"),
        ({"length": 100}, "has a different file, of 512,100 bytes instead of 512,000"),
        ({"length": -100}, "has a different file, of 511,900 bytes instead of 512,000"),
        ({"stalls": 9}, "sent nothing for 0.2 s. 256,000 of 512,000 bytes are kept"),
    ],
)
def test_a_place_that_fails_is_named_with_what_to_do(
    tmp_path: Path, serve: Serve, settings: dict[str, Any], message: str
) -> None:
    server = serve(**settings)
    if "stalls" in settings:
        (tmp_path / f"{NAME}.part").write_bytes(CONTENT[: len(CONTENT) // 2])
    with pytest.raises(UserError) as raised:
        run(server, tmp_path, timeout=0.2 if "stalls" in settings else 3600)
    assert f"{NAME} can't be downloaded: {server.url[7:-1]} {message}" in str(raised.value)
    to_do = f"Check the network and repeat the command to resume, or download {server.url}{NAME} by hand, put it into"
    assert f"{to_do} {tmp_path} and repeat the command." in str(raised.value)
    assert not (tmp_path / NAME).exists()


def test_a_stalled_connection_goes_on(tmp_path: Path, serve: Serve) -> None:
    server = serve(stalls=1)
    patient = (0.01,) * 1000  # so that a slow machine, which is silent too now and then, is no failure
    assert "sent nothing for 0.2 s" in words(run(server, tmp_path, timeout=0.2, waits=patient))
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_redirect_is_followed_and_keeps_the_range(tmp_path: Path, serve: Serve) -> None:
    server = serve(redirect="yes", cuts=[200_000])
    run(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert server.asked[-1] == (f"/moved/{NAME}", "bytes=200000-", '"1"')


def test_without_a_network_the_host_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError) as raised:
        list(fetch("cifar10", tmp_path, waits=(60,)))
    message = str(raised.value)
    assert "www.cs.toronto.edu can't be reached (Name or service not known); cave.cs.toronto.edu can't" in message
    by_hand = "or download https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz by hand, put it into"
    assert f"{by_hand} {tmp_path} and repeat the command." in message


def test_a_full_disk_is_one_line_and_keeps_the_part(tmp_path: Path, serve: Serve) -> None:
    server, (soft, hard) = serve(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        with pytest.raises(UserError, match=r"\.part: can't write \(File too large\)\. Make room or choose another"):
            run(server, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 0 < kept <= 300_000
    assert run(server, tmp_path)[-1].received == len(CONTENT) - kept


def test_a_file_with_other_content_is_never_overwritten(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(UserError, match=r"exists, but is not the published file of mnist: its SHA-256 should be"):
        run(serve(), tmp_path)
    assert (tmp_path / NAME).read_bytes() == b"mine"


def test_two_at_once_do_not_write_one_part(tmp_path: Path, serve: Serve) -> None:
    server = serve()
    first = fetch("mnist", tmp_path, sources=server.source())
    next(first)
    with pytest.raises(UserError, match="another process is downloading to this folder"):
        run(server, tmp_path)
    list(first)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_a_folder_that_can_t_be_locked_is_no_obstacle(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(storage.fcntl, "flock", refuse)
    run(serve(), tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT
