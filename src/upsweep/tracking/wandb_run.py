"""A run at W&B, offline unless asked otherwise. wandb is imported when rank 0 logs the first value."""

import logging
import os
import secrets
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.errors import UserError, first_line
from upsweep.common.files import write_whole
from upsweep.imaging import marks
from upsweep.imaging.tiles import Panel
from upsweep.metrics.figure import Figure
from upsweep.runs.history import VAL
from upsweep.runs.layout import WANDB, sweep_of
from upsweep.runs.result import said_at_first
from upsweep.tracking.server import PATIENCE, STEP, no_way_online

log = logging.getLogger("upsweep")

MODES: dict[str, Literal["online", "offline", "disabled"]]
MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "disabled"}
KEPT = ("max", "min", "mean", "last")
SOURCE = Path(__file__).resolve().parent


def run_name(overrides: Sequence[str], choices: Mapping[str, str]) -> str:
    """The choices of the command line, within W&B's limit of 128 characters: `init=he norm=bn seed=1`.

    Folders and other values with a slash say nothing in a legend and are left out; a run that overrides
    nothing is called by its generator.
    """
    words = said_at_first(overrides)
    said = [word for word in words if "/" not in word and not word.lstrip("+~").startswith("hydra.")]
    return " ".join(said)[:128] or choices.get("generator", "run")


def best_of(metric: str, best: Mapping[str, str]) -> str | None:
    """What a summary keeps of a metric: the first of `best` whose key is part of its name; None for the last value."""
    return next((how for part, how in best.items() if part in metric), None)


def _marked(pixels: np.ndarray) -> Image.Image:
    """Pixels (H, W, 3) uint8 as an image that has upsweep's mark in whatever PNG W&B makes of it."""
    image = Image.fromarray(pixels)
    image.encoderinfo = {"pnginfo": marks.png_texts()}
    return image


def _harmless(verb: Callable[..., None]) -> Callable[..., None]:
    """The same method of a `WandbRun`; if it fails, one warning says so, and W&B gets nothing more of the run."""

    @wraps(verb)
    def careful(self: "WandbRun", *args: Any, **kwargs: Any) -> None:
        if self._lost:
            return
        try:
            verb(self, *args, **kwargs)
        except UserError:
            raise
        except Exception as error:  # its service was killed, say, or has no disk
            self._lost, self._run = True, None
            log.warning("W&B failed (%s): the run continues without it.", first_line(error))
            with suppress(Exception):  # or else it warns again at the end
                sys.modules["wandb"].teardown()

    return careful


