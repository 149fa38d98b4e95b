"""The article's network made general: convolutions, then deconvolutions up to the scale."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.conv import conv
from upsweep.errors import UserError
from upsweep.generators.base import STRIDES, Generator, Skip


class DeconvNet(Generator):
    """`depth` blocks of convolution, one block of deconvolution for each factor of the scale, a linear last layer.

    A block is layer -> norm -> activation -> dropout; the last layer is a convolution with neither. With the
    global skip the network only learns what bicubic enlargement misses (VDSR, Kim et al. 2016).

    Args:
        recipe: the choices (init, activation, norm, dropout, upsampler).
        scale: 2, 3, 4 or 8.
        channels: 1 (Y) or 3 (RGB).
        width: feature channels.
        depth: convolution blocks before the first deconvolution.
        kernel: side of the convolutions' kernels (odd).
        skip: bicubic or none.
        centre: taken off the network's input.
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
    ) -> None:
        super().__init__(scale, channels, skip, centre)
        if min(width, depth) < 1:
            raise UserError(f"generator.width={width} and generator.depth={depth} must be at least 1.")
        self.convs = nn.Sequential(
            *(Block(conv(channels if i == 0 else width, width, kernel), width, recipe) for i in range(depth))
        )
        strides = STRIDES[scale]
        self.upsampler = nn.Sequential(
            *(
                Block(recipe.upsampler.layer(width, width, s), width, recipe, before_last=i == len(strides) - 1)
                for i, s in enumerate(strides)
            )
        )
        self.last = conv(width, channels, kernel)
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        y: Tensor = self.last(self.upsampler(self.convs(x)))
        return y
