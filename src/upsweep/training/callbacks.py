"""What happens beside the training: pictures, throughput, and how far it is."""

import logging
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from upsweep.data.modules import EvalImage
from upsweep.imaging.files import Picture, write_image
from upsweep.metrics.checkerboard import checkerboard, portrait, response
from upsweep.sweeps import results
from upsweep.training.averaging import EMA
from upsweep.training.module import SuperResolution
from upsweep.training.pictures import Panel, comparison
from upsweep.training.tracking import RunLog

epochs = logging.getLogger("upsweep.epochs")  # goes into the run's log file alone: the terminal has a bar


class Pictures(Callback):
    """Panels LR bicubic | SR | HR of the first validation images, into the log and the run's pictures/ folder.

    They are made after the first epoch, after each quarter of the training, and so after the last.

    Args:
        folder: of the run.
        count: how many images.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.folder, self.count = Path(folder) / "pictures", count
        self._panels: list[Panel] = []

    def _due(self, trainer: pl.Trainer) -> bool:
        epoch, epochs = trainer.current_epoch, trainer.max_epochs or 1
        quarter = 4 * (epoch + 1) // epochs > 4 * epoch // epochs
        return trainer.is_global_zero and not trainer.sanity_checking and (epoch == 0 or quarter)

    def on_validation_batch_end(  # type: ignore[override]  # Lightning's batch is Any
        self,
        trainer: pl.Trainer,
        pl_module: SuperResolution,
        outputs: Tensor,
        batch: EvalImage,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the panel of an image that was just judged."""
        if batch_idx < self.count and self._due(trainer):
            psnr, bicubic = pl_module.image_psnr(batch.name)
            self._panels.append(
                comparison(
                    batch.name,
                    batch.lr,
                    outputs,
                    batch.hr,
                    pl_module.generator.scale,
                    rgb_lr=batch.rgb_lr,
                    rgb_hr=batch.rgb_hr,
                    psnr=psnr,
                    psnr_bicubic=bicubic,
                )
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand the panels to the log and the disk."""
        panels, self._panels = self._panels, []
        if not panels:
            return
        self.folder.mkdir(exist_ok=True)
        for panel in panels:
            write_image(self.folder / f"{panel.name}.png", Picture(panel.pixels))
        for log in trainer.loggers:
            if isinstance(log, RunLog):
                log.log_pictures("pictures", panels, trainer.global_step)


class Checkerboard(Callback):
    """Logs `checkerboard`, what a constant image's response differs by phase, at the start and the end of a training.

    Both pictures go into the log and the run's pictures/ folder. See `upsweep.metrics.checkerboard`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / "pictures"

    def on_train_start(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Measure the initialised generator."""
        self._measure(trainer, pl_module, "start")

    def on_train_end(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Measure the trained one, with the weights that validation judges."""
        with ExitStack() as stack:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, EMA):
                    stack.enter_context(callback.averaged(pl_module))
            self._measure(trainer, pl_module, "end")

    def _measure(self, trainer: pl.Trainer, pl_module: SuperResolution, when: str) -> None:
        if not trainer.is_global_zero:
            return
        generator = pl_module.generator
        image = response(generator, generator.channels).cpu()
        energy = checkerboard(image, generator.scale)
        pixels = portrait(image, generator.scale)
        pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        panel = Panel(f"checkerboard_{when}", pixels, f"response to a constant image at the {when}: {energy:.2g}")
        self.folder.mkdir(exist_ok=True)
        write_image(self.folder / f"{panel.name}.png", Picture(pixels))
        for log in trainer.loggers:
            log.log_metrics({"checkerboard": energy}, step=trainer.global_step)
            if isinstance(log, RunLog):
                log.log_pictures("pictures", [panel], trainer.global_step)


class Throughput(Callback):
    """Logs the seconds of each training epoch and the HR patches a second, over all devices."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._started, self._inside = time.perf_counter(), 0.0

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop it: validation is not training."""
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let it run again."""
        if hasattr(self, "_started"):
            self._inside += time.perf_counter() - self._paused

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what it shows."""
        seconds = time.perf_counter() - self._started - self._inside
        patches = trainer.num_training_batches * trainer.train_dataloader.batch_size * trainer.world_size  # type: ignore[union-attr]
        pl_module.log("time/epoch_seconds", seconds)
        pl_module.log("time/images_per_second", patches / seconds)


class ShowProgress(Callback):
    """How far the training is: a bar on a terminal, a line an epoch elsewhere, and progress.json for a sweep's table.

    Args:
        folder: of the run.
        every: least seconds between two writes of progress.json.
        quiet: neither bar nor lines.
    """

    def __init__(self, folder: str | Path, every: float = 0.5, quiet: bool = False) -> None:
        self.folder, self.every, self.quiet = Path(folder), every, quiet
        self._bar: Progress | None = None
        self._loss: Tensor | None = None  # of the latest batch, left on its device
        self._written = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the clock, and the bar where there is a terminal."""
        if not trainer.is_global_zero:
            return
        self._started_at, self._first_step = time.time(), trainer.global_step
        if sys.stderr.isatty() and not self.quiet:
            self._bar = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]}  PSNR {task.fields[psnr]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task("", total=self._steps(trainer), **self._fields(trainer))
            self._bar.start()

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Mapping[str, Tensor], *_: Any
    ) -> None:
        """Move on."""
        self._loss = outputs["loss"].detach()
        if trainer.is_global_zero:
            self._show(trainer, "training")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what the epoch came to."""
        if trainer.is_global_zero and not trainer.sanity_checking and hasattr(self, "_started_at"):
            self._show(trainer, "training", now=True)
            f, left = self._fields(trainer), _clock(self._seconds_left(trainer))
            line = f"epoch {f['epoch']}  loss {f['loss']}  PSNR {f['psnr']}  left {left}"
            epochs.info(line)
            if self._bar is None and not self.quiet:
                print(line, file=sys.stderr, flush=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the terminal as it was, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: pl.Trainer, state: str, now: bool = False) -> None:
        clock = time.monotonic()
        if not now and clock - self._written < self.every:
            return
        self._written = clock
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, **self._fields(trainer))
        psnr = trainer.callback_metrics.get("val/psnr")
        results.Progress(
            state=state,
            epoch=trainer.current_epoch,
            epochs=trainer.max_epochs or 0,
            step=trainer.global_step,
            steps=self._steps(trainer),
            psnr=None if psnr is None else float(psnr),
            started_at=self._started_at,
            seconds_left=self._seconds_left(trainer),
        ).write(self.folder)

    @staticmethod
    def _steps(trainer: pl.Trainer) -> int:
        return max(1, int(trainer.estimated_stepping_batches))

    def _seconds_left(self, trainer: pl.Trainer) -> float | None:
        done = trainer.global_step - self._first_step
        if done <= 0:
            return None
        return (time.time() - self._started_at) / done * max(0, self._steps(trainer) - trainer.global_step)

    def _fields(self, trainer: pl.Trainer) -> dict[str, Any]:
        psnr = trainer.callback_metrics.get("val/psnr")
        return {
            "epoch": f"{trainer.current_epoch + 1}/{trainer.max_epochs}",
            "loss": "-" if self._loss is None else f"{float(self._loss):.4g}",
            "psnr": "-" if psnr is None else f"{float(psnr):.2f}",
        }


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
