"""The checkerboard: what a generator makes of a constant image, or of many latents, by the phases of its enlargement.

A deconvolution whose kernel is no multiple of its stride adds up more products in some output pixels than in
others (Odena et al. 2016, "Deconvolution and checkerboard artifacts"); random weights differ by phase in any case.
"""

import numpy as np
import torch
from torch import Tensor, nn

from upsweep.imaging.files import to_uint8

INSIDE = 16  # pixels of the input: side of the part whose response is kept
MARGINS = (16, 32, 64)  # pixels around it; a network's own borders must not reach further
SHOWN, ZOOM = 8, 8  # pixels of the input in a portrait, and the side of the square that shows one output pixel


@torch.no_grad()
def response(generator: nn.Module, channels: int) -> Tensor:
    """What `generator`, in evaluation mode, makes of a constant image, far from its borders: (channels, 16 s, 16 s).

    How far that is depends on the network (EDSR sees 36 pixels of its input): more is cut off until that makes no
    difference. The pixels are 0.5 above what the generator takes off its input (`Upscaler.centre`): of an image that
    is 0 to the network, it would make 0.

    Args:
        generator: (1, channels, h, w) -> (1, channels, s h, s w).
        channels: 1 or 3.
    """
    value = 0.5 + getattr(generator, "centre", 0.0)
    parameter = next(generator.parameters(), torch.empty(0))
    training = generator.training
    generator.eval()
    middle = torch.tensor(torch.inf)
    for margin in MARGINS:
        side = INSIDE + 2 * margin
        y: Tensor = generator(torch.full((1, channels, side, side), value).to(parameter))[0]
        scale = y.shape[-1] // side
        kept = slice(scale * margin, scale * (margin + INSIDE))
        nearer, middle = middle, y[:, kept, kept]
        if float((middle - nearer).abs().max()) <= 1e-6 * max(1.0, float(middle.abs().max())):
            break
    generator.train(training)
    return middle


def checkerboard(image: Tensor, scale: int) -> float:
    """Standard deviation of the means of the scale^2 phases of `image` (C, s H, s W), averaged over C.

    0 where all phases are alike. In units of the image: 1 / 255 is a grey level.
    """
    channels, height, width = image.shape
    phases = image.double().reshape(channels, height // scale, scale, width // scale, scale).mean((1, 3))
    return float(phases.flatten(1).std(1, correction=0).mean())


def of_samples(images: Tensor, stride: int) -> float:
    """The checkerboard of what a synthesiser makes: of the mean of its images (N, C, S, S), in the middle half.

    `stride` is that of its last upsampling. The mean over many samples keeps what all of them have at the same place,
    so a checkerboard that comes from the weights shows, and one that changes its sign from sample to sample does not.
    It is no pure measure: where the mean image slopes, neighbouring phases differ too (by the slope a pixel), and N
    samples leave noise. Compare it with what it is on as many real images: well above that is a checkerboard.
    """
    side = images.shape[-1]
    margin = side // 4 // stride * stride
    middle = slice(margin, margin + (side - 2 * margin) // stride * stride)
    return checkerboard(images.double().mean(0)[:, middle, middle], stride)


def portrait(image: Tensor, scale: int) -> np.ndarray:
    """The first 8x8 input pixels of a response (C, s H, s W), to be looked at: (64 s, 64 s, 1 | 3) uint8.

    Each output pixel becomes a square of side 8. The deviation from the mean is stretched so that the largest
    is black or white, but a flat response stays grey: deviations below 1 / 255 are stretched as if one reached it.
    """
    part = image[:, : SHOWN * scale, : SHOWN * scale].float()
    deviation = part - part.mean((-2, -1), keepdim=True)
    stretched = 0.5 + 0.5 * deviation / deviation.abs().max().clamp(min=1 / 255)
    return to_uint8(stretched.repeat_interleave(ZOOM, -1).repeat_interleave(ZOOM, -2))
