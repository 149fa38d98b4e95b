"""What a run says on the terminal: its config at the start, where everything lies at the end."""

import logging
import sys
from collections.abc import Mapping
from typing import Any

import yaml
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.syntax import Syntax

from upsweep.sweeps.results import Result, print_row
from upsweep.training.diagnoses import read_sentences
from upsweep.training.job import Job
from upsweep.training.tracking import WandbRun


@rank_zero_only
def show_config(config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Print the composed config, and which names were chosen for it."""
    said = " ".join(f"{group}={name}" for group, name in choices.items())
    # The recipe and the generator's own copy of it repeat the groups.
    shown = {key: value for key, value in config.items() if key != "recipe"}
    shown["generator"] = {key: value for key, value in config["generator"].items() if key != "recipe"}
    text = yaml.safe_dump(shown, sort_keys=False)
    if sys.stdout.isatty():
        console = Console()
        console.print(Syntax(text, "yaml", background_color="default"))
        console.rule(said)
    else:
        print(f"{text}\n{said}", flush=True)


def hush() -> None:
    """Let only warnings and errors reach the terminal; the run's log file gets everything."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)


@rank_zero_only
def show_end(job: Job, result: Result, *, quiet: bool = False) -> None:
    """Print the run's row of figures, what ails it, and where its files are; the row alone if `quiet`."""
    print_row(job.folder.name, result)
    if quiet:
        return
    lines = {"folder": job.folder}
    for what, path in (
        ("checkpoints", job.folder / "checkpoints"),
        ("pictures", job.folder / "pictures"),
        ("log", next(job.folder.glob("*.log"), None)),
    ):
        if path is not None and path.exists():
            lines[what] = path
    for sentence in read_sentences(job.folder):
        print(f"{'! ' if sentence.found else '  '}{sentence.text}")
    print("\n".join(f"{what:<12}{path}" for what, path in lines.items()))
    if isinstance(job.logger, WandbRun) and job.logger.directory is not None:
        print(f"{'W&B':<12}{job.logger.directory}")
        if (command := job.logger.sync_command) is not None:
            print(f"{'upload with':<12}{command}")
    sys.stdout.flush()
