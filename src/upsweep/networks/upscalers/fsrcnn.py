"""FSRCNN: Dong, Loy and Tang, Accelerating the Super-Resolution Convolutional Neural Network, ECCV 2016."""

from upsweep.blocks import Block, Recipe, chain, conv
from upsweep.blocks.symmetry import Symmetry
from upsweep.common.checks import at_least
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class FSRCNN(Upscaler):
    """FSRCNN(d, s, m): extract (5x5), shrink (1x1), map (m times 3x3), expand (1x1), deconvolve (9x9).

    With d = 56, s = 12, m = 4, one channel and a PReLU slope a channel it has 12,464 weights and 12,809
    parameters; the deconvolution is the output, with neither norm nor activation.

    Args:
        recipe: the choices (the paper's: PReLU, no norm, no dropout, He with a small last layer).
        d, s, m: channels of the features, channels of the mapping, layers of the mapping.
        centre: the paper's is 0; 0.5 trains better (docs/recipe.md).
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
        views: int = 1,
        symmetry: Symmetry = "none",
    ) -> None:
        super().__init__(scale, channels, skip, centre, views, symmetry)
        at_least("generator", 1, d=d, s=s)
        at_least("generator", 0, m=m)
        self.extract = Block(conv(channels, d, 5), d, recipe)
        self.shrink = Block(conv(d, s, 1), s, recipe)
        self.map = chain(recipe, [s] * (m + 1))
        self.expand = Block(conv(s, d, 1), d, recipe, before_last=True)
        self.upsampler = recipe.upsampler.layer(d, channels, scale, kernel=9, padding=4)
        self.initialise(recipe, self.upsampler)
