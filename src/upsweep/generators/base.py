"""What every generator is: an `nn.Module` that enlarges images by a whole factor."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from upsweep.blocks.deconv import run_as
from upsweep.blocks.init import Init
from upsweep.blocks.recipe import Recipe
from upsweep.errors import UserError
from upsweep.imaging.resize import enlarge

Skip = Literal["bicubic", "none"]

# The strides by which those generators that enlarge features step by step reach each scale.
STRIDES: dict[int, tuple[int, ...]] = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}


class Generator(nn.Module, ABC):
    """Enlarges images `scale` times: `forward` maps (N, C, H, W) to (N, C, s H, s W), values around [0, 1].

    Args:
        scale: the factor s; one of the class's `scales`.
        channels: C, 1 (the Y plane) or 3 (RGB).
        skip: what is added to the network's output: the bicubic enlargement of its input, or nothing.
        centre: what is taken off the network's input, but not off the skip's; beyond the border the network then
            sees this grey, and not black.

    Attributes:
        stride: moving the input by this many LR pixels only moves the output; more than 1 where a network pools.

    A generator is one file: derive, build the layers in `__init__` from the recipe, end it with
    `self.initialise(recipe, last=...)`, and write `body`.

    Raises:
        UserError: the generator cannot make this scale or number of channels.
    """

    scales: tuple[int, ...] = (2, 3, 4, 8)
    stride: int = 1

    def __init__(self, scale: int, channels: int, skip: Skip = "none", centre: float = 0.0) -> None:
        super().__init__()
        name = type(self).__name__
        if scale not in self.scales:
            known = ", ".join(map(str, self.scales))
            raise UserError(f"{name} cannot enlarge scale={scale} times: choose one of {known}.")
        if channels not in (1, 3):
            raise UserError(f"generator.channels={channels} must be 1 (the Y plane) or 3 (RGB).")
        if skip not in get_args(Skip):
            raise UserError(f"generator.skip={skip} must be one of {', '.join(get_args(Skip))}.")
        if isinstance(centre, bool) or not isinstance(centre, int | float) or not math.isfinite(centre):
            raise UserError(f"generator.centre={centre} must be a number.")
        self.scale, self.channels, self.skip, self.centre = scale, channels, skip, centre
        self._rule: tuple[Init, nn.Module | None] | None = None

    def initialise(self, recipe: Recipe, last: nn.Module | None = None) -> None:
        """Set all weights by the recipe's rule; `last` is, or holds, the last layer."""
        recipe.init(self, recipe.activation, last)
        self._rule = (recipe.init, last)  # a tuple: `last` is a module of this one already

    def unused(self) -> list[str]:
        """What of the chosen initialisation finds no layer here, a sentence each."""
        return [] if self._rule is None else self._rule[0].unused(self)

    def calibrate(self, batch: Callable[[], Tensor]) -> None:
        """Finish a data-driven initialisation (LSUV) on LR images (N, C, H, W), fetched only if the rule needs them."""
        if self._rule is not None:
            init, last = self._rule
            init.calibrate(self, batch, last)

    @abstractmethod
    def body(self, x: Tensor) -> Tensor:
        """The network itself, (N, C, H, W) -> (N, C, s H, s W)."""

    def forward(self, x: Tensor) -> Tensor:
        """LR images (N, C, H, W) in [0, 1] -> SR images (N, C, s H, s W), not clipped."""
        y = self.body(x - self.centre if self.centre else x)
        return y + enlarge(x, self.scale) if self.skip == "bicubic" else y

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """SR images of every level that can be supervised, smallest first; the last is `self(x)`."""
        return [self(x)]


def remove_biases(network: nn.Module) -> None:
    """Leave every convolution and deconvolution without a bias, as some papers count them."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.bias = None


@dataclass(frozen=True)
class Cost:
    """What a generator costs: its weights, and its multiply-adds for each pixel of the output."""

    parameters: int
    macs_per_pixel: float


@torch.no_grad()
def cost(generator: Generator, side: int = 32) -> Cost:
    """Count parameters, and the multiply-adds of convolutions (the bicubic skip's included) on a side x side input.

    Deconvolutions count as such: their sub-pixel form multiplies by some zeros.
    """
    parameters = sum(p.numel() for p in generator.parameters())
    counted = copy.deepcopy(generator).cpu().eval()
    run_as(counted, "deconv")
    with FlopCounterMode(display=False) as counter:
        y = counted(torch.zeros(1, generator.channels, side, side))
    return Cost(parameters, counter.get_total_flops() / 2 / (y.shape[-2] * y.shape[-1]))
