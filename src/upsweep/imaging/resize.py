"""MATLAB's `imresize(..., "bicubic")`, the resize by which the field makes its LR images.

Keys' cubic kernel with a = -1/2 (Keys 1981, "Cubic convolution interpolation for digital image processing"),
widened by the factor when shrinking so that it also is the low-pass filter, with mirrored borders (edge pixel
repeated). All functions compute in the dtype of their input and round nothing; overshoots beyond [0, 1] stay.
"""

from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]


def imresize(image: Tensor, scale: float | Fraction | tuple[int, int], *, uint8: bool = False) -> Tensor:
    """Resize the last two axes of a float image (..., H, W).

    `scale` is a factor, for an output of (ceil(H * scale), ceil(W * scale)), or the output size itself. A
    float stands for the simplest fraction near it, so that `1 / 3` is a third. Float64 in gives the exact
    reference. With `uint8`, values in [0, 1] are rounded to 256 levels and clipped after each of the two
    passes, as MATLAB does with a uint8 image.
    """
    height, width = image.shape[-2:]
    if isinstance(scale, tuple):
        (out_height, out_width) = scale
        y_scale, x_scale = Fraction(out_height, height), Fraction(out_width, width)
    else:
        y_scale = x_scale = Fraction(scale).limit_denominator(10_000)
        out_height, out_width = ceil(height * y_scale), ceil(width * x_scale)
    if min(height, width, out_height, out_width) < 1:
        raise ValueError(f"cannot resize {height}x{width} to {out_height}x{out_width}: every side needs a pixel")
    # MATLAB's order, which the rounding makes visible: the axis that shrinks most first, then top to bottom.
    passes = sorted([(y_scale, -2, out_height), (x_scale, -1, out_width)], key=lambda one: one[0])
    for axis_scale, axis, out_size in passes:
        image = _resize_axis(image, axis, out_size, axis_scale)
        if uint8:
            image = (image * 255).round().clamp(0, 255) / 255
    return image


def shrink(image: Tensor, scale: int) -> Tensor:
    """Give the LR of an HR image (..., H, W) whose sides divide by `scale`: (..., H / scale, W / scale)."""
    if image.shape[-2] % scale or image.shape[-1] % scale:
        raise ValueError(f"{tuple(image.shape[-2:])} does not divide by {scale}: crop_to_multiple first")
    return imresize(image, Fraction(1, scale))


def level_of(hr: Tensor, width: int) -> Tensor:
    """HR (N, C, H, W) shrunk bicubically to `width`: what a level of a pyramid is held to (LapSRN, Lai et al. 2017)."""
    return hr if width == hr.shape[-1] else shrink(hr, hr.shape[-1] // width)


def enlarge(image: Tensor, scale: int) -> Tensor:
    """Enlarge (N, C, H, W) to (N, C, H * scale, W * scale) as `imresize(image, scale)` does, only faster.

    With an integer factor, all output pixels of one phase share their weights, so that the whole is one fixed
    5x5 convolution to scale² channels and a pixel shuffle: differentiable, and plain enough for torch.compile
    and export. Under autocast it keeps the precision of its input: in bfloat16, the skip that it serves would
    be off by a grey level.
    """
    if scale == 1:
        return image
    n, c, h, w = image.shape
    # The numbers are cached, not the tensor: one made in inference mode or by an export is unfit for later use.
    kernel = torch.tensor(_phase_numbers(scale), dtype=torch.float64).view(scale * scale, 1, 5, 5)
    kernel = kernel.to(image.dtype).to(image.device, non_blocking=True)
    padded = _mirror_two(_mirror_two(image, -1), -2).reshape(n * c, 1, h + 4, w + 4)
    if torch.is_autocast_enabled(image.device.type):
        with torch.autocast(image.device.type, enabled=False):
            phases = F.conv2d(padded, kernel)
    else:
        phases = F.conv2d(padded, kernel)
    return F.pixel_shuffle(phases, scale).reshape(n, c, h * scale, w * scale)


def crop_to_multiple(image: Tensor, scale: int) -> Tensor:
    """Crop (..., H, W) so that both sides divide by `scale`; the top left stays."""
    height, width = image.shape[-2:]
    return image[..., : height - height % scale, : width - width % scale]


def cubic(x: Floats) -> Floats:
    """Keys' kernel, a = -1/2, support [-2, 2]."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    value: Floats = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return value


@lru_cache(maxsize=256)
def _taps(size: int, out_size: int, scale: Fraction) -> tuple[NDArray[np.int64], Floats]:
    """Give the input pixels that each output pixel sums, and their weights: (taps, out_size) both."""
    step = float(1 / scale)
    widening = max(1.0, step)
    centre = (np.arange(out_size) + 0.5) * step - 0.5
    reach = np.arange(ceil(4 * widening) + 2)[:, None]
    position = np.floor(centre - 2 * widening).astype(np.int64) + reach
    weight = cubic((centre - position) / widening)
    weight /= weight.sum(axis=0)
    mirrored = position % (2 * size)
    index = np.where(mirrored < size, mirrored, 2 * size - 1 - mirrored)
    used = weight.any(axis=1)
    return index[used], weight[used]


def _resize_axis(image: Tensor, axis: int, out_size: int, scale: Fraction) -> Tensor:
    if scale == 1:
        return image
    index, weight = _taps(image.shape[axis], out_size, scale)
    indices = torch.from_numpy(index).to(image.device)
    weights = torch.from_numpy(weight).to(image.dtype).to(image.device)
    if axis == -2:
        weights = weights[..., None]
    # One gather a tap keeps the memory at the size of the output; 4 * widening taps at most.
    out = image.index_select(axis, indices[0]) * weights[0]
    for tap in range(1, len(indices)):
        out = out.addcmul(image.index_select(axis, indices[tap]), weights[tap])
    return out


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _phase_numbers(scale: int) -> list[float]:
    return _phase_weights(scale)


@lru_cache(maxsize=16)
def _phase_weights(scale: int) -> list[float]:
    """The weights, of shape (scale², 1, 5, 5), of the output pixels in an input pixel, in pixel-shuffle order."""
    phase = (np.arange(scale) + 0.5) / scale - 0.5
    weight = cubic(phase[:, None] - np.arange(-2, 3))
    numbers: list[float] = np.einsum("iy,jx->ijyx", weight, weight).ravel().tolist()
    return numbers


def _mirror_two(image: Tensor, axis: int) -> Tensor:
    """Put two mirrored pixels before and after an axis, the edge repeated (torch's "reflect" omits it)."""
    size = image.shape[axis]
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, size - 1, 1)
    if size == 1:
        return torch.cat([first] * 5, axis)
    second, before_last = image.narrow(axis, 1, 1), image.narrow(axis, size - 2, 1)
    return torch.cat([second, first, image, last, before_last], axis)
