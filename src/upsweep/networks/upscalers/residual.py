"""Residual branches: the block that EDSR and SRResNet are made of, and the skip around them all."""

from torch import Tensor, nn

from upsweep.blocks import Block, Recipe, conv


class Residual(nn.Sequential):
    """x + F(x), where F is its parts in their order; (N, C, H, W) -> the same."""

    def forward(self, input: Tensor) -> Tensor:
        y: Tensor = super().forward(input)  # type: ignore[no-untyped-call]
        return input + y


class ResidualBlock(nn.Module):
    """x + scaling * F(x), where F is convolution, norm, activation, dropout, convolution, norm, dropout.

    A `scaling` of 0.1 keeps wide networks stable (EDSR, section 3.3). The last norm, if there is one, multiplies with
    `gain` at the start.
    """

    def __init__(self, recipe: Recipe, width: int, scaling: float, gain: float) -> None:
        super().__init__()
        self.scaling = scaling
        self.body = nn.Sequential(Block(conv(width, width, 3), width, recipe), _end(recipe, width, gain))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + self.scaling * y


def residual_blocks(recipe: Recipe, width: int, depth: int, *, scaling: float = 1.0, gain: float = 1.0) -> Residual:
    """`depth` residual blocks and a linear one, with a skip around them all; the arguments are those of a block."""
    blocks = (ResidualBlock(recipe, width, scaling, gain) for _ in range(depth))
    return Residual(*blocks, _end(recipe, width, gain))


def _end(recipe: Recipe, width: int, gain: float) -> Block:
    """A linear block, whose norm multiplies with `gain` at the start, where it has one that learns a scale."""
    block = Block(conv(width, width, 3), width, recipe.linear())
    weight = getattr(getattr(block, "norm", None), "weight", None)
    if isinstance(weight, nn.Parameter):
        nn.init.constant_(weight, gain)
    return block
