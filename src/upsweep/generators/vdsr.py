"""VDSR: Kim, Lee and Lee, Accurate Image Super-Resolution Using Very Deep Convolutional Networks, CVPR 2016."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.conv import conv
from upsweep.errors import UserError
from upsweep.generators.base import Generator, Skip, remove_biases


class VDSR(Generator):
    """20 convolutions of 3x3 on the enlarged image, which learn what is missing from its bicubic enlargement.

    With one channel it has 664,704 weights, and sees 41 x 41 pixels of the enlarged image.

    Args:
        recipe: the choices (the paper's: ReLU, He, no norm, no dropout); `upsampler` enlarges the input.
        scale: 2, 3, 4 or 8.
        channels: 1 (Y, as in the paper) or 3 (RGB).
        width: channels of the features.
        depth: convolutions, the first and the last included.
        bias: whether the convolutions have biases (the authors' released network has them; the usual count is
            without).
        skip: bicubic (the paper's) or none.
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        width: int = 64,
        depth: int = 20,
        bias: bool = False,
        skip: Skip = "bicubic",
    ) -> None:
        super().__init__(scale, channels, skip)
        if depth < 2:
            raise UserError(f"generator.depth={depth} must be at least 2: a first and a last convolution.")
        self.upsampler = recipe.upsampler.layer(channels, channels, scale)
        self.convs = nn.Sequential(
            *(
                Block(conv(channels if i == 0 else width, width, 3), width, recipe, before_last=i == depth - 2)
                for i in range(depth - 1)
            )
        )
        self.last = conv(width, channels, 3)
        if not bias:
            remove_biases(self)
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, s H, s W)."""
        y: Tensor = self.last(self.convs(self.upsampler(x)))
        return y
