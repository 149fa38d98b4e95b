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
    """Trains the generator, its only player (see `Player`), on what its task compares; `others`: see `Training`.

    Through torch.compile if `compiled`, but for validation, whose sizes differ. Logs train/loss, the mean of all ranks.
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
        self._make = torch.compile(self.task.make) if compiled else self.task.make
        self._finite = torch.tensor(True)  # whether all losses since the last check were

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch. Raises Diverged: it is not finite, on any device."""
        pairs: list[Compared] = self._make(self.generator, batch)
        loss = torch.stack([self.objective(made, wanted) for made, wanted in pairs]).sum()
        self._finite = self._finite & torch.isfinite(loss.detach())
        if (batch_idx + 1) % CHECK_EVERY == 0:
            self._check_finite()
        size = len(pairs[0].wanted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self._check_finite()
        super().on_train_epoch_end()

    def _check_finite(self) -> None:
        finite, self._finite = bool(self._finite), torch.tensor(True)
        if not self.trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise Diverged(f"the loss was not finite in epoch {self.current_epoch} (step {self.iterations})")
