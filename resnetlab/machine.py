"""The machine: the device to use, and the description of what made a result: processor, cores, versions, commit."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import platform
import re
import resource
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import resnetlab
from resnetlab.errors import UserError, counted, shown

if TYPE_CHECKING:
    import torch

WITHOUT_FLOAT64 = ("mps",)  # kinds of device
DRIVER = Path("/proc/driver/nvidia/version")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of glibc's mallopt
MALLOC_LARGEST = 2**25  # bytes: the largest threshold that mallopt takes in every version
_log = logging.getLogger(__name__)


def machine(device: str = "cpu") -> dict[str, Any]:
    """A description of the machine for records: processor, cores, device, versions, commit."""
    import torch

    return {
        "processor": _processor(),
        "instruction_sets": " ".join(instruction_sets()),
        "cores": available_cores(),
        "device": device_name(device),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **(_cuda(device) if device.startswith("cuda") else {}),
        "resnetlab": resnetlab.__version__,
        "commit": _commit(),
    }


def device_name(device: str) -> str:
    """What a record calls a device: the model of an NVIDIA GPU, else "cpu" or "mps"."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _cuda(device: str) -> dict[str, Any]:
    """The GPU's memory in bytes, and the versions of what computes on it; None for one that is not known."""
    import torch

    cudnn = None
    with contextlib.suppress(RuntimeError):  # one that does not fit the GPU
        cudnn = torch.backends.cudnn.version()
    memory = torch.cuda.mem_get_info(device)[1]
    return {"device_memory": memory, "cuda": torch.version.cuda, "cudnn": cudnn, "driver": _driver()}


@cache
def _driver() -> str | None:
    """The version of NVIDIA's driver, e.g. "580.65.06"; None if the system does not tell."""
    with contextlib.suppress(OSError):
        if found := re.search(r"\s(\d+\.\d+(\.\d+)?)\s", DRIVER.read_text()):
            return found[1]
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        said = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.split()
        return said[0] if said else None
    return None


def own_cores() -> set[int]:
    """The cores that this process may use, by their numbers."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def available_cores() -> int:
    """How many those are."""
    return len(own_cores())


def find_device(name: str) -> str:
    """Resolve "auto"; raise UserError for a device that is not available. An Apple GPU is used only if it is named."""
    import torch

    if name == "auto":
        if not _has_cuda():
            return "cpu"
        name = "cuda"
    if not re.fullmatch("cpu|mps|cuda(:[0-9]{1,3})?", name):
        raise UserError(f"device {shown(name)} is not known: give cpu, cuda, cuda:N, mps or auto.")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' can't be used here: torch finds no Apple GPU. Use --device cpu.")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device {shown(name)} can't be used here: {_without_cuda()}. Use --device cpu.")
    try:
        torch.ones(1, device=name)  # which runs something on it: a torch that is not made for a GPU fails only then
    except RuntimeError as error:  # no GPU of that number, or one that others hold
        raise UserError(
            f"device {shown(name)} can't be used here: {_trouble_with(name, error)}. Use --device cpu."
        ) from error
    return name


def _has_cuda() -> bool:
    """Whether torch can use an NVIDIA GPU. If there seems to be one that it can't use, a line says so."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    for warning in caught:
        _log.warning(f"device=auto: torch can't use CUDA here, so this runs on the CPU: {_sentence(warning.message)}.")
    return found


def _without_cuda() -> str:
    """Why torch can't use an NVIDIA GPU."""
    import torch

    if not torch.backends.cuda.is_built():
        return f"torch {torch.__version__} is a build without CUDA"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
        seen = "" if hidden is None else f" (CUDA_VISIBLE_DEVICES is {hidden!r})"
        return f"torch finds no CUDA GPU: {_sentence(error)}{seen}"
    return "torch finds no CUDA GPU"


def _trouble_with(name: str, error: RuntimeError) -> str:
    """Why a device can't be used, from the error that it gave."""
    import torch

    number = name.partition(":")[2]
    if number and int(number) >= (count := torch.cuda.device_count()):
        return f"torch finds {counted(count, 'GPU')}, numbered from cuda:0"
    return _sentence(error)


def _sentence(message: object) -> str:
    """The first sentence of a message of torch, without the place in its source."""
    first = str(message).strip().partition("\n")[0].partition(" (Triggered internally")[0]
    return re.split(r"\.\s", first)[0].rstrip(". ")


def widest_float(device: torch.device | str) -> torch.dtype:
    """float64 for sums; float32 on Apple GPUs, which have nothing wider."""
    import torch

    return torch.float32 if torch.device(device).type in WITHOUT_FLOAT64 else torch.float64


def wait_for(device: str) -> None:
    """Wait until a GPU has done all that it was given."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device == "mps":
        torch.mps.synchronize()


def moved(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """The tensor on a device. What a CUDA GPU gets passes through pinned memory, so that nothing waits for the GPU:
    from other memory, CUDA copies only after all earlier work is done.
    """
    import torch

    if not (tensor.is_cpu and torch.device(device).type == "cuda"):
        return tensor.to(device)
    # Torch keeps pinned memory until it has been copied. A tensor with gaps would be put together in other memory.
    return tensor.contiguous().pin_memory().to(device, non_blocking=True)


def instruction_sets() -> tuple[str, ...]:
    """This processor's instruction sets that matter for the speed of networks, by their names in Linux."""
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8", "asimd", "bf16")
    flags = _cpuinfo("flags", "Features").split()
    return tuple(name for name in wanted if name in flags)


def made_by_amd() -> bool:
    """Whether the processor is AMD's, as Linux says; False on other systems."""
    return _cpuinfo("vendor_id") == "AuthenticAMD"


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(*names: str) -> str:
    """What Linux says of the processor under the first of these names; "" if it says nothing."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), "")
    return ""


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


@contextlib.contextmanager
def freed_memory_kept(wanted: bool = True) -> Iterator[None]:
    """A context in which glibc keeps freed memory for the next step; afterwards it gives it back to the system.

    A step frees all its activations at its end. glibc would return them to the system and get them back page by page in
    the next step, which is 2 to 10 % of its time. Has no effect if not `wanted`, where the environment sets glibc's
    malloc, or with another C library.
    """
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    own = any("MALLOC_" in name or "glibc.malloc" in value for name, value in os.environ.items())
    if option is None or own or not wanted:
        yield
        return
    option(M_MMAP_THRESHOLD, MALLOC_LARGEST)  # blocks beyond are mapped, and returned, one by one
    option(M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        option(M_TRIM_THRESHOLD, 2 * MALLOC_LARGEST)  # where glibc's own setting comes to by itself
        give_back_memory()


def most_bytes() -> int:
    """The peak memory of this process, in bytes."""
    # Sandboxes such as gVisor's have this file without that line.
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # on Linux this starts at the parent's
    return most if sys.platform == "darwin" else 1024 * most
