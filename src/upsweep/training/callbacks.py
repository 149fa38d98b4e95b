"""What happens beside the training: pictures, throughput, how far it is, and its end where it no longer improves."""

import logging
import math
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from upsweep.common.progress import Bar, clock
from upsweep.imaging.files import Picture, write_image
from upsweep.imaging.tiles import Panel
from upsweep.metrics.checkerboard import checkerboard, portrait, response
from upsweep.metrics.figure import figures_of
from upsweep.networks.network import Network
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.layout import PICTURES
from upsweep.runs.progress import Progress
from upsweep.tracking.run_log import RunLog
from upsweep.training.averaging import EMA
from upsweep.training.base import Training

epochs = logging.getLogger("upsweep.epochs")  # goes into the run's log file alone: the terminal has a bar


class Pictures(Callback):
    """The task's panels of the first validation batches, into the log and the run's pictures/ folder.

    They are made after the first epoch, after each quarter of the training, and so after the last.

    Args:
        folder: of the run.
        count: how many batches.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.folder, self.count = Path(folder) / PICTURES, count
        self._panels: list[Panel] = []

    def _due(self, trainer: pl.Trainer) -> bool:
        epoch, last = trainer.current_epoch, trainer.max_epochs or 1
        return trainer.is_global_zero and (epoch == 0 or 4 * (epoch + 1) // last > 4 * epoch // last)

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: Training, outputs: Tensor, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx < self.count and self._due(trainer) and (panel := module.task.panel(batch, outputs)) is not None:
            self._panels.append(panel)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        panels, self._panels = self._panels, []
        if panels:
            keep(panels, self.folder, trainer, module)


def keep(panels: list[Panel], folder: Path, trainer: pl.Trainer, module: Training) -> None:
    """Panels into a folder, and into every log that takes pictures."""
    folder.mkdir(exist_ok=True)
    for panel in panels:
        write_image(folder / f"{panel.name}.png", Picture(panel.pixels))
    for log in trainer.loggers:
        if isinstance(log, RunLog):
            log.log_pictures("pictures", panels, module.iterations)


def energy_of(network: Network) -> tuple[Tensor, float, int] | None:
    """A network's response to a constant image, its checkerboard's energy, its scale; None of one without a scale."""
    if not isinstance(network, Upscaler):
        return None
    image = response(network, network.channels).cpu()
    return image, checkerboard(image, network.scale), network.scale


class Checkerboard(Callback):
    """Logs `checkerboard`, what a constant image's response differs by phase, at the start and the end of a training.

    Both pictures go into the log and the run's pictures/ folder. See `upsweep.metrics.checkerboard`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / PICTURES

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._measure(trainer, module, "start")

    def on_train_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        averages = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
        for average in averages:
            average.swap(trainer, module)
        self._measure(trainer, module, "end")
        for average in averages:
            average.swap(trainer, module)

    def _measure(self, trainer: pl.Trainer, module: Training, when: str) -> None:
        if not trainer.is_global_zero or (measured := energy_of(module.generator)) is None:
            return
        image, energy, scale = measured
        grey = portrait(image, scale)
        pixels = np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))
        panel = Panel(f"checkerboard_{when}", pixels, f"response to a constant image at the {when}: {energy:.2g}")
        for log in trainer.loggers:
            log.log_metrics({"checkerboard": energy}, step=module.iterations)
        keep([panel], self.folder, trainer, module)


class Throughput(Callback):
    """Logs the seconds of each training epoch and the samples a second, over all devices."""

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._started = time.perf_counter()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if hasattr(self, "_started"):  # it is not where nothing is trained
            self._started += time.perf_counter() - self._paused

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self._started
        samples = trainer.num_training_batches * trainer.train_dataloader.batch_size * trainer.world_size  # type: ignore[union-attr]
        module.log("time/epoch_seconds", seconds)
        module.log("time/images_per_second", samples / seconds)


class ShowProgress(Callback):
    """How far the training is: a bar on a terminal, a line an epoch elsewhere, and progress.json for a sweep's table.

    Args:
        folder: of the run.
        every: least seconds between two writes of progress.json.
        quiet: neither bar nor lines.
    """

    def __init__(self, folder: str | Path, every: float = 0.5, quiet: bool = False) -> None:
        self.folder, self.every, self.quiet = Path(folder), every, quiet
        self._bar: Bar | None = None
        self._loss: Tensor | None = None  # of the latest batch, left on its device
        self._written = -math.inf

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if trainer.is_global_zero:
            self._started_at, self._first = time.time(), module.iterations
            said = partial(self._said, trainer, module)
            self._bar = Bar(module.total, shown=not self.quiet, lines=False, stays=True, said=said).__enter__()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: Training, outputs: Mapping[str, Tensor], *_: Any
    ) -> None:
        self._loss = outputs["loss"].detach()
        if self._bar is not None and time.monotonic() - self._written >= self.every:
            self._show(self._bar, trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if self._bar is None:
            return
        self._show(self._bar, trainer, module)
        line = f"{self._bar.doing}  {self._said(trainer, module)}  left {clock(self._seconds_left(module))}"
        epochs.info(line)
        if not self._bar.visible and not self.quiet:
            print(line, file=sys.stderr, flush=True)

    def teardown(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None

    def _show(self, bar: Bar, trainer: pl.Trainer, module: Training) -> None:
        self._written = time.monotonic()
        bar.update(module.iterations, doing=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")
        logged = trainer.callback_metrics
        Progress(
            state="training",
            epoch=trainer.current_epoch,
            epochs=trainer.max_epochs or 0,
            step=module.iterations,
            steps=module.total,
            figures={f.name: float(logged[key]) for f in module.task.figures if (key := f"val/{f.name}") in logged},
            started_at=self._started_at,
            seconds_left=self._seconds_left(module),
        ).write(self.folder)

    def _seconds_left(self, module: Training) -> float | None:
        done, left = module.iterations - self._first, max(0, module.total - module.iterations)
        return (time.time() - self._started_at) / done * left if done > 0 else None

    def _said(self, trainer: pl.Trainer, module: Training, *_: float | None) -> str:
        headline, loss = module.task.headline, "-" if self._loss is None else f"{float(self._loss):.4g}"
        value = trainer.callback_metrics.get(f"val/{headline.name}")
        return f"loss {loss}  {headline.title} {headline.format(None if value is None else float(value))}"


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, of a task's figure: it knows which way is better.

    Args:
        figure: as the config declares it.
        patience: epochs without an improvement.
        min_delta: what counts as one, in the figure's unit.
    """

    def __init__(self, figure: Mapping[str, Any], patience: int = 5, min_delta: float = 0.0) -> None:
        (declared,) = figures_of([figure])
        mode = "max" if declared.better == "higher" else "min"
        super().__init__(f"val/{declared.name}", min_delta, patience, mode=mode)
