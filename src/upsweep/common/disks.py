"""Full disks, in words: which disk is full, and how much of it is free."""

import errno
import math
import os
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def full_disk(error: BaseException, otherwise: Path) -> str | None:
    """A sentence for an error that a full disk caused; None for any other error.

    Args:
        error: the error of the full disk, or one that was raised from it.
        otherwise: what was being written, where the error does not say it.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else otherwise
        return f"{path} could not be written ({os.strerror(error.errno)}; {_room(path)})"
    behind = error.__cause__ or error.__context__
    return None if behind is None else full_disk(behind, otherwise)


def _room(path: Path) -> str:
    """`3 kB of 12.0 MB are free on the disk of /data/runs`."""
    here = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    total, _, free = shutil.disk_usage(here)
    return f"{_size(free)} of {_size(total)} are free on the disk of {here}"


def _size(number: float) -> str:
    """With two digits at least: `120 B`, `3.1 MB`, `12 GB`."""
    power = min(4, int(math.log(max(number, 1), 1000)))
    scaled = number / 1000**power
    return f"{scaled:.{int(power > 0 and scaled < 10)}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
