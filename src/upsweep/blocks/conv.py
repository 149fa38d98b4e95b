"""The convolution that keeps the size."""

from torch import nn

from upsweep.errors import UserError


def conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps height and width (zero padding).

    Raises:
        UserError: the kernel is even.
    """
    if kernel % 2 == 0:
        raise UserError(f"A convolution that keeps the size needs an odd kernel, not {kernel}.")
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
