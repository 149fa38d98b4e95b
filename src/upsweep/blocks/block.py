"""The block that joins the knobs: layer, norm, activation, dropout."""

from torch import nn

from upsweep.blocks import activation
from upsweep.blocks.recipe import Recipe


class Block(nn.Sequential):
    """`layer -> norm -> activation -> dropout`, as the recipe says; nothing is added where it says none.

    Args:
        layer: a convolution or an upsampler; its output has `channels` channels.
        channels: channels of the layer's output.
        recipe: the choices.
        before_last: whether the network's last layer follows (where `dropout.place=last` drops).

    Shapes: whatever the layer does.
    """

    def __init__(self, layer: nn.Module, channels: int, recipe: Recipe, *, before_last: bool = False) -> None:
        norm, act = recipe.norm.layer(channels), activation.make(recipe.activation, channels)
        recipe.norm.parametrise(layer)
        parts = {"layer": layer}
        if norm is not None and recipe.norm.place == "before":
            parts["norm"] = norm
        parts["activation"] = act
        if norm is not None and recipe.norm.place == "after":
            parts["norm"] = norm
        if (dropout := recipe.dropout.layer(before_last=before_last)) is not None:
            parts["dropout"] = dropout
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
