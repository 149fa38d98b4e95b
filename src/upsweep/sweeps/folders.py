"""A folder for one run, or one sweep, at a time: claimed before anything is written into it. Knows no torch."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from upsweep.errors import UserError

try:
    import fcntl
except ModuleNotFoundError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
PATIENCE = 6.0  # seconds for a process that is about to end
_RANKS = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"),
    *("OMPI_COMM_WORLD_RANK", "JSM_NAMESPACE_RANK"),
)
_held: dict[Path, IO[str]] = {}  # until the process ends, however it ends


def writable(folder: Path, *, resume: bool = False, asked_by: str = "hydra.run.dir") -> Path:
    """The folder, made if it is missing, and this process's alone: the system lets go of it when the process ends.

    Only the first of several ranks claims it.

    Raises:
        UserError: it cannot be made or written to, holds a run that is not to be resumed, or another process that is
            alive has claimed it.
    """
    if not resume and (folder / "checkpoints" / "last.ckpt").exists():
        raise UserError(f"{folder} holds a run already: go on with resume={folder}, or choose another {asked_by}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The output folder {folder} cannot be made ({error.strerror}): set {asked_by}.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"The output folder {folder} cannot be written to: set {asked_by}.")
    if first_rank(os.environ):
        _claim(folder, asked_by)
    return folder


def first_rank(environment: Mapping[str, str]) -> bool:
    """Whether no launcher of ranks has said that this process is another than the first."""
    return all(environment.get(name, "0") == "0" for name in _RANKS)


def _claim(folder: Path, asked_by: str) -> None:
    path = (folder / LOCK).resolve()
    if fcntl is None or path in _held:
        return
    file = path.open("a+", encoding="utf-8")
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() < end:
                time.sleep(0.1)
                continue
            file.seek(0)
            who = file.read().strip() or "another process"
            file.close()
            raise UserError(
                f"{folder} is being written to by {who}: wait for its end, stop it, or choose another {asked_by}."
            ) from error
        except OSError:  # a file system that knows no locks
            file.close()
            return
    with suppress(OSError):  # a full disk
        file.truncate(0)
        os.write(file.fileno(), f"process {os.getpid()} of {os.uname().nodename}\n".encode())
    _held[path] = file


def _let_go() -> None:
    """In a process forked off (a worker that loads data): it would hold the lock as long as it lives."""
    for file in _held.values():
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
