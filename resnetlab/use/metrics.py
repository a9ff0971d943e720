"""What a server counts: requests, how long they took, batches; in Prometheus' text format."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence

TEXT = "text/plain; version=0.0.4; charset=utf-8"  # the format's media type
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Histogram:
    """How many values were at most each of `bounds`, their number and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        """The samples; `labels` are further ones, as `path="/"`."""
        found, total, comma = [], 0, "," if labels else ""
        for bound, count in zip([*map(str, self.bounds), "+Inf"], self.counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{{labels}{comma}le="{bound}"}} {total}')
        ends = f"{{{labels}}}" if labels else ""
        return [*found, f"{name}_sum{ends} {self.sum:.9g}", f"{name}_count{ends} {total}"]


class Metrics:
    """A server's counts since its start."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.seconds: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(SECONDS))  # by path
        self.batches = Histogram(SIZES)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests[path, status] += 1
        self.seconds[path].add(seconds)

    def text(self, waiting: int) -> str:
        """All of it; `waiting` images wait for the network now."""
        lines = ["# HELP resnetlab_requests_total Requests answered.", "# TYPE resnetlab_requests_total counter"]
        for (path, status), count in sorted(self.requests.items()):
            lines.append(f'resnetlab_requests_total{{path="{path}",status="{status}"}} {count}')
        lines += [
            "# HELP resnetlab_request_seconds From a request's head to the end of its answer.",
            "# TYPE resnetlab_request_seconds histogram",
        ]
        for path, histogram in sorted(self.seconds.items()):
            lines += histogram.lines("resnetlab_request_seconds", f'path="{path}"')
        lines += [
            "# HELP resnetlab_batch_size Images in a pass through the network.",
            "# TYPE resnetlab_batch_size histogram",
            *self.batches.lines("resnetlab_batch_size"),
            "# HELP resnetlab_queue_length Images that wait for the network.",
            "# TYPE resnetlab_queue_length gauge",
            f"resnetlab_queue_length {waiting}",
        ]
        return "\n".join(lines) + "\n"
