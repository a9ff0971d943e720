"""The machine: the device to use, and the description of what made a result: processor, cores, versions, commit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import resnetlab
from resnetlab.errors import UserError, shown

if TYPE_CHECKING:
    import torch

WITHOUT_FLOAT64 = ("mps",)  # kinds of device


def machine(device: str = "cpu") -> dict[str, Any]:
    """A description of the machine for records: processor, cores, device, versions, commit."""
    import torch

    return {
        "processor": _processor(),
        "instruction_sets": " ".join(instruction_sets()),
        "cores": available_cores(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "resnetlab": resnetlab.__version__,
        "commit": _commit(),
    }


def available_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_device(name: str) -> str:
    """Resolve "auto"; raise UserError for a device that is not available. An Apple GPU is used only if it is named."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch("cpu|mps|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"device {shown(name)} is not known: give cpu, cuda, cuda:N, mps or auto.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' can't be used here: torch finds no Apple GPU. Use --device cpu.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {shown(name)} can't be used here: torch finds no CUDA GPU. Use --device cpu.")
    try:
        torch.empty(1, device=name)
    except RuntimeError as error:  # no GPU of that number, or one that others hold
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(f"device {shown(name)} can't be used here: {reason}. Use --device cpu.") from error
    return name


def widest_float(device: torch.device | str) -> torch.dtype:
    """float64 for sums; float32 on Apple GPUs, which have nothing wider."""
    import torch

    return torch.float32 if torch.device(device).type in WITHOUT_FLOAT64 else torch.float64


def instruction_sets() -> tuple[str, ...]:
    """This processor's instruction sets that matter for the speed of networks, by their names in Linux."""
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16")
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(name for name in wanted if name in flags)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the checkout that holds the package, with "+" if files differ; None outside a checkout.

    Changes in results/ don't count, since a study that writes its record there does not change the code.
    """
    here = Path(__file__).resolve().parents[1]
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        code = ["status", "--porcelain", "-uno", "--", ":/", ":(exclude,top)results"]
        changed = subprocess.run([*git, *code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def give_back_memory() -> None:
    """Return free memory to the system: after large blocks, glibc keeps tens of MB for each thread."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def most_bytes() -> int:
    """The peak memory of this process, in bytes."""
    with contextlib.suppress(OSError), open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux this starts at the parent's
    return most if sys.platform == "darwin" else 1024 * most
