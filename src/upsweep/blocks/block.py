"""The block that joins the knobs: layer, norm, activation, dropout."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from upsweep.blocks import activation
from upsweep.blocks.conv import conv
from upsweep.blocks.norm import Norm
from upsweep.blocks.recipe import Recipe


class Block(nn.Sequential):
    """`layer -> norm -> activation -> dropout`, as the recipe says; nothing is added where it says none.

    Args:
        layer: a convolution or an upsampler; its output has `channels` channels.
        before_last: whether the network's last layer follows (where `dropout.place=last` drops).
    """

    def __init__(self, layer: nn.Module, channels: int, recipe: Recipe, *, before_last: bool = False) -> None:
        norm, act = recipe.norm.layer(channels), activation.make(recipe.activation, channels)
        dropout = recipe.dropout.layer(before_last=before_last)
        parts = {"layer": layer, "norm": norm, "activation": act, "dropout": dropout}
        if recipe.norm.place == "after":
            parts = {"layer": layer, "activation": act, "norm": norm, "dropout": dropout}
        super().__init__()
        self.normed = type(recipe.norm) is not Norm  # of features, or of weights
        for name, part in parts.items():
            if part is not None:
                self.add_module(name, part)


def chain(
    recipe: Recipe, widths: Sequence[int], kernel: int | Sequence[int] = 3, *, before_last: bool = False
) -> nn.Sequential:
    """Blocks of convolutions, one for each step from a number of channels in `widths` to the next.

    `kernel` is the side of each kernel, or of all. `before_last`: whether the network's last layer follows the chain.
    """
    last = len(widths) - 1
    kernels = [kernel] * last if isinstance(kernel, int) else kernel
    steps = enumerate(zip(pairwise(widths), kernels, strict=True), start=1)
    return nn.Sequential(
        *(Block(conv(a, b, side), b, recipe, before_last=before_last and i == last) for i, ((a, b), side) in steps)
    )
