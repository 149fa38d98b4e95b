"""What a run leaves on disk, whatever its logger: what it was judged on, a line an epoch, one crop of a picture."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.runs import crop, history
from upsweep.runs.about import About
from upsweep.runs.history import VAL
from upsweep.runs.identity import Identity
from upsweep.runs.layout import CROP, HISTORY
from upsweep.runs.record import found
from upsweep.training.accessory import Accessory
from upsweep.training.base import Best, Training
from upsweep.training.callbacks import EarlyStopping
from upsweep.training.diagnoses import Diagnoses

log = logging.getLogger("upsweep")


class KeepIdentity(Callback):
    """Keeps `identity.json` in a run's folder, and refuses to go on with a run on other images or otherwise judged.

    Args:
        folder: of the run.
        judging: how the config says that results are judged, see `upsweep.runs.identity`.
        anew: go on all the same; the best epoch and its figures are forgotten.
        ranking: which figure the config ranks by, likewise.
    """

    def __init__(
        self,
        folder: str | Path,
        judging: Mapping[str, Any],
        anew: bool = False,
        ranking: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.judging, self.anew = Path(folder), dict(judging), anew
        self.ranking = dict(ranking or {})
        self._forgets = False

    def on_fit_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        """Raises UserError: the run was begun as another one. Nothing in its folder is changed yet."""
        now = module.identity = self._now(module)
        if trainer.ckpt_path is None or module.begun_as == now.digest:
            return
        before, about = found(Identity.read, self.folder), found(About.read, self.folder) or About()
        before = before and before.completed(about.config)
        if before is not None and not before.differences(now):
            return
        self._forgets = self.anew
        if module.begun_as is not None:
            self._another(before, now)
        elif not self.anew and trainer.is_global_zero:
            log.warning(
                "%s does not say which images it was begun with: if others are held out now, begin its figures anew "
                "with judge_anew=true.",
                self.folder,
            )
        if self.anew and module.epochs_before >= (trainer.max_epochs or 0):
            raise UserError(
                f"{self.folder} has all its {module.epochs_before} epochs behind it: judge_anew=true needs more "
                "trainer.max_epochs."
            )

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        """Write it down, now that all of the checkpoint has been found to fit."""
        if self._forgets:
            self._forget(trainer, module)
        self._keep(module.identity or self._now(module), trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if module.identity is None:  # nothing is trained
            self._keep(self._now(module), trainer, module)

    def _now(self, module: Training) -> Identity:
        images = module.task.contents
        return Identity(
            training=images.training, validation=images.validation, judging=self.judging, ranking=self.ranking
        )

    def _keep(self, now: Identity, trainer: pl.Trainer, module: Training) -> None:
        module.identity = now
        if trainer.is_global_zero:
            now.write(self.folder)

    def _another(self, before: Identity | None, now: Identity) -> None:
        changes = before.differences(now) if before else []
        what = "; ".join(changes) or "its images, or how it is judged, are not what they were"
        if not self.anew:
            raise UserError(
                f"{self.folder} was begun with other data, or another way to judge: {what}. Bring back what it had, "
                "begin a new run, or go on with judge_anew=true, which forgets the best figures so far."
            )
        log.warning(
            "%s continues with other data, or another way to judge; its figures start anew: %s.", self.folder, what
        )

    def _forget(self, trainer: pl.Trainer, module: Training) -> None:
        module.best = None
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping | Diagnoses):
                callback.forget()
        if trainer.is_global_zero:
            (self.folder / HISTORY).unlink(missing_ok=True)


class Score(Callback):
    """Takes down what a validation has come to, before any other callback reads it, and once all have logged theirs."""

    def on_validation_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        """Forget what was logged before: it is no figure of this epoch."""
        for key in [key for key in trainer.callback_metrics if key.startswith(VAL)]:
            del trainer.callback_metrics[key]

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        module.score(trainer.callback_metrics)


class History(Callback):
    """Keeps `history.csv` in a run's folder, a line an epoch; a run that goes on takes up its lines."""

    def __init__(self, folder: str | Path) -> None:
        self.file = Path(folder) / HISTORY
        self._epochs: list[history.Epoch] = []
        self._started = time.perf_counter()
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        kept = (found(history.read, self.file, log.warning) or []) if module.iterations else []
        self._epochs = [line for line in kept if line.step <= module.iterations]
        self._started = time.perf_counter() - (self._epochs[-1].seconds if self._epochs else 0.0)

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._validated = True
        if trainer.state.fn != TrainerFn.FITTING:
            self._append(trainer, module)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._append(trainer, module)

    def _append(self, trainer: pl.Trainer, module: Training) -> None:
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        judged, self._validated = self._validated, False
        figures: dict[str, float | None] = dict.fromkeys(f.name for f in module.task.figures)
        figures |= module.last if judged else {}
        loss = logged.get("train/loss")
        losses: dict[str, float | None]
        losses = {name: logged[key] for name in module.players if (key := f"train/loss_{name}") in logged}
        seconds = round(time.perf_counter() - self._started, 3)
        line = history.Epoch(trainer.current_epoch + 1, module.iterations, seconds, loss, figures, losses)
        self._epochs = [each for each in self._epochs if each.epoch != line.epoch]  # one that was cut has gone on
        self._epochs.append(line)
        if trainer.is_global_zero:
            history.write(self.file, self._epochs)


class KeepCrop(Accessory):
    """Keeps `crop.png` in a run's folder: what the task shows of the first validation batch at the best epoch.

    It is `size` pixels high. The place depends on the data alone: all runs on the same data show the same one.
    """

    def __init__(self, folder: str | Path, size: int = 96) -> None:
        self.file, self.size = Path(folder) / CROP, size
        self._latest: tuple[Any, Tensor] | None = None
        self._best: Best | None = None

    def on_fit_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._best = module.best

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: Training, outputs: Tensor, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx == 0 and trainer.is_global_zero:
            self._latest = batch, outputs

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        latest, self._latest = self._latest, None
        if latest is None or module.best is self._best:
            return
        self._best = module.best
        if (panel := module.task.panel(*latest, size=self.size)) is not None:
            crop.write(self.file, panel.pixels, panel.tiles, panel.shows)
