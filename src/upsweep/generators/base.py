"""What every generator is: an `nn.Module` that enlarges images by a whole factor."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from upsweep.blocks.recipe import Recipe
from upsweep.errors import UserError
from upsweep.imaging.resize import enlarge

Skip = Literal["bicubic", "none"]


class Generator(nn.Module, ABC):
    """Enlarges images `scale` times: `forward` maps (N, C, H, W) to (N, C, s H, s W), values around [0, 1].

    Args:
        scale: the factor s; one of the class's `scales`.
        channels: C, 1 (the Y plane) or 3 (RGB).
        skip: what is added to the network's output: the bicubic enlargement of its input, or nothing.

    A generator is one file: derive, build the layers in `__init__` from the recipe, end it with
    `self.initialise(recipe, last=...)`, and write `body`.

    Raises:
        UserError: the generator cannot make this scale or number of channels.
    """

    scales: tuple[int, ...] = (2, 3, 4, 8)

    def __init__(self, scale: int, channels: int, skip: Skip = "none") -> None:
        super().__init__()
        name = type(self).__name__
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise UserError(f"{name} cannot enlarge scale={scale} times: choose one of {known}.")
        if channels not in (1, 3):
            raise UserError(f"generator.channels={channels} must be 1 (the Y plane) or 3 (RGB).")
        if skip not in get_args(Skip):
            raise UserError(f"generator.skip={skip} must be one of {', '.join(get_args(Skip))}.")
        self.scale, self.channels, self.skip = scale, channels, skip

    def initialise(self, recipe: Recipe, last: nn.Module | None = None) -> None:
        """Set all weights by the recipe's rule; `last` is, or holds, the last layer."""
        recipe.init(self, recipe.activation, last)

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """The network itself, (N, C, H, W) -> (N, C, s H, s W)."""

    def forward(self, x: Tensor) -> Tensor:
        """LR images (N, C, H, W) in [0, 1] -> SR images (N, C, s H, s W), not clipped."""
        y = self.body(x)
        return y + enlarge(x, self.scale) if self.skip == "bicubic" else y


@dataclass(frozen=True)
class Cost:
    """What a generator costs: its weights, and its multiply-adds for each pixel of the output."""

    parameters: int
    macs_per_pixel: float


@torch.no_grad()
def cost(generator: Generator, side: int = 32) -> Cost:
    """Count parameters, and the multiply-adds of convolutions (the bicubic skip's included) on a side x side input."""
    parameter = next(generator.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    x = torch.zeros(1, generator.channels, side, side, device=device)
    training = generator.training
    generator.eval()
    with FlopCounterMode(display=False) as counter:
        y = generator(x)
    generator.train(training)
    parameters = sum(p.numel() for p in generator.parameters())
    return Cost(parameters, counter.get_total_flops() / 2 / (y.shape[-2] * y.shape[-1]))
