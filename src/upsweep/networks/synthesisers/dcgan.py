"""DCGAN: Radford, Metz and Chintala, Unsupervised Representation Learning with Deep Convolutional GANs, ICLR 2016."""

from itertools import pairwise

from torch import nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.deconv import Deconv2d
from upsweep.common.checks import at_least
from upsweep.networks.sizes import first_and_doublings
from upsweep.networks.synthesisers.synthesiser import Synthesiser


class DCGAN(Synthesiser):
    """The latent is projected to small features, which upsamplers of stride 2 double up to the image.

    With 64 channels, RGB of 64x64, a latent of 100 and no biases it has 3,576,704 parameters, as PyTorch's example. The
    last upsampler is the output, with neither norm nor activation but the tanh.

    Args:
        recipe: the choices (the paper's: N(0, 0.02), ReLU, batch norm, no dropout, deconvolutions of 4x4, which the
            paper draws as 5x5 and everybody builds as 4x4).
        width: channels of the last features; each doubling before has twice as many. (The paper's at 64x64 is 128.)
    """

    def __init__(self, recipe: Recipe, size: int = 32, channels: int = 3, width: int = 64, latent: int = 100) -> None:
        super().__init__(size, channels, latent)
        at_least("generator", 1, width=width)
        self.decoder = decoder(recipe, size, channels, width, latent)
        self.initialise(recipe, self.decoder[-1])


def decoder(recipe: Recipe, size: int, channels: int, width: int, latent: int) -> nn.Sequential:
    """DCGAN's layers, latents (N, latent, 1, 1) -> (N, channels, size, size), values in R; the last is the output."""
    first, doublings = first_and_doublings(size)
    widths = [width * 2**i for i in reversed(range(doublings))]
    # Its input is one pixel. Of that stride the kernel has no overlap, so that the fans are counted as they are.
    project = Deconv2d(latent, widths[0], first, stride=first)
    layers = [project, *(recipe.upsampler.layer(a, b, 2) for a, b in pairwise(widths))]
    blocks = [
        Block(layer, channels, recipe, before_last=channels == width)
        for layer, channels in zip(layers, widths, strict=True)
    ]
    return nn.Sequential(*blocks, recipe.upsampler.layer(width, channels, 2))
