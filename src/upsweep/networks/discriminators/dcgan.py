"""DCGAN's discriminator: Radford, Metz and Chintala, ICLR 2016."""

from dataclasses import replace
from itertools import pairwise

from torch import nn

from upsweep.blocks import Block, Recipe
from upsweep.blocks.norm import Norm, WeightsNorm
from upsweep.common.checks import at_least
from upsweep.networks.discriminators.discriminator import Discriminator
from upsweep.networks.sizes import first_and_doublings


class DCGAN(Discriminator):
    """Convolutions of 4x4 and stride 2 down to small features, of which one convolution of their size makes the logit.

    With 64 channels, RGB of 64x64 and no biases it has 2,765,568 parameters, as PyTorch's example. The first layer has
    no norm, as the paper asks for.

    Args:
        recipe: the choices (the paper's: N(0, 0.02), leaky ReLU of slope 0.2, batch norm, no dropout).
        width: channels of the first features; each halving after has twice as many.
    """

    def __init__(self, recipe: Recipe, size: int = 32, channels: int = 3, width: int = 64) -> None:
        super().__init__(size, channels)
        at_least(self.group, 1, width=width)
        self.encoder = encoder(recipe, size, channels, width, 1)
        self.initialise(recipe, self.encoder[-1])


def encoder(recipe: Recipe, size: int, channels: int, width: int, out: int) -> nn.Sequential:
    """The mirror image of DCGAN's generator, (N, channels, size, size) -> (N, out, 1, 1); the last layer is linear.

    A norm of features stands behind all blocks but the first.
    """
    first, halvings = first_and_doublings(size)
    widths = [channels, *(width * 2**i for i in range(halvings))]
    bare = recipe if isinstance(recipe.norm, WeightsNorm) else replace(recipe, norm=Norm())
    blocks = [
        Block(nn.Conv2d(a, b, 4, 2, 1), b, recipe if i else bare, before_last=i == halvings - 1)
        for i, (a, b) in enumerate(pairwise(widths))
    ]
    return nn.Sequential(*blocks, nn.Conv2d(widths[-1], out, first))
