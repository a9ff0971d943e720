"""What records say of the machine and the code that they are made by."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from resnetlab import machine as machine_module
from resnetlab.errors import UserError
from resnetlab.machine import find_device, machine, most_bytes


def test_changed_code_marks_the_commit_and_new_records_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    code, record = tmp_path / "resnetlab/machine.py", tmp_path / "results/record.json"
    for path in (code, record):
        path.parent.mkdir(parents=True)
        path.write_text("before")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(machine_module, "__file__", str(code))
    clean = machine()["commit"]
    assert clean
    assert not clean.endswith("+")
    record.write_text("after")
    assert machine()["commit"] == clean
    code.write_text("after")
    assert machine()["commit"] == f"{clean}+"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mps", "device 'mps' can't be used here: torch finds no Apple GPU. Use --device cpu."),
        ("cuda", "device 'cuda' can't be used here: torch 2.11.0+cpu is a build without CUDA. Use --device cpu."),
        ("mps:0", "device 'mps:0' is not known: give cpu, cuda, cuda:N, mps or auto."),
    ],
)
def test_a_device_that_is_not_there_is_one_line(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("torch.cuda.is_available", "torch.backends.mps.is_available"):
        monkeypatch.setattr(backend, lambda: False)
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: False)
    monkeypatch.setattr("torch.__version__", "2.11.0+cpu")
    with pytest.raises(UserError) as caught:
        find_device(name)
    assert str(caught.value) == message
    assert find_device("auto") == find_device("cpu") == "cpu"


def test_an_apple_gpu_is_used_only_if_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setattr("torch.ones", lambda *_, **__: None)
    assert find_device("mps") == "mps"
    assert find_device("auto") == "cpu"


def test_the_peak_memory_is_known_where_linux_does_not_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "open", lambda _: io.StringIO("VmSize:\t9 kB\nVmRSS:\t5 kB\n"), raising=False)
    assert most_bytes() > 2**20


FAULTS = """
import ctypes, resource
from resnetlab.machine import freed_memory_kept
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def faults_of(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        blocks = [libc.malloc(2**24) for _ in range(8)]
        for block in blocks:
            ctypes.memset(block, 1, 2**24)
        for block in blocks:
            libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

faults_of(2)  # after which glibc's own threshold is as it stays
print(faults_of(5))
with freed_memory_kept():
    faults_of(1)
    print(faults_of(5), held() > 2**27)
print(held() < 2**27)
with freed_memory_kept(False):
    print(faults_of(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told to keep freed memory")
@pytest.mark.parametrize("own", [{}, {"MALLOC_TRIM_THRESHOLD_": "1000000"}], ids=["ours", "the user's own"])
def test_freed_memory_is_kept_for_the_next_step_and_then_given_back(own: dict[str, str]) -> None:
    others = {k: v for k, v in os.environ.items() if "MALLOC" not in k and k != "GLIBC_TUNABLES"}
    told = subprocess.run([sys.executable, "-c", FAULTS], env=others | own, capture_output=True, text=True, check=True)
    before, kept, holds, returned, without = told.stdout.split()
    assert returned == "True"
    if own:  # what the user said stays
        assert holds == "False"
        assert int(kept) > int(before) / 2
    else:
        assert holds == "True"
        assert int(kept) < int(before) / 100
        assert int(without) > int(before) / 2
