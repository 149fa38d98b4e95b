"""SRCNN: Dong, Loy, He and Tang, Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.conv import conv
from upsweep.errors import UserError
from upsweep.generators.base import Generator, Skip


class SRCNN(Generator):
    """SRCNN 9-5-5: three convolutions (64, 32 and C channels) on the enlarged image.

    With one channel it has 57,184 weights, and sees 17 x 17 pixels of the enlarged image.

    Args:
        recipe: the choices (the paper's: ReLU, N(0, 0.001), no norm, no dropout); `upsampler` enlarges the input.
        scale: 2, 3, 4 or 8.
        channels: 1 (Y, as in the paper) or 3 (RGB).
        kernels: sides of the three kernels; the paper also tries 9-1-5 and 9-3-5.
        width: channels of the first layer; the second has half as many.
        skip: bicubic or none (the paper's).
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        kernels: tuple[int, int, int] = (9, 5, 5),
        width: int = 64,
        skip: Skip = "none",
    ) -> None:
        super().__init__(scale, channels, skip)
        if len(kernels) != 3:
            raise UserError(f"generator.kernels={kernels} must be three odd numbers, such as [9, 5, 5].")
        half = width // 2
        self.upsampler = recipe.upsampler.layer(channels, channels, scale)
        self.features = nn.Sequential(
            Block(conv(channels, width, kernels[0]), width, recipe),
            Block(conv(width, half, kernels[1]), half, recipe, before_last=True),
        )
        self.last = conv(half, channels, kernels[2])
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        y: Tensor = self.last(self.features(self.upsampler(x)))
        return y
