"""One network, one objective: what was made is held against what was wanted."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from upsweep.networks.network import Network
from upsweep.tasks.task import Compared
from upsweep.training.base import Diverged, OptimizerOf, Player, Training
from upsweep.training.schedules import Schedule

# How often all devices ask each other whether the loss is still a number: rare enough to cost nothing.
CHECK_EVERY = 20


class Supervised(Training):
    """Trains the generator, its only player, on what its task compares.

    Args:
        generator: the network that makes images.
        objective, optimizer, schedule, factors: see `Player`.
        compiled: train through torch.compile; validation, whose sizes differ, does without it.
        others: see `Training`.

    Logs train/loss, the mean over all devices.
    """

    def __init__(
        self,
        *,
        generator: Network,
        objective: nn.Module,
        optimizer: OptimizerOf,
        schedule: Schedule,
        factors: Mapping[str, float] | None = None,
        compiled: bool = False,
        **others: Any,
    ) -> None:
        player = Player(generator, objective, optimizer, schedule, factors or {})
        super().__init__(generator=generator, players={"generator": player}, **others)
        self.objective, self.compiled = objective, compiled
        self._make = self.task.make
        self._finite: Tensor | None = None

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.compiled:
            self._make = torch.compile(self.task.make)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            Diverged: the loss is not finite, on any device.
        """
        pairs: list[Compared] = self._make(self.generator, batch)
        loss = torch.stack([self.objective(made, wanted) for made, wanted in pairs]).sum()
        finite = torch.isfinite(loss.detach())
        self._finite = finite if self._finite is None else self._finite & finite
        if (batch_idx + 1) % CHECK_EVERY == 0:
            self._check_finite()
        size = len(pairs[0].wanted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        super().on_train_epoch_end()

    def _check_finite(self) -> None:
        finite = self._finite is None or bool(self._finite)
        self._finite = None
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise Diverged(f"the loss was not finite in epoch {self.current_epoch} (step {self.iterations})")
