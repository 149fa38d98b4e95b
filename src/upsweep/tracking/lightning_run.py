"""A run in any logger of Lightning's, or in a logger of a user's own: one adapter for all."""

import logging
import shlex
import textwrap
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from upsweep.common.errors import UserError, first_line
from upsweep.common.files import NUMBER
from upsweep.imaging.tiles import Cell, Panel
from upsweep.runs.about import without_repeats
from upsweep.runs.layout import sweep_of
from upsweep.runs.result import key_and_value, said_at_first
from upsweep.tracking import ways
from upsweep.tracking.run_log import RunLog

log = logging.getLogger("upsweep")

# What Lightning's loggers have no method for: what it is called, and how it is put where a logger has a way for it.
BESIDES: dict[str, tuple[str, Callable[[Any], ways.Way | None]]] = {
    "log_pictures": ("pictures", ways.for_pictures),
    "log_table": ("tables", ways.for_table),
    "log_model": ("checkpoints", ways.for_model),
    "log_data": ("names of images", ways.for_data),
}


def _harmless(verb: Callable[..., None]) -> Callable[..., None]:
    """The same method on rank 0; if it fails, one warning says so, and the logger gets nothing more of the run."""

    @rank_zero_only
    @wraps(verb)
    def careful(self: "LightningRun", *args: Any, **kwargs: Any) -> None:
        self.begin()
        if self.lost:
            return
        try:
            verb(self, *args, **kwargs)
        except Exception as error:  # its server has gone, say, or the disk is full
            self.lost = True
            log.warning("%s failed (%s): the run continues without it.", self.title, first_line(error))

    return careful


def _by_hand(overrides: Sequence[str]) -> dict[str, float | str]:
    """What a command line sets: `optimizer.lr` -> 0.001. Folders, and keys of Hydra's own, tell no runs apart."""
    said = dict(map(key_and_value, said_at_first(overrides)))
    told = {key: value for key, value in said.items() if "/" not in value and not key.startswith("hydra.")}
    return {key: float(value) if NUMBER.fullmatch(value) else value for key, value in told.items()}


