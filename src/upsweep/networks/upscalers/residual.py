"""The residual block that EDSR and SRResNet are made of."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe, conv


def start_with(gain: float, block: Block) -> Block:
    """The same block, whose norm multiplies with `gain` at the start, where it has one that learns a scale."""
    weight = getattr(getattr(block, "norm", None), "weight", None)
    if isinstance(weight, nn.Parameter):
        nn.init.constant_(weight, gain)
    return block


class ResidualBlock(nn.Module):
    """x + scaling * F(x), where F is convolution, norm, activation, dropout, convolution, norm, dropout.

    Args:
        recipe: the choices.
        width: channels.
        scaling: factor on the residual; 0.1 keeps wide networks stable (EDSR, section 3.3).
        gain: what the last norm multiplies with at the start, where there is a norm.
    """

    def __init__(self, recipe: Recipe, width: int, scaling: float = 1.0, gain: float = 1.0) -> None:
        super().__init__()
        self.scaling = scaling
        self.body = nn.Sequential(
            Block(conv(width, width, 3), width, recipe),
            start_with(gain, Block(conv(width, width, 3), width, recipe.linear())),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        y: Tensor = self.body(x)
        return x + self.scaling * y
