"""What initialisation, calibration, cost and export need of any network, whatever its task."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.flop_counter import FlopCounterMode

from upsweep.blocks import Block, Recipe
from upsweep.blocks.deconv import run_as
from upsweep.blocks.init import Init, Layer, Torch
from upsweep.blocks.norm import WeightsNorm
from upsweep.common.errors import UserError


class Network(nn.Module, ABC):
    """Makes images (N, C, H', W'), values around [0, 1], or judges them.

    Its inputs are images (N, C, H, W), unless a subclass says otherwise: a `Synthesiser` takes latents (N, L), and a
    `Discriminator` gives logits (N,).

    A network is one file: derive, build the layers in `__init__` from the recipe, end it with
    `self.initialise(recipe, last=...)`, and write `forward` (an `Upscaler` that is no chain of its parts: `body`).
    Raises UserError where `channels`, C, is neither 1 (the Y plane) nor 3 (RGB).
    """

    group: ClassVar[str] = "generator"  # where a config sets what it is built with
    # In an exported file: names, and the axes of the input that may have any size, by name.
    input_name: ClassVar[str] = "input"
    output_name: ClassVar[str] = "output"
    free: ClassVar[dict[int, str]] = {2: "height", 3: "width"}

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise UserError(f"{self.group}.channels={channels} must be 1 (the Y plane) or 3 (RGB).")
        self.channels = channels
        self._rule: tuple[Init, nn.Module | None] = (Torch(), None)  # until `initialise` sets another

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The input -> the output, images not clipped."""

    def example(self, height: int, width: int) -> Tensor:
        """An input of that size and a batch of 1, always the same: (1, C, height, width) in [0, 1]."""
        return torch.rand(1, self.channels, height, width, generator=torch.Generator().manual_seed(0))

    def initialise(self, recipe: Recipe, last: nn.Module | None = None) -> None:
        """Parametrise what the recipe's norm covers, and set all weights; `last` is, or holds, the last layer."""
        if isinstance(recipe.norm, WeightsNorm):
            for layer in covered(self, recipe.norm):
                recipe.norm.parametrise(layer)
        recipe.init(self, recipe.activation, last)
        self._rule = (recipe.init, last)  # a tuple: `last` is a module of this one already

    def unused(self) -> list[str]:
        """The parts of the chosen initialisation that apply to no layer here, a sentence each."""
        return self._rule[0].unused(self)

    def calibrate(self, batch: Callable[[], Tensor]) -> None:
        """Finish a data-driven initialisation (LSUV) on a batch of inputs, fetched only if the rule needs them."""
        init, last = self._rule
        init.calibrate(self, batch, last)


def covered(network: nn.Module, norm: WeightsNorm) -> list[Layer]:
    """The layers that `norm` is to parametrise, in the order of the modules."""
    blocks = [module for module in network.modules() if isinstance(module, Block) and module.normed]
    inside = [layer for part in (blocks if norm.covers == "blocks" else [network]) for layer in part.modules()]
    return [m for m in dict.fromkeys(inside) if isinstance(m, Layer) and not is_parametrized(m, "weight")]


def remove_biases(network: nn.Module) -> None:
    """Leave every convolution and deconvolution without a bias, as some papers count them."""
    for layer in network.modules():
        if isinstance(layer, Layer):
            layer.bias = None


@dataclass(frozen=True)
class Cost:
    """What a network costs: its weights, and its multiply-adds for each pixel of the image that it makes, or judges."""

    parameters: int
    macs_per_pixel: float


@torch.no_grad()
def cost(network: Network, side: int = 32) -> Cost:
    """Count parameters, and the multiply-adds of convolutions (a bicubic skip's included) on a side x side input."""
    parameters = sum(p.numel() for p in network.parameters())
    counted = copy.deepcopy(network).cpu().float().eval()
    run_as(counted, "deconv")  # its sub-pixel form multiplies by some zeros
    with FlopCounterMode(display=False) as counter:
        x = network.example(side, side)
        y = counted(x)
    height, width = (y if y.ndim == 4 else x).shape[-2:]
    return Cost(parameters, counter.get_total_flops() / 2 / (height * width))
