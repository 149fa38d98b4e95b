"""Normalisation of a block's features."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from upsweep.errors import UserError


@dataclass(frozen=True)
class Norm:
    """No normalisation; the others derive from it.

    Attributes:
        place: before the activation (Ioffe and Szegedy 2015), or after it.
    """

    place: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        if self.place not in ("before", "after"):
            raise UserError(f"norm.place={self.place} must be before or after (the activation).")

    def layer(self, channels: int) -> nn.Module | None:  # noqa: ARG002 - for those that derive
        """The layer for features of shape (N, channels, H, W), or None where there is nothing to add."""
        return None


@dataclass(frozen=True)
class BatchNorm(Norm):
    """Batch normalisation (Ioffe and Szegedy 2015): statistics over N, H and W, running ones in evaluation."""

    momentum: float = 0.1
    eps: float = 1e-5

    def layer(self, channels: int) -> nn.Module:
        """A `BatchNorm2d` over `channels`."""
        return nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum)
