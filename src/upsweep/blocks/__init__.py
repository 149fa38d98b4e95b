"""The knobs (init, activation, norm, dropout, upsampler), and the block that joins them."""

from upsweep.blocks.block import Block
from upsweep.blocks.conv import conv
from upsweep.blocks.recipe import Recipe

__all__ = ["Block", "Recipe", "conv"]
