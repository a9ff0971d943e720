"""What the tests of several studies share: evidence made up for a plan, and quicker processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Container
from typing import Any

import pytest

from resnetlab.studies.frame.evidence import Evidence
from resnetlab.studies.frame.measurement import Measured, Measurement
from resnetlab.studies.frame.study import Plan

Values = Callable[[Measurement], dict[str, Any]]


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes are forked from one that has imported: they are spawned in the test of the command, and of a script."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resnetlab.studies.frame.run", "torch._dynamo"])
    monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)


@pytest.fixture
def made_up() -> Callable[..., Evidence]:
    """made_up(plan, values, lost): the evidence if every measurement gave values(it), but those of nets in `lost`."""

    def evidence(plan: Plan, values: Values, lost: Container[str] = (), scale: str = "cifar") -> Evidence:
        found = Evidence(scale)
        for m in plan.measurements:
            net = m.run.net if m.run else m.weights.net if m.weights else ""
            if net in lost:
                found.failed.append(m)
            else:
                found.measured.append(Measured(m, values(m), 1.0, {}))
        return found

    return evidence
