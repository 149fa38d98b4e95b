"""The one value that brings every choice to a generator."""

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

    `activation` is any factory of an `nn.Module`; one that has a parameter `channels` is told how many it will see.
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
