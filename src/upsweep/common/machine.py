"""What this machine has: cores and memory, as far as a container or a scheduler lets this process use them."""

import math
import os
from contextlib import suppress
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # version 2, as a container sees its own


def cores(group: Path = CGROUP) -> int:
    """How many cores this process may use: its affinity (taskset, SLURM), and the quota of its container (Docker)."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no container, or no quota: "max 100000"
        quota, period = map(int, (group / "cpu.max").read_text("ascii").split())
        return max(1, min(own, math.ceil(quota / period)))
    return own


def free_memory(group: Path = CGROUP) -> int:
    """Bytes that processes can still take without swapping, within the limit of the container."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError, KeyError):  # no container, or no limit: "max"
        limit, used = (int((group / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
        parts = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        return max(0, min(free, limit - used + int(parts["inactive_file"])))  # files in memory give way
    return free


def memory_of(process: int) -> int:
    """Bytes that a process and all below it hold; what they share with others counts in part. 0 for an ended one."""
    held = 0
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        top = psutil.Process(process)
        for each in (top, *top.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                told = each.memory_full_info()
                held += int(getattr(told, "pss", told.uss))  # the former: Linux
    return held
