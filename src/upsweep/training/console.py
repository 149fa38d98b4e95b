"""What a run says on the terminal: its choices at the start, where everything lies at the end."""

import logging
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.syntax import Syntax

from upsweep.analysis.tables import print_results
from upsweep.common.commands import command
from upsweep.runs.about import without_repeats
from upsweep.runs.layout import ABOUT, CHECKPOINTS, HYDRA, PICTURES
from upsweep.runs.result import INTERRUPTED, REQUEUE, Result, key_and_value
from upsweep.runs.verdicts import read_sentences
from upsweep.tracking.lightning_run import LightningRun
from upsweep.tracking.several import each_of
from upsweep.tracking.wandb_run import WandbRun
from upsweep.training.job import Job

LINES = 10  # that a run's choices may take
WHAT_ENDS: Mapping[object, str] = {INTERRUPTED: "Interrupted", REQUEUE: "Stopped by SIGTERM"}  # by exit code


@rank_zero_only
def show_choices(job: Job) -> None:
    """Print which names were chosen, what was set besides, and where the whole config is, in ten lines at most."""
    keys = {word: key_and_value(word)[0] for word in job.overrides}
    besides = [
        word.lstrip("+") for word, key in keys.items() if key not in job.choices and not key.startswith("hydra.")
    ]
    said = {"choices": [f"{group}={name}" for group, name in job.choices.items()], "set": besides}
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
    lines = [
        line
        for what, words in said.items()
        for line in textwrap.wrap(
            " ".join(words),
            width,
            initial_indent=f"{what:<12}",
            subsequent_indent=" " * 12,
            break_on_hyphens=False,
        )
    ]
    files = (job.folder / name for name in (f"{HYDRA}/config.yaml", ABOUT))
    whole = next((file for file in files if file.is_file()), job.folder / ABOUT)
    shown = lines if len(lines) < LINES else [*lines[: LINES - 2], f"{'':<12}..."]
    print("\n".join([*shown, f"{'config':<12}{whole} (verbose=true prints it)"]), flush=True)


@rank_zero_only
def show_config(config: Mapping[str, Any], choices: Mapping[str, str]) -> None:
    """Print the composed config, and which names were chosen for it."""
    said = " ".join(f"{group}={name}" for group, name in choices.items())
    text = yaml.safe_dump(without_repeats(config), sort_keys=False)
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


@contextmanager
def interruptible(job: Job) -> Iterator[None]:
    """Say how to go on with a training that Ctrl-C or SIGTERM ends."""
    try:
        yield
    except SystemExit as end:
        if end.code in WHAT_ENDS:
            _show_way_on(WHAT_ENDS[end.code], job)
        raise


@rank_zero_only
def _show_way_on(what: str, job: Job) -> None:
    print(f"{what}. Go on with: {command('train', f'resume={job.folder}')}", file=sys.stderr, flush=True)


@rank_zero_only
def show_end(job: Job, result: Result, *, quiet: bool = False) -> None:
    """Print the run's row of figures, what ails it, and where its files are; the row alone if `quiet`."""
    print_results({job.folder.name: result})
    if quiet:
        return
    for sentence in read_sentences(job.folder):
        print(f"{'! ' if sentence.found else '  '}{sentence.text}")
    print(f"{'folder':<12}{job.folder}")
    for what, pattern in {"checkpoints": CHECKPOINTS, "pictures": PICTURES, "log": "*.log"}.items():
        for path in list(job.folder.glob(pattern))[:1]:
            print(f"{what:<12}{path}")
    for logger in each_of(job.logger):
        for what, where in _whereabouts(logger).items():
            print(f"{what:<12}{where}")
    sys.stdout.flush()


def _whereabouts(logger: Logger) -> dict[str, str]:
    """Where a log is to be seen, by what that is called."""
    match logger:
        case WandbRun(directory=Path() as directory, sync_command=upload):
            return {"W&B": str(directory), **({"upload with": upload} if upload else {})}
        case LightningRun(title=title, whereabouts=str() as where):
            return {title: where}
    return {}
