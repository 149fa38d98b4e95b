"""The block that joins the knobs: layer, norm, activation, dropout."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

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

    layer_first: ClassVar[bool] = True

    def __init__(self, layer: nn.Module, channels: int, recipe: Recipe, *, before_last: bool = False) -> None:
        parts = {
            "layer": layer,
            "norm": recipe.norm.layer(channels),
            "activation": activation.make(recipe.activation, channels),
            "dropout": recipe.dropout.layer(before_last=before_last),
        }
        norms = ("norm", "activation") if recipe.norm.place == "before" else ("activation", "norm")
        order = ("layer", *norms, "dropout") if self.layer_first else (*norms, "dropout", "layer")
        super().__init__()
        self.normed = type(recipe.norm) is not Norm  # of features, or of weights
        for name in order:
            if (part := parts[name]) is not None:
                self.add_module(name, part)


class PreBlock(Block):
    """`norm -> activation -> dropout -> layer`: the order of a residual branch's parts (He et al. 2016).

    Args:
        layer: as for a `Block`, but its input has `channels` channels.
        before_last: whether the layer is the network's last.
    """

    layer_first = False


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
