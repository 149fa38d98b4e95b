"""The knobs (init, activation, norm, dropout, upsampler), and the blocks that join them."""

from upsweep.blocks.block import Block, PreBlock, chain
from upsweep.blocks.conv import conv
from upsweep.blocks.recipe import Recipe

__all__ = ["Block", "PreBlock", "Recipe", "chain", "conv"]
