"""Convolutions that keep the size, or enlarge it by pixel shuffle."""

import torch.nn.functional as F
from torch import Tensor, nn

from upsweep.common.errors import UserError


def conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps height and width (zero padding); UserError where the kernel is even."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=_padding(kernel))


class SubPixelConv2d(nn.Conv2d):
    """A convolution to stride^2 times the channels, then pixel shuffle (ESPCN, Shi et al. 2016).

    (N, in_channels, H, W) -> (N, out_channels, stride H, stride W). Weights [c s^2 + i] make channel c in phase i.
    Raises UserError where the kernel is even.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__(in_channels, out_channels * stride**2, kernel, padding=_padding(kernel))
        self.factor = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(input), self.factor)


def _padding(kernel: int) -> int:
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"A convolution that keeps the size needs an odd kernel, not {kernel}.")
    return kernel // 2
