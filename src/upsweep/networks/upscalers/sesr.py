"""SESR: Bhardwaj et al., Collapsible Linear Blocks for Super-Efficient Super Resolution, MLSys 2022."""

from upsweep.blocks import Block, Recipe, chain, conv
from upsweep.blocks.symmetry import Symmetry
from upsweep.common.checks import at_least
from upsweep.networks.upscalers.residual import Residual
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class SESR(Upscaler):
    """SESR-M`depth`, as it runs: extract (5x5, linear), map (`depth` times 3x3, and their input added), deconvolve.

    The paper ends with a 5x5 convolution and a pixel shuffle: that is a deconvolution of kernel 5s and stride s,
    with the same weights. Its short residuals lie, collapsed, in the kernels: here they start there (init=identity).
    Its wide training layers are left out: with this init and Muon they gained nothing (docs/recipe.md). With
    depth 5 it has the paper's 13,520 weights at x2 and 18,320 at x4.

    Args:
        recipe: the choices (the paper's: PReLU, no norm, no dropout, the identity in every 3x3).
        depth: 3x3 convolutions (the paper's 3, 5, 7 and 11).
        kernel: side of the deconvolution's kernel; None: 5 times the scale (the paper's).
        skip: the paper adds the input's nearest enlargement.
        centre: 0.5 as in the authors' code.
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        width: int = 16,
        depth: int = 5,
        kernel: int | None = None,
        skip: Skip = "bicubic",
        centre: float = 0.5,
        views: int = 1,
        symmetry: Symmetry = "none",
    ) -> None:
        super().__init__(scale, channels, skip, centre, views, symmetry)
        at_least("generator", 1, width=width, depth=depth)
        self.extract = Block(conv(channels, width, 5), width, recipe.linear())
        self.map = Residual(*chain(recipe, [width] * (depth + 1), before_last=True))
        self.upsampler = recipe.upsampler.layer(width, channels, scale, kernel=5 * scale if kernel is None else kernel)
        self.initialise(recipe, self.upsampler)
