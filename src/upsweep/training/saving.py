"""Checkpoints that are never half, and the newest that can be read."""

import errno
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from pytorch_lightning.utilities.exceptions import SIGTERMException

from upsweep import checkpoints
from upsweep.errors import UserError
from upsweep.sweeps.results import REQUEUE

log = logging.getLogger("upsweep")


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def no_room(error: BaseException, folder: Path) -> str | None:
    """What to tell of an error that comes of a full disk, whoever met it first; None of any other."""
    link: BaseException | None = error
    while link is not None and not (isinstance(link, OSError) and link.errno in FULL):
        link = link.__cause__ or link.__context__
    if link is None:
        return None
    return (
        f"{folder} could not be written to ({os.strerror(link.errno or 0)}): free some space, then go on with "
        f"resume={folder}; the last checkpoint is whole."
    )


class WholeCheckpoints(CheckpointIO):
    """Writes beside and renames, and reads plain values only (Lightning's own writes through the temporary folder)."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`, whole or not at all.

        Raises:
            UserError: the disk is full, or a limit on the file's size is reached.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            checkpoints.save(checkpoint, path)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise UserError(
                f"{path} could not be written ({error.strerror}): free some space, then go on with "
                f"resume={path.parent.parent}; the checkpoint before it is whole."
            ) from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read plain values and tensors from `path`, onto the CPU.

        Raises:
            UserError: missing or unreadable.
        """
        return checkpoints.read(Path(path))

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete `path`, if it is there."""
        Path(path).unlink(missing_ok=True)


class SaveLast(Checkpoint):
    """Saves `last.ckpt` at the end of every epoch, and keeps the one before as `previous.ckpt`.

    Args:
        folder: of the checkpoints.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save. A kill between the two renames leaves `previous.ckpt` alone, which `newest` takes."""
        last = self.folder / "last.ckpt"
        fresh = self.folder / "fresh.ckpt"
        trainer.save_checkpoint(fresh, weights_only=False)
        if trainer.is_global_zero:
            if last.exists():
                last.replace(self.folder / "previous.ckpt")
            fresh.replace(last)


STUCK = 5.0  # seconds


class Preemption(Callback):
    """SIGTERM ends a training where it is, on every rank: the last epoch's checkpoint is what it goes on from.

    Lightning's own handler tells the other ranks by a broadcast, in the midst of whatever they exchange at that moment:
    two ranks of gloo may then wait for each other for ever. Ours takes its place, and is there before it, too.

    Args:
        last_words: what to do where the training does not end within `STUCK` seconds, before the process is ended: an
            exchange that was under way may never return.
    """

    def __init__(self, last_words: Callable[[], object] | None = None) -> None:
        self.last_words = last_words
        self.stuck: threading.Timer | None = None

    def heard(self) -> None:
        """The training has ended by itself."""
        if self.stuck is not None:
            self.stuck.cancel()

    def _give_up(self) -> NoReturn:
        if self.last_words is not None:
            self.last_words()
        os._exit(REQUEUE)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take the place of Lightning's handler, which it registers after this hook and takes back at the end."""

        def end(*_: object) -> NoReturn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ranks = ranks_of(trainer)
            for rank in ranks:
                rank.terminate()
            ranks.clear()  # Lightning, which watches them, kills this process when one of them ends
            self.stuck = threading.Timer(STUCK, self._give_up)
            self.stuck.daemon = True
            self.stuck.start()
            raise SIGTERMException

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)
        trainer._signal_connector._sigterm_notifier_fn = end  # type: ignore[assignment]


def ranks_of(trainer: pl.Trainer) -> list[subprocess.Popen[bytes]]:
    """The other ranks, where this process started them: Lightning's own list."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []


def killed_rank(trainer: pl.Trainer, seconds: float = 1.0) -> str | None:
    """Which of the other ranks a signal has killed, in words; waits that long for it to be known."""
    end = time.monotonic() + seconds
    while ranks := ranks_of(trainer):
        for number, rank in enumerate(ranks, start=1):
            if (code := rank.poll()) is not None and code < 0:
                return f"rank {number} was killed ({signal.Signals(-code).name})"
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return None


def newest(folder: Path) -> Path | None:
    """The newest checkpoint in `folder` from which a training can go on, or None; says which could not be read."""
    for name in ("fresh.ckpt", "last.ckpt", "previous.ckpt"):
        path = folder / name
        if not path.is_file():
            continue
        try:
            checkpoints.read(path)
        except UserError as error:
            log.warning("%s Falling back to the checkpoint before it.", error)
        else:
            return path
    return None
