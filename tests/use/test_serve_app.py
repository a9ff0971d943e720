"""The server's application with a network that runs when the test lets it: batches, places, time, errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from torch import Tensor

from resnetlab import build
from resnetlab.data.normalisation import imagenet
from resnetlab.use.batching import Batcher
from resnetlab.use.classifier import Classifier
from resnetlab.use.decoders import Decoders
from resnetlab.use.exported import Engine
from resnetlab.use.request_body import Limits
from resnetlab.use.serve import make_app

Noise = Callable[..., bytes]
PATIENCE = 600  # seconds, which no test waits for unless something hangs


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """The network waits until this is set."""
    event = threading.Event()
    yield event
    event.set()  # or its thread would wait on


@pytest.fixture
def classifier(gate: threading.Event) -> Classifier:
    torch.manual_seed(0)
    net = build("cifar_resnet8").eval()

    def wait(*_: object) -> None:
        assert gate.wait(PATIENCE)

    net.register_forward_pre_hook(wait)
    return Classifier(net, tuple("abcdefghij"), imagenet(3), whole=True, device="cpu")


async def ask(
    app: FastAPI, path: str, body: bytes = b"", left: asyncio.Event | None = None
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of a request; the client leaves when `left` is set."""
    coming = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop()
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    where, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "POST" if body else "GET",
        "path": where,
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost"), (b"content-type", b"image/png")],
    }
    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(content) if headers["content-type"].endswith("json") else content


async def metric(app: FastAPI, name: str) -> float:
    text = (await ask(app, "/metrics"))[2].decode()
    return float(next(line for line in text.splitlines() if line.startswith(name + " ")).rpartition(" ")[2])


