"""Checkpoints that are never half, and the newest that can be read."""

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from upsweep import checkpoints
from upsweep.errors import UserError

log = logging.getLogger("upsweep")


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
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
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
