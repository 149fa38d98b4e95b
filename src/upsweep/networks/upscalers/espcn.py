"""ESPCN: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN, CVPR 2016."""

from upsweep.blocks import Recipe, chain
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class ESPCN(Upscaler):
    """Features (5x5, 64; 3x3, 32) on LR pixels, then a sub-pixel convolution (3x3) that is the output.

    With one channel it has 64 * 25 + 32 * 64 * 9 + s^2 * 32 * 9 weights: 21,184 at x2, 22,624 at x3.

    Args:
        recipe: the choices (the paper's: tanh, no norm, no dropout, subpixel; it names no init).
        width: channels of the first layer; the second has half as many.
    """

    def __init__(self, recipe: Recipe, scale: int = 2, channels: int = 1, width: int = 64, skip: Skip = "none") -> None:
        super().__init__(scale, channels, skip)
        half = width // 2
        self.features = chain(recipe, [channels, width, half], (5, 3), before_last=True)
        self.upsampler = recipe.upsampler.layer(half, channels, scale)
        self.initialise(recipe, self.upsampler)
