"""How images and kernels lie in memory: as NHWC, channels innermost, where that is faster."""

import torch
from torch import Tensor, nn


def in_channels_last(network: nn.Module) -> nn.Module:
    """The network with its kernels laid out as NHWC, in place; names, shapes and values stay."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's overloads lack it
    return network


def as_channels_last(x: Tensor) -> Tensor:
    """Images (N, C, H, W) laid out as NHWC: the same values.

    With one channel both layouts are the same bytes, which torch takes for NCHW: only the strides tell them apart.
    """
    n, c, h, w = x.shape
    if c == 1:
        return x.contiguous().as_strided((n, 1, h, w), (h * w, 1, w, 1))
    return x.contiguous(memory_format=torch.channels_last)
