"""What a run leaves on disk for its report, whatever its logger: a line an epoch, and one crop of a picture."""

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from upsweep.imaging.files import Picture, write_image
from upsweep.runs import history
from upsweep.runs.layout import CROP, HISTORY
from upsweep.runs.record import found
from upsweep.training.base import Best, Training

log = logging.getLogger("upsweep")


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
        figures = {f.name: logged.get(f"val/{f.name}") if judged else None for f in module.task.figures}
        seconds, loss = round(time.perf_counter() - self._started, 3), logged.get("train/loss")
        self._epochs.append(history.Epoch(trainer.current_epoch + 1, module.iterations, seconds, loss, figures))
        if trainer.is_global_zero:
            history.write(self.file, self._epochs)


class KeepCrop(Callback):
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
            write_image(self.file, Picture(panel.pixels))
