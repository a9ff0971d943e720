"""The server as a process, over real connections: right answers, and every bad request its status."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import select
import socket
import struct
import subprocess
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.cli.main import main
from resnetlab.data.decoding import decode
from resnetlab.data.open import open_data
from resnetlab.use import http_server
from resnetlab.use.classifier import Classifier
from resnetlab.use.heat import COLOURS, CropArea, side_by_side
from resnetlab.use.predict import likeliest

Noise = Callable[..., bytes]
MEGABYTE = 10**6
TYPE = "multipart/form-data; boundary=xyz"
FORMATS = "not an image in a supported format; supported are JPEG, PNG, WEBP, GIF, BMP, TIFF"


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has this size, and has no pixels to speak of."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def one_line(answer: Any) -> str:
    """The message of a refusal, which is a line that tells nothing of the server."""
    said = answer.json()
    assert list(said) == ["detail"]
    assert isinstance(said["detail"], str)
    assert len(said["detail"].splitlines()) == 1
    assert not re.search(r"/(tmp|home|root|usr|work)\b|\.py|\.pth|Traceback", answer.body.decode())
    return said["detail"]


def memory(process: subprocess.Popen[str]) -> int:
    """The most bytes that a process has held."""
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("this system does not tell a process's memory in /proc")
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0])


def test_classes_are_those_of_predict(server: Any, weights: Path, noise: Noise) -> None:
    classifier = Classifier.open(weights, net="cifar_resnet8")
    for seed, format in enumerate(["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"]):
        image = noise(seed, format=format)
        wanted = likeliest(classifier.probabilities(classifier.prepare(image)[None])[0], classifier.classes, 3)
        in_form = server.post("/predict?top=3", image, filename="../../etc/pass\u00fc\u2028wd%0a", kind="text/html")
        alone = server.ask("POST", "/predict?top=3", f"image/{format.lower()}", image)
        assert in_form.status == alone.status == 200
        assert in_form.body == alone.body
        for found, (name, probability) in zip(in_form.json()["classes"], wanted, strict=True):
            assert found == {"class": name, "probability": pytest.approx(probability, abs=1e-5)}
    assert len(server.post("/predict", image).json()["classes"]) == 5
    assert len(server.post("/predict?top=100000", image).json()["classes"]) == 10


@pytest.mark.parametrize("words", [[], ["--label", "3", "--unit", "layer2.0"]])
def test_explain_is_what_the_command_draws(
    server: Any, weights: Path, noise: Noise, tmp_path: Path, words: list[str]
) -> None:
    """The photograph's right half there is made of the heat and the crop that the API gives."""
    asked = "?label=3&unit=layer2.0&view=heat" if words else "?view=heat"
    for name, image in (("wide.png", noise()), ("tall.jpg", noise(1, 500, 300, "JPEG"))):
        (tmp_path / name).write_bytes(image)
        options = ["--net", "cifar_resnet8", "--device", "cpu", "--out", str(tmp_path / "out"), *words]
        assert main(["explain", str(weights), str(tmp_path / name), *options]) == 0
        answer = server.post(f"/explain{asked}", image)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        heat = Image.open(io.BytesIO(answer.body))
        assert (heat.mode, heat.size) == ("P", (32, 32))
        crop = CropArea(**server.post("/predict", image).json()["crop"])
        values = torch.from_numpy(np.asarray(heat).copy()) / 255
        wanted = side_by_side(decode(image), values, crop)
        drawn = Image.open(tmp_path / "out" / name)
        assert drawn.size == wanted.size
        apart = np.abs(np.asarray(drawn).astype(int) - np.asarray(wanted))
        assert apart.mean() < 3, "JPEG's and 8 bits' rounding"


def test_the_crop_is_the_middle(server: Any, noise: Noise) -> None:
    for height, width, wanted in (
        (64, 64, (0, 0, 1, 1)),
        (64, 128, (0.25, 0, 0.5, 1)),
        (96, 32, (0, 1 / 3, 1, 1 / 3)),
    ):
        crop = server.post("/predict", noise(0, height, width)).json()["crop"]
        assert list(crop) == ["left", "top", "width", "height"]
        assert tuple(crop.values()) == pytest.approx(wanted)


def test_explain_shows_what_the_network_sees(server: Any, noise: Noise) -> None:
    for asked in ("", "?view=overlay"):
        answer = server.post(f"/explain{asked}", noise(0, 300, 200))
        picture = Image.open(io.BytesIO(answer.body))
        assert (picture.mode, picture.size) == ("RGB", (256, 256))


