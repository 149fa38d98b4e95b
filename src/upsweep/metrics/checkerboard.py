"""The checkerboard: what a generator makes of a constant image, by the phases of its enlargement.

A deconvolution whose kernel is no multiple of its stride adds up more products in some output pixels than in
others (Odena et al. 2016, "Deconvolution and checkerboard artifacts"); random weights differ by phase in any case.
"""

import numpy as np
import torch
from torch import Tensor, nn

from upsweep.imaging.files import to_uint8

MARGINS = (16, 32, 64)  # pixels of the input around what is kept; a network's own borders must not reach further


@torch.no_grad()
def response(generator: nn.Module, channels: int, value: float = 0.5, inside: int = 16) -> Tensor:
    """What `generator`, in evaluation mode, makes of a constant image, far from its borders: (channels, H, W).

    How far that is depends on the network (EDSR sees 36 pixels of its input): more is cut off until that makes no
    difference.

    Args:
        generator: (1, channels, h, w) -> (1, channels, s h, s w).
        channels: 1 or 3.
        value: of every pixel of the image, above what the generator takes off its input (`Upscaler.centre`): of
            an image that is 0 to the network, it would make 0.
        inside: side of the part whose response is kept, in pixels of the image.
    """
    value += getattr(generator, "centre", 0.0)
    parameter = next(generator.parameters(), torch.empty(0))
    training = generator.training
    generator.eval()
    middle: Tensor | None = None
    for margin in MARGINS:
        side = inside + 2 * margin
        y: Tensor = generator(torch.full((1, channels, side, side), value).to(parameter))[0]
        scale = y.shape[-1] // side
        kept = slice(scale * margin, scale * (margin + inside))
        nearer, middle = middle, y[:, kept, kept]
        if nearer is not None and float((middle - nearer).abs().max()) <= 1e-6 * max(1.0, float(middle.abs().max())):
            break
    generator.train(training)
    assert middle is not None
    return middle


def checkerboard(image: Tensor, scale: int) -> float:
    """Standard deviation of the means of the scale^2 phases of `image` (C, s H, s W), averaged over C.

    0 where all phases are alike. In units of the image: 1 / 255 is a grey level.
    """
    channels, height, width = image.shape
    phases = image.double().reshape(channels, height // scale, scale, width // scale, scale).mean((1, 3))
    return float(phases.flatten(1).std(1, correction=0).mean())


def portrait(image: Tensor, scale: int, pixels: int = 8, zoom: int = 8) -> np.ndarray:
    """The first `pixels` x `pixels` input pixels of a response (C, s H, s W), to be looked at: (H', W', 1 | 3) uint8.

    Each output pixel becomes a square of side `zoom`. The deviation from the mean is stretched so that the largest
    is black or white, but a flat response stays grey: deviations below 1 / 255 are stretched as if one reached it.
    """
    part = image[:, : pixels * scale, : pixels * scale].float()
    deviation = part - part.mean((-2, -1), keepdim=True)
    stretched = 0.5 + 0.5 * deviation / deviation.abs().max().clamp(min=1 / 255)
    return to_uint8(stretched.repeat_interleave(zoom, -1).repeat_interleave(zoom, -2))
