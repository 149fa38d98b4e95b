"""Ends a training of a search that will not be among the best, by the pruner of Optuna's study."""

from pathlib import Path

import optuna
import pytorch_lightning as pl
import yaml
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from pytorch_lightning.callbacks import Callback

from upsweep.runs.layout import OVERRIDES as COMMAND
from upsweep.sweeps.search import NAME, OVERRIDES, storage_in
from upsweep.training.base import Pruned, Training


class Pruning(Callback):
    """Reports the headline to the trial of this job after every epoch, and stops where the pruner says so.

    A job outside a search, whose study's file does not exist or knows no such trial, is left alone. The trial is found
    by the command line, which Hydra keeps in the job's folder.
    """

    def __init__(self, study: str | Path, folder: str | Path, pruner: BasePruner) -> None:
        self._file, self._folder, self._pruner = Path(study), Path(folder), pruner
        self._trial: int | None = None  # its id in the storage
        self._value: float | None = None  # of the epoch

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self._file.is_file():
            return
        self._storage = storage_in(self._file)
        self._study = optuna.load_study(study_name=NAME, storage=self._storage)
        given = set(yaml.safe_load((self._folder / COMMAND).read_text(encoding="utf-8")))
        id_ = self._storage.get_study_id_from_name(NAME)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            said = set(trial.user_attrs.get(OVERRIDES, ()))
            if said and said <= given:
                self._trial = self._storage.get_trial_id_from_study_id_trial_number(id_, trial.number)

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._value = module.last.get(module.task.headline.name)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        """Report it; raise Pruned on all ranks if the pruner says so, but not in the last epoch, as good as done."""
        value, self._value = self._value, None
        if value is None:
            return
        hopeless = False
        if self._trial is not None:
            self._storage.set_trial_intermediate_value(self._trial, trainer.current_epoch, value)
            hopeless = bool(self._pruner.prune(self._study, self._storage.get_trial(self._trial)))
        if trainer.strategy.broadcast(hopeless) and trainer.current_epoch + 1 != trainer.max_epochs:
            raise Pruned(f"pruned after epoch {trainer.current_epoch + 1}, at {module.task.headline.told(value)}")
