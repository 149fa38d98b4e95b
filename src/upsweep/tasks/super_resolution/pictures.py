"""Pictures by which a person judges a generator: one place as bicubic, SR and HR, side by side."""

import numpy as np
import torch
from torch import Tensor

from upsweep.imaging.colour import with_chroma
from upsweep.imaging.files import to_uint8
from upsweep.imaging.resize import enlarge
from upsweep.imaging.tiles import Panel, fullest, side_by_side
from upsweep.metrics.figure import Figure


def comparison(
    name: str,
    lr: Tensor,
    sr: Tensor,
    hr: Tensor,
    scale: int,
    *,
    rgb_lr: Tensor | None = None,
    rgb_hr: Tensor | None = None,
    figure: Figure | None = None,
    value: float | None = None,
    baseline: float | None = None,
    size: int | None = 320,
) -> Panel:
    """Show LR enlarged bicubically | SR | HR, each cut to the square in which HR has the most detail.

    The place depends on HR alone, so every run of a sweep shows the same one. A generator of luma is shown in
    the colours of `rgb_lr`, enlarged bicubically, where they are given, and in grey otherwise.

    Args:
        name: of the image; a path is fine.
        lr, sr, hr: (C, h, w), (C, H, W), (C, H, W), or with a batch axis of 1; values in [0, 1], C 1 or 3.
        scale: H / h.
        rgb_lr, rgb_hr: (3, h, w) and (3, H, W), the colours of a 1-channel image, or None if it is grey.
        figure, value, baseline: see `caption`.
        size: largest height and width of a tile; None shows the whole image.

    Returns:
        The panel, at most `size` high and `3 * size + 16` wide.
    """
    lr, sr, hr = (_batch(x).detach().float().cpu() for x in (lr, sr, hr))
    bicubic = enlarge(lr, scale)
    if hr.shape[1] == 1 and rgb_lr is not None and rgb_hr is not None:
        chroma = _batch(rgb_lr).detach().float().cpu()
        sr, bicubic = with_chroma(sr, chroma, scale), with_chroma(bicubic, chroma, scale)
        hr = _batch(rgb_hr).detach().float().cpu()
    height, width = hr.shape[-2:]
    window = (min(size or height, height), min(size or width, width))
    top, left = busiest(hr[0], window)
    tiles = [to_uint8(x[0, :, top : top + window[0], left : left + window[1]]) for x in (bicubic, sr, hr)]
    pixels = side_by_side([np.broadcast_to(tile, (*window, 3)) for tile in tiles])
    return Panel(name, pixels, caption(name, figure, value, baseline))


def caption(name: str, figure: Figure | None = None, value: float | None = None, baseline: float | None = None) -> str:
    """What a panel shows, from left to right, with what is known of a figure: SR's `value`, bicubic's `baseline`.

    >>> caption("coffee", Figure(name="psnr", title="PSNR", unit="dB"), 30.5, 29.25)
    'coffee: bicubic 29.25 dB | SR 30.50 dB (+1.25) | HR'
    """
    bicubic, sr = "bicubic", "SR"
    if figure is not None:
        title = "" if figure.unit else f"{figure.title} "  # a bare number does not say what it is
        if baseline is not None:
            bicubic += f" {title}{figure.text(baseline)}"
        if value is not None:
            sr += f" {title}{figure.text(value)}"
        if value is not None and baseline is not None:
            sr += f" ({figure.format(figure.lead(value, baseline), sign='+')})"
    return f"{name}: {bicubic} | {sr} | HR"


def busiest(image: Tensor, window: tuple[int, int]) -> tuple[int, int]:
    """Top left corner of the window (rows, columns) of `image` (C, H, W) with the most gradient energy.

    The first one in reading order where several are equal, so that the place never changes between runs.
    """
    grey = image.double().mean(dim=0)
    energy = torch.zeros_like(grey)
    energy[:-1] += grey.diff(dim=0).square()
    energy[:, :-1] += grey.diff(dim=1).square()
    return fullest(energy, window)


def _batch(image: Tensor) -> Tensor:
    return image if image.ndim == 4 else image.unsqueeze(0)
