"""What happens beside the training: an average of the weights, pictures, throughput, how far it is, an early end."""

import logging
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from upsweep.common.checks import at_least
from upsweep.common.errors import UserError
from upsweep.common.names import file_names
from upsweep.common.progress import Bar, clock
from upsweep.imaging.files import Picture
from upsweep.imaging.lettering import labelled
from upsweep.imaging.tiles import Cell, Panel
from upsweep.imaging.writing import write_image
from upsweep.metrics.checkerboard import checkerboard, of_samples, portrait, response
from upsweep.networks import checkpoints
from upsweep.networks.network import Network
from upsweep.networks.synthesisers.synthesiser import Synthesiser, samples
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.runs.history import VAL
from upsweep.runs.layout import PICTURES
from upsweep.runs.progress import Progress
from upsweep.tracking.run_log import RunLog
from upsweep.training.accessory import Accessory
from upsweep.training.base import Best, Training

AVERAGED = 512  # samples
TABLE = "images"  # the key of the table of pictures
epochs = logging.getLogger("upsweep.epochs")  # goes into the run's log file alone: the terminal has a bar


class EMA(Callback):
    """Averages the generator's weights over its steps; validation judges the average, training goes on without it.

    After step t, average <- d average + (1 - d) weights, with d = min(decay, (1 + t) / (10 + t)), so that a short
    training does not end with the weights that it began with. Running statistics are averaged as weights are, whole
    numbers are taken over. A checkpoint holds the weights where it always does, and the average beside them.

    Several devices need not talk about it: after every step all of them have the same weights, and so each has the
    same average. `decay` lies in 0 (off) to below 1; 0.999 is usual.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay} must lie in 0 (off) to below 1.")
        self.decay = decay
        self._average: dict[str, Tensor] | None = None
        self._weights: dict[str, Tensor] = {}  # the generator's own: whoever changes them does so in place
        self._step = 0

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.decay:
            self._average = checkpoint.get(checkpoints.EMA)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average is not None:
            checkpoint[checkpoints.EMA] = self._average

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if self.decay:  # begin with the weights, now initialised and on their device, or with the checkpoint's average
            self._weights = module.generator.state_dict()
            begin = self._average or self._weights
            self._average = {name: value.detach().to(module.device, copy=True) for name, value in begin.items()}
            self._step = module.iterations

    def on_train_batch_end(self, trainer: pl.Trainer, module: Training, *_: Any) -> None:  # type: ignore[override]
        if self._average is None or module.iterations == self._step:  # the batch only accumulated gradients
            return
        self._step = module.iterations
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        average, weights = self._average, self._weights
        floating = [name for name, value in average.items() if value.is_floating_point()]
        update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch's
        update([average[name] for name in floating], [weights[name] for name in floating], None)
        for name in average.keys() - floating:
            average[name].copy_(weights[name])

    def swap(self, trainer: pl.Trainer, module: Training) -> None:
        """Put the average into the generator, or the weights back into it."""
        if self._average is not None:
            held = {name: value.clone() for name, value in module.generator.state_dict().items()}
            module.generator.load_state_dict(self._average)
            self._average = held

    # At the end before anything is saved: Lightning runs the callbacks that save last.
    on_validation_start = on_validation_end = swap  # type: ignore[assignment]


@contextmanager
def averaged(trainer: pl.Trainer, module: Training) -> Iterator[None]:
    """Meanwhile the generator has its averaged weights, where a callback averages them."""
    average = next((each for each in trainer.callbacks if isinstance(each, EMA)), EMA(0.0))  # type: ignore[attr-defined]
    average.swap(trainer, module)
    try:
        yield
    finally:
        average.swap(trainer, module)


class Pictures(Accessory):
    """The task's panels of the first `count` validation batches, into the log and the pictures/ folder of the run.

    They are made after the first epoch, after each quarter of the training, and so after the last. Then come the
    task's last panels, if it has any, and a table: a row for each of these batches, at the best epoch that this process
    has seen, or else at the last; or the task's last rows, if it has any.
    """

    def __init__(self, folder: str | Path, count: int) -> None:
        self.folder, self.count = Path(folder) / PICTURES, count
        self._panels: list[Panel] = []
        self._rows: list[dict[str, Cell]] = []  # of the validation that is under way
        self._table: list[dict[str, Cell]] = []
        self._best: Best | None = None
        self._of_best = False  # whether the table is that of the best epoch

    def on_fit_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._best = module.best

    def _due(self, trainer: pl.Trainer) -> bool:
        epoch, last = trainer.current_epoch, trainer.max_epochs or 1
        return trainer.is_global_zero and (epoch == 0 or 4 * (epoch + 1) // last > 4 * epoch // last)

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: pl.Trainer, module: Training, outputs: Tensor, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if batch_idx < self.count and self._due(trainer) and (panel := module.task.panel(batch, outputs)) is not None:
            self._panels.append(panel)
        told = batch_idx < self.count and trainer.is_global_zero and _takers(trainer)
        if told and (row := module.task.row(batch, outputs)):
            self._rows.append({**row, "epoch": trainer.current_epoch + 1})

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        rows, self._rows = self._rows, []
        improved, self._best = module.best is not self._best, module.best
        if improved or not self._of_best:
            self._table, self._of_best = rows, improved
        if trainer.state.fn != TrainerFn.FITTING:  # nothing is trained
            self._tell(trainer)

    def _tell(self, trainer: pl.Trainer) -> None:
        for log in _takers(trainer) if self._table else []:
            log.log_table(TABLE, self._table)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        panels, self._panels = self._panels, []
        if panels:
            keep(panels, self.folder, trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if trainer.is_global_zero:
            with averaged(trainer, module):
                panels = [*module.task.last_panels(module.generator)]
                rows = [*module.task.last_rows(module.generator)] if _takers(trainer) else []
            if panels:
                keep(panels, self.folder, trainer, module)
            self._table = rows or self._table
            self._tell(trainer)


def _takers(trainer: pl.Trainer) -> list[RunLog]:
    """The logs that take pictures and tables."""
    return [log for log in trainer.loggers if isinstance(log, RunLog)]


def keep(panels: list[Panel], folder: Path, trainer: pl.Trainer, module: Training) -> None:
    """Panels into a folder, and into every log that takes pictures, under names that are safe for both."""
    names = file_names(panel.name for panel in panels)
    panels = [panel._replace(name=names[panel.name]) for panel in panels]
    folder.mkdir(exist_ok=True)
    for panel in panels:
        write_image(folder / f"{panel.name}.png", Picture(labelled(panel.pixels, panel.labels or [panel.caption])))
    for log in _takers(trainer):
        log.log_pictures("pictures", panels, module.iterations)


class Pattern(NamedTuple):
    """An image (C, H, W), its checkerboard's energy, the scale by whose phases that is taken, and what it shows."""

    image: Tensor
    energy: float
    scale: int
    shows: str


