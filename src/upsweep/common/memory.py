"""Memory settings of glibc: freed memory is kept for the next step, and not handed back to the system."""

import ctypes
import os
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
BLOCK = 32 << 20  # bytes from which on a piece goes back as soon as it is free; glibc's own limit
IDLE = 256 << 20  # bytes at the end of the heap that may lie idle

OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_MMAP_MAX_")
TUNABLES = ("malloc.trim_threshold", "malloc.mmap_threshold", "malloc.top_pad", "malloc.mmap_max")


def keep_freed() -> bool:
    """Keep the memory that this process frees, within `BLOCK` and `IDLE`, for reuse; whether that was possible.

    A training step on a CPU frees and takes the same few megabytes over and over, and glibc hands them back in between:
    the system then clears every page again (`benchmarks/training_step.py` counts them). Only glibc has this habit and
    this remedy; what the user's own variables (`OWN`, GLIBC_TUNABLES) say of these sizes goes first.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    said = any(name in os.environ for name in OWN) or any(tunable in tunables for tunable in TUNABLES)
    if said or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, BLOCK) and mallopt(M_TRIM_THRESHOLD, IDLE))
