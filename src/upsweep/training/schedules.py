"""Learning-rate schedules: a factor on the rate, as a function of how far the training is.

They know no step counts, so the same file serves any length; a training that is made longer is stretched.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from upsweep.errors import UserError


class Schedule(Protocol):
    """Progress of the training in [0, 1] -> factor on the learning rate."""

    def __call__(self, progress: float) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Constant:
    """The rate as it is."""

    def __call__(self, progress: float) -> float:
        """1, always."""
        del progress
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to `final` (Loshchilov and Hutter 2017), after a linear rise over `warmup`."""

    final: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.final <= 1 and 0 <= self.warmup < 1):
            raise UserError(
                f"scheduler.final={self.final} must lie in 0 to 1, scheduler.warmup={self.warmup} in 0 to below 1."
            )

    def __call__(self, progress: float) -> float:
        """The factor at `progress`."""
        if progress < self.warmup:
            return progress / self.warmup
        t = min((progress - self.warmup) / (1 - self.warmup), 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * t)) / 2


@dataclass(frozen=True)
class Step:
    """`gamma` to the power of the milestones passed; they are shares of the training, such as 0.5."""

    milestones: Sequence[float] = (0.5, 0.75, 0.9)
    gamma: float = 0.5

    def __post_init__(self) -> None:
        if any(not 0 < m <= 1 for m in self.milestones):
            raise UserError(
                f"scheduler.milestones={list(self.milestones)} must be shares of the training, above 0 and up to 1."
            )

    def __call__(self, progress: float) -> float:
        """The factor at `progress`."""
        return self.gamma ** sum(progress >= m for m in self.milestones)
