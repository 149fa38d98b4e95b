"""Learning-rate schedules: a factor on the rate, as a function of how far the training is.

They know no step counts, so the same file serves any length; a training that is made longer is stretched.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from upsweep.common.errors import UserError

Schedule = Callable[[float], float]
"""Progress of the training in [0, 1] -> factor on the learning rate."""


@dataclass(frozen=True)
class Warmed(ABC):
    """A schedule that may begin with a linear rise from 0; `warmup` is the share of the training that rises."""

    warmup: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UserError(f"scheduler.warmup={self.warmup} must be a share of the training, from 0 to below 1.")

    def __call__(self, progress: float) -> float:
        return progress / self.warmup if progress < self.warmup else self.risen(min(progress, 1.0))

    @abstractmethod
    def risen(self, progress: float) -> float:
        """The factor at `progress`, from `warmup` to 1."""


@dataclass(frozen=True)
class Constant(Warmed):
    """The rate as it is."""

    def risen(self, progress: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine(Warmed):
    """Half a cosine from 1 down to `final` (Loshchilov and Hutter 2017), over what follows the warm-up."""

    final: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.final <= 1:
            raise UserError(f"scheduler.final={self.final} must lie in 0 to 1.")

    def risen(self, progress: float) -> float:
        return _cosine(1.0, self.final, (progress - self.warmup) / (1 - self.warmup))


@dataclass(frozen=True)
class Step(Warmed):
    """`gamma` to the power of the milestones passed; they are shares of the training, such as 0.5."""

    milestones: Sequence[float] = (0.5, 0.75, 0.9)
    gamma: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 < m <= 1 for m in self.milestones):
            raise UserError(
                f"scheduler.milestones={list(self.milestones)} must be shares of the training, above 0 and up to 1."
            )

    def risen(self, progress: float) -> float:
        return self.gamma ** sum(progress >= m for m in self.milestones)


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up to 1, and another down to almost nothing (Smith and Topin 2018).

    `rise` is the share of the training that rises, `first` and `final` are the first and the last factor.
    """

    rise: float = 0.3
    first: float = 0.04
    final: float = 4e-6

    def __post_init__(self) -> None:
        if not (0 < self.rise < 1 and 0 <= self.first <= 1 and 0 <= self.final <= 1):
            raise UserError(
                f"scheduler.rise={self.rise} must lie between 0 and 1, scheduler.first={self.first} and "
                f"scheduler.final={self.final} in 0 to 1."
            )

    def __call__(self, progress: float) -> float:
        if progress < self.rise:
            return _cosine(self.first, 1.0, progress / self.rise)
        return _cosine(1.0, self.final, min((progress - self.rise) / (1 - self.rise), 1.0))


def _cosine(start: float, end: float, t: float) -> float:
    """From `start` at t = 0 to `end` at t = 1, by half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * t)) / 2
