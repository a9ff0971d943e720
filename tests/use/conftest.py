"""What the server's tests share: a tiny network's weights, images of it, and the real command on a free port."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab import build
from resnetlab.data.images import Images
from resnetlab.data.open import open_data
from resnetlab.training.loop import train
from resnetlab.training.recipes import recipe
from resnetlab.training.run import make_run
from resnetlab.use.classifier import Classifier
from resnetlab.use.decoders import Decoders
from resnetlab.use.export import export

Noise = Callable[..., bytes]
PATIENCE = 600  # seconds, which no test waits for unless something hangs


@pytest.fixture(scope="session")
def noise() -> Noise:
    """noise(seed): an encoded picture of coloured noise."""

    def encoded(seed: int = 0, height: int = 40, width: int = 48, format: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
        written = io.BytesIO()
        Image.fromarray(pixels).resize((width, height)).save(written, format)
        return written.getvalue()

    return encoded


@pytest.fixture(scope="session")
def decoders() -> Iterator[Decoders]:
    """Real processes that decode."""
    with Decoders(50_000_000) as made:
        yield made


# A decoder that, of an image it has weighed, writes its number to a folder, and waits there until it may go on.
HELD = """
import os, pathlib, time
import resnetlab.use.decoding_process as it
folder, decode = pathlib.Path({folder!r}), it.decode_part
def held(content, short_side, interpolation, admit):
    def admit_and_wait(height, width):
        admit(height, width)
        (folder / f"began-{{os.getpid()}}").touch()
        while not (folder / "go").exists():
            time.sleep(0.01)
    return decode(content, short_side, interpolation, admit_and_wait)
it.decode_part = held
it.main()
"""


@dataclass(frozen=True)
class Held:
    """Decoders that wait until they may go on."""

    decoders: Decoders
    folder: Path

    def begun(self, count: int) -> set[int]:
        """The processes that wait, once there are so many."""
        deadline = time.monotonic() + PATIENCE
        while len(found := list(self.folder.glob("began-*"))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return {int(path.name.partition("-")[2]) for path in found}

    def go(self) -> None:
        """Let them go on, now and later."""
        (self.folder / "go").touch()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    """Decoders for 5,000,000 pixels together."""
    command = (sys.executable, "-c", HELD.format(folder=str(tmp_path)))
    with Decoders(5_000_000, command=command) as made:
        yield Held(made, tmp_path)
        (tmp_path / "go").touch()


def form(image: bytes, name: str = "image", filename: str = "x.png", kind: str = "image/png") -> tuple[str, bytes]:
    """Content type and body of multipart/form-data with one file."""
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
    body = head.encode() + f"Content-Type: {kind}\r\n\r\n".encode() + image + f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running `resnetlab serve`."""

    url: str
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rstrip("/").rpartition(":")[2])

    def ask(self, method: str, path: str, kind: str = "", body: bytes = b"", **headers: str) -> Answer:
        """Send one request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body or None, ({"Content-Type": kind} if kind else {}) | headers)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def post(self, path: str, image: bytes, **how: str) -> Answer:
        """Send an image in a form."""
        return self.ask("POST", path, *form(image, **how))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a network that was never trained, cifar_resnet8 with ten classes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(build("cifar_resnet8").state_dict(), path)
    return path


@pytest.fixture(scope="session")
def serving(python: list[str], weights: Path) -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """with serving("--queue", "2") as served: the command with these options, killed afterwards if it still runs."""

    @contextlib.contextmanager
    def start(*options: str, source: Path = weights) -> Iterator[Served]:
        command = [*python, "-m", "resnetlab", "serve", str(source)]
        command += ["--net", "cifar_resnet8"] if source == weights else []
        command += [] if "--engine" in options else ["--engine", "torch"]  # which changes nothing in the background
        process = subprocess.Popen(
            [*command, "--port", "0", "--device", "cpu", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"http://\S+", line)
                assert found, line + (process.stderr.read() if process.stderr else "")
                yield Served(found[0], process)
            finally:
                process.kill()

    return start


@pytest.fixture(scope="session")
def server(serving: Callable[..., contextlib.AbstractContextManager[Served]]) -> Iterator[Served]:
    """One server for all tests that leave it as it was."""
    with serving("--timeout", str(PATIENCE), "--max-megabytes", "2", "--queue", "16") as served:
        yield served
        served.process.kill()
        assert served.process.stderr is not None
        start = ("the file does not state", "the file doesn't show")
        said = [line for line in served.process.stderr.read().splitlines() if not any(words in line for words in start)]
    assert not said, "nothing that a client does is an error of the server"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the digits."""
    made = make_run(recipe("digits", net="cifar_resnet8", epochs=2), tmp_path_factory.mktemp("runs"))
    for _ in train(made):
        pass
    return made.folder


@pytest.fixture(scope="session")
def files(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run exported to net.onnx, and to net.xml and net.bin."""
    folder = tmp_path_factory.mktemp("exported")
    export(Classifier.open(run), folder / "net.onnx", "onnx")
    export(Classifier.open(run), folder / "net.xml", "openvino")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five digits as PNG."""
    folder, test = tmp_path_factory.mktemp("pictures"), open_data("digits").test
    assert isinstance(test, Images)
    for i in range(5):
        Image.fromarray(test.pixels[i, 0].numpy()).save(folder / f"{i}.png")
    return folder
