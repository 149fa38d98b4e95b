"""What a run leaves on disk for its report, whatever its logger: a line an epoch, and one crop of a picture."""

import csv
import io
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from upsweep.data.modules import EvalImage
from upsweep.imaging.files import Picture, write_image
from upsweep.sweeps.results import write_by_rename
from upsweep.training.module import SuperResolution
from upsweep.training.pictures import comparison


@dataclass(frozen=True)
class Epoch:
    """A line of history.csv: `epoch` counts from 1, `seconds` are of training and validation since the start.

    `loss` is the mean training loss, `psnr` (dB) and `ssim` are those of the validation; None: there was none.
    """

    epoch: int
    step: int
    seconds: float
    loss: float | None
    psnr: float | None
    ssim: float | None


class History(Callback):
    """Keeps `history.csv` in a run's folder, a line an epoch; a run that goes on takes up its lines.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.file = Path(folder) / "history.csv"
        self._epochs: list[Epoch] = []
        self._started = time.perf_counter()
        self._before = 0.0
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, where the checkpoint left it."""
        kept = _read(self.file) if trainer.global_step else []
        self._epochs = [line for line in kept if line.step <= trainer.global_step]
        self._before = self._epochs[-1].seconds if self._epochs else 0.0
        self._started = time.perf_counter()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that there are new figures; where nothing is trained, they are all there is."""
        self._validated = True
        if trainer.state.fn != TrainerFn.FITTING:
            self._append(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's line."""
        self._append(trainer)

    def _append(self, trainer: pl.Trainer) -> None:
        figures = trainer.callback_metrics
        judged, self._validated = self._validated, False

        def figure(name: str, known: bool = True) -> float | None:
            return float(figures[name]) if known and name in figures else None

        self._epochs.append(
            Epoch(
                epoch=trainer.current_epoch + 1,
                step=trainer.global_step,
                seconds=round(self._before + time.perf_counter() - self._started, 3),
                loss=figure("train/loss"),
                psnr=figure("val/psnr", judged),
                ssim=figure("val/ssim", judged),
            )
        )
        if trainer.is_global_zero:
            text = io.StringIO()
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(field.name for field in fields(Epoch))
            rows.writerows(map(astuple, self._epochs))
            write_by_rename(self.file, text.getvalue())


def _read(file: Path) -> list[Epoch]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return [
            Epoch(
                int(row["epoch"]),
                int(row["step"]),
                float(row["seconds"]),
                *(float(row[name]) if row[name] else None for name in ("loss", "psnr", "ssim")),
            )
            for row in csv.DictReader(lines)
        ]


class Crop(Callback):
    """Keeps `crop.png` in a run's folder: bicubic | SR | HR where the first validation image has the most detail.

    The place depends on HR alone, so that all runs on the same data show the same one. SR is that of the best epoch.

    Args:
        folder: of the run.
        size: of the crop, in HR pixels.
    """

    def __init__(self, folder: str | Path, size: int = 96) -> None:
        self.file, self.size = Path(folder) / "crop.png", size
        self._latest: tuple[EvalImage, Tensor] | None = None
        self._best = -float("inf")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Take up what was best before."""
        self._best = pl_module.best.get("psnr", self._best)

    def on_validation_batch_end(  # type: ignore[override]  # Lightning's batch is Any
        self,
        trainer: pl.Trainer,
        pl_module: SuperResolution,
        outputs: Tensor,
        batch: EvalImage,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the first image until its epoch is judged."""
        if batch_idx == 0 and trainer.is_global_zero:
            self._latest = batch, outputs

    def on_validation_end(self, trainer: pl.Trainer, pl_module: SuperResolution) -> None:  # type: ignore[override]
        """Write the crop, if no epoch before was as good."""
        latest, self._latest = self._latest, None
        psnr = pl_module.best.get("psnr", -float("inf"))
        if latest is None or psnr <= self._best:
            return
        self._best = psnr
        batch, sr = latest
        scale = pl_module.generator.scale
        panel = comparison(
            batch.name, batch.lr, sr, batch.hr, scale, rgb_lr=batch.rgb_lr, rgb_hr=batch.rgb_hr, size=self.size
        )
        write_image(self.file, Picture(panel.pixels))
