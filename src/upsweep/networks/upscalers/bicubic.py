"""Bicubic interpolation as a generator: the baseline that learns nothing."""

from torch import Tensor

from upsweep.blocks.recipe import Recipe
from upsweep.imaging.resize import enlarge
from upsweep.networks.upscalers.upscaler import Upscaler


class Bicubic(Upscaler):
    """MATLAB's bicubic enlargement; no parameters. It takes the recipe, so that it sweeps like any other."""

    def __init__(self, recipe: Recipe | None = None, scale: int = 2, channels: int = 1) -> None:
        del recipe
        super().__init__(scale, channels)

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, self.scale)
