"""Our own code in C++ for training on CPUs, compiled where a compiler is found, once per machine, and kept.

`fusing.py` and `convolution.py` call it, with tensors by their addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from torch import Tensor

from resnetlab.cache import keep, kept
from resnetlab.errors import UserError
from resnetlab.storage import content_of

SOURCES = [Path(__file__).with_name(f"{name}.cpp") for name in ("fused_norm", "winograd")]
FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
INSTRUCTION_SETS = (b"flags", b"features", b"isa")  # in /proc/cpuinfo of x86, of ARM, of RISC-V
COMPILE_SECONDS = 300  # at most; it takes a few


def place(tensor: Tensor | None) -> int | None:
    """The address of a tensor's first number."""
    return None if tensor is None else tensor.data_ptr()


def library() -> ctypes.CDLL:
    """The code of SOURCES, compiled for this processor. Raises UserError if that fails."""
    if isinstance(found := built(), str):
        raise UserError(found)
    return found


@cache
def built() -> ctypes.CDLL | str:
    """The same, from the cache where it was compiled before; or why there is none, which is found out once."""
    commands = [os.environ["CXX"]] if os.environ.get("CXX", "").strip() else ["c++", "g++", "clang++"]
    there = ((shutil.which(name), options) for name, *options in map(str.split, commands))
    command = next(([path, *options] for path, options in there if path), None)
    if command is None:
        return f"no C++ compiler was found ({', '.join(commands)})"
    made_of = (*(file.read_bytes() for file in SOURCES), " ".join([*command, *FLAGS]).encode(), _processor())
    stem = f"kernels-{hashlib.sha256(b'/'.join(made_of)).hexdigest()[:16]}"
    compiler = f"the C++ compiler {' '.join(command)}"
    try:
        return _declared(_kept(stem) or _compiled_and_kept(command, stem))
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip() or f"exit code {error.returncode}"
        return f"{compiler} fails ({said.splitlines()[0][:200]})"
    except subprocess.TimeoutExpired:
        return f"{compiler} does not finish within {COMPILE_SECONDS} seconds"
    except OSError as error:
        return f"what {compiler} makes can't be saved or loaded ({error.strerror or error})"


def _kept(stem: str) -> ctypes.CDLL | None:
    """The code from the cache, if it is there and whole: a process that loads a file which was cut short dies."""
    if found := kept(stem, ".so"):
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(found[0]))
    return None


def _compiled_and_kept(command: list[str], stem: str) -> ctypes.CDLL:
    """The code, compiled anew, and kept in the cache if possible. Raises what `_compiled` does."""
    with tempfile.TemporaryDirectory() as folder:
        made = _compiled(command, Path(folder) / f"{stem}.so")
        path, is_kept = keep(stem, ".so", content_of(made))
        if is_kept:
            with contextlib.suppress(OSError):  # e.g. on a file system whose files can't be executed
                return ctypes.CDLL(str(path))
        return ctypes.CDLL(str(made))


def _compiled(command: list[str], path: Path) -> Path:
    """The file, made by the compiler. Raises OSError, CalledProcessError and TimeoutExpired."""
    line = [*command, *FLAGS, *map(str, SOURCES), "-o", str(path)]
    subprocess.run(line, check=True, capture_output=True, timeout=COMPILE_SECONDS)
    return path


def _declared(code: ctypes.CDLL) -> ctypes.CDLL:
    """Declare argument types, so that calls take plain numbers: ctypes objects cost as much as a small map's pass."""
    flags, address, sizes = (ctypes.c_int,) * 2, ctypes.c_void_p, (ctypes.c_int64,) * 3 + (ctypes.c_int,)
    code.norm_forward.argtypes = (*flags, *(address,) * 5, ctypes.c_float, *(address,) * 6, *sizes)
    code.norm_apply.argtypes = (*flags, *(address,) * 5, *sizes)
    code.norm_backward.argtypes = (*flags, *(address,) * 12, *sizes)
    code.convolution.argtypes = (*(address,) * 4, *(ctypes.c_int64,) * 5, *flags)
    code.weight_gradient.argtypes = (*(address,) * 4, *(ctypes.c_int64,) * 6, ctypes.c_int)
    for function in (code.norm_forward, code.norm_apply, code.norm_backward, code.convolution, code.weight_gradient):
        function.restype = None
    code.convolution_space.argtypes = (*(ctypes.c_int64,) * 2, ctypes.c_int)
    code.weight_gradient_space.argtypes = (ctypes.c_int64,) * 3
    for function in (code.convolution_space, code.weight_gradient_space):
        function.restype = ctypes.c_int64
    return code


def _processor() -> bytes:
    """The processor's instruction sets, for which -march=native compiles, as Linux lists them for its kind."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
    except OSError:
        return platform.processor().encode()
    return next((line for line in lines if line.lower().startswith(INSTRUCTION_SETS)), platform.machine().encode())