def test_health_metrics_and_the_page(serving: Any, noise: Noise) -> None:
    with serving("--batch-size", "4") as served:
        told = served.ask("GET", "/health").json()
        assert (told["status"], told["network"], told["device"]) == ("ok", "cifar_resnet8", "cpu")
        assert told["classes"] == [str(i) for i in range(10)]
        assert told["units"] == ["layer1.0", "layer2.0", "layer3.0"]
        assert told["unit"] == "layer3.0"
        assert (told["classes_named"], told["accuracy"]) == (False, None)
        assert told["heat_colours"] == list(COLOURS)
        assert [served.post("/predict", noise(i)).status for i in range(3)] == [200] * 3
        assert [served.ask("GET", path).status for path in ("/predict", "/nowhere", '/a"b')] == [405, 404, 404]
        page = served.ask("GET", "/")
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert page.headers["x-content-type-options"] == "nosniff"
        for name, kind in (("style.css", "text/css"), ("script.js", "text/javascript")):
            assert name in page.body.decode()
            assert served.ask("GET", f"/{name}").headers["content-type"].startswith(kind)
        answer = served.ask("GET", "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if line[0] != "#")
        for path, status, count in (("/predict", 200, 3), ("/predict", 405, 1), ("other", 404, 2), ("/", 200, 1)):
            assert float(lines[f'resnetlab_requests_total{{path="{path}",status="{status}"}}']) == count
        assert lines['resnetlab_request_seconds_bucket{le="+Inf",path="/predict"}'] == "4.0"
        assert lines['resnetlab_batch_size_bucket{le="1.0"}'] == lines["resnetlab_batch_size_count"] == "3.0"
        assert lines["resnetlab_queue_length"] == "0.0"


def test_health_states_the_accuracy_of_a_run(serving: Any, run: Path) -> None:
    with serving(source=run) as served:
        told = served.ask("GET", "/health").json()
    error = json.loads((run / "result.json").read_text())["test_error"]
    assert told["classes_named"]
    assert told["accuracy"]["top1"] == pytest.approx(100 - error)
    assert told["accuracy"]["images"] == len(open_data("digits").test)
    low, high = told["accuracy"]["interval"]
    assert low < 100 - error < high


def test_nothing_of_a_browsers_default_asks_the_network(server: Any) -> None:
    for path in ("/", "/style.css", "/script.js"):
        text = server.ask("GET", path).body.decode()
        assert set(re.findall(r"https?://[^\"' ]+", text)) <= {"http://www.w3.org/2000/svg"}  # a name, not a place
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert server.ask("GET", path).status == 404


def test_head_is_answered_as_get_without_a_body(server: Any) -> None:
    for path in ("/", "/health", "/predict", "/nowhere"):
        head, get = server.ask("HEAD", path), server.ask("GET", path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "kind", "body", "status", "words"),
    [
        ("GET", "/nowhere", "", b"", 404, "Not Found"),
        ("GET", "/health/", "", b"", 404, "Not Found"),  # no redirect, which would name an address behind a proxy
        ("GET", "/../../etc/passwd", "", b"", 404, "Not Found"),
        ("GET", "/%2e%2e/style.css", "", b"", 404, "Not Found"),
        ("GET", "/explain", "", b"", 405, "Method Not Allowed"),
        ("DELETE", "/health", "", b"", 405, "Method Not Allowed"),
        ("POST", "/predict", "", b"x", 415, "send multipart/form-data"),
        ("POST", "/predict", "application/json", b"{}", 415, "send multipart/form-data"),
        ("POST", "/predict", "text/html", b"x", 415, "send multipart/form-data"),
        ("POST", "/predict", "multipart/form-data", b"x", 400, "no boundary"),
        ("POST", "/predict", TYPE, b"x", 400, "damaged"),
        ("POST", "/predict", TYPE, b"--xyz\r\nContent-Disposition: form-data; name=image\r\n\r\nx", 400, "damaged"),
        ("POST", "/predict", f"multipart/form-data; boundary={'x' * 300}", b"x", 400, "damaged"),
        ("POST", "/predict", TYPE, b"--xyz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xyz--", 422, "no field"),
        ("POST", "/predict", "image/png", b"", 422, "the file is empty"),
        ("POST", "/predict", "image/png", b"no image", 415, FORMATS),
        ("POST", "/predict", "image/svg+xml", b"<svg onload='alert(1)'/>", 415, "an SVG drawing, whatever"),
        ("POST", "/predict?top=0", "image/png", b"x", 422, "top: "),
        ("POST", "/predict?top=1e3", "image/png", b"x", 422, "top: "),
        ("POST", "/predict?top=" + "9" * 5000, "image/png", b"x", 422, "top: "),
        ("POST", "/explain?label=cat", "image/png", b"x", 422, "label 'cat' is not listed by /health."),
        ("POST", "/explain?label=%0a" + "x" * 5000, "image/png", b"x", 422, "label '\\nxxx"),
        (
            "POST",
            "/explain?unit=layer9",
            "image/png",
            b"x",
            422,
            "unit 'layer9' is not listed by /health. Did you mean layer",
        ),
        ("POST", "/explain?view=photo", "image/png", b"x", 422, "view: Input should be 'overlay' or 'heat'"),
        ("POST", "/explain?unit=", "image/png", b"x", 422, "unit '' is not listed by"),
        ("POST", "/explain?class=1", "image/png", b"x", 422, "'class' is not a parameter; known: label, unit, view"),
        ("POST", "/predict?topp=1", "image/png", b"x", 422, "'topp' is not a parameter; known: top"),
        ("POST", "/predict?top=1&top=2", "image/png", b"x", 422, "top is given 2 times; give it once"),
    ],
)
def test_bad_requests_get_their_status(
    server: Any, method: str, path: str, kind: str, body: bytes, status: int, words: str
) -> None:
    answer = server.ask(method, path, kind, body)
    assert (answer.status, words in one_line(answer)) == (status, True), answer.body
    assert server.ask("GET", "/health").status == 200


