"""ESPCN: Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN, CVPR 2016."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.conv import conv
from upsweep.generators.base import Generator, Skip


class ESPCN(Generator):
    """Features (5x5, 64; 3x3, 32) on LR pixels, then a sub-pixel convolution (3x3) that is the output.

    With one channel it has 64 * 25 + 32 * 64 * 9 + s^2 * 32 * 9 weights: 21,184 at x2, 22,624 at x3.

    Args:
        recipe: the choices (the paper's: tanh, no norm, no dropout, subpixel; it names no init).
        scale: 2, 3, 4 or 8.
        channels: 1 (Y, as in the paper) or 3 (RGB).
        width: channels of the first layer; the second has half as many.
        skip: bicubic or none (the paper's).
    """

    def __init__(self, recipe: Recipe, scale: int = 2, channels: int = 1, width: int = 64, skip: Skip = "none") -> None:
        super().__init__(scale, channels, skip)
        half = width // 2
        self.features = nn.Sequential(
            Block(conv(channels, width, 5), width, recipe),
            Block(conv(width, half, 3), half, recipe, before_last=True),
        )
        self.upsampler = recipe.upsampler.layer(half, channels, scale)
        self.initialise(recipe, self.upsampler)

    def body(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        y: Tensor = self.upsampler(self.features(x))
        return y
