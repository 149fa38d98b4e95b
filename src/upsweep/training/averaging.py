"""The exponential moving average of the weights: what is judged in validation, and kept beside the weights."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.networks import checkpoints
from upsweep.training.base import Training


class EMA(Callback):
    """Averages the generator's weights over its steps; validation judges the average, training goes on without it.

    After step t, average <- d average + (1 - d) weights, with d = min(decay, (1 + t) / (10 + t)), so that a short
    training does not end with the weights that it began with. Running statistics are averaged as weights are, whole
    numbers are taken over. A checkpoint holds the weights where it always does, and the average beside them.

    Several devices need not talk about it: after every step all of them have the same weights, and so each has the
    same average.

    Args:
        decay: d, from 0 (off) to below 1; 0.999 is usual.
    """

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"callbacks.ema.decay={decay} must lie in 0 (off) to below 1.")
        self.decay = decay
        self._average: dict[str, Tensor] | None = None
        self._step = 0

    def on_load_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self.decay:
            self._average = checkpoint.get(checkpoints.EMA)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average is not None:
            checkpoint[checkpoints.EMA] = self._average

    def on_train_start(self, trainer: pl.Trainer, module: Training) -> None:  # type: ignore[override]
        if self.decay:  # begin with the weights, now initialised and on their device, or with the checkpoint's average
            begin = self._average or module.generator.state_dict()
            self._average = {name: value.detach().to(module.device, copy=True) for name, value in begin.items()}
            self._step = module.iterations

    def on_train_batch_end(self, trainer: pl.Trainer, module: Training, *_: Any) -> None:  # type: ignore[override]
        if self._average is None or module.iterations == self._step:  # the batch only accumulated gradients
            return
        self._step = module.iterations
        decay = min(self.decay, (1 + self._step) / (10 + self._step))
        with torch.no_grad():
            for name, value in module.generator.state_dict().items():
                average = self._average[name]
                if average.is_floating_point():
                    average.lerp_(value, 1 - decay)
                else:
                    average.copy_(value)

    def swap(self, trainer: pl.Trainer, module: Training) -> None:
        """Put the average into the generator, or the weights back into it."""
        if self._average is not None:
            held = {name: value.clone() for name, value in module.generator.state_dict().items()}
            module.generator.load_state_dict(self._average)
            self._average = held

    on_validation_start = swap  # type: ignore[assignment]
    on_validation_end = swap  # type: ignore[assignment]  # before anything is saved: the callbacks that save run last
