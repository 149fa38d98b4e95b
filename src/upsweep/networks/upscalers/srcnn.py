"""SRCNN: Dong, Loy, He and Tang, Image Super-Resolution Using Deep Convolutional Networks, TPAMI 2016."""

from upsweep.blocks import Recipe, chain, conv
from upsweep.common.errors import UserError
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class SRCNN(Upscaler):
    """SRCNN 9-5-5: three convolutions (64, 32 and C channels) on the enlarged image.

    With one channel it has 57,184 weights, and sees 17 x 17 pixels of the enlarged image.

    Args:
        recipe: the choices (the paper's: ReLU, N(0, 0.001), no norm, no dropout); `upsampler` enlarges the input.
        kernels: sides of the three kernels; the paper also tries 9-1-5 and 9-3-5.
        width: channels of the first layer; the second has half as many.
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
        self.features = chain(recipe, [channels, width, half], kernels[:2], before_last=True)
        self.last = conv(half, channels, kernels[2])
        self.initialise(recipe, self.last)
