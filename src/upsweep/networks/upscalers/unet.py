"""U-Net: Ronneberger, Fischer and Brox, Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upsweep.blocks import Block, Recipe, chain, conv
from upsweep.common.checks import at_least
from upsweep.imaging.resize import enlarge
from upsweep.networks.upscalers.upscaler import Skip, Upscaler


class UNet(Upscaler):
    """The U on the bicubically enlarged image: max pooling down, 2x2 deconvolutions up, concatenated skips.

    Every level has two 3x3 convolutions. Two things differ from the paper, as super-resolution asks for: convolutions
    are padded, so that the output has the input's size, and the network learns what is missing from the bicubic
    enlargement (`skip`). Images whose sides do not divide by 2^depth are padded at the right and the bottom with their
    edge, and cropped again. With one channel, 64 features and depth 4 it has 31,030,593 parameters.

    Args:
        recipe: the choices (the paper's: ReLU, He, no norm; it drops out at the bottom of the U, here none does);
            `upsampler` is the way up.
        width: channels of the first level; each level down has twice as many.
        depth: levels below the first.
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 1,
        width: int = 64,
        depth: int = 4,
        skip: Skip = "bicubic",
    ) -> None:
        super().__init__(scale, channels, skip)
        at_least("generator", 1, width=width, depth=depth)
        self.stride = 2**depth // math.gcd(2**depth, scale)
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            chain(recipe, [before, after, after]) for before, after in pairwise([channels, *widths])
        )
        self.upsamplers = nn.ModuleList(
            Block(recipe.upsampler.layer(2 * w, w, 2, kernel=2), w, recipe) for w in reversed(widths[:-1])
        )
        self.up = nn.ModuleList(chain(recipe, [2 * w, w, w], before_last=w == width) for w in reversed(widths[:-1]))
        self.last = conv(width, channels, 1)
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        y = enlarge(x, self.scale)
        height, width = y.shape[-2:]
        multiple = 2 ** len(self.up)
        y = F.pad(y, (0, -width % multiple, 0, -height % multiple), mode="replicate")
        passed = []
        for level, block in enumerate(self.down):
            y = block(F.max_pool2d(y, 2) if level else y)
            passed.append(y)
        for upsampler, block, skip in zip(self.upsamplers, self.up, reversed(passed[:-1]), strict=True):
            y = block(torch.cat([skip, upsampler(y)], dim=1))
        sr: Tensor = self.last(y)[..., :height, :width]
        return sr