def pattern_of(network: Network) -> Pattern | None:
    """An upscaler's response to a constant image, or the mean of a synthesiser's samples; None of any other network."""
    if isinstance(network, Upscaler):
        image = response(network, network.channels).cpu()
        return Pattern(image, checkerboard(image, network.scale), network.scale, "response to a constant image")
    if isinstance(network, Synthesiser):
        latents = torch.randn(AVERAGED, network.latent, generator=torch.Generator().manual_seed(0))
        images = samples(network, latents)
        shows = f"mean of {AVERAGED} samples"
        return Pattern(images.mean(0), of_samples(images, network.stride), network.stride, shows)
    return None


class Checkerboard(Accessory):
    """Logs `checkerboard`, by what a pattern differs by phase (see `pattern_of`), at a training's start and end.

    Both pictures go into the log and the run's pictures/ folder. See `upsweep.metrics.checkerboard`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / PICTURES

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if module.iterations == 0:  # a run that goes on has had its start
            self._measure(trainer, module, "start")

    def on_train_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        with averaged(trainer, module):
            self._measure(trainer, module, "end")

    def _measure(self, trainer: pl.Trainer, module: Training, when: str) -> None:
        if not trainer.is_global_zero or (pattern := pattern_of(module.generator)) is None:
            return
        grey = portrait(pattern.image, pattern.scale)
        pixels = np.ascontiguousarray(np.broadcast_to(grey, (*grey.shape[:2], 3)))
        panel = Panel(f"checkerboard_{when}", pixels, f"{pattern.shows} at the {when}: {pattern.energy:.2g}")
        for log in trainer.loggers:
            log.log_metrics({"checkerboard": pattern.energy}, step=module.iterations)
        keep([panel], self.folder, trainer, module)


class Throughput(Accessory):
    """Logs the seconds of each training epoch and the samples a second, over all devices."""

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        """In the midst of an epoch that was cut, no epoch starts."""
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._started, self._before = time.perf_counter(), module.cut

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._paused = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if hasattr(self, "_started"):  # it is not where nothing is trained
            self._started += time.perf_counter() - self._paused

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        seconds = time.perf_counter() - self._started
        module.log("time/epoch_seconds", seconds)
        size = getattr(trainer.train_dataloader, "batch_size", None)
        if size is not None:  # not every loader knows it
            # fewer than an epoch has, where something has cut it
            batches = trainer.fit_loop.epoch_loop.batch_idx + 1 - self._before
            samples = batches * size * trainer.world_size
            module.log("time/images_per_second", samples / seconds)


class ShowProgress(Accessory):
    """How far the training is: a bar on a terminal, a line an epoch elsewhere, and progress.json for a sweep's table.

    The bar moves and progress.json is written once in `every` seconds at most; `quiet`: neither bar nor lines.
    """

    def __init__(self, folder: str | Path, every: float = 0.5, quiet: bool = False) -> None:
        self.folder, self.every, self.quiet = Path(folder), every, quiet
        self._bar: Bar | None = None
        self._loss: Tensor | None = None  # of the latest batch, left on its device
        self._written = -math.inf

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if trainer.is_global_zero:
            self._started_at, self._first = time.time(), module.progress
            said = partial(self._said, trainer, module)
            self._bar = Bar(1.0, shown=not self.quiet, lines=False, stays=True, said=said).__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Training, outputs: Mapping[str, Tensor], *_: Any) -> None:  # type: ignore[override]
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
        self.give_up()

    def give_up(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.__exit__()
            self._bar = None

    def _show(self, bar: Bar, trainer: pl.Trainer, module: Training) -> None:
        self._written = time.monotonic()
        bar.update(module.progress, doing=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")
        Progress(
            state="training",
            epoch=trainer.current_epoch,
            epochs=trainer.max_epochs or 0,
            step=module.iterations,
            steps=module.expected,
            figures=module.last,
            started_at=self._started_at,
            seconds_left=self._seconds_left(module),
        ).write(self.folder)

    def _seconds_left(self, module: Training) -> float | None:
        done = module.progress - self._first
        return (time.time() - self._started_at) / done * (1 - module.progress) if done > 0 else None

    def _said(self, trainer: pl.Trainer, module: Training, *_: float | None) -> str:
        headline, loss = module.task.headline, "-" if self._loss is None else f"{float(self._loss):.4g}"
        return f"loss {loss}  {headline.title} {headline.format(module.last.get(headline.name))}"


class EarlyStopping(pl.callbacks.EarlyStopping):
    """Lightning's, of one of a task's figures: it knows which way is better.

    It waits `patience` validations, which are epochs unless the trainer is told otherwise, for an improvement of at
    least `min_delta`, in the figure's unit. The figure is the one that ranks, where none is named. Raises UserError:
    `patience` is below 1.
    """

    def __init__(self, figure: str | None = None, patience: int = 5, min_delta: float = 0.0) -> None:
        at_least("callbacks.early_stopping", 1, patience=patience)
        super().__init__(f"{VAL}{figure}", min_delta, patience)
        self.named = figure
        self.reason: str | None = None  # why it ended the training, once it has

    def setup(self, trainer: pl.Trainer, module: Training, stage: str) -> None:  # type: ignore[override]
        """Find the figure. Raises UserError: the task has no such one."""
        super().setup(trainer, module, stage)
        known = {figure.name: figure for figure in module.task.figures}
        if (self.named or module.task.headline.name) not in known:
            raise UserError(f"callbacks.early_stopping.figure={self.named} must be one of {', '.join(known)}.")
        self.figure = known[self.named or module.task.headline.name]
        self.monitor, self.mode = f"{VAL}{self.figure.name}", "max" if self.figure.better == "higher" else "min"
        self.min_delta = math.copysign(self.min_delta, 1 if self.mode == "max" else -1)
        self.forget()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on waiting, with the patience of now."""
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_train_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if self.wait_count < self.patience or module.iterations >= module.total:  # or it ended by itself
            return
        when, each = ("after", "epoch") if self._check_on_train_epoch_end else ("in", "validation")
        by = f" by {self.figure.text(abs(self.min_delta))}" if self.min_delta else ""
        best = self.figure.text(float(self.best_score))
        if module.best is not None and module.task.headline.name == self.figure.name:
            best = f"{self.figure.text(module.best.figures[self.figure.name])}, in epoch {module.best.epoch + 1}"
        self.reason = (
            f"stopped early, {when} epoch {self.stopped_epoch + 1}: {self.figure.title} has not improved{by} for "
            f"{self.wait_count} {each if self.wait_count == 1 else f'{each}s'}; the best was {best}"
        )

    def forget(self) -> None:
        """Wait as from the start: what was best so far does not count."""
        self.wait_count, self.best_score = 0, torch.tensor(-math.inf if self.mode == "max" else math.inf)
