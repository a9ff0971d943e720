"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from resnetlab.use.middleware import Metrics


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    metrics = Metrics()
    for value in (0.001, 0.005, 0.006, 30, 31):
        metrics.answered("/", 200, value)
    lines = metrics.text(0).decode().splitlines()
    assert 'resnetlab_request_seconds_bucket{le="0.005",path="/"} 2.0' in lines
    assert 'resnetlab_request_seconds_bucket{le="0.01",path="/"} 3.0' in lines
    assert 'resnetlab_request_seconds_bucket{le="30.0",path="/"} 4.0' in lines
    assert 'resnetlab_request_seconds_bucket{le="+Inf",path="/"} 5.0' in lines
    assert 'resnetlab_request_seconds_count{path="/"} 5.0' in lines
    assert 'resnetlab_request_seconds_sum{path="/"} 61.012' in lines


def test_a_server_counts_for_itself_and_nothing_else() -> None:
    first, second = Metrics(), Metrics()
    first.answered("/", 200, 0.1)
    for metrics in (first, second):
        lines = metrics.text(0).decode().splitlines()
        assert {line.split()[2].rpartition("_")[0] for line in lines if line.startswith("# TYPE")} == {
            "resnetlab_requests",
            "resnetlab_request",
            "resnetlab_batch",
            "resnetlab_queue",
        }
    assert 'path="/"' not in second.text(0).decode()


def test_every_sample_has_its_kind_before_it() -> None:
    metrics = Metrics()
    metrics.answered("/predict", 200, 0.1)
    metrics.answered("/predict", 503, 0.1)
    metrics.passed(4)
    kinds: dict[str, str] = {}
    samples = {}
    for line in metrics.text(waiting=7).decode().splitlines():
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
