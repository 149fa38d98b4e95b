"""One network, one objective: what was made is held against what was wanted."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from upsweep.common.errors import UserError
from upsweep.networks.network import Network
from upsweep.objectives.asking import Taps, asked
from upsweep.tasks.task import Compared
from upsweep.training.base import OptimizerOf, Player, Training
from upsweep.training.schedules import Schedule


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
        self._supervise = Supervision(objective, generator)
        self._make = torch.compile(self.task.make) if compiled else self.task.make

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss of a batch. Raises Diverged: it is not finite, on any device."""
        pairs: list[Compared] = self._make(self.generator, batch)
        loss = self._supervise(pairs, given=self.task.given(batch), batch=batch)
        self.watch(loss, batch_idx)
        size = len(pairs[0].wanted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        return loss


class Supervision:
    """What a generator pays for its pairs: the objective of each, and what it costs besides.

    The objective is given what it asks for, see `upsweep.objectives.asking`.
    """

    def __init__(self, objective: nn.Module, generator: Network) -> None:
        self._objective, self._asked = objective, asked(objective)
        self._taps = Taps(generator, tuple(getattr(objective, "taps", ())))

    def __call__(self, pairs: Sequence[Compared], **more: Any) -> Tensor:
        """A scalar. Raises UserError: what was made has no wanted image of its own: only an adversary can tell."""
        if not all(pair.paired for pair in pairs):
            raise UserError(
                "This generator makes images that belong to no one real image: it learns from an adversary alone "
                "(adversary=dcgan, say), or choose one that an objective can teach (generator=vae)."
            )
        known = {**more, "features": self._taps.take()}
        besides = {name: known[name] for name in self._asked}
        costs = [pair.cost for pair in pairs if pair.cost is not None]
        losses = [self._objective(pair.made, pair.wanted, **besides) for pair in pairs]
        if several := [loss for loss in losses if loss.numel() > 1]:
            shape = tuple(several[0].shape)
            raise UserError(
                f"The objective gives {shape} values, and must give one: choose its mean (reduction: mean)."
            )
        return torch.stack([*losses, *costs]).sum()
