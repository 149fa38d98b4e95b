"""Where the numbers and pictures of a run go: W&B (offline unless asked otherwise) or plain CSV files.

Both kinds of run are Lightning loggers with the same few extra verbs (`RunLog`), so that the training code
never asks which one it has. Nothing here imports wandb before the first value is logged on rank 0.
"""

import logging
import os
import secrets
import shlex
import threading
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from lightning_fabric.loggers.logger import rank_zero_experiment
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.errors import UserError
from upsweep.training.pictures import Panel

log = logging.getLogger("upsweep")

STEP = "trainer/global_step"
"""The x-axis of every metric; Lightning's own name for it, which its W&B users know."""

MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
SOURCE = Path(__file__).resolve().parent
PATIENCE = 6.0  # seconds for each of the two waits of an online start: together below the promised 15


def no_way_online() -> str | None:
    """Why W&B's server cannot be asked for anything, in words (no key, no answer), or None if it can."""
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    settings = wandb.setup().settings
    url = settings.base_url
    if not (settings.api_key or settings.identity_token_file or read_netrc_auth(host=url)):
        return "there is no API key; run `wandb login` once, or set WANDB_API_KEY"
    return obstacle(url)


@runtime_checkable
class RunLog(Protocol):
    """What the training code asks of a run's log beside Lightning's `log_metrics`."""

    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        """Log every picture under `key/<its name>`, with its caption, at `step`."""

    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        """Record values that a run has once: parameters, multiply-adds, state."""

    def finish(self, exit_code: int | None = None) -> None:
        """Close the run; a code other than 0 marks it as failed. None: failed if Lightning said so."""


def sweep_folder(folder: Path) -> Path | None:
    """Give the sweep's folder for a job's: the parent, if that holds a `sweep.json`."""
    return folder.parent if (folder.parent / "sweep.json").is_file() else None


def run_name(overrides: Sequence[str], choices: Mapping[str, str]) -> str:
    """What the command line chose, in W&B's limit of 128 characters: `init=he norm=bn seed=1`.

    Folders and other values with a slash say nothing in a legend and are left out; a run that overrides
    nothing is called by its generator.
    """
    said = [word for word in overrides if "/" not in word and not word.lstrip("+~").startswith("hydra.")]
    return " ".join(said)[:128] or choices.get("generator", "run")


def best_of(metric: str, best: Mapping[str, str]) -> str | None:
    """What the summary of `metric` keeps: the first entry of `best` whose key is part of its name.

    None, where there is no such entry, stands for the last value.

    >>> best_of("val/psnr_gain", {"psnr": "max", "loss": "min"})
    'max'
    """
    return next((how for part, how in best.items() if part in metric), None)


def obstacle(url: str, timeout: float = PATIENCE) -> str | None:
    """Why the W&B server at `url` cannot take a run, in words, or None if it can; within `timeout` seconds.

    Asks what the client will ask, through the proxies of the environment; a refusal (4xx) is an answer too.
    """
    request = urllib.request.Request(
        f"{url}/graphql", data=b'{"query": "{__typename}"}', headers={"Content-Type": "application/json"}
    )
    answer: list[str | None] = []

    def ask() -> None:
        try:
            urllib.request.urlopen(request, timeout=timeout).close()
            answer.append(None)
        except urllib.error.HTTPError as error:
            answer.append(None if error.code < 500 else f"it answers {error.code}")
        except OSError as error:
            answer.append(str(getattr(error, "reason", error)))

    # In a thread, since a name server that is silent holds the caller far longer than the socket's timeout.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout)
    reason = answer[0] if answer else f"no answer in {timeout:g} s"
    return reason and f"{url} cannot be reached ({reason}): check the network or WANDB_BASE_URL"


