"""SRResNet: Ledig et al., Photo-Realistic Single Image Super-Resolution Using a GAN, CVPR 2017 (its generator)."""

from dataclasses import replace

from upsweep.blocks import Block, Recipe, conv
from upsweep.blocks.norm import Norm
from upsweep.common.checks import at_least
from upsweep.networks.upscalers.residual import residual_blocks
from upsweep.networks.upscalers.upscaler import Skip, Upscaler, upsampling


class SRResNet(Upscaler):
    """Residual blocks with batch norm on LR features, a skip around them all, sub-pixel steps up to the scale.

    With 16 blocks, 3 channels and one slope for each PReLU it has 1,549,462 parameters at x4.

    Args:
        recipe: the choices (the paper's: PReLU, batch norm, no dropout, subpixel; it names no init). The norm
            stands in the residual blocks and after the convolution behind them, as in the paper.
        depth: residual blocks.
        residual_gain: what the last norm of every residual branch multiplies with at the start. A batch norm gives
            each branch a variance of 1, and at 1 the features of the LR drown in 16 branches of noise; near 0 the
            network starts as the shallow one without them (Goyal et al. 2017, section 5.1, for image classification;
            this paper says nothing about it).
    """

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 4,
        channels: int = 3,
        width: int = 64,
        depth: int = 16,
        skip: Skip = "none",
        residual_gain: float = 0.01,
    ) -> None:
        super().__init__(scale, channels, skip)
        at_least("generator", 1, width=width, depth=depth)
        without_norm = replace(recipe, norm=Norm())
        self.first = Block(conv(channels, width, 9), width, without_norm)
        self.blocks = residual_blocks(recipe, width, depth, gain=residual_gain)
        self.upsampler = upsampling(without_norm, width, scale)
        self.last = conv(width, channels, 9)
        self.initialise(recipe, self.last)
