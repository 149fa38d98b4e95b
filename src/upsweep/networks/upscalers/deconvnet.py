"""The network of the article (docs/claims.md) made general: convolutions, then deconvolutions up to the scale."""

from upsweep.blocks import Recipe, chain, conv
from upsweep.blocks.symmetry import Symmetry
from upsweep.common.checks import at_least
from upsweep.networks.upscalers.upscaler import Skip, Upscaler, upsampling


class DeconvNet(Upscaler):
    """`depth` blocks of convolution, one block of deconvolution for each factor of the scale, a linear last layer.

    A block is layer -> norm -> activation -> dropout; the last layer is a convolution with neither. With the
    global skip the network only learns what bicubic enlargement misses (VDSR, Kim et al. 2016).

    Args:
        depth: convolution blocks before the first deconvolution.
        kernel: side of the convolutions' kernels (odd).
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        width: int = 16,
        depth: int = 4,
        kernel: int = 3,
        skip: Skip = "bicubic",
        centre: float = 0.0,
        views: int = 1,
        symmetry: Symmetry = "none",
    ) -> None:
        super().__init__(scale, channels, skip, centre, views, symmetry)
        at_least("generator", 1, width=width, depth=depth)
        self.convs = chain(recipe, [channels, *[width] * depth], kernel)
        self.upsampler = upsampling(recipe, width, scale)
        self.last = conv(width, channels, kernel)
        self.initialise(recipe, self.last)
