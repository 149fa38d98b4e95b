"""A training that ends when its core-minutes are spent, however many steps they were."""

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from upsweep.common.errors import UserError
from upsweep.training.base import Training


class Budget(Callback):
    """Ends a training when it has spent `core_minutes`, unless its steps are done before.

    CPU time counts, that of all threads of the process: a busy machine shortens no training. The batches count, with
    cutting them (where `data.num_workers` is 0) and what callbacks do after a step. Validations, checkpoints and what
    comes before the first batch do not. A checkpoint keeps what is spent, so that a resumed training has the rest. Of
    several ranks, the first one's time counts. On a GPU the time is that of its host, which says little.

    A schedule of ours passes whole through the budget, a step behind it (see `scheduled`). A scheduler of torch knows
    nothing of it, and is cut off. The number of steps hangs on the machine, and so do the weights: the same seed and
    command do not give them again.

    Raises:
        UserError: `core_minutes` is no number above 0.
    """

    def __init__(self, core_minutes: float) -> None:
        number = isinstance(core_minutes, int | float) and not isinstance(core_minutes, bool)
        if not number or not 0 < core_minutes < math.inf:
            raise UserError(f"callbacks.budget.core_minutes={core_minutes} must be a number above 0.")
        self.core_minutes = core_minutes
        self.seconds = 0.0  # of CPU time that are spent
        self.reason: str | None = None  # why the training ended, once this ended it
        self._since: float | None = None  # the CPU time up to which they are counted; None: the clock stands still

    @property
    def spent(self) -> float:
        """The share that is spent, in [0, 1]."""
        return min(1.0, self.seconds / (60 * self.core_minutes))

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.reason = state_dict["seconds"], state_dict["reason"]

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        """Train no more, where a resumed training has spent it all."""
        self._tell(trainer, module)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if self._since is None:
            self._since = time.process_time()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Training, *_: Any) -> None:  # type: ignore[override]
        now = time.process_time()
        self.seconds += now - (now if self._since is None else self._since)
        self._since = now
        # Every rank has its own time: they would learn at different rates, and stop at different steps.
        self.seconds = trainer.strategy.broadcast(self.seconds)
        self._tell(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._since = None

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._since = None

    def _tell(self, trainer: pl.Trainer, module: Training) -> None:
        module.spent, self.reason = self.spent, None
        if self.spent == 1 and module.iterations < module.total:
            trainer.should_stop = True  # the last weights are then judged: Training.on_train_batch_end
            steps = "step" if module.iterations == 1 else "steps"
            self.reason = (
                f"ended by callbacks.budget.core_minutes={self.core_minutes:g} after {module.iterations:,} {steps}"
            )
