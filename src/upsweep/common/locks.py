"""Locks between processes, held on files: the system releases a lock when its process ends, however it ends."""

import os
import platform
from contextlib import suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

_held: dict[Path, FileLock] = {}  # until the process ends


def locked(path: Path) -> BaseFileLock:
    """For `with`: waits for the lock of a file, and holds it. The file and its folder are made, and stay."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def keep(path: Path, patience: float) -> str | None:
    """Hold the lock at `path` from here on; if it is not free within `patience` seconds, give the holder in words."""
    path = path.resolve()
    if path in _held:
        return None
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience, poll_interval=0.1)
    except Timeout:
        return path.read_text(encoding="utf-8").strip() or "another process"
    with suppress(OSError):  # a full disk
        path.write_text(f"process {os.getpid()} of {platform.node()}\n", encoding="utf-8")
    _held[path] = lock
    return None
