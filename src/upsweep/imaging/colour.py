"""RGB and the YCbCr of ITU-R BT.601 in studio range, as MATLAB's `rgb2ycbcr` has them.

For R, G, B in [0, 1] the 8-bit codes are Y = 16 + 65.481 R + 128.553 G + 24.966 B in 16..235, and Cb and Cr
in 16..240. Here everything is divided by 255, so Y lies in [16/255, 235/255]. Nothing is rounded.
"""

import numpy as np
import torch
from torch import Tensor

from upsweep.imaging.resize import enlarge

_CODES = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_MATRIX, _INVERSE = _CODES.tolist(), np.linalg.inv(_CODES).tolist()
_OFFSETS = np.array([16.0, 128.0, 128.0]) / 255


def rgb_to_y(rgb: Tensor) -> Tensor:
    """Give the luma (..., 1, H, W) of an RGB image (..., 3, H, W)."""
    return _mix(rgb, _MATRIX[:1]) + _offsets(rgb)[:1]


def luma(image: Tensor) -> Tensor:
    """Give the luma (..., 1, H, W) of an image (..., C, H, W): of RGB; one of one channel is Y already."""
    return rgb_to_y(image) if image.shape[-3] == 3 else image


def rgb_to_ycbcr(rgb: Tensor) -> Tensor:
    """Give the Y, Cb, Cr (..., 3, H, W) of an RGB image (..., 3, H, W)."""
    return _mix(rgb, _MATRIX) + _offsets(rgb)


def ycbcr_to_rgb(ycbcr: Tensor) -> Tensor:
    """Undo `rgb_to_ycbcr`, (..., 3, H, W) both; not clipped, as not every YCbCr is a colour in [0, 1]."""
    return _mix(ycbcr - _offsets(ycbcr), _INVERSE)


def with_chroma(y: Tensor, rgb_lr: Tensor, scale: int) -> Tensor:
    """Colour an SR luma (N, 1, H, W) with the enlarged chroma of its LR, RGB (N, 3, H / scale, W / scale).

    The usual way to show what a luma-only generator makes (bicubic chroma). Gives RGB (N, 3, H, W), clipped
    to [0, 1].
    """
    chroma = enlarge(rgb_to_ycbcr(rgb_lr)[:, 1:], scale)
    return ycbcr_to_rgb(torch.cat([y, chroma], dim=1)).clamp(0, 1)


def _offsets(like: Tensor) -> Tensor:
    return torch.tensor(_OFFSETS, dtype=like.dtype, device=like.device)[:, None, None]


def _mix(image: Tensor, rows: list[list[float]]) -> Tensor:
    # Sums of products, no matmul: autocast would take that to bfloat16.
    a, b, c = image.unbind(-3)
    return torch.stack([r * a + g * b + s * c for r, g, s in rows], dim=-3)
