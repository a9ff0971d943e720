"""Errors: want of memory is known in everybody's words, and said with what did not fit."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from resnetlab.errors import MOST_CHOICES, UserError, dead_worker, did_you_mean, first_of, out_of_memory, size_in_words

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4831838208 bytes. Error code 12 (Cannot allocate memory)"
)
GPU = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.25 GiB is free."
)


def test_names_that_are_near_are_looked_for_only_where_that_is_quick() -> None:
    names = [f"class {i}" for i in range(MOST_CHOICES)]
    assert did_you_mean("clas 7", names) == " Did you mean class 7 or class 97 or class 87?"
    assert did_you_mean("clas 7", [*names, "class"]) == ""


@pytest.mark.parametrize(
    "words",
    [
        "DataLoader worker (pid 19211) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 19211) exited unexpectedly",
        "DataLoader worker (pid 19211) exited unexpectedly with exit code 1. Details are lost due to multiprocessing.",
    ],
)
def test_a_dead_worker_is_known_and_said(words: str) -> None:
    assert dead_worker(RuntimeError(words)).startswith("process 19211, which decoded images, died")
    outer = OSError("something else")
    outer.__context__ = RuntimeError(words)
    assert dead_worker(outer)
    assert dead_worker(RuntimeError("a size of a worker")) == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError(CPU), "4.5 GiB more did not fit into memory"),
        (torch.OutOfMemoryError(GPU), "2 GiB more did not fit into the GPU's memory"),
        (RuntimeError("CUDA error: out of memory"), "the GPU's memory is full"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the GPU's memory is full"),
        (RuntimeError("std::bad_alloc"), "memory is full"),
        (MemoryError(), "memory is full"),
        (MemoryError("std::bad_alloc"), "memory is full"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory is full"),
        (Exception("Failed to allocate memory for requested buffer of size 64"), "memory is full"),
        (RuntimeError("could not create a primitive"), 'memory is full (oneDNN says "could not create a primitive")'),
        (RuntimeError("could not execute a primitive"), 'memory is full (oneDNN says "could not execute a primitive")'),
    ],
)
def test_want_of_memory_is_known_and_said(error: Exception, words: str) -> None:
    assert out_of_memory(error) == words
    outer = ValueError("something else")
    outer.__cause__ = error
    assert out_of_memory(outer) == words


def test_numpys_and_torchs_own_words() -> None:
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(2**48, np.uint8)
    assert out_of_memory(of_numpy.value) == "256 TiB more did not fit into memory"
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(2**48, dtype=torch.uint8)
    assert out_of_memory(of_torch.value) == "256 TiB more did not fit into memory"


@pytest.mark.parametrize(
    "error",
    [
        None,
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("could not create a primitive descriptor for the matmul primitive."),
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No such file", "out of memory.jpg"),
        UserError("out of memory.jpg: is not there."),
    ],
)
def test_other_errors_are_not_taken_for_it(error: Exception | None) -> None:
    assert out_of_memory(error) == ""


def test_the_first_of_some_words_and_how_many_more() -> None:
    assert [first_of("abcd"[:count], 2) for count in (1, 2, 3, 4)] == [
        "a",
        "a, b",
        "a, b and 1 more",
        "a, b and 2 more",
    ]


def test_sizes_in_words() -> None:
    sizes = {0: "0 bytes", 1000: "1,000 bytes", 4096: "4 KiB", 1_044_480: "1,020 KiB", 2**26: "64 MiB", 2**40: "1 TiB"}
    assert {size: size_in_words(size) for size in sizes} == sizes
