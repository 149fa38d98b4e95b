"""Checkpoints that are never half, the best and the last; and what becomes of a training that SIGTERM ends."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from upsweep.common.disks import full_disk
from upsweep.networks import checkpoints
from upsweep.runs.layout import BEST, FRESH, LAST, PREVIOUS
from upsweep.runs.result import REQUEUE
from upsweep.training.base import Best, Training
from upsweep.training.ranks import ranks_of


def no_room(error: BaseException, folder: Path) -> str | None:
    """What to tell of a training that a full disk has ended, whoever met it first; None of any other."""
    full = full_disk(error, folder)
    return full and f"{full}: free some space, then go on with resume={folder}; what was saved before is whole."


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside and renames, and reads plain values only (Lightning's own writes through the temporary folder)."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.save(checkpoint, path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises UserError: it is missing or unreadable."""
        return checkpoints.read(Path(path))


class SaveBest(Checkpoint):
    """Saves a run's `best.ckpt` at every epoch that is the best so far by the task's headline: the result's."""

    def __init__(self, folder: str | Path) -> None:
        self.file = Path(folder) / BEST
        self._saved: Best | None = None

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        self._saved = module.best

    def on_validation_end(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if module.best is not self._saved and trainer.state.fn == "fit":  # an epoch may have several validations
            self._saved = module.best
            trainer.save_checkpoint(self.file, weights_only=False)


class SaveLast(Checkpoint):
    """Saves a run's `last.ckpt` at the end of every epoch, and keeps the one before as `previous.ckpt`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Save. A kill between the two renames leaves `previous.ckpt`, and `fresh.ckpt`, which is newer."""
        last, fresh = self.folder / LAST, self.folder / FRESH
        trainer.save_checkpoint(fresh, weights_only=False)
        if trainer.is_global_zero:
            if last.exists():
                last.replace(self.folder / PREVIOUS)
            fresh.replace(last)


STUCK = 5.0  # seconds


class Preemption(Callback):
    """SIGTERM ends a training where it is, on every rank: the last epoch's checkpoint is what it goes on from.

    Lightning's own handler tells the other ranks by a broadcast, in the midst of whatever they exchange at that moment:
    two ranks of gloo may then wait for each other for ever. Ours takes its place, and is there before it, too. Where
    the training does not end within `STUCK` seconds, `last_words` are called and the process is ended: an exchange
    that was under way may never return.
    """

    def __init__(self, last_words: Callable[[], object] = lambda: None) -> None:
        self.last_words = last_words
        self.stuck: threading.Timer | None = None

    def heard(self) -> None:
        """The training has ended by itself."""
        if self.stuck is not None:
            self.stuck.cancel()

    def _give_up(self) -> NoReturn:
        try:
            self.last_words()
        finally:  # also where they cannot be written
            os._exit(REQUEUE)

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Take the place of Lightning's handler, which it registers after this hook and takes back at the end."""

        def end(*_: object) -> NoReturn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ranks = ranks_of(trainer)
            for rank in ranks:
                rank.terminate()
            ranks.clear()  # or else their end would be taken for a failure
            self.stuck = threading.Timer(STUCK, self._give_up)
            self.stuck.daemon = True
            self.stuck.start()
            raise SIGTERMException

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)
        trainer._signal_connector._sigterm_notifier_fn = end  # type: ignore[assignment]
