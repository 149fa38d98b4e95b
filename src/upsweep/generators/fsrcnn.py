"""FSRCNN: Dong, Loy and Tang, Accelerating the Super-Resolution Convolutional Neural Network, ECCV 2016."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.conv import conv
from upsweep.errors import UserError
from upsweep.generators.base import Generator, Skip


class FSRCNN(Generator):
    """FSRCNN(d, s, m): extract (5x5), shrink (1x1), map (m times 3x3), expand (1x1), deconvolve (9x9).

    With d = 56, s = 12, m = 4, one channel and a PReLU slope a channel it has 12,464 weights and 12,809
    parameters; the deconvolution is the output, with neither norm nor activation.

    Args:
        recipe: the choices (the paper's: PReLU, no norm, no dropout, He with a small last layer).
        scale: 2, 3, 4 or 8.
        channels: 1 (Y, as in the paper) or 3 (RGB).
        d: channels of the features.
        s: channels of the mapping.
        m: layers of the mapping.
        skip: bicubic or none (the paper's).
        centre: taken off the network's input; the paper's is 0, and 0.5 trains better (docs/recipe.md).
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        d: int = 56,
        s: int = 12,
        m: int = 4,
        skip: Skip = "none",
        centre: float = 0.0,
    ) -> None:
        super().__init__(scale, channels, skip, centre)
        if min(d, s) < 1 or m < 0:
            raise UserError(f"generator.d={d} and generator.s={s} must be at least 1, generator.m={m} at least 0.")
        self.extract = Block(conv(channels, d, 5), d, recipe)
        self.shrink = Block(conv(d, s, 1), s, recipe)
        self.map = nn.Sequential(*(Block(conv(s, s, 3), s, recipe) for _ in range(m)))
        self.expand = Block(conv(s, d, 1), d, recipe, before_last=True)
        self.upsampler = recipe.upsampler.layer(d, channels, scale, kernel=9, padding=4)
        self.initialise(recipe, self.upsampler)

    def body(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        y: Tensor = self.upsampler(self.expand(self.map(self.shrink(self.extract(x)))))
        return y
