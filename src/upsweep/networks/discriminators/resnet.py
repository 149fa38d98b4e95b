"""The ResNet discriminator of SN-GAN: Miyato et al., Spectral Normalization for GANs, ICLR 2018."""

from torch import Tensor, nn

from upsweep.blocks import PreBlock, Recipe, activation, conv
from upsweep.common.checks import at_least
from upsweep.networks.discriminators.discriminator import Discriminator

SMALLEST = 8  # sides up to this are not halved


class DownBlock(nn.Module):
    """A residual block, (N, C, H, W) -> (N, width, H / 2, W / 2), or of the same size where it does not halve.

    The branch is activation, convolution, activation, convolution, mean of 2x2, with the recipe's norm before each
    activation; beside it lies a 1x1 convolution, where it halves. The first block takes the image as it is, without
    norm and activation.
    """

    def __init__(self, recipe: Recipe, channels: int, width: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        enter = conv(channels, width, 3)
        self.body = nn.Sequential(
            enter if first else PreBlock(enter, channels, recipe), PreBlock(conv(width, width, 3), width, recipe)
        )
        self.shortcut = conv(channels, width, 1) if halve else nn.Identity()
        self.halve = nn.AvgPool2d(2) if halve else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        # The mean comes before the 1x1 convolution, with which it commutes.
        y: Tensor = self.halve(self.body(x)) + self.shortcut(self.halve(x))
        return y


class ResNet(Discriminator):
    """Residual blocks that halve the image down to a side of at most 8, two that keep it, the sum over all pixels.

    With 128 channels and RGB of 32x32 it has 1,053,824 parameters, as the authors' for CIFAR-10.

    Args:
        recipe: the choices (the paper's: Xavier, ReLU, spectral norm, no dropout).
        width: channels of the features.
    """

    def __init__(self, recipe: Recipe, size: int = 32, channels: int = 3, width: int = 128) -> None:
        super().__init__(size, channels)
        at_least(self.group, 1, width=width)
        self.blocks = nn.Sequential(DownBlock(recipe, channels, width, halve=True, first=True))
        side = size // 2
        while side > SMALLEST:
            self.blocks.append(DownBlock(recipe, width, width, halve=True))
            side //= 2
        self.blocks.extend(DownBlock(recipe, width, width, halve=False) for _ in range(2))
        self.activation = activation.make(recipe.activation, width)
        self.last = nn.Conv2d(width, 1, 1, bias=False)
        self.initialise(recipe, self.last)

    def body(self, x: Tensor) -> Tensor:
        features = self.activation(self.blocks(x)).sum((2, 3), keepdim=True)
        logits: Tensor = self.last(features)
        return logits
