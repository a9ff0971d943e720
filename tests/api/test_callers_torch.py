"""The state in which a caller has torch changes nothing of what is computed, and is the caller's again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import resnetlab
from resnetlab.api.arguments import called_from_python
from resnetlab.api.train import TrainingResult
from resnetlab.training.loop import train
from resnetlab.training.run import make_run

SHORT = {"net": "cifar_resnet8", "iterations": 2, "threads": 1, "quiet": True}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A run trained with torch as it starts."""
    return resnetlab.train("digits", runs=tmp_path_factory.mktemp("usual"), **SHORT)


@contextmanager
def changed(read: Callable[[], Any], write: Callable[[Any], None], value: object) -> Iterator[None]:
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def default_dtype(dtype: torch.dtype) -> AbstractContextManager[None]:
    return changed(torch.get_default_dtype, torch.set_default_dtype, dtype)


def default_device(device: str) -> AbstractContextManager[None]:
    return changed(lambda: None, torch.set_default_device, device)


def matmul_precision(precision: str) -> AbstractContextManager[None]:
    return changed(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, precision)


def precision_of(operation: Any, precision: str) -> AbstractContextManager[None]:
    return changed(
        lambda: operation.fp32_precision, lambda value: setattr(operation, "fp32_precision", value), precision
    )


def state_of_torch() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.mkldnn.matmul.fp32_precision,
    )


STATES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": lambda: default_dtype(torch.float64),
    "meta": lambda: default_device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "matmul": lambda: matmul_precision("medium"),
    "mkldnn": lambda: precision_of(torch.backends.mkldnn.matmul, "bf16"),
}
in_each_state = pytest.mark.parametrize("state", STATES.values(), ids=STATES)


def weights_of(folder: Path) -> bytes:
    return (folder / "last/weights.safetensors").read_bytes()


@in_each_state
def test_the_callers_state_of_torch_changes_no_bit(
    usual: TrainingResult, tmp_path: Path, state: Callable[[], AbstractContextManager[object]]
) -> None:
    digit = tmp_path / "digit.png"
    Image.new("L", (8, 8), 200).save(digit)
    expected = resnetlab.predict(usual, digit, quiet=True)
    with state():
        before = state_of_torch()
        run = resnetlab.train("digits", runs=tmp_path / "runs", **SHORT)
        assert resnetlab.evaluate(usual, "digits", quiet=True).top1 == pytest.approx(100 - usual.test_error)
        assert resnetlab.predict(usual, digit, quiet=True) == expected
        assert state_of_torch() == before
    assert weights_of(run.folder) == weights_of(usual.folder)


@in_each_state
def test_a_run_that_is_followed_step_by_step_ends_with_the_same_bits(
    usual: TrainingResult, tmp_path: Path, state: Callable[[], AbstractContextManager[object]]
) -> None:
    recipe = resnetlab.recipe("digits", net=SHORT["net"], iterations=SHORT["iterations"])
    with state():
        before = state_of_torch()
        run = make_run(recipe, tmp_path)
        for _ in train(run, threads=1):
            assert state_of_torch() == before
        assert state_of_torch() == before
    assert weights_of(run.folder) == weights_of(usual.folder)


def test_threads_give_the_callers_dtype_back_together() -> None:
    """The first to leave must not change it under the second, nor the second give back what the first had set."""
    inside, left = threading.Barrier(2), threading.Event()
    seen = []

    @called_from_python
    def work(is_first: bool) -> None:
        inside.wait(60)
        if not is_first:
            assert left.wait(60)
            seen.append(torch.get_default_dtype())

    def first() -> None:
        work(is_first=True)
        left.set()

    with default_dtype(torch.float64), ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(first), threads.submit(work, is_first=False)]:
            done.result()
        assert seen == [torch.float32]
        assert torch.get_default_dtype() == torch.float64
