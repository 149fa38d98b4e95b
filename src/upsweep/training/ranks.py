"""The other ranks that a training has started, and what becomes of it when one of them ends too soon."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from upsweep.runs.result import INTERRUPTED, REQUEUE

PATIENCE = 5.0  # seconds for the training to fail by itself, since its own error says more


class Ranks(Callback):
    """Ends the training when another rank fails or is killed, even if this process waits for that rank for ever.

    Lightning's own observer would kill this process without a result. This callback takes its place: it calls
    `last_words` with the reason and the exit code, and ends the process.
    """

    def __init__(self, last_words: Callable[[str, int], object]) -> None:
        self.last_words = last_words
        self._over = threading.Event()

    def over(self) -> None:
        """Stop watching: the training has ended, and so may its ranks."""
        self._over.set()

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Begin to watch; Lightning has started the ranks."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and launcher.procs:
            ranks = [*launcher.procs]
            launcher.procs.clear()  # Lightning's observer holds this list, and has nobody to watch any more
            launcher.procs = ranks
            threading.Thread(target=self._watch, args=[ranks], daemon=True).start()

    def _watch(self, ranks: list[subprocess.Popen[bytes]]) -> None:
        while not self._over.wait(0.5):
            if _ended(ranks) is None or self._over.wait(PATIENCE):
                continue
            if (ended := _ended(ranks)) is not None:  # SIGTERM may have cleared the list since
                self._end(ranks, *ended)

    def _end(self, ranks: list[subprocess.Popen[bytes]], why: str, code: int) -> None:
        code = code if code in (REQUEUE, INTERRUPTED) else 1  # a signal that stopped one rank has stopped all
        try:
            self.last_words(why, code)
        finally:  # a full disk may have ended the rank, and keep the words from being written
            for rank in ranks:
                rank.kill()
            os._exit(code)


def _ended(ranks: list[subprocess.Popen[bytes]]) -> tuple[str, int] | None:
    """Which rank has failed, in words, and its exit code."""
    for number, rank in enumerate(ranks, start=1):
        if code := rank.poll():
            how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"failed (exit code {code})"
            return f"rank {number} {how}", code
    return None


def ranks_of(trainer: pl.Trainer) -> list[subprocess.Popen[bytes]]:
    """The other ranks that this process has started; `Ranks` watches those in this list."""
    launcher = trainer.strategy.launcher
    return launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []


def killed_rank(trainer: pl.Trainer, seconds: float = 1.0) -> str | None:
    """Which of the other ranks a signal has killed, in words; waits that long for it to be known."""
    end = time.monotonic() + seconds
    while (ranks := ranks_of(trainer)) and time.monotonic() < end:
        if (ended := _ended(ranks)) is not None and ended[1] < 0:
            return ended[0]
        time.sleep(0.05)
    return None
