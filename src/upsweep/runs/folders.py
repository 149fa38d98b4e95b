"""A folder for one run, or one sweep, at a time: claimed before anything is written into it. Knows no torch."""

import os
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.common.files import remove_leftovers
from upsweep.common.locks import keep
from upsweep.common.ranks import first_rank
from upsweep.runs.layout import CHECKPOINTS, LOCK, PICTURES, holds_run

PATIENCE = 6.0  # seconds for a process that is about to end


def writable(folder: Path, *, resume: bool = False, asked_by: str = "hydra.run.dir") -> Path:
    """The folder, made if it is missing, and this process's alone: the system lets go of it when the process ends.

    Only the first of several ranks claims it. Raises UserError: it cannot be made or written to, holds a run that is
    not to be resumed, or another process that is alive has claimed it.
    """
    if not resume and holds_run(folder):
        raise UserError(f"{folder} holds a run already: go on with resume={folder}, or choose another {asked_by}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The output folder {folder} cannot be made ({error.strerror}): set {asked_by}.") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"The output folder {folder} cannot be written to: set {asked_by}.")
    if not first_rank(os.environ):
        return folder
    if (holder := keep(folder / LOCK, PATIENCE)) is not None:
        raise UserError(
            f"{folder} is being written to by {holder}: wait for its end, stop it, or choose another {asked_by}."
        )
    for place in (folder, folder / CHECKPOINTS, folder / PICTURES):
        remove_leftovers(place)
    return folder
