"""Serving: requests a second, latencies and memory of `resnetlab serve` under load, beside the network alone.

python -m benchmarks.serving SOURCE --images DIR [--net NAME] [--clients N] [--requests N] [--against-torch] [--quick]
    [--json] [--record FILE]

The clients send images from DIR as fast as they are answered, each over a connection of its own. They run on the same
machine as the server and take their share of its cores. The limit: the same images decoded, shared among all cores
without loss, and passed through the network by the engine that answered, in batches of the server's mean size.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks.timing import Row, medians, options, positive, run, show
from resnetlab.data.walk import is_image
from resnetlab.errors import UserError
from resnetlab.machine import machine
from resnetlab.use.classifier import Classifier
from resnetlab.use.engines import NAMES, graph_of, made

IMAGES = 200  # different ones; the clients take turns with them
MARKS = (1_000, 5_000, 10_000)  # answers after which the server's memory is read


@dataclass
class Load:
    """What the clients saw."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds, of the answers with status 200
    statuses: Counter[int] = field(default_factory=Counter)
    memory: dict[int, float] = field(default_factory=dict)  # MiB by the number of answers


@contextlib.contextmanager
def served(source: str, net: str | None, engine: str) -> Iterator[tuple[int, int]]:
    """The command on a free port: its port and process; with engine auto once it has settled on one."""
    command = [sys.executable, "-m", "resnetlab", "serve", source, "--port", "0", "--device", "cpu", "--engine", engine]
    command += ["--net", net] if net else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            port = re.search(r"http://[^/]+:(\d+)/", process.stdout.readline())
            assert process.stderr is not None
            if port is None:
                said = process.stderr.read().strip().splitlines() or ["it says nothing"]
                raise UserError(f"the server did not start: {said[-1].removeprefix('error: ')}")
            while engine == "auto" and (line := process.stderr.readline()):
                print(line, end="", file=sys.stderr)
                if line.startswith("engine:"):
                    break
            # What it says from now on is taken, since a full pipe would stop it.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield int(port[1]), process.pid
        finally:
            process.terminate()


