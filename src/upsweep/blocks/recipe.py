"""The one value by which every choice reaches a generator."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import Init
from upsweep.blocks.norm import Norm
from upsweep.blocks.upsampler import Upsampler


@dataclass(frozen=True)
class Recipe:
    """What a generator is built with: one value a config group.

    `activation` is any factory of an `nn.Module`; if it has a parameter named `channels`, it is told the
    number of channels it will see (PReLU with one slope a channel needs it).
    """

    init: Init
    activation: Callable[..., nn.Module]
    norm: Norm
    dropout: Dropout
    upsampler: Upsampler

    def linear(self) -> Self:
        """The same without an activation."""
        return replace(self, activation=nn.Identity)

    def plain(self) -> Self:
        """The same without norm and dropout, for a block that is the output."""
        return replace(self, norm=Norm(), dropout=Dropout())
