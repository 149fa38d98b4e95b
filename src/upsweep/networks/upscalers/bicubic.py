"""Bicubic interpolation as a generator: the baseline that learns nothing."""

from torch import Tensor

from upsweep.blocks.recipe import Recipe
from upsweep.common.errors import UserError
from upsweep.imaging.resize import enlarge
from upsweep.networks.upscalers.upscaler import Upscaler


class Bicubic(Upscaler):
    """MATLAB's bicubic enlargement by any whole factor; no parameters. It takes the recipe, to sweep like any other."""

    def __init__(self, recipe: Recipe | None = None, scale: int = 2, channels: int = 1) -> None:
        del recipe
        if type(scale) is not int or scale < 2:
            raise UserError(f"Bicubic cannot enlarge scale={scale} times: choose a whole number above 1.")
        self.scales = (scale,)
        super().__init__(scale, channels)

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, self.scale)
