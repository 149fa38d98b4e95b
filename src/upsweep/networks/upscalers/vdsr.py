"""VDSR: Kim, Lee and Lee, Accurate Image Super-Resolution Using Very Deep Convolutional Networks, CVPR 2016."""

from upsweep.blocks import Recipe, chain, conv
from upsweep.common.checks import at_least
from upsweep.networks.network import remove_biases
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class VDSR(Upscaler):
    """20 convolutions of 3x3 on the enlarged image, which learn what is missing from its bicubic enlargement.

    With one channel it has 664,704 weights, and sees 41 x 41 pixels of the enlarged image.

    Args:
        recipe: the choices (the paper's: ReLU, He, no norm, no dropout); `upsampler` enlarges the input.
        depth: convolutions, the first and the last included.
        bias: whether convolutions have biases (the authors' released network has them; the usual count is without).
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
        at_least("generator", 2, depth=depth)
        self.upsampler = recipe.upsampler.layer(channels, channels, scale)
        self.convs = chain(recipe, [channels, *[width] * (depth - 1)], before_last=True)
        self.last = conv(width, channels, 3)
        if not bias:
            remove_biases(self)
        self.initialise(recipe, self.last)
