"""The server asked at random from its own description: no error of its own, no answer that it does not describe."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        ("post", "/predict", "positive"),
        ("post", "/predict", "negative"),
        ("post", "/explain", "positive"),
        ("post", "/explain", "negative"),
        ("get", "/health", "positive"),
        ("get", "/metrics", "positive"),
    ],
)
def test_answers_are_as_described(server: Any, method: str, path: str, mode: str) -> None:
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")  # slow to import
    checks = [getattr(schemathesis.checks, name) for name in CHECKS]
    schema = schemathesis.openapi.from_url(f"{server.url}openapi.json")
    operation = schema[path][method]
    generation = getattr(schemathesis.GenerationMode, mode.upper())
    asked = 0

    @seed(6)
    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=generation))
    def ask(case: Any) -> None:
        nonlocal asked
        asked += 1
        case.call_and_validate(timeout=600, checks=checks)

    ask()
    assert asked
    assert server.ask("GET", "/health").status == 200