async def until(true: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await true():
            await asyncio.sleep(0.005)


def test_requests_that_come_during_a_pass_share_the_next(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise
) -> None:
    app = make_app(classifier, Limits(), decoders, batch=4)

    async def scene() -> list[tuple[int, dict[str, str], Any]]:
        first = asyncio.create_task(ask(app, "/predict?top=10", noise(0)))
        await until(lambda: running(app))
        others = [asyncio.create_task(ask(app, "/predict?top=10", noise(i))) for i in range(1, 7)]
        await until(lambda: waiting(app, 6))
        gate.set()
        answers = await asyncio.gather(first, *others)
        assert await metric(app, "resnetlab_batch_size_count") == 3  # 1, 4, 2
        assert await metric(app, 'resnetlab_batch_size_bucket{le="1.0"}') == 1
        assert await metric(app, 'resnetlab_batch_size_bucket{le="2.0"}') == 2
        assert await metric(app, 'resnetlab_batch_size_bucket{le="4.0"}') == 3
        return answers

    async def running(app: FastAPI) -> bool:
        return await metric(app, "resnetlab_batch_size_count") == 1

    async def waiting(app: FastAPI, count: int) -> bool:
        return await metric(app, "resnetlab_queue_length") == count

    for i, (status, _, said) in enumerate(asyncio.run(scene())):
        assert status == 200
        alone = classifier.probabilities(classifier.prepare(noise(i))[None])[0]
        for found in said["classes"]:
            wanted = float(alone[classifier.classes.index(found["class"])])
            assert found["probability"] == pytest.approx(wanted, abs=1e-5), "the others in its batch change nothing"


def test_where_all_places_are_taken_others_are_told_to_come_back(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise
) -> None:
    app = make_app(classifier, Limits(requests=2), decoders, batch=1)

    async def scene() -> None:
        taken = [asyncio.create_task(ask(app, "/predict", noise())) for _ in range(2)]
        await asyncio.sleep(0)
        for path in ("/predict", "/explain"):
            status, headers, said = await ask(app, path, noise())
            assert (status, headers["retry-after"]) == (503, "1")
            assert "try again" in said["detail"]
        assert (await ask(app, "/health"))[0] == 200
        gate.set()
        assert [status for status, _, _ in await asyncio.gather(*taken)] == [200, 200]
        assert (await ask(app, "/predict", noise()))[0] == 200

    asyncio.run(scene())


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_time_over_is_told_and_frees_the_place(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise, path: str
) -> None:
    app = make_app(classifier, Limits(requests=1, seconds=0.2), decoders)

    async def scene() -> None:
        for _ in range(3):
            status, _, said = await ask(app, path, noise())
            assert (status, said) == (504, {"detail": "no answer within 0.2 seconds"})

    asyncio.run(scene())


def test_who_leaves_frees_the_place_and_is_in_no_batch(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise
) -> None:
    app = make_app(classifier, Limits(requests=3), decoders, batch=8)

    async def scene() -> None:
        left = asyncio.Event()
        first = asyncio.create_task(ask(app, "/predict", noise()))

        async def is_metric(name: str, value: float) -> bool:
            return await metric(app, name) == value

        await until(lambda: is_metric("resnetlab_batch_size_count", 1))
        leaving = [asyncio.create_task(ask(app, "/predict", noise(), left)) for _ in range(2)]
        await until(lambda: is_metric("resnetlab_queue_length", 2))
        left.set()
        await asyncio.gather(*leaving)
        assert await metric(app, "resnetlab_queue_length") == 0
        last = asyncio.create_task(ask(app, "/predict", noise()))
        await until(lambda: is_metric("resnetlab_queue_length", 1))
        gate.set()
        assert [status for status, _, _ in await asyncio.gather(first, last)] == [200, 200]
        assert await metric(app, 'resnetlab_batch_size_bucket{le="1.0"}') == 2
        assert await metric(app, 'resnetlab_requests_total{path="/predict",status="499"}') == 2

    asyncio.run(scene())


def test_an_error_of_the_server_is_bare_and_the_next_request_is_answered(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.set()
    broken = [True]

    def fail(*_: object) -> None:
        if broken:
            broken.pop()
            raise RuntimeError("a secret of /srv/models/model.py")

    classifier.net.register_forward_pre_hook(fail)
    app = make_app(classifier, Limits(), decoders)

    async def scene() -> None:
        assert (await ask(app, "/predict", noise()))[::2] == (500, {"detail": "internal server error"})
        assert (await ask(app, "/predict", noise()))[0] == 200

    asyncio.run(scene())
    assert "a secret of /srv/models/model.py" in capsys.readouterr().err


def test_class_names_of_any_kind_can_be_told(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise
) -> None:
    gate.set()
    names = ("tab\tnew\nline", "<b>", "\udcff", "é", "蚂蚁", "ants/../..", '"', "", " ", "\u202e")
    app = make_app(replace(classifier, classes=names), Limits(), decoders)

    async def scene() -> None:
        _, _, told = await ask(app, "/health")
        assert told["classes"][:5] == ["tab\\tnew\\nline", "<b>", "\\xff", "é", "蚂蚁"]
        _, _, said = await ask(app, "/predict?top=10", noise())
        assert {found["class"] for found in said["classes"]} == set(told["classes"])
        assert (await ask(app, "/explain?label=", noise()))[0] == 200
        assert (await ask(app, "/explain?label=%3Cb%3E", noise()))[0] == 200

    asyncio.run(scene())


def test_pixels_are_limited_as_asked(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise
) -> None:
    gate.set()
    app = make_app(classifier, Limits(pixels=1600), decoders)

    async def scene() -> None:
        assert (await ask(app, "/predict", noise(height=40, width=40)))[0] == 200
        status, _, said = await ask(app, "/predict", noise(height=40, width=44))
        assert (status, "44x40 pixels are more than the allowed 1,600" in said["detail"]) == (413, True)

    asyncio.run(scene())


def test_bodies_are_bounded_together(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetlab.use.request_body.LINGER_SECONDS", 0.01)
    size = len(noise())
    app = make_app(classifier, Limits(bytes=size, bodies=size), decoders)

    async def scene() -> None:
        slow_left, slow_waits = asyncio.Event(), asyncio.Event()
        app_scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/predict", "query_string": b""}
        coming = [{"type": "http.request", "body": noise()[:-1], "more_body": True}]

        async def receive() -> dict[str, Any]:
            if coming:
                return coming.pop()
            slow_waits.set()
            await slow_left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        slow = asyncio.create_task(app(app_scope | {"headers": [(b"content-type", b"image/png")]}, receive, send))
        await slow_waits.wait()
        gate.set()
        assert (await ask(app, "/predict", noise()))[0] == 503
        slow_left.set()
        await slow
        assert (await ask(app, "/predict", noise()))[0] == 200

    asyncio.run(scene())


def test_an_explanation_runs_between_two_passes() -> None:
    log: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def classify(images: Tensor) -> Tensor:
        log.append(f"{len(images)} images")
        began.set()
        assert go_on.wait(PATIENCE)
        return images

    async def scene() -> None:
        batcher = Batcher(classify, 8, lambda size: None)
        tasks = [asyncio.create_task(batcher.classified(torch.zeros(1)))]
        assert await asyncio.get_running_loop().run_in_executor(None, began.wait, PATIENCE)
        tasks.append(asyncio.create_task(batcher.alone(lambda: log.append("explanation"))))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(batcher.classified(torch.zeros(1))) for _ in range(2)]
        abandoned = asyncio.create_task(batcher.classified(torch.zeros(1)))
        await asyncio.sleep(0)
        abandoned.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await abandoned
        assert batcher.waiting == 2
        go_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(scene())
    assert log == ["1 images", "explanation", "2 images"]


def test_another_engine_runs_the_next_pass(
    classifier: Classifier, gate: threading.Event, decoders: Decoders, noise: Noise
) -> None:
    gate.set()
    app = make_app(classifier, Limits(), decoders)

    def scores(pixels: Tensor) -> Tensor:
        return torch.eye(10)[[7] * len(pixels)] * 50

    async def scene() -> None:
        assert (await ask(app, "/health"))[2]["engine"] == "torch"
        app.state.run_by(Engine("other", "bf16", scores))
        health = (await ask(app, "/health"))[2]
        assert (health["engine"], health["precision"]) == ("other", "bf16")
        (first,) = (await ask(app, "/predict?top=1", noise()))[2]["classes"]
        assert first == {"class": "h", "probability": pytest.approx(1.0)}

    asyncio.run(scene())
