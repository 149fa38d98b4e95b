"""The W&B run of a job that has ended, opened once more for what is found out later: explanations, evaluations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from upsweep.common.errors import UserError
from upsweep.runs.about import About
from upsweep.runs.result import Result
from upsweep.tracking.nodes import nodes_of
from upsweep.tracking.wandb_run import WandbRun

TARGET = f"{WandbRun.__module__}.{WandbRun.__qualname__}"
RUNS_OWN = ("project", "entity", "group", "name", "notes", "tags", "best")  # who changes these makes another run of it


def options_of(logger: Mapping[str, Any]) -> dict[str, Any] | None:
    """The options of `WandbRun` in a config's `logger`; None for `logger=none`. Raises UserError: it is another log."""
    if not logger:
        return None
    if not (found := wandb_in(logger)):
        named = ", ".join(str(node["_target_"]) for node in nodes_of(logger).values())
        raise UserError(f"logger={named} cannot be used here: choose logger=wandb or none.")
    return {key: value for key, value in found.items() if not key.startswith("_")}


def wandb_in(logger: Any) -> Mapping[str, Any]:
    """What a config's `logger` says of W&B, which may be one of several; empty where it is none of them."""
    nodes = nodes_of(logger).values() if isinstance(logger, Mapping) else ()
    return next((node for node in nodes if node["_target_"] == TARGET), {})


def reopened(folder: Path, options: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> WandbRun:
    """The W&B run of a job's folder, or a new one there.

    The run keeps its name, tags and config: they are read from the folder's records, and what the job's own logger
    said of project, entity, group, name, notes, tags and summaries is said again. The steps of its curves, and the
    best values in its summary, stay.

    Args:
        folder: of a job; or any other, of which the new run has the name.
        options: of `WandbRun`: those of conf/logger/wandb.yaml.
        config: of a new run.

    Raises:
        UserError: an option is wrong, or a record cannot be read.
    """
    result, about = Result.read(folder), About.read(folder) or About()
    if result is None:
        name = options.get("name") or folder.resolve().name
        return WandbRun(folder, **{**options, "name": name, "config": config})
    logger = wandb_in(about.config.get("logger"))
    own = {key: logger[key] for key in RUNS_OWN if key in logger}
    told: dict[str, Any] = {
        "config": about.config,
        "choices": result.choices,
        "flat": {"seed": result.seed, "scale": result.scale},
        "figures": result.declared,
        "overrides": result.overrides,
    }
    return WandbRun(folder, **{**options, **own, **told})


def said_of(run: WandbRun) -> list[str]:
    """Where a finished run is: the command that uploads it, or its folder; nothing where W&B is disabled."""
    if run.directory is None:
        return []
    return [f"W&B: {run.directory}" if run.sync_command is None else f"upload with {run.sync_command}"]
