"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from resnetlab.use.metrics import Histogram, Metrics


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    histogram = Histogram((1, 2.5))
    for value in (0.5, 1, 1.5, 2.5, 3):
        histogram.add(value)
    assert histogram.lines("x", 'path="/"') == [
        'x_bucket{path="/",le="1"} 2',
        'x_bucket{path="/",le="2.5"} 4',
        'x_bucket{path="/",le="+Inf"} 5',
        'x_sum{path="/"} 8.5',
        'x_count{path="/"} 5',
    ]
    assert histogram.lines("x")[0] == 'x_bucket{le="1"} 2'
    assert histogram.lines("x")[-1] == "x_count 5"


def test_every_sample_has_its_kind_before_it() -> None:
    metrics = Metrics()
    metrics.answered("/predict", 200, 0.1)
    metrics.answered("/predict", 503, 0.1)
    metrics.batches.add(4)
    kinds: dict[str, str] = {}
    samples = {}
    for line in metrics.text(waiting=7).splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
        elif not line.startswith("#"):
            sample, value = line.rsplit(" ", 1)
            name = sample.partition("{")[0]
            assert name in kinds or name.rpartition("_")[0] in kinds
            samples[sample] = float(value)
    assert kinds == {
        "resnetlab_requests_total": "counter",
        "resnetlab_request_seconds": "histogram",
        "resnetlab_batch_size": "histogram",
        "resnetlab_queue_length": "gauge",
    }
    assert samples['resnetlab_requests_total{path="/predict",status="503"}'] == 1
    assert samples['resnetlab_request_seconds_count{path="/predict"}'] == 2
    assert samples["resnetlab_queue_length"] == 7
