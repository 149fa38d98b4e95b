"""The checkerboard: what a generator makes of a constant image, by the phases of its enlargement.

A deconvolution whose kernel is no multiple of its stride adds up more products in some output pixels than in
others (Odena et al. 2016, "Deconvolution and checkerboard artifacts"); random weights differ by phase in any case.
"""

import numpy as np
import torch
from torch import Tensor, nn

from upsweep.imaging.files import to_uint8


@torch.no_grad()
def response(generator: nn.Module, channels: int, value: float = 0.5, side: int = 64, margin: int = 16) -> Tensor:
    """What `generator`, in evaluation mode, makes of a constant image, without the borders: (channels, H, W).

    Args:
        generator: (1, channels, side, side) -> (1, channels, s side, s side).
        channels: 1 or 3.
        value: of every pixel of the image.
        side: of the image, in pixels.
        margin: pixels of it at each side whose response is cut off.
    """
    parameter = next(generator.parameters(), torch.empty(0))
    training = generator.training
    generator.eval()
    y: Tensor = generator(torch.full((1, channels, side, side), value).to(parameter))[0]
    generator.train(training)
    scale = y.shape[-1] // side
    inside = slice(scale * margin, scale * (side - margin))
    return y[:, inside, inside]


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