class LightningRun(Logger):
    """A logger of Lightning's, or of upsweep's such as `CsvRun`, as the log of a run.

    It gets numbers, hyperparameters and a summary; pictures, tables, the best checkpoint and the names of images if it
    has a way to take them (see `upsweep.tracking.ways`), or a method of `RunLog`'s name and arguments. A line at the
    start says what it does not take. A logger that cannot start ends the run; one that fails later does not.
    Whatever else it has (`experiment`, methods of its own) is found here, too.

    Args:
        logger: as it is.
        folder: of the job.
        config: what was set, as plain values.
        choices: config group -> chosen name; hyperparameters by these names, which a logger compares runs by.
        flat: further top-level keys (`seed`, `scale`), likewise.
        overrides: of this job's command line; what they set to a number or a word, likewise.
    """

    def __init__(
        self,
        logger: Logger,
        folder: Path,
        *,
        config: Mapping[str, Any] | None = None,
        choices: Mapping[str, str] | None = None,
        flat: Mapping[str, float | int | str | None] | None = None,
        overrides: Sequence[str] = (),
        **_: Any,
    ) -> None:
        super().__init__()
        self.logger, self.folder = logger, folder.resolve()
        self.title = type(logger).__name__.removesuffix("Logger").removesuffix("Run")
        self.lost = self._begun = self._failed = False
        self._params = {**_by_hand(overrides), **(choices or {}), **(flat or {})}
        self._config = {"overrides": list(overrides), "config": without_repeats(config or {})}
        # TensorBoard shows hyperparameters beside the figures that they led to, which are known at the end.
        self._compares = "metrics" in ways.parameters(logger.log_hyperparams)
        self._numbers: dict[str, float] = {}
        self._ways: dict[str, ways.Way | None] = {}
        self._step = 0

    def __getattr__(self, name: str) -> Any:
        if name == "logger":  # while it is being copied
            raise AttributeError(name)
        return getattr(self.logger, name)

    @property
    def experiment(self) -> Any:
        return self.logger.experiment  # type: ignore[attr-defined] # whoever asks knows that it has one

    @property
    def name(self) -> str | None:
        return self.logger.name

    @property
    def version(self) -> int | str | None:
        return self.logger.version

    @property
    def save_dir(self) -> str | None:
        return self.logger.save_dir

    @property
    def whereabouts(self) -> str | None:
        """Where the run is to be seen: the command that shows it, or its folder; None: not known."""
        if isinstance(self.logger, TensorBoardLogger):
            return shlex.join(["tensorboard", "--logdir", str(sweep_of(self.folder) or self.logger.log_dir)])
        places = (getattr(self.logger, name, None) for name in ("whereabouts", "log_dir", "save_dir"))
        return next((str(place) for place in places if place), None)

    @rank_zero_only
    def begin(self) -> None:
        """Open the logger, tell it how the run was set, and say what it does not take. Raises UserError: it fails."""
        if self._begun:
            return
        self._begun = True
        try:
            self._ways = {name: ways.own(self.logger, name) or of(self.logger) for name, (_, of) in BESIDES.items()}
            self._tell_settings()
        except BaseException as error:
            self.lost = True  # also where somebody interrupts it, who would wait again at the end
            if not isinstance(error, Exception):
                raise
            raise UserError(f"{self.title} cannot start ({first_line(error)}): see logger.* of the config.") from error
        if missing := [what for name, (what, _) in BESIDES.items() if self._ways[name] is None]:
            log.info("%s takes no %s.", self.title, " and no ".join(missing))

    def _tell_settings(self) -> None:
        if isinstance(self.logger, RunLog):  # its constructor has them
            return
        if not self._compares:
            self.logger.log_hyperparams({**self._params, **self._config})
        elif (put := getattr(ways.experiment_of(self.logger), "add_text", None)) is not None:
            text = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
            put("config", textwrap.indent(text, "    "))  # Markdown's code

    @_harmless
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._step = self._step if step is None else step
        self.logger.log_metrics(dict(metrics), step)

    @_harmless
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        self.logger.log_hyperparams(params, *args, **kwargs)

    @_harmless
    def log_graph(self, *args: Any, **kwargs: Any) -> None:
        self.logger.log_graph(*args, **kwargs)

    @_harmless
    def save(self) -> None:
        self.logger.save()

    @_harmless
    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        self.logger.after_save_checkpoint(checkpoint_callback)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Remember a failure. Lightning calls this after every fit, validate and test: the run stays open."""
        self._failed |= status == "failed"

    @_harmless
    def log_pictures(self, key: str, pictures: Sequence[Panel], step: int | None) -> None:
        """Log every picture under `key/<its name>`, the caption above it."""
        self._put("log_pictures", key, pictures, step)

    @_harmless
    def log_summary(self, values: Mapping[str, float | int | str]) -> None:
        """Log numbers as metrics at the latest step, words as the logger has them (see `ways.for_words`)."""
        if (told := ways.own(self.logger, "log_summary")) is not None:
            return told(values)
        words = {key: value for key, value in values.items() if isinstance(value, str)}
        numbers = {key: float(value) for key, value in values.items() if not isinstance(value, str)}
        self._numbers |= numbers
        if numbers and not self._compares:
            self.logger.log_metrics(numbers, self._step)
        put = ways.for_words(self.logger)
        for key, text in words.items():
            put(key, text)
        return None

    @_harmless
    def log_table(self, key: str, rows: Sequence[Mapping[str, Cell]]) -> None:
        """Log rows of named cells; a picture is told by its name."""
        self._put("log_table", key, rows)

    @_harmless
    def log_model(self, checkpoint: Path, metadata: Mapping[str, Any]) -> None:
        """Keep the best checkpoint, with its figures and choices."""
        self._put("log_model", checkpoint, metadata)

    @_harmless
    def log_data(self, name: str, digests: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
        """Say which images the run reads."""
        self._put("log_data", name, digests, metadata)

    def _put(self, name: str, *what: Any) -> None:
        if (way := self._ways[name]) is not None:
            way(*what)

    @rank_zero_only
    def finish(self, exit_code: int | None = None) -> None:
        """Close the run; a code other than 0 marks it as failed. None: failed if Lightning said so."""
        if self._begun and not self.lost:
            self._close(int(self._failed) if exit_code is None else exit_code)

    @_harmless
    def _close(self, exit_code: int) -> None:
        if self._compares:
            self.logger.log_hyperparams(self._params, self._numbers)
        if (told := ways.own(self.logger, "finish")) is not None:
            return told(exit_code)
        return self.logger.finalize("failed" if exit_code else "success")
