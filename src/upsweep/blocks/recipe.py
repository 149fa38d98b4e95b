"""The one value that brings every choice to a generator."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from torch import nn

from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import Init
from upsweep.blocks.norm import Norm
from upsweep.blocks.upsampler import Upsampler
from upsweep.common.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """What a generator is built with: one value a config group.

    `activation` is any factory of an `nn.Module`; one that has a parameter `channels` is told how many it will see.
    Raises UserError: it is a module, which no layer would have to itself.
    """

    init: Init
    activation: Callable[..., nn.Module]
    norm: Norm
    dropout: Dropout
    upsampler: Upsampler

    def __post_init__(self) -> None:
        if isinstance(self.activation, nn.Module):
            kind = type(self.activation).__name__
            raise UserError(f"activation={kind} is made already: say `_partial_: true`, and every layer has its own.")

    def linear(self) -> Self:
        """The same without an activation."""
        return replace(self, activation=nn.Identity)

    def plain(self) -> Self:
        """The same without norm and dropout, for a block that is the output."""
        return replace(self, norm=Norm(), dropout=Dropout())
