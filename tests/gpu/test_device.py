"""Which GPU a command gets, what a record says of it, and why one can't be used."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from stand_in_gpu import StandIn

from resnetlab import machine as machine_module
from resnetlab.errors import UserError
from resnetlab.machine import find_device, machine, moved
from resnetlab.schema import Scalar, trouble
from resnetlab.training.distributed import Distributed, _words_of_loss, local_device
from resnetlab.training.precision import has_fast_bf16

PROPRIETARY = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (builder@host)\n"


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    machine_module._driver.cache_clear()


def broken(error: Exception) -> Any:
    """A function that fails so."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("said", "visible", "message"),
    [
        ("No CUDA GPUs are available", "", "No CUDA GPUs are available (CUDA_VISIBLE_DEVICES is '')"),
        (
            "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
            "downloading and installing a new version",
            None,
            "The NVIDIA driver on your system is too old (found version 11040)",
        ),
    ],
)
def test_why_torch_finds_no_gpu_is_said(
    said: str, visible: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: True)
    monkeypatch.setattr("torch.cuda.init", broken(RuntimeError(said)))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError) as caught:
        find_device("cuda")
    assert (
        str(caught.value) == f"device 'cuda' can't be used here: torch finds no CUDA GPU: {message}. Use --device cpu."
    )


def test_a_gpu_of_no_number_that_is_there_is_one_line(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("auto") == "cuda"
    assert find_device("cuda:0") == "cuda:0"
    reason = "CUDA error: invalid device ordinal\nGPU device may be out of range, do you have enough GPUs?"
    monkeypatch.setattr("torch.ones", broken(RuntimeError(reason)))
    with pytest.raises(
        UserError, match="can't be used here: torch finds 1 GPU, numbered from cuda:0. Use --device cpu"
    ):
        find_device("cuda:1")
    old = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be"
    monkeypatch.setattr("torch.ones", broken(RuntimeError(old)))
    for name in ("cuda", "auto"):
        with pytest.raises(UserError, match="'cuda' can't be used here: CUDA error: no kernel image is available for"):
            find_device(name)


def test_auto_says_why_it_leaves_a_gpu_alone(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def unavailable() -> bool:
        words = "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update "
        warnings.warn(words + "your GPU driver (Triggered internally at c10/cuda/CUDAFunctions.cpp:109.)", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", unavailable)
    with caplog.at_level(logging.WARNING):
        assert find_device("auto") == "cpu"
    assert caplog.messages == [
        "device=auto: torch can't use CUDA here, so this runs on the CPU: CUDA initialization: The NVIDIA driver on "
        "your system is too old (found version 11040)."
    ]
    caplog.clear()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_device("auto") == "cpu"
    assert caplog.messages == []


@pytest.mark.parametrize(("text", "driver"), [(PROPRIETARY, "535.104.05"), (OPEN, "580.95.05"), ("odd", None)])
def test_a_record_names_the_gpu_and_what_computes_on_it(
    text: str, driver: str | None, gpu: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(machine_module, "DRIVER", tmp_path / "version")
    monkeypatch.setattr("subprocess.run", broken(FileNotFoundError()))
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 91900)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: f"model of {device}")
    found = machine("cuda:1")
    assert found["device"] == "model of cuda:1"
    names = ("device_memory", "cuda", "cudnn", "driver")
    assert [found[name] for name in names] == [2**31, "13.0", 91900, driver]
    assert not trouble(found, dict[str, Scalar])
    assert not {*names} & {*machine("cpu")}


def test_a_cudnn_that_does_not_fit_the_gpu_ends_no_record(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.cudnn.version", broken(RuntimeError("cuDNN is not compatible")))
    monkeypatch.setattr("subprocess.run", broken(FileNotFoundError()))
    assert machine_module._cuda("cuda")["cudnn"] is None


def test_the_card_that_is_named_is_asked_for_bf16(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[str] = []

    class Current:
        def __init__(self, device: str) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(self.device)

        def __exit__(self, *_: object) -> None:
            current.pop()

    def supported(including_emulation: bool = True) -> bool:  # older cards emulate it, slowly
        return including_emulation or current == ["cuda:1"]

    monkeypatch.setattr("torch.cuda.device", Current)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", supported)
    assert has_fast_bf16("cuda:1")
    assert not has_fast_bf16("cuda:0")


def test_each_process_needs_a_gpu_of_its_own(gpu: StandIn) -> None:
    first, second = (Distributed(rank=i, world_size=2, local_rank=i, local_world_size=2) for i in range(2))
    assert local_device("cuda", first) == local_device("auto", first) == "cuda:0"
    with pytest.raises(UserError, match="2 processes on a machine where torch finds 1 GPU: .*--nproc-per-node 1"):
        local_device("auto", second)


def test_a_gpu_gets_tensors_from_pinned_memory(gpu: StandIn) -> None:
    there = moved(torch.arange(3), "cuda")
    assert there.is_cuda
    assert not +gpu.waits
    assert moved(there, "cuda") is there
    here = torch.arange(3)
    assert moved(here, "cpu") is here
    assert torch.equal(moved(there, "cpu"), here)
    assert +gpu.waits == {"copy": 1}


def test_what_nccl_says_is_passed_on() -> None:
    said = (
        "NCCL error in: ProcessGroupNCCL.cpp:77, unhandled system error, NCCL version 2.28.9\n"
        "ncclSystemError: System call (e.g. socket, malloc) or external library call failed.\n"
        "Last error:\nError while creating shared memory segment /dev/shm/nccl-7 (size 33030528)\n"
    )
    words = _words_of_loss(dist.DistBackendError(said))
    assert "unhandled system error, NCCL version 2.28.9 Error while creating shared memory segment /dev/shm" in words
    assert "\n" not in words
    assert _words_of_loss(RuntimeError("[gloo] Connection closed by peer")).startswith(
        "another process of this run ended;"
    )