def test_a_body_is_one_image_as_it_is(server: Any, noise: Noise) -> None:
    part = b"--xyz\r\nContent-Disposition: form-data; name=image\r\n\r\n" + noise(format="JPEG") + b"\r\n"
    assert server.ask("POST", "/predict", TYPE, part + b"--xyz--\r\n").status == 200
    answer = server.ask("POST", "/predict", TYPE, part + part + b"--xyz--\r\n")
    assert (answer.status, one_line(answer)) == (422, "the form has 2 fields 'image'; send one image in each request")
    answer = server.ask("POST", "/predict", TYPE, part + b"--xyz--\r\n", **{"Content-Encoding": "gzip"})
    assert (answer.status, "(Content-Encoding); send the image as it is" in one_line(answer)) == (415, True)


def test_bad_images_get_their_status(server: Any, noise: Noise) -> None:
    jpeg = noise(height=400, width=400, format="JPEG")
    for image, status, words in (
        (png_header(60_000, 60_000), 413, "more than the allowed 25,000,000 pixels"),
        (png_header(5_001, 5_000), 413, "5,001x5,000 pixels are more than the allowed 25,000,000"),
        (png_header(32_769, 1), 413, "32,769x1 pixels: a side is longer than the allowed 32,768"),
        (png_header(30_000, 1), 413, "too narrow a strip"),
        (png_header(2**31 - 1, 2**31 - 1), 413, "pixels"),
        (png_header(0, 10), 422, "can't be read"),
        (png_header(50, 50), 422, "can't be read"),
        (jpeg[: len(jpeg) // 2], 422, "truncated"),
        (jpeg[:100], 422, "can't be read"),
        (b"\0" * 1000, 415, FORMATS),
        (b"P6 1 1 255 abc", 415, FORMATS),  # PPM
        (
            b"\0\0\0\x18ftypheic" + bytes(99),
            415,
            "a HEIC image, whatever its name: save the picture as JPEG or PNG; supp",
        ),
        (b"GIF89a" + b"\xff" * 1000, 422, "can't be read"),
    ):
        for path in ("/predict", "/explain"):
            answer = server.post(path, image)
            assert (answer.status, words in one_line(answer)) == (status, True), (image[:20], answer.body)
    assert server.post("/predict", jpeg).status == 200


def test_a_body_that_says_it_is_too_large_is_not_waited_for(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
        client.sendall(b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n")
        answer = client.makefile("rb").readline()
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert server.ask("POST", "/predict", "image/png", bytes(2 * MEGABYTE + 1)).status == 413
    assert server.ask("POST", "/predict", "image/png", bytes(2 * MEGABYTE)).status == 415


@pytest.mark.parametrize("kind", ["image/png", TYPE])
def test_an_endless_body_is_cut_early(server: Any, kind: str) -> None:
    server.ask("POST", "/predict", "image/png", bytes(2 * MEGABYTE))
    before, sent, answer = memory(server.process), 0, b""
    piece = bytes(MEGABYTE)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = (
            f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.sendall(head.encode())
        while sent < 1000 * MEGABYTE and not answer:
            client.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
            sent += len(piece)
            if select.select([client], [], [], 0)[0]:
                answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert sent < 200 * MEGABYTE
    assert memory(server.process) - before < 100 * MEGABYTE
    assert server.ask("GET", "/health").status == 200


def slow_client(served: Any) -> socket.socket:
    """A client that has sent a byte of a thousand."""
    client = socket.create_connection(("127.0.0.1", served.port))
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    client.sendall(head + b"x")
    return client


def test_slow_clients_are_let_go(serving: Any) -> None:
    with serving("--timeout", "1", "--queue", "2") as served:
        slow = [slow_client(served) for _ in range(20)]
        for client in slow:
            assert client.makefile("rb").readline().startswith(b"HTTP/1.1 408 ")
            client.close()


def test_slow_clients_hold_no_place(serving: Any, noise: Noise) -> None:
    with serving("--timeout", "600", "--queue", "2") as served:
        slow = [slow_client(served) for _ in range(20)]
        assert served.post("/predict", noise()).status == 200
        for client in slow:
            client.close()
        assert served.post("/predict", noise()).status == 200


def test_many_at_once_are_answered_or_told_to_come_back(server: Any, noise: Noise) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/png\r\n"
    request = head + b"Content-Length: %d\r\n\r\n" % len(noise()) + noise()

    async def one() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        assert (b"retry-after: 1" in answer.lower()) == answer.startswith(b"HTTP/1.1 503 ")
        return int(answer.split()[1])

    async def all_at_once() -> Counter[int]:
        return Counter(await asyncio.gather(*(one() for _ in range(300))))

    def counted() -> Counter[int]:
        found = re.findall(r'total{path="/predict",status="(\d+)"} (\d+)', server.ask("GET", "/metrics").body.decode())
        return Counter({int(status): int(count) for status, count in found})

    before = counted()
    seen = asyncio.run(all_at_once())
    assert set(seen) <= {200, 503}
    assert seen[200] > 0
    assert counted() - before == seen
    assert server.post("/predict", noise()).status == 200


def test_who_sends_no_whole_head_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6)  # an answer may take longer than a head
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    ready = threading.Event()
    with http_server.listen("127.0.0.1", 0) as listener:
        running = http_server.server_of(app, 5, ready.set)
        thread = threading.Thread(target=running.run, args=[[listener]])
        thread.start()
        assert ready.wait(600)
        for sent in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\nX: "):
            with socket.create_connection(listener.getsockname(), timeout=600) as client:
                client.sendall(sent)
                with contextlib.suppress(ConnectionResetError):
                    assert client.recv(100) == b""
        with socket.create_connection(listener.getsockname(), timeout=600) as client:
            for _ in range(2):
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 204 ")
        running.should_exit = True
        thread.join()


def test_other_names_than_the_machines_own_are_refused(server: Any, noise: Noise) -> None:
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""):
        answer = server.ask("GET", "/health", Host=host)
        assert (answer.status, "name" in one_line(answer)) == (421, True), host
    for host in ("localhost", f"127.0.0.1:{server.port}", "LOCALHOST:1", "[::1]:80"):
        assert server.ask("GET", "/health", Host=host).status == 200


def test_the_description_names_every_status_that_came(server: Any) -> None:
    described = server.ask("GET", "/openapi.json").json()
    assert sorted(described["paths"]) == ["/explain", "/health", "/metrics", "/predict"]
    of_images = {"200", "400", "408", "413", "415", "421", "422", "500", "503", "504"}
    for path in ("/predict", "/explain"):
        operation = described["paths"][path]["post"]
        of_files = {"501"} if path == "/explain" else set()  # of an exported file there are no heat maps
        assert set(operation["responses"]) == of_images | of_files
        assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
        for code in (of_images | of_files) - {"200"}:
            schema = operation["responses"][code]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "ValidationError" not in json.dumps(described)
    assert list(described["paths"]["/explain"]["post"]["responses"]["200"]["content"]) == ["image/png"]
