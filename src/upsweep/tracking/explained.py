"""The explanation of a run that has ended, in its own W&B run: figures in its summary, pictures beside its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from upsweep.imaging.tiles import Panel
from upsweep.runs.about import About
from upsweep.runs.result import Result
from upsweep.tracking.wandb_run import WandbRun

WHY = "why"
RUNS_OWN = ("project", "entity", "group", "name", "notes", "tags", "best")  # who changes these makes another run of it


def log_explanation(
    folder: Path, figures: Mapping[str, float], pictures: Sequence[Panel], **logger_options: Any
) -> None:
    """Log `why/<name>` of every figure and picture into the W&B run of a job's folder, or into a new one there.

    The run keeps its name, tags and config: they are read from the folder's records, and what the job's own logger
    said of project, entity, group, name, notes, tags and summaries is said again. The steps of its curves, and the
    best values in its summary, stay.

    Args:
        folder: of a job; or any other, of which the new run has the name.
        figures: by their names.
        pictures: one a section of the explanation.
        logger_options: of `WandbRun`: those of conf/logger/wandb.yaml.

    Raises:
        UserError: an option is wrong, or a record cannot be read.
    """
    run = WandbRun(folder, **_options(folder, logger_options))
    run.log_summary({f"{WHY}/{name}": value for name, value in figures.items()})
    run.log_pictures(WHY, pictures, step=None)
    run.finish(exit_code=0)


def _options(folder: Path, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The options, over what the training told W&B of the job in this folder."""
    result, about = Result.read(folder), About.read(folder) or About()
    if result is None:
        return {**asked, "name": asked.get("name") or folder.resolve().name}
    logger = about.config.get("logger") or {}
    is_wandb = logger.get("_target_") == f"{WandbRun.__module__}.{WandbRun.__qualname__}"
    return {
        **asked,
        **({key: logger[key] for key in RUNS_OWN if key in logger} if is_wandb else {}),
        "config": about.config,
        "choices": result.choices,
        "flat": {"seed": result.seed, "scale": result.scale},
        "figures": result.declared,
        "overrides": result.overrides,
    }
