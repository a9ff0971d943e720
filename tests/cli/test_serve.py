"""`resnetlab serve`: what it says when it starts, how it ends, and what it can't do."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetlab import build
from resnetlab.cli.main import main
from resnetlab.data.normalisation import imagenet
from resnetlab.use.http_server import listen, url_of
from resnetlab.weights.metadata import ModelMetadata, weights_bytes


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that tells all, so that nothing is said of what it lacks."""
    net = build("cifar_resnet8")
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    path.write_bytes(weights_bytes(net, ModelMetadata(net.spec, tuple("abcdefghij"), imagenet(), {})))
    return path


Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(python: list[str], weights: Path) -> Started:
    def started(*options: str) -> subprocess.Popen[str]:
        command = [*python, "-m", "resnetlab", "serve", str(weights), "--net", "cifar_resnet8", "--port", "0"]
        command += ["--timeout", "3600", "--engine", "torch"]  # or a line comes whenever the engine is settled
        return subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return started


@pytest.mark.parametrize(
    ("number", "code", "said"), [(signal.SIGTERM, 0, ""), (signal.SIGINT, 130, "\nstopped.\n")], ids=["TERM", "INT"]
)
def test_a_signal_ends_it_after_what_is_running(start: Started, number: int, code: int, said: str) -> None:
    with start() as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("cifar_resnet8, 10 classes, on cpu: http://127.0.0.1:")
        port = int(line.split(":")[-1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n")
            client.sendall(b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert client.makefile("rb").readline().startswith(b"HTTP/1.1 100 ")  # it is being answered
            threading.Timer(0.5, client.sendall, [b"abc"]).start()
            process.send_signal(number)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
            assert b"HTTP/1.1 415 " in answer
        assert process.wait(60) == code
        assert process.stdout.read() == ""
        assert process.stderr is not None
        assert process.stderr.read() == said


def test_a_host_that_others_reach_is_warned_of_and_answers_by_any_name(start: Started) -> None:
    with start("--host", "0.0.0.0") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().split(":")[-1].split("/")[0])
        assert process.stderr.readline() == "warning: others can reach this address, and the server has no login.\n"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: classifier.example\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
        process.terminate()
        assert process.wait(60) == 0


def test_another_name_of_loopback_is_no_warning_and_refuses_other_names(start: Started) -> None:
    with start("--host", "127.2") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline().split("http://127.0.0.2:")[1].split("/")[0])
        statuses = []
        for host in ("classifier.example", "127.2", "127.0.0.2", "localhost"):
            with socket.create_connection(("127.0.0.2", port)) as client:
                client.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                statuses.append(int(client.makefile("rb").readline().split()[1]))
        process.terminate()
        assert process.wait(60) == 0
        assert statuses == [421, 200, 200, 200]
        assert process.stderr.read() == ""


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_all_addresses_are_those_of_ipv4_too() -> None:
    with listen("::", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener) == f"http://[::1]:{port}/"
        with listen("[::1]", 0) as bracketed:  # as the address above has it
            assert url_of(bracketed).startswith("http://[::1]:")
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port)).close()


def test_a_port_in_use_is_one_line(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(weights), "--net", "cifar_resnet8", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: host '127.0.0.1', port {port}: can't listen there (Address already in use)")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "65536"], "port=65536 is not a port"),
        (["--port", "-1"], "port=-1 is not a port"),
        (["--host", "192.0.2.1"], "can't listen there"),
        (["--host", "a..b"], "this host name is unknown"),
        (["--host", ""], "no address given; use 127.0.0.1 for this machine only"),
        (["--host", " "], "no address given; use 127.0.0.1 for this machine only"),
        (["--queue", "0"], "queue=0 must be 1 or more"),
        (["--timeout", "0"], "timeout=0 must be 1 or more"),
        (["--max-megabytes", "1.5"], "max-megabytes"),
        (["--max-megapixels", "90"], "max-megapixels=90 must be 1 to 89"),
        (["--which", "first"], "which='first' is not known"),
        (["--port", "0", "--device", "gpu"], "device 'gpu' is not known"),
    ],
)
def test_what_cannot_be_is_one_line(
    weights: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["serve", str(weights), "--net", "cifar_resnet8", *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1


def test_missing_packages_are_named(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError(\"No module named 'fastapi'\", name='fastapi')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from resnetlab.cli.main import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, "serve", str(weights)], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr
        == "error: serving needs more packages: pip install 'resnetlab[serve]' (No module named 'fastapi').\n"
    )


def test_a_training_can_end_in_a_served_page(python: list[str], tmp_path: Path) -> None:
    command = [*python, "-m", "resnetlab", "train", "digits", "--net", "cifar_resnet8", "--epochs", "0.1"]
    options = ["--threads", "1", "--runs", str(tmp_path), "--serve"]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("finished: training error ")
        assert Path(lines[1].strip()).parent == tmp_path
        assert lines[2].startswith("cifar_resnet8, 10 classes, on cpu: http://127.0.0.1:")
        port = int(lines[2].split(":")[-1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert client.makefile("rb").readline().startswith(b"HTTP/1.1 200 ")
        process.terminate()
        assert process.wait(60) == 0
