"""Pictures by which a person judges a generator: one place as bicubic, SR and HR, side by side."""

import numpy as np
import torch
from torch import Tensor

from upsweep.imaging.colour import with_chroma
from upsweep.imaging.files import to_uint8
from upsweep.imaging.resize import enlarge
from upsweep.imaging.tiles import Cell, Panel, fullest, side_by_side
from upsweep.metrics.figure import Figure
from upsweep.tasks.super_resolution.data import EvalImage

SIZE = 320  # pixels: the side of a tile
TILES = {"baseline": "bicubic", "made": "SR", "wanted": "HR"}


def comparison(
    image: EvalImage,
    sr: Tensor,
    *,
    figure: Figure | None = None,
    value: float | None = None,
    baseline: float | None = None,
    size: int | None = SIZE,
) -> Panel:
    """Show LR enlarged bicubically | SR | HR, each cut to the square in which HR has the most detail.

    The place depends on HR alone, so every run of a sweep shows the same one. A generator of luma is shown in
    the colours of LR, enlarged bicubically, where the image has any, and in grey otherwise.

    Args:
        image: with N = 1; its name may be a path.
        sr: (1, C, H, W), values in [0, 1], C 1 or 3.
        figure, value, baseline: see `labels`.
        size: largest height and width of a tile (the panel is then 3 size + 16 wide); None shows the whole image.
    """
    name, lr, hr, rgb_lr, rgb_hr = image.each(lambda x: x.detach().float().cpu())
    sr, scale = sr.detach().float().cpu(), hr.shape[-1] // lr.shape[-1]
    bicubic = enlarge(lr, scale)
    if hr.shape[1] == 1 and rgb_lr is not None and rgb_hr is not None:
        sr, bicubic, hr = with_chroma(sr, rgb_lr, scale), with_chroma(bicubic, rgb_lr, scale), rgb_hr
    height, width = hr.shape[-2:]
    window = (min(size or height, height), min(size or width, width))
    top, left = busiest(hr[0], window)
    tiles = [to_uint8(x[0, :, top : top + window[0], left : left + window[1]]) for x in (bicubic, sr, hr)]
    pixels = side_by_side([np.broadcast_to(tile, (*window, 3)) for tile in tiles])
    shows = "The same crop of the first validation image, where HR has the most detail"
    above = labels(figure, value, baseline)
    return Panel(name, pixels, f"{name}: {' | '.join(above)}", TILES, shows, above)


def place(image: EvalImage, size: int = SIZE) -> tuple[int, int]:
    """Top left corner of the square in which HR (with N = 1) has the most detail, at a pixel of LR."""
    height, width = image.hr.shape[-2:]
    scale = height // image.lr.shape[-2]
    top, left = busiest(image.hr[0].detach().float().cpu(), (min(size, height), min(size, width)))
    return top - top % scale, left - left % scale


def cut(image: EvalImage, sr: Tensor, corner: tuple[int, int], size: int = SIZE) -> dict[str, Cell]:
    """LR as it is, SR and HR of one square: pictures for a table, under these names.

    Args:
        image, sr: as for `comparison`; SR of luma has the colours of LR, enlarged bicubically.
        corner: top and left of the square, see `place`.
        size: height and width of it in HR; less at the border of an image.
    """
    scale = image.hr.shape[-1] // image.lr.shape[-1]

    def window(x: Tensor, by: int = 1) -> Tensor:
        top, left = (at // by for at in corner)
        return x[..., top : top + size // by, left : left + size // by].detach().float().cpu()

    lr, made, hr = window(image.lr, scale), window(sr), window(image.hr)
    made, hr = (x[..., : lr.shape[-2] * scale, : lr.shape[-1] * scale] for x in (made, hr))
    if image.rgb_lr is not None and image.rgb_hr is not None:
        lr, hr = window(image.rgb_lr, scale), window(image.rgb_hr)[..., : hr.shape[-2], : hr.shape[-1]]
        made = with_chroma(made, lr, scale) if made.shape[1] == 1 else made
    pixels = {name: to_uint8(x[0]) for name, x in {"LR": lr, "SR": made, "HR": hr}.items()}
    return {name: Panel(name, np.broadcast_to(x, (*x.shape[:2], 3)), name) for name, x in pixels.items()}


def labels(
    figure: Figure | None = None, value: float | None = None, baseline: float | None = None
) -> tuple[str, str, str]:
    """What a panel shows, from left to right, with what is known of a figure: SR's `value`, bicubic's `baseline`.

    >>> labels(Figure(name="psnr", title="PSNR", unit="dB"), 30.5, 29.25)
    ('bicubic 29.25 dB', 'SR 30.50 dB (+1.25)', 'HR')
    """
    bicubic, sr = "bicubic", "SR"
    if figure is not None:
        if baseline is not None:
            bicubic += f" {figure.told(baseline)}"
        if value is not None:
            sr += f" {figure.told(value)}"
        if value is not None and baseline is not None:
            sr += f" ({figure.format(figure.lead(value, baseline), sign='+')})"
    return bicubic, sr, "HR"


def busiest(image: Tensor, window: tuple[int, int]) -> tuple[int, int]:
    """Top left corner of the window (rows, columns) of `image` (C, H, W) with the most gradient energy.

    The first one in reading order where several are equal, so that the place never changes between runs.
    """
    grey = image.double().mean(dim=0)
    energy = torch.zeros_like(grey)
    energy[:-1] += grey.diff(dim=0).square()
    energy[:, :-1] += grey.diff(dim=1).square()
    return fullest(energy, window)
