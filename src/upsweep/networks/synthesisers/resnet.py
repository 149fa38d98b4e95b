"""The ResNet generator of SN-GAN: Miyato et al., Spectral Normalization for GANs, ICLR 2018."""

from torch import Tensor, nn

from upsweep.blocks import PreBlock, Recipe, conv
from upsweep.blocks.upsampler import Enlarge
from upsweep.common.checks import at_least
from upsweep.networks.sizes import first_and_doublings
from upsweep.networks.synthesisers.synthesiser import Synthesiser


class UpBlock(nn.Module):
    """A residual block that doubles its features, (N, C, H, W) -> (N, C, 2 H, 2 W).

    The branch is norm, activation, upsampler, norm, activation, convolution; beside it lies a 1x1 convolution, then
    the nearest pixel. (The authors convolve after the enlargement, which gives the same of four times the work.)
    """

    def __init__(self, recipe: Recipe, width: int) -> None:
        super().__init__()
        upsampler = recipe.upsampler.layer(width, width, 2)
        self.body = nn.Sequential(PreBlock(upsampler, width, recipe), PreBlock(conv(width, width, 3), width, recipe))
        self.shortcut = nn.Sequential(conv(width, width, 1), Enlarge(2, "nearest"))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x) + self.shortcut(x)
        return y


class ResNet(Synthesiser):
    """The latent is projected to small features; residual blocks double them, and a convolution makes the image.

    With 256 channels, RGB of 32x32 and a latent of 128 it has 4,276,739 parameters, as the authors' for CIFAR-10.
    (Theirs for larger images have fewer channels in the later blocks.)

    Args:
        recipe: the choices (the paper's: Xavier, ReLU, batch norm, no dropout, and resize: the nearest pixel, then a
            convolution).
        width: channels of the features.
    """

    def __init__(self, recipe: Recipe, size: int = 32, channels: int = 3, width: int = 256, latent: int = 128) -> None:
        super().__init__(size, channels, latent)
        at_least("generator", 1, width=width)
        first, doublings = first_and_doublings(size)
        last = PreBlock(conv(width, channels, 3), width, recipe, before_last=True)
        self.decoder = nn.Sequential(
            nn.Sequential(conv(latent, width * first**2, 1), nn.PixelShuffle(first)),  # a linear layer, as an image
            *(UpBlock(recipe, width) for _ in range(doublings)),
            last,
        )
        self.initialise(recipe, last)
