"""The literal network of the article (docs/claims.md): one convolution, one deconvolution, on an enlarged image."""

from torch import Tensor

from upsweep.blocks import Block, Recipe, conv
from upsweep.imaging.resize import enlarge
from upsweep.networks.upscalers.upscaler import Upscaler


class ArticleNet(Upscaler):
    """Convolution -> activation, deconvolution of stride 1 -> activation, on bicubically enlarged input.

    The activation also closes the output, as the article has it: a ReLU there cannot go below black, and may die; norm
    and dropout follow the convolution only. Both kernels have the side `kernel` (odd).
    """

    def __init__(self, recipe: Recipe, scale: int = 2, channels: int = 3, width: int = 64, kernel: int = 3) -> None:
        super().__init__(scale, channels)
        self.conv = Block(conv(channels, width, kernel), width, recipe, before_last=True)
        self.deconv = Block(recipe.upsampler.layer(width, channels, 1, kernel), channels, recipe.plain())
        self.initialise(recipe, self.deconv)

    def body(self, x: Tensor) -> Tensor:
        return super().body(enlarge(x, self.scale))
