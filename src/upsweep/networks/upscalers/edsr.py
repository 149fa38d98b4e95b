"""EDSR: Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution, CVPR workshops 2017."""

import torch
from torch import Tensor

from upsweep.blocks import Recipe, conv
from upsweep.common.checks import at_least
from upsweep.imaging.colour import rgb_to_y
from upsweep.networks.upscalers.residual import residual_blocks
from upsweep.networks.upscalers.upscaler import Skip, Upscaler, upsampling

# The mean colour of DIV2K's training images, RGB in [0, 1], as the authors' code has it.
DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class EDSR(Upscaler):
    """Residual blocks without norm on LR features, a skip around them all, sub-pixel steps up to the scale.

    The baseline (16 blocks of 64 channels) has 1,369,859 parameters at x2, 1,554,499 at x3 and 1,517,571 at x4.
    The images' mean colour is taken off before, and put back after the network.

    Args:
        recipe: the choices (the authors': ReLU, torch's default init, no norm, no dropout, subpixel). A norm
            follows every convolution but the first and the last.
        width: channels of the features; 256 in the large network.
        depth: residual blocks; 32 in the large network.
        scaling: factor on each block's residual; 0.1 in the large network.
    """

    mean: Tensor

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 2,
        channels: int = 3,
        width: int = 64,
        depth: int = 16,
        scaling: float = 1.0,
        skip: Skip = "none",
    ) -> None:
        super().__init__(scale, channels, skip)
        at_least("generator", 1, width=width, depth=depth)
        mean = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
        self.register_buffer("mean", mean if channels == 3 else rgb_to_y(mean), persistent=False)
        self.first = conv(channels, width, 3)
        self.blocks = residual_blocks(recipe, width, depth, scaling=scaling)
        self.upsampler = upsampling(recipe.linear(), width, scale)
        self.last = conv(width, channels, 3)
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        return super().body(x - self.mean) + self.mean