class WandbRun(Logger):
    """One W&B run a job, opened by rank 0 at the first value that is logged.

    Offline it neither looks up nor sends anything and writes below `folder` alone. Online, a missing key or
    server is one warning, and the run continues offline, so that no result is lost. A job that is
    resumed in the same folder continues the same run.

    Args:
        folder: of the job; the run lies in `folder/wandb`.
        mode: `offline`, `online` or `disabled` (also WANDB_MODE's `dryrun` and `run`).
        project, entity, notes: as W&B knows them.
        group: None takes the name of the sweep's folder, if the job belongs to one.
        name: None says the overrides, see `run_name`.
        tags: beside one tag for each choice (`norm=bn`).
        best: part of a metric's name -> `max`, `min`, `mean`, `last`: what the summary keeps of it; of the `figures`,
            it keeps the best value.
        config: the resolved config, stored under the key `config`.
        choices: config group -> chosen name, stored flat (`init: he`) so that dashboards group by them.
        flat: further top-level keys (`seed`, `scale`).
        figures: what the task is judged by.
        overrides: of this job's command line, for its name.

    Raises:
        UserError: `mode` is none of the above, or a summary cannot keep what `best` says.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        mode: str = "offline",
        project: str | None = "upsweep",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] = (),
        best: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        choices: Mapping[str, str] | None = None,
        flat: Mapping[str, float | int | str | None] | None = None,
        figures: Sequence[Figure] = (),
        overrides: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if os.environ.get("WANDB_DISABLED", "").strip().lower() in ("1", "true", "yes", "on"):
            mode = "disabled"  # as transformers and older clients have it
        for variable in [key for key, value in os.environ.items() if key.startswith("WANDB_") and not value]:
            del os.environ[variable]  # the client refuses an empty one
        mode = mode or "offline"  # WANDB_MODE was one of them
        if mode not in MODES:
            raise UserError(f"logger.mode={mode} is unknown; choose one of online, offline, disabled.")
        for metric, how in (best or {}).items():
            if how not in KEPT:
                raise UserError(f"logger.best.{metric}={how} must be one of {', '.join(KEPT)}.")
        choices = choices or {}
        self.mode, self.folder = MODES[mode], Path(folder).resolve()
        sweep = sweep_of(self.folder)
        # A lead is best where it is largest, whatever the figure.
        leads = {f"{VAL}{figure.name}_{figure.margin}": "max" for figure in figures}
        values = {f"{VAL}{figure.name}": "max" if figure.better == "higher" else "min" for figure in figures}
        self._best, self._figures = dict(best or {}), leads | values
        declared = {"figures": [asdict(figure) for figure in figures]} if figures else {}
        self._init: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group or (sweep.name if sweep else None),
            "name": name or run_name(overrides, choices),
            "notes": notes,
            "tags": list(dict.fromkeys([*tags, *(f"{key}={value}"[:64] for key, value in choices.items())])),
            "config": {**choices, **(flat or {}), **declared, "config": dict(config or {})},
        }
        self.directory: Path | None = None
        self._run: Any = None
        self._defined: set[str] = set()
        self._failed = self._lost = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, opened now if it is not yet (a dummy on all ranks but 0)."""
        if self._run is None:
            self._run = self._open()
        return self._run

    @property
    def name(self) -> str:
        return str(self._init["project"])

    @property
    def version(self) -> str:
        """The run's id, kept in `folder/wandb/id` so that a resumed job finds it."""
        file = self.folder / WANDB / "id"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, secrets.token_hex(4))
        return file.read_text(encoding="ascii")

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    @rank_zero_only
    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._log(metrics, step, self.kept)

    def kept(self, metric: str) -> str | None:
        """What the summary keeps of a metric: of figures and leads the best, of others as `best` says."""
        return self._figures.get(metric) or best_of(metric, self._best)

    @rank_zero_only
    @_harmless
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Add what a LightningModule saves with `save_hyperparameters` under the config key `hparams`."""
        values = vars(params) if isinstance(params, Namespace) else params
        self.experiment.config.update({"hparams": values}, allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Remember a failure. Lightning calls this after every fit, validate and test: the run stays open."""
        self._failed |= status == "failed"

    @rank_zero_only
    @_harmless
    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int | None) -> None:
        """Log every picture as a panel of its own, `key/<name>`: W&B shows lists of unequal sizes wrongly.

        None: at no step of the training.
        """
        import wandb

        shown = {f"{key}/{p.name}": wandb.Image(_marked(p.pixels), caption=p.caption) for p in pictures}
        self._log(shown, step, lambda _: None)

    @rank_zero_only
    @_harmless
    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    @_harmless
    def finish(self, exit_code: int | None = None) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(self._failed) if exit_code is None else exit_code)
            self._run = None

    @property
    def sync_command(self) -> str | None:
        """The command that uploads what was logged offline, resumed parts too; None if there is nothing."""
        parts = sorted((self.folder / WANDB).glob("offline-run-*"))
        return shlex.join(["wandb", "sync", *map(str, parts)]) if parts else None

    def _log(self, values: Mapping[str, Any], step: int | None, kept: Callable[[str], str | None]) -> None:
        run = self.experiment
        for key in values.keys() - self._defined:
            run.define_metric(key, step_metric=STEP, summary=kept(key))
        self._defined |= values.keys()
        run.log({**values, **({} if step is None else {STEP: step})})

    def _open(self) -> Any:
        import wandb

        # The W&B service inherits these when it starts, so they have to be in the environment itself.
        cache = str(self.folder / WANDB / "cache")
        os.environ.setdefault("WANDB_CACHE_DIR", cache)
        os.environ.setdefault("WANDB_DATA_DIR", cache)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        problem = no_way_online() if self.mode == "online" else None
        run = None
        if self.mode == "online" and problem is None:
            try:
                run = self._start()
            except (wandb.Error, ValueError) as error:
                server = wandb.setup().settings.base_url
                problem = f"{server} refuses the run ({error}); check the key, entity and project"
        if problem:
            wandb.teardown()
            self.mode = "offline"
        if run is None:
            os.environ["WANDB_ERROR_REPORTING"] = "false"
            os.environ["WANDB_CONFIG_DIR"] = cache  # or else the client looks into the home folder
            try:
                run = self._start()
            except (wandb.Error, ValueError) as error:  # the latter is pydantic's
                said = " ".join(str(error).partition(" For further")[0].split())
                raise UserError(f"W&B refuses logger.* or an environment variable WANDB_*: {said}") from error
        self.directory = None if self.mode == "disabled" else Path(run.dir).parent
        if problem:
            log.warning("W&B continues offline: %s. To upload the run later: %s", problem, self.sync_command)
        return run

    def _start(self) -> Any:
        import wandb

        # Inputs of W&B Launch, which does not start our runs: looking for them imports a second's worth of its API.
        wandb.Run._detect_and_apply_job_inputs = lambda _: None
        # Where the service has died (of a full disk, say) every value would be a warning of asyncio's.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        return wandb.init(
            **self._init,
            dir=str(self.folder),
            id=None if self.mode == "disabled" else self.version,
            mode=self.mode,
            resume="allow",  # offline too, or else an upload of a resumed part overwrites the first
            settings=wandb.Settings(
                git_root=str(SOURCE), init_timeout=PATIENCE, silent=self.mode != "online", disable_job_creation=True
            ),
        )
