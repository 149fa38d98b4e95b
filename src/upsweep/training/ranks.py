"""The other ranks that a training has started: none of them ends unseen."""

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

PATIENCE = 5.0  # seconds in which a training may fail by itself: its own error says more


class Ranks(Callback):
    """A rank that fails or is killed ends the training, also where this process waits for it in an exchange for ever.

    Lightning's own observer kills this process then, which leaves no word of why; this one takes its place. It calls
    `last_words` with the reason and the exit code, and ends the process.
    """

    def __init__(self, last_words: Callable[[str, int], object]) -> None:
        self.last_words = last_words
        self._over = threading.Event()

    def over(self) -> None:
        """The training has ended: ranks may, too."""
        self._over.set()

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Begin to watch, once Lightning has started them."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher) and launcher.procs:
            ranks = [*launcher.procs]
            launcher.procs.clear()  # of this very list its observer thinks
            launcher.procs = ranks
            threading.Thread(target=self._watch, args=[ranks], daemon=True).start()

    def _watch(self, ranks: list[subprocess.Popen[bytes]]) -> None:
        while not self._over.wait(0.5):
            if _ended(ranks) is None or self._over.wait(PATIENCE) or (ended := _ended(ranks)) is None:
                continue  # the last: SIGTERM has come since
            why, code = ended
            code = code if code in (REQUEUE, INTERRUPTED) else 1  # what stopped it has stopped all
            try:
                self.last_words(why, code)
            finally:  # also where they cannot be written: a full disk may have ended both
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
    """The other ranks, where this process started them. Who clears the list has them end unseen."""
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
