"""A lock between processes, held on a file."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(lock: Path) -> Iterator[bool]:
    """Hold the lock that a file stands for; the kernel lets go of it when the process ends, however it ends.

    Yields whether it is held: some network file systems have no locks. The file, and its folder, are made and stay.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
