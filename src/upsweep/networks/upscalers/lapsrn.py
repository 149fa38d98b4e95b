"""LapSRN: Lai, Huang, Ahuja and Yang, Deep Laplacian Pyramid Networks for Super-Resolution, CVPR 2017."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from upsweep.blocks import Block, Recipe, chain, conv
from upsweep.blocks.deconv import TwoForms, deconv_as_subpixel
from upsweep.blocks.init import interpolation_taps
from upsweep.common.checks import at_least
from upsweep.networks.network import remove_biases
from upsweep.networks.upscalers.upscaler import Upscaler


class ImageBranch(TwoForms):
    """A 4x4 deconvolution that doubles (N, C, H, W), and starts bilinear; no rule of the recipe reaches it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = interpolation_taps("bilinear", kernel=4, stride=2, padding=1).float()
        self.weight = nn.Parameter(torch.einsum("io,k,l->iokl", torch.eye(channels), taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        if self.prefers_subpixel(x, self.weight.shape[1], stride=2):
            return deconv_as_subpixel(x, self.weight, None, stride=2, padding=1, output_padding=0)
        return F.conv_transpose2d(x, self.weight, stride=2, padding=1)


class Level(nn.Module):
    """One step of the pyramid: it doubles the features and the image, and adds the detail that it found.

    `depth` convolutions stand in front of the features' upsampler; `before_last` says that this is the last level.
    """

    def __init__(self, recipe: Recipe, channels: int, width: int, depth: int, *, before_last: bool) -> None:
        super().__init__()
        self.convs = chain(recipe, [width] * (depth + 1))
        up = recipe.upsampler.layer(width, width, 2, kernel=3, padding=1)
        self.upsampler = Block(up, width, recipe, before_last=before_last)
        self.detail = conv(width, channels, 3)
        self.image = ImageBranch(channels)

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F, H, W), image (N, C, H, W) -> the same of twice the size."""
        features = self.upsampler(self.convs(features))
        return features, self.image(image) + self.detail(features)


class LapSRN(Upscaler):
    """Doubles the image level by level; each level's image is an output, and is meant to be supervised.

    As in the authors' code the features' deconvolutions are 3x3, and only the image's, which starts as bilinear
    interpolation, is 4x4: 812,768 weights at x4 with one channel (biases not counted).

    Args:
        recipe: the choices (the paper's: leaky ReLU of slope 0.2, He, no norm, no dropout); `upsampler` enlarges
            the features, the image's deconvolution stays.
        depth: convolutions in each level; None: the paper's, 10, or 5 at x8.
        bias: whether convolutions have biases (the authors' code; the paper's count is without).
    """

    scales = (2, 4, 8)

    def __init__(
        self,
        recipe: Recipe,
        scale: int = 4,
        channels: int = 1,
        width: int = 64,
        depth: int | None = None,
        bias: bool = False,
    ) -> None:
        super().__init__(scale, channels)
        if depth is None:
            depth = 5 if scale == 8 else 10
        at_least("generator", 1, depth=depth)
        self.first = Block(conv(channels, width, 3), width, recipe)
        levels = scale.bit_length() - 1
        steps = [Level(recipe, channels, width, depth, before_last=i == levels - 1) for i in range(levels)]
        self.levels = nn.ModuleList(steps)
        if not bias:
            remove_biases(self)
        self.initialise(recipe, nn.ModuleList(level.detail for level in steps))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Images of 2, 4, ... s times the size."""
        features, image, images = self.first(x), x, []
        for level in self.levels:
            features, image = level(features, image)
            images.append(image)
        return images

    def body(self, x: Tensor) -> Tensor:
        return self.pyramid(x)[-1]