def resident(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return int(re.findall(r"VmRSS:\s*(\d+)", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


async def loaded(port: int, pid: int, images: list[bytes], clients: int, requests: int) -> Load:
    """Send so many requests from so many clients."""
    found, bodies = Load(), islice(cycle(images), requests)

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for body in bodies:
            head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/*\r\nContent-Length: {len(body)}"
            began = time.perf_counter()
            writer.write(head.encode() + b"\r\n\r\n" + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer.lower())
            assert length is not None
            await reader.readexactly(int(length[1]))
            status = int(answer.split(maxsplit=2)[1])
            found.statuses[status] += 1
            if status == 200:
                found.latencies.append(time.perf_counter() - began)
            if (count := found.statuses.total()) in MARKS:
                found.memory[count] = resident(pid)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    found.seconds = time.perf_counter() - began
    return found


def asked(port: int, path: str) -> str:
    """What the server says there."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def mean_batch(port: int) -> float:
    """Images in a pass of the server, on average."""
    text = asked(port, "/metrics")
    total, count = (float(re.findall(rf"resnetlab_batch_size_{end} (\S+)", text)[0]) for end in ("sum", "count"))
    return total / count


def alone(classifier: Classifier, images: list[bytes], batch: int, runs: int) -> float:
    """Images a second that all cores decode and pass through the network, if they do nothing else."""
    pixels = [classifier.prepare(image) for image in images]

    def decode() -> None:
        for image in images:
            classifier.prepare(image)

    def classify() -> None:
        for first in range(0, len(pixels), batch):
            classifier.probabilities(torch.stack(pixels[first : first + batch]))

    decoding, classifying = medians([decode, classify], runs)
    return 1000 * len(images) / (decoding / torch.get_num_threads() + classifying)


def rows_of(load: Load, batch: float, limit: float, clients: int) -> list[Row]:
    """What is printed."""
    rate = len(load.latencies) / load.seconds
    refused = load.statuses.total() - load.statuses[200]
    if len(load.latencies) < 2:
        raise UserError(f"{len(load.latencies)} of {load.statuses.total()} requests were answered with 200: too few.")
    centiles = statistics.quantiles(load.latencies, n=100)
    return [
        Row(f"answers to {clients} clients", "requests/s", rate, None, None, None, limit, 1),
        Row("images in a pass, on average", "images", batch, None, None, None, None, 1),
        Row("requests that were not answered with 200", "requests", refused, None, None, None, None, 1),
        *(Row(f"latency, p{p}", "ms", 1000 * centiles[p - 1], None, None, None, None, 1) for p in (50, 95, 99)),
        *(
            Row(f"resident memory after {count:,} answers", "MiB", mebibytes, None, None, None, None, 1)
            for count, mebibytes in load.memory.items()
        ),
    ]


def main() -> None:
    """Measure, and print."""
    parser = options("Serving under load.", runs=5)
    parser.add_argument("source", help="a run folder or a weight file")
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--net", help="the network, if the file does not determine it")
    parser.add_argument("--engine", choices=NAMES, default="auto", help="the server's, as of serve")
    parser.add_argument("--against-torch", action="store_true", help="load a server with --engine torch, too")
    parser.add_argument("--clients", type=positive, default=16)
    parser.add_argument("--requests", type=positive, default=10_000)
    parser.add_argument("--quick", action="store_true", help="1,000 requests: under a minute on a quiet machine")
    parser.add_argument("--note", default="", help="a word on the circumstances, for the record")
    given: argparse.Namespace = parser.parse_args()
    if given.quick:
        given.requests, given.runs = 1_000, 1
    paths = [path for path in sorted(given.images.rglob("*")) if is_image(path.name)]
    images = [path.read_bytes() for path in paths[:: max(1, len(paths) // IMAGES)][:IMAGES]]
    if not images:
        raise UserError(f"{given.images}: there is no image in it.")
    with served(given.source, given.net, given.engine) as (port, pid):
        load = asyncio.run(loaded(port, pid, images, given.clients, given.requests))
        batch, health = mean_batch(port), json.loads(asked(port, "/health"))
    peers: list[Row] = []
    if given.against_torch:
        with served(given.source, given.net, "torch") as (port, pid):
            other = asyncio.run(loaded(port, pid, images, given.clients, given.requests))
        ours, theirs = (len(each.latencies) / each.seconds for each in (load, other))
        what = f"answers to {given.clients} clients, --engine {given.engine}"
        peers = [Row(what, "requests/s", ours, theirs, "--engine torch", ours / theirs, None, 1)]
    classifier = Classifier.open(given.source, net=given.net)
    engine = made(graph_of(classifier), health["engine"], health["precision"])
    classifier = replace(classifier, engine=engine)
    limit = alone(classifier, images, max(1, round(batch)), given.runs)
    rows = peers + rows_of(load, batch, limit, given.clients)
    if given.record:
        record = {
            "command": f"python -m benchmarks.serving SOURCE --images DIR --engine {given.engine} "
            f"--clients {given.clients} --requests {given.requests}{' --against-torch' * given.against_torch}",
            "network": classifier.name,
            "engine": str(engine),
            "images": f"{len(images)} of {given.images.name}, {sum(map(len, images)) / len(images):,.0f} bytes each",
            "note": " ".join(["Server and clients share the machine's cores.", given.note]).strip(),
            "machine": machine(),
            "threads": torch.get_num_threads(),
            "statuses": {str(status): count for status, count in load.statuses.items()},
            "rows": [asdict(row) for row in rows],
        }
        given.record.write_text(json.dumps(record, indent=1) + "\n")
    show(rows, as_json=given.json)


if __name__ == "__main__":
    run(main)
