"""A local server with weights as torchvision and the Hugging Face hub publish them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Publisher:
    """What is published at /models/FILE, at OWNER/NAME/resolve/REVISION/FILE, and what was asked for."""

    files: dict[str, bytes] = field(default_factory=dict)  # by path: models/FILE, or OWNER/NAME/FILE
    revisions: tuple[str, ...] = ("main", COMMIT)
    renamed: dict[str, str] = field(default_factory=dict)  # repositories, and what they are called now
    private: bool = False
    states_hashes: bool = True
    wrong: bool = False  # whether what is sent is not what is stated
    wrong_config: bool = False  # the same of config.json alone
    cut: int = 0  # after so many bytes the next answer ends
    url: str = ""  # of the hub
    elsewhere: str = ""  # of another host, where its large files lie
    asked: list[str] = field(default_factory=list)  # methods and paths, and ranges
    tokens: list[tuple[str, str]] = field(default_factory=list)  # hosts, and what they were told


def handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer()

        def do_HEAD(self) -> None:
            self.answer()

        def answer(self) -> None:
            wanted = self.headers["Range"]
            publisher.asked.append(" ".join(filter(None, (self.command, self.path, wanted))))
            if token := self.headers["Authorization"]:
                publisher.tokens.append((self.headers["Host"].partition(":")[0], token))
            parts = self.path.strip("/").split("/")
            if parts[0] == "models":
                return self.send(publisher.files.get("/".join(parts)))
            if parts[0] == "stored":
                (content,) = (c for c in publisher.files.values() if hashlib.sha256(c).hexdigest() == parts[1])
                return self.send(content)
            return self.resolve("/".join(parts[:2]), parts[3], parts[4])

        def resolve(self, repository: str, revision: str, file: str) -> None:
            if publisher.private and "Authorization" not in self.headers:
                return self.head(401, **{"X-Error-Code": "RepoNotFound"})
            if new := publisher.renamed.get(repository):
                return self.head(307, Location=f"/{new}/resolve/{revision}/{file}")
            content = publisher.files.get(f"{repository}/{file}")
            if content is None or revision not in publisher.revisions:
                return self.head(404, **{"X-Error-Code": "EntryNotFound"})
            commit = {"X-Repo-Commit": COMMIT}
            if file == "config.json":
                blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
                content = content.replace(b"0.95", b"0.85") if publisher.wrong_config else content
                return self.send(content, ETag=f'"{blob}"', **commit)
            sha256 = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Size": str(len(content))}
            linked |= {"X-Linked-Etag": f'"{sha256}"'} if publisher.states_hashes else {}
            return self.head(302, Location=f"{publisher.elsewhere}stored/{sha256}", **linked, **commit)

        def send(self, content: bytes | None, **headers: str) -> None:
            if content is None:
                return self.head(404)
            start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            if publisher.wrong:
                content = content[:-1] + bytes([content[-1] ^ 1])
            headers |= {"Content-Length": str(len(content) - start)}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.head(206 if start else 200, **headers)
            end, publisher.cut = start + publisher.cut if publisher.cut else len(content), 0
            if self.command == "GET":
                self.wfile.write(content[start:end])
            return None

        def head(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    """Both publishers on a local server, which the variables of their mirrors name; nothing is in any cache."""
    made = Publisher()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    port = server.server_address[1]
    made.url, made.elsewhere = f"http://127.0.0.1:{port}/", f"http://localhost:{port}/"
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("RESNETLAB_TORCHVISION_URL", f"{made.url}models")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("weights-cache")))
    monkeypatch.setenv("no_proxy", "*")
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield made
    server.shutdown()
    server.server_close()
    thread.join()