class WandbRun(Logger):
    """One W&B run a job, opened by rank 0 at the first value that is logged.

    Offline it neither looks up nor sends anything and writes below `folder` alone. Online, a missing key or
    server is told in one sentence and the run goes on offline, so that no result is lost. A job that is
    resumed in the same folder continues the same run.

    Args:
        folder: of the job; the run lies in `folder/wandb`.
        mode: `offline`, `online` or `disabled` (also WANDB_MODE's `dryrun` and `run`).
        project, entity, notes: as W&B knows them.
        group: None takes the name of the sweep's folder, if the job belongs to one.
        name: None says the overrides, see `run_name`.
        tags: beside one tag for each choice (`norm=bn`).
        best: part of a metric's name -> `max`, `min`, `mean`, `last`: what the summary keeps of it.
        config: the resolved config, stored under the key `config`.
        choices: config group -> chosen name, stored flat (`init: he`) so that dashboards group by them.
        flat: further top-level keys (`seed`, `scale`).
        overrides: of this job's command line, for its name.

    Raises:
        UserError: if `mode` is none of the above.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        mode: str = "offline",
        project: str = "upsweep",
        entity: str | None = None,
        group: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] = (),
        best: Mapping[str, str] | None = None,
        config: Mapping[str, Any] | None = None,
        choices: Mapping[str, str] | None = None,
        flat: Mapping[str, float | int | str] | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise UserError(f"logger.mode={mode} is unknown; choose one of online, offline, disabled.")
        choices = choices or {}
        sweep = sweep_folder(Path(folder).resolve())
        self.mode = MODES[mode]
        self.folder = Path(folder).resolve()
        self._best = dict(best or {})
        self._init: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group or (sweep.name if sweep else None),
            "name": name or run_name(overrides, choices),
            "notes": notes,
            "tags": [*tags, *(f"{key}={value}"[:64] for key, value in choices.items())],
            "config": {**choices, **(flat or {}), "config": dict(config or {})},
        }
        self.directory: Path | None = None
        self._run: Any = None
        self._defined: set[str] = set()
        self._failed = False

    # ---- Lightning's side

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The `wandb.Run`, opened now if it is not yet (a dummy on all ranks but 0)."""
        if self._run is None:
            self._run = self._open()
        return self._run

    @property
    def name(self) -> str:
        """The project."""
        return cast(str, self._init["project"])

    @property
    def version(self) -> str:
        """The run's id, kept in `folder/wandb/id` so that a resumed job finds it."""
        file = self.folder / "wandb" / "id"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(secrets.token_hex(4), encoding="ascii")
        return file.read_text(encoding="ascii")

    @property
    def save_dir(self) -> str:
        """The job's folder."""
        return str(self.folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log values by name, with the x-axis `trainer/global_step` if `step` is given."""
        self._log(metrics, step, self._best)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Add what a LightningModule saves with `save_hyperparameters` under the config key `hparams`."""
        values = vars(params) if isinstance(params, Namespace) else params
        self.experiment.config.update({"hparams": values}, allow_val_change=True)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Remember a failure. Lightning calls this after every fit, validate and test: the run stays open."""
        self._failed |= status == "failed"

    # ---- ours

    @rank_zero_only
    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        """Log every picture as a panel of its own, `key/<name>`: W&B shows lists of unequal sizes wrongly."""
        import wandb

        panels = {f"{key}/{p.name}": wandb.Image(p.pixels, caption=p.caption) for p in pictures}
        self._log(panels, step, best={})

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        """Put values straight into the run's summary."""
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    def finish(self, exit_code: int | None = None) -> None:
        """Close the run, if one is open; a code other than 0 marks it as failed."""
        if self._run is not None:
            self._run.finish(exit_code=int(self._failed) if exit_code is None else exit_code)
            self._run = None

    @property
    def sync_command(self) -> str | None:
        """The command that uploads what was logged offline, resumed parts too; None if there is nothing."""
        parts = sorted((self.folder / "wandb").glob("offline-run-*"))
        return shlex.join(["wandb", "sync", *map(str, parts)]) if parts else None

    def _log(self, values: Mapping[str, Any], step: int | None, best: Mapping[str, str]) -> None:
        run = self.experiment
        for key in values.keys() - self._defined:
            run.define_metric(key, step_metric=STEP, summary=best_of(key, best))
            self._defined.add(key)
        run.log({**values, **({} if step is None else {STEP: step})})

    def _open(self) -> Any:
        # The W&B service inherits these when it starts, so they have to be in the environment itself.
        cache = str(self.folder / "wandb" / "cache")
        os.environ.setdefault("WANDB_CACHE_DIR", cache)
        os.environ.setdefault("WANDB_DATA_DIR", cache)
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        run, problem = self._open_online() if self.mode == "online" else (None, None)
        if run is None:
            os.environ["WANDB_ERROR_REPORTING"] = "false"
            os.environ["WANDB_CONFIG_DIR"] = cache  # or else the client looks into the home folder
            run = self._start()
        self.directory = None if self.mode == "disabled" else Path(run.dir).parent
        if problem:
            log.warning("W&B goes on offline: %s. To upload the run later: %s", problem, self.sync_command)
        return run

    def _open_online(self) -> tuple[Any, str | None]:
        """An online run, or None and why there is none, in which case the mode is offline from here on."""
        import wandb

        problem = no_way_online()
        if problem is None:
            try:
                return self._start(), None
            except wandb.Error as error:
                problem = (
                    f"{wandb.setup().settings.base_url} refuses the run ({error}); check the key, entity and project"
                )
        wandb.teardown()
        self.mode = "offline"
        return None, problem

    def _start(self) -> Any:
        import wandb

        # Inputs of W&B Launch, which does not start our runs: looking for them imports a second's worth of its API.
        wandb.Run._detect_and_apply_job_inputs = lambda _: None
        online = self.mode == "online"
        values: dict[str, Any] = {
            **self._init,
            "dir": str(self.folder),
            "id": self.version,
            "mode": self.mode,
            "resume": "allow",  # offline too, or else an upload of a resumed part overwrites the first
        }
        settings = wandb.Settings(
            git_root=str(SOURCE), init_timeout=PATIENCE, silent=not online, disable_job_creation=True
        )
        return wandb.init(**values, settings=settings)


class CsvRun(CSVLogger):
    """Plain files in `folder/csv/version_*`: metrics.csv, hparams.yaml (config and summary), pictures as PNG.

    Takes from the training code what `WandbRun` takes. A job that is resumed writes the next version.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        config: Mapping[str, Any] | None = None,
        choices: Mapping[str, str] | None = None,
        flat: Mapping[str, float | int | str] | None = None,
        overrides: Sequence[str] = (),
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        super().__init__(Path(folder) / "csv", name=None, flush_logs_every_n_steps=flush_logs_every_n_steps)
        self.log_hyperparams(
            {**(choices or {}), **(flat or {}), "overrides": list(overrides), "config": dict(config or {})}
        )

    @rank_zero_only
    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int) -> None:
        """Write `<key>/<name>-<step>.png`, the caption as the PNG's own description."""
        folder = Path(self.log_dir, key)
        folder.mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            about = PngInfo()
            about.add_itxt("Description", picture.caption)
            Image.fromarray(picture.pixels).save(folder / f"{picture.name}-{step}.png", pnginfo=about)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        """Add values to hparams.yaml."""
        self.log_hyperparams({**values})
        self.save()

    @rank_zero_only
    def finish(self, exit_code: int | None = None) -> None:
        """Write what is still in memory, and the exit code if one is given."""
        self.log_summary({} if exit_code is None else {"exit_code": exit_code})
