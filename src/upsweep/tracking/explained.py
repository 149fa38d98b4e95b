"""The explanation of a run that has ended, in its own W&B run: figures in its summary, pictures beside its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upsweep.imaging.tiles import Panel
from upsweep.tracking.reopened import reopened, said_of

WHY = "why"


def log_explanation(
    folder: Path, figures: Mapping[str, float], pictures: Sequence[Panel], **logger_options: Any
) -> list[str]:
    """Log `why/<name>` of every figure and picture into the W&B run of a job's folder, or into a new one there.

    Returns a sentence that says where the run is.

    Args:
        folder: of a job; or any other, see `reopened`.
        figures: by their names.
        pictures: one a section of the explanation.
        logger_options: of `WandbRun`: those of conf/logger/wandb.yaml.

    Raises:
        UserError: an option is wrong, or a record cannot be read.
    """
    run = reopened(folder, logger_options)
    run.log_summary({f"{WHY}/{name}": value for name, value in figures.items()})
    run.log_pictures(WHY, pictures, step=None)
    run.finish(exit_code=0)
    return said_of(run)
