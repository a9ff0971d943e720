"""What the tests of data share: a local HTTP server on which anything can go wrong, pictures, a pack."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.files import Files
from resnetlab.data.open import File, Published
from resnetlab.data.pack import pack

sys.path.insert(0, str(Path(__file__).parent))

from made_files import files_at
from made_packs import Read, picture, write

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes: more than a socket takes at once
NAME = "train-images-idx3-ubyte.gz"


@dataclass
class Server:
    """What a local HTTP server serves, what goes wrong with it, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=lambda: {NAME: CONTENT})
    ranges: bool | int = True  # False: they are ignored; a number: the status they are refused with
    cuts: list[int] = field(default_factory=list)  # of each answer in turn, after how many bytes it is cut
    corrupt: int = 0  # how many answers have a wrong byte
    statuses: list[int] = field(default_factory=list)  # of each answer in turn, instead of the file
    length: int = 0  # is added to the true Content-Length
    shift: int = 0  # is added to the true start in Content-Range
    stalls: int = 0  # how many answers fall silent half-way, until the end of the test
    redirect: str = ""
    etag: str = '"1"'
    asked: list[tuple[str, str | None, str | None]] = field(default_factory=list)  # path, Range, If-Range
    sent: int = 0
    url: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def source(self, **changes: str) -> dict[str, Published]:
        """A table with one data set, "mnist", of the files here."""
        files = tuple(File(n, len(c), hashlib.sha256(c).hexdigest(), **changes) for n, c in self.files.items())
        return {"mnist": Published((self.url,), files)}


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = server.files.get(self.path.rpartition("/")[2])
            wanted, unless = self.headers["Range"], self.headers["If-Range"]
            server.asked.append((self.path, wanted, unless))
            if server.redirect and not self.path.startswith("/moved"):
                return self.head(302, Location=f"{server.url}moved{self.path}")
            if server.statuses:
                return self.head(server.statuses.pop(0))
            if content is None:
                return self.head(404)
            start = 0
            if wanted and not isinstance(server.ranges, bool):
                return self.head(server.ranges)
            if wanted and server.ranges and unless in (None, server.etag):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if server.corrupt:
                server.corrupt -= 1
                content = content[:-1] + bytes([content[-1] ^ 1])
            headers = {"Content-Length": str(len(content) - start + server.length), "ETag": server.etag}
            if start:
                headers["Content-Range"] = f"bytes {start + server.shift}-{len(content) - 1}/{len(content)}"
            self.head(206 if start else 200, **headers)
            end = start + server.cuts.pop(0) if server.cuts else len(content)
            if server.stalls:
                server.stalls -= 1
                self.wfile.write(content[start : len(content) // 2])
                server.sent += len(content) // 2 - start
                server.ended.wait()
                return None
            self.wfile.write(content[start:end])
            server.sent += min(end, len(content)) - start
            return None

        def head(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start a server: serve(cuts=[100], ...) returns it with its address."""
    monkeypatch.setenv("no_proxy", "*")
    running: list[tuple[Server, ThreadingHTTPServer]] = []

    def start(**settings: object) -> Server:
        server = Server(**settings)  # type: ignore[arg-type]
        httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler(server))
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        running.append((server, httpd))
        server.url = f"http://127.0.0.1:{httpd.server_port}/"
        return server

    yield start
    for server, httpd in running:
        server.ended.set()
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """37 pictures of different sizes; noise, so that no two crops are alike."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    names = []
    for i in range(37):
        height, width = random.integers(20, 90, 2)
        names.append(f"{i}.{'png' if i % 2 else 'jpg'}")
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / names[-1])
    return files_at(folder, names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """12 training and 4 test images of two classes."""
    train = {f"train/{c}/{i}.jpg": picture(i + 10 * (c == "b")) for c in "ab" for i in range(6)}
    val = {f"val/{c}/{i}.jpg": picture(50 + i + 10 * (c == "b")) for c in "ab" for i in range(2)}
    return write(tmp_path / "flowers", train | val)


@pytest.fixture
def packed(folder: Path, loose_data: Read) -> Path:
    """These images as a pack of a few shards."""
    dest = folder.parent / "packed"
    pack(loose_data(folder), dest, workers=1, shard_bytes=8000)
    return dest
