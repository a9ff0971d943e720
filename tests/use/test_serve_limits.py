"""The server's limits over real connections, with decoders that wait as long as a test wants."""

from __future__ import annotations

import contextlib
import io
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest
import torch
from PIL import Image

from resnetlab import build
from resnetlab.data.normalisation import imagenet
from resnetlab.use import http_server
from resnetlab.use.classifier import Classifier
from resnetlab.use.decoders import Decoders
from resnetlab.use.request_body import Limits
from resnetlab.use.serve import make_app

Noise = Callable[..., bytes]
PATIENCE = 600  # seconds, which no test waits for unless something hangs
GET = b"GET /script.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


def plain(width: int, height: int) -> bytes:
    written = io.BytesIO()
    Image.new("L", (width, height)).save(written, "PNG")
    return written.getvalue()


@contextlib.contextmanager
def running(decoders: Decoders, **limits: Any) -> Iterator[int]:
    """The port of a server in a thread."""
    torch.manual_seed(0)
    classifier = Classifier(build("cifar_resnet8").eval(), tuple("abcdefghij"), imagenet(3), whole=True, device="cpu")
    app = make_app(classifier, Limits(**{"seconds": PATIENCE, **limits}), decoders)
    ready = threading.Event()
    with http_server.listen("127.0.0.1", 0) as listener:
        server = http_server.server_of(app, PATIENCE, ready.set)
        thread = threading.Thread(target=server.run, args=[[listener]])
        thread.start()
        assert ready.wait(PATIENCE)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, str | None, str]:
    """Status, Retry-After and text of an answer."""
    with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
        connection.request("POST" if body else "GET", path, body, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Retry-After"), answer.read().decode(errors="replace")


def slow_client(port: int) -> socket.socket:
    """A client whose body is being waited for."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
    client.sendall(b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 100 ")
    return client


def test_what_is_being_decoded_stalls_nothing_but_images(held: Any, noise: Noise) -> None:
    with running(held.decoders) as port, ThreadPoolExecutor(3) as clients:
        decoding = [clients.submit(ask, port, "/predict", noise()) for _ in range(2)]
        held.begun(2)
        waiting = clients.submit(ask, port, "/explain", noise())
        for path in ("/health", "/metrics", "/"):
            assert ask(port, path)[0] == 200
        assert not any(answer.done() for answer in [*decoding, waiting])
        held.go()
        assert [answer.result()[0] for answer in [*decoding, waiting]] == [200] * 3


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_pixels_beyond_the_budget_are_told_to_come_back(held: Any, noise: Noise, path: str) -> None:
    with running(held.decoders) as port, ThreadPoolExecutor(2) as clients:
        decoding = clients.submit(ask, port, path, plain(2_500, 2_000))
        held.begun(1)
        for _ in range(3):
            status, after, said = ask(port, path, plain(2_250, 2_000))
            assert (status, after, "try again" in said) == (503, "1", True)
        small = clients.submit(ask, port, path, noise())
        held.begun(2)
        held.go()
        assert decoding.result()[0] == small.result()[0] == 200
        assert ask(port, path, plain(2_500, 2_000))[0] == 200


def test_who_waits_too_long_for_a_decoder_ends_it(held: Any, noise: Noise) -> None:
    with running(held.decoders, seconds=1) as port:
        for _ in range(PATIENCE):  # on a busy machine, a decoder may be ended before it begins
            assert ask(port, "/predict", noise())[0] == 504
            if len(held.begun(0)) == 2:
                return
    pytest.fail("the second process did not begin, so the first was not ended")


def test_bodies_of_slow_clients_are_bounded_together(decoders: Decoders, noise: Noise) -> None:
    image = noise()
    with running(decoders, bytes=len(image), bodies=len(image)) as port:
        where = ("127.0.0.1", port)
        with socket.create_connection(where, timeout=PATIENCE) as slow, slow.makefile("rb") as answer:
            head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nExpect: 100-continue\r\n"
            slow.sendall(f"{head}Content-Length: {len(image)}\r\n\r\n".encode())
            assert answer.readline().startswith(b"HTTP/1.1 100 ")
            slow.sendall(image[:-1])
            while (found := ask(port, "/predict", image))[0] == 200:  # until the slow one's bytes have come
                pass
            assert found[:2] == (503, "1")
            slow.sendall(image[-1:])
            assert answer.readline() == b"\r\n"  # the end of the 100
            assert answer.readline().startswith(b"HTTP/1.1 200 ")
        assert ask(port, "/predict", image)[0] == 200


def test_more_connections_than_are_held_end_idle_ones(
    decoders: Decoders, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS", 10)
    monkeypatch.setattr(http_server, "YOUNG_SECONDS", -1)
    monkeypatch.setattr(http_server, "HEAD_SECONDS", PATIENCE)
    with running(decoders) as port, contextlib.ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            assert ask(port, "/health")[0] == 200
        assert ask(port, "/predict", noise())[0] == 200


def test_where_none_is_idle_a_body_that_has_long_been_coming_ends(
    decoders: Decoders, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS", 3)
    monkeypatch.setattr(http_server, "YOUNG_SECONDS", -1)
    with running(decoders) as port, contextlib.ExitStack() as opened:
        slow = [opened.enter_context(slow_client(port)) for _ in range(3)]
        assert ask(port, "/health")[0] == 200
        assert ask(port, "/predict", noise())[0] == 200
        with contextlib.suppress(ConnectionResetError):
            assert slow[0].recv(100) == b"", "the first that came"


def test_connections_that_are_busy_are_not_ended_for_a_new_one(
    held: Any, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "CONNECTIONS", 1)
    monkeypatch.setattr(http_server, "YOUNG_SECONDS", -1)
    with running(held.decoders) as port, ThreadPoolExecutor(2) as clients:
        decoding = []
        for count in (1, 2):
            decoding.append(clients.submit(ask, port, "/predict", noise()))
            held.begun(count)
        with pytest.raises(OSError):  # noqa: PT011 (reset or ended, as it comes)
            ask(port, "/health")
        held.go()
        assert [answer.result()[0] for answer in decoding] == [200, 200]
        assert ask(port, "/health")[0] == 200


def test_who_does_not_read_is_let_go(decoders: Decoders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "READ_SECONDS", 0.2)
    with running(decoders) as port, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.setblocking(False)
        poll, pending = select.poll(), 5_000 * GET  # 30 MB of answers
        poll.register(client, select.POLLOUT)
        while pending:
            (_, happened), *_ = poll.poll(1000 * PATIENCE)
            if happened & (select.POLLHUP | select.POLLERR):
                break
            pending = pending[client.send(pending) :]
        poll.modify(client, 0)
        assert poll.poll(1000 * PATIENCE), "it was ended from the other side"
        assert ask(port, "/health")[0] == 200
