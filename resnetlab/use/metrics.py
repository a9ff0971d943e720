"""A server's metrics: requests, their times, and batches; in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric

TEXT = "text/plain; version=0.0.4; charset=utf-8"  # the format's media type, as generate_latest writes it
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


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
