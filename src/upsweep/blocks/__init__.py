"""The knobs (init, activation, norm, dropout, upsampler), and the block that joins them."""

from upsweep.blocks.block import Block, chain
from upsweep.blocks.conv import conv
from upsweep.blocks.recipe import Recipe

__all__ = ["Block", "Recipe", "chain", "conv"]
