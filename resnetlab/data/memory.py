"""Information on memory from this machine and the container that this process runs in."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

SHARED = "/dev/shm"  # where Linux keeps shared memory; Docker gives it 64 MB


def shared_memory() -> int | None:
    """Free bytes of shared memory; None if it isn't a file system, as on macOS."""
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return None


def killings_for_memory() -> int:
    """A count that grows when the kernel kills a process because memory ran out; 0 if the kernel provides none."""
    counts = []
    for path in (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")):
        with contextlib.suppress(OSError, StopIteration, ValueError):
            lines = path.read_text().splitlines()
            counts.append(int(next(line.split()[1] for line in lines if line.startswith("oom_kill "))))
    return sum(counts)
