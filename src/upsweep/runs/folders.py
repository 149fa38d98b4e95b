"""The folder of a run or a sweep: what it holds, and that one process alone writes into it. Knows no torch."""

import os
from collections.abc import Callable
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.common.files import remove_leftovers
from upsweep.common.locks import keep
from upsweep.common.ranks import first_rank
from upsweep.common.telling import tell
from upsweep.runs.layout import BEST, CHECKPOINTS, FRESH, HISTORY, LAST, LOCK, PICTURES, PREVIOUS
from upsweep.runs.record import found
from upsweep.runs.result import Result

PATIENCE = 6.0  # seconds for a process that is about to end


def holds_run(folder: Path) -> bool:
    """Whether the folder has what a new run there would destroy: weights, or the figures of a run that has finished."""
    result = found(Result.read, folder)
    saved = any((folder / name).exists() for name in (BEST, LAST, FRESH, PREVIOUS))
    return saved or (result is not None and result.state == "finished")


def to_go_on_from(folder: Path, tell: Callable[[str], object] = lambda _: None) -> list[Path]:
    """The checkpoints from which a run can go on, the newest first; `tell` reports a result that cannot be read.

    The best one counts where there is no other (`callbacks.last=null`), unless the run was killed before its first
    epoch had ended: then it is more exact to begin anew. The launcher of a sweep removes the result, not the history.
    """
    ended = found(Result.read, folder, tell) is not None or (folder / HISTORY).is_file()
    names = (FRESH, LAST, PREVIOUS, *([BEST] if ended else []))
    return [path for name in names if (path := folder / name).is_file()]


def writable(folder: Path, *, resume: bool = False, asked_by: str = "hydra.run.dir") -> Path:
    """The folder, made if it is missing, and locked by this process until it ends.

    Only the first of several ranks locks it. Raises UserError: it cannot be made or written to, holds a run that is
    not to be resumed, or another living process has locked it.
    """
    if not resume and holds_run(folder):
        raise UserError(f"{folder} already has a run: continue it with resume={folder}, or choose another {asked_by}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The output folder {folder} cannot be made ({error.strerror}): set {asked_by}.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"The output folder {folder} cannot be written to: set {asked_by}.")
    if not first_rank(os.environ):
        return folder
    if (holder := keep(folder / LOCK, PATIENCE)) is not None:
        raise UserError(f"{holder} is writing to {folder}: wait until it ends, stop it, or choose another {asked_by}.")
    for place in (folder, folder / CHECKPOINTS, folder / PICTURES):
        remove_leftovers(place)
    tell(folder=str(folder.absolute()))
    return folder
