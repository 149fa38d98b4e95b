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

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.errors import UserError, first_line
from upsweep.common.files import write_whole
from upsweep.imaging import marks
from upsweep.imaging.tiles import Cell, Panel
from upsweep.metrics.figure import Figure
from upsweep.runs.history import VAL
from upsweep.runs.layout import WANDB, sweep_of
from upsweep.runs.result import said_at_first
from upsweep.tracking import artifacts
from upsweep.tracking.server import PATIENCE, STEP, no_way_online
from upsweep.tracking.weights import PREFIX, version_of, weights_of

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


def _cell(cell: Cell) -> Any:
    """As a `wandb.Table` takes it."""
    import wandb

    return wandb.Image(marks.marked(cell.pixels), caption=cell.caption) if isinstance(cell, Panel) else cell


def _guarded(failed: Callable[["WandbRun", str, Exception], None]) -> Callable[[Callable[..., None]], Any]:
    """Methods of a `WandbRun` on rank 0 that end no run: where one fails, `failed` is told."""

    def guard(verb: Callable[..., None]) -> Any:
        @rank_zero_only
        @wraps(verb)
        def careful(self: "WandbRun", *args: Any, **kwargs: Any) -> None:
            if self.lost:
                return
            try:
                verb(self, *args, **kwargs)
            except UserError:
                raise
            except Exception as error:
                failed(self, verb.__name__, error)

        careful.guard = guard  # type: ignore[attr-defined]  # for what overrides it in a derived class
        return careful

    return guard


def _lose(run: "WandbRun", _: str, error: Exception) -> None:
    """W&B gets nothing more of the run: its service was killed, say, or has no disk."""
    run.lost, run._run = True, None
    log.warning("W&B failed (%s): the run continues without it.", first_line(error))
    with suppress(Exception):  # or else it warns again at the end
        sys.modules["wandb"].teardown()


def _do_without(_: "WandbRun", verb: str, error: Exception) -> None:
    what = verb.removeprefix("log_").removeprefix("_use_")
    log.warning("W&B did not take the %s of the run (%s): it continues without.", what, first_line(error))


_harmless, _left_out = _guarded(_lose), _guarded(_do_without)


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
        artifacts: whether the best checkpoint and the images that the run reads are artifacts of it.
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
        artifacts: bool = True,
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
        self.artifacts = artifacts and self.mode != "disabled"
        named = [
            str(one)
            for each in weights_of(config or {}).values()
            for one in (each if isinstance(each, list) else [each])
        ]
        self._weights = [weights for weights in named if weights.startswith(PREFIX)]
        self.directory: Path | None = None
        self._run: Any = None
        self._defined: set[str] = set()
        self._failed = self.lost = False

    def __init_subclass__(cls, **more: Any) -> None:
        """What overrides a method that ends no run ends none either."""
        super().__init_subclass__(**more)
        for name, verb in vars(cls).copy().items():
            if (guard := getattr(getattr(super(cls, cls), name, None), "guard", None)) is not None:
                setattr(cls, name, guard(verb))

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

    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._log(metrics, step, self.kept)

    def kept(self, metric: str) -> str | None:
        """What the summary keeps of a metric: of figures and leads the best, of others as `best` says."""
        return self._figures.get(metric) or best_of(metric, self._best)

    @_harmless
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Add what a LightningModule saves with `save_hyperparameters` under the config key `hparams`."""
        values = vars(params) if isinstance(params, Namespace) else params
        self.experiment.config.update({"hparams": values}, allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Remember a failure. Lightning calls this after every fit, validate and test: the run stays open."""
        self._failed |= status == "failed"

    @_harmless
    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int | None) -> None:
        """Log every picture as a panel of its own, `key/<name>`: W&B shows lists of unequal sizes wrongly.

        None: at no step of the training.
        """
        import wandb

        shown = {f"{key}/{p.name}": wandb.Image(marks.marked(p.pixels), caption=p.caption) for p in pictures}
        self._log(shown, step, lambda _: None)

    @_harmless
    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        self.experiment.summary.update(dict(values))

    @_left_out
    def log_table(self, key: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Log rows as a `wandb.Table`; its columns are those of all rows, in the order of their first mention."""
        import wandb

        columns = list(dict.fromkeys(column for row in rows for column in row))
        table = wandb.Table(columns)
        for row in rows:
            table.add_data(*(_cell(row.get(column)) for column in columns))
        self.experiment.log({key: table})

    @_left_out
    def log_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        """Log the artifact `model-<run's id>`, with the aliases `best` and `latest`; earlier ones of the run go."""
        if not self.artifacts:
            return
        run, name = self.experiment, artifacts.model_name(self.version)
        online = self.mode == "online"
        file = checkpoint if online else artifacts.kept(checkpoint, self.folder / WANDB)
        aliases = [artifacts.BEST, artifacts.LATEST]
        logged = run.log_artifact(artifacts.model(name, file, metadata), aliases=aliases)
        run.summary[f"artifacts/{artifacts.MODEL}"] = name
        if online:
            logged.wait()
            artifacts.forget_others(logged)

    @_left_out
    def log_data(self, name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        """Use the artifact `data-<name>`, which refers to the images; see `artifacts.dataset`."""
        if not self.artifacts:
            return
        run, name = self.experiment, artifacts.data_name(name)
        made = artifacts.dataset(name, digests, metadata)
        # What `use_artifact` does, which refuses to do it offline, and waits for the server online.
        run._log_artifact(made, aliases=[artifacts.LATEST], is_user_created=True, use_after_commit=True)
        run.summary[f"artifacts/{artifacts.DATA}"] = name

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
        goes_on = any((self.folder / WANDB).glob("*run-*-*"))
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
        if self.mode == "online" and self.artifacts and not goes_on:  # from its own weights
            self._use_weights(run)
        return run

    @_left_out
    def _use_weights(self, run: Any) -> None:
        """Say that the run starts from weights that are at W&B, if it does; offline nobody can be told."""
        for said in self._weights:
            run.use_artifact(version_of(said))

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
