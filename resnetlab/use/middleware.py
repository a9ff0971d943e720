"""The middleware of every request: hosts that are answered, headers, errors without details, and metrics."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Collection, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
TEXT = "text/plain; version=0.0.4; charset=utf-8"  # the format's media type, as generate_latest writes it
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY.items()]


class RequestMiddleware:
    """ASGI middleware.

    `hosts` are the names by which a request may address this server, None for any: the page of a foreign site whose
    name is made to point to this machine (DNS rebinding) uses its own. `paths` are counted by name, all others
    together. An uncaught error becomes a 500 without details, with a traceback on stderr.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, paths: Collection[str], metrics: Metrics) -> None:
        self.app, self.hosts, self.paths, self.metrics = app, hosts, paths, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0
        if scope["method"] == "HEAD":  # what watches a server often asks so; the HTTP server leaves the body out
            scope = {**scope, "method": "GET"}

        async def note_and_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            # Starlette's TrustedHostMiddleware answers 400 in plain text, not 421, and can't read [::1].
            if self.hosts is None or _host(scope) in self.hosts:
                await self.app(scope, receive, note_and_send)
            else:
                refused = JSONResponse({"detail": "this server does not answer to that host name"}, 421)
                await refused(scope, receive, note_and_send)
        except Exception:
            # Starlette's handler of exceptions stands outside all middleware: its answer would lack count and headers.
            traceback.print_exc(file=sys.stderr)
            if not status:
                await JSONResponse({"detail": "internal server error"}, 500)(scope, receive, note_and_send)
        finally:
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.answered(path, status, time.perf_counter() - began)


def _host(scope: Scope) -> str:
    """The name in a request's Host header, without the port."""
    return re.sub(r":\d*$", "", Headers(scope=scope).get("host", "")).lower()


class Metrics:
    """A server's counts since its start, in a registry of its own, without those of the process or other servers."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "resnetlab_requests_total", "Requests answered.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "resnetlab_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "resnetlab_batch_size", "Images in a pass through the network.", buckets=SIZES, registry=self._registry
        )
        self._queue = Gauge("resnetlab_queue_length", "Images that wait for the network.", registry=self._registry)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, status).inc()
        self._seconds.labels(path).observe(seconds)

    def passed(self, images: int) -> None:
        """Count a pass through the network."""
        self._batches.observe(images)

    def text(self, waiting: int) -> bytes:
        """All metrics as text; `waiting` is the number of images that wait for the network now."""
        self._queue.set(waiting)
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """The samples for generate_latest, without those of creation times, which the text format does not have."""
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
