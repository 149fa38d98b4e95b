"""One image as bicubic, SR, HR and error, with the place of the largest error magnified below."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from upsweep.imaging import lettering
from upsweep.imaging.colour import luma, with_chroma
from upsweep.imaging.files import to_uint8
from upsweep.imaging.resize import enlarge
from upsweep.imaging.tiles import GAP, fullest, side_by_side
from upsweep.tasks.super_resolution.data import EvalImage
from upsweep.tasks.super_resolution.judging import Figures

TILE = 360  # pixels: the width of each of the four columns
CROP = 60  # HR pixels: the side of what is magnified, where the image is that large
FULL_ERROR = 32  # grey levels of error that are shown brightest
MARK = (255, 215, 0)
# Black over purple and orange to pale yellow: brighter is worse, and it also prints in grey.
_HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float64)

Pixels = NDArray[np.uint8]


def overview(image: EvalImage, sr: Tensor, figures: Figures, bicubic: Figures | None = None) -> Pixels:
    """The picture (H, W, 3) of one image: a row of the whole of it, and a row of the marked place, magnified.

    Columns: LR enlarged bicubically | SR | HR | error. The error is that of the luma, |SR - HR|, black for none and
    brightest from 32 of 256 grey levels on. The place is the square of 60 HR pixels with the largest squared error,
    of which a border as wide as the scale counts nothing.

    Args:
        image: as `evaluate` hands it out, (1, C, H, W) in [0, 1].
        sr: (1, C, H, W); a luma is shown in the colours of LR, enlarged bicubically.
        figures: of SR, for the words above.
        bicubic: those of the first column.
    """
    image = image.each(lambda x: x.detach().float().cpu())
    tiles, error = _tiles(image, sr.detach().float().cpu())
    height, width = error.shape
    side = min(CROP, height, width)
    # Where padding fails, at the borders, protocols do not look.
    shave = height // image.lr.shape[-2]
    energy = torch.zeros_like(error, dtype=torch.float64)
    energy[shave:-shave, shave:-shave] = error[shave:-shave, shave:-shave].double().square()
    top, left = fullest(energy, (side, side))
    factor = TILE / width
    x, y = left * factor, top * factor
    mark = [round(at) for at in (x, y, x + side * factor - 1, y + side * factor - 1)]
    size = (TILE, max(1, round(height * factor)))
    words = [
        "bicubic" + ("" if bicubic is None else f"  {bicubic.psnr:.2f} dB  {bicubic.ssim:.4f}"),
        f"SR  {figures.psnr:.2f} dB  {figures.ssim:.4f}",
        f"HR  {width}x{height}",
        f"error of Y, 0 to {FULL_ERROR} levels or more",
    ]
    gap = np.full((GAP, TILE, 3), 255, np.uint8)
    columns = []
    for above, tile in zip(words, [*tiles, heat(error)], strict=True):
        cut = tile[top : top + side, left : left + side]
        magnified = _marked(cut, (TILE, TILE), [0, 0, TILE - 1, TILE - 1])
        columns.append(np.concatenate([lettering.words([above], TILE), _marked(tile, size, mark), gap, magnified]))
    return side_by_side(columns)


def heat(error: Tensor) -> Pixels:
    """Colours (H, W, 3) of an error (H, W) in [0, 1]."""
    level = (error.double() * 255 / FULL_ERROR).clamp(0, 1).numpy()
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(level, stops, _HEAT[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def _tiles(image: EvalImage, sr: Tensor) -> tuple[list[Pixels], Tensor]:
    """Bicubic, SR and HR (H, W, 3) in colour where there is any, and the error of the luma (H, W) in [0, 1]."""
    scale = image.hr.shape[-1] // image.lr.shape[-1]
    bicubic, hr = enlarge(image.lr, scale), image.hr
    error = (luma(sr.clamp(0, 1)) - luma(hr.clamp(0, 1))).abs()[0, 0]
    if image.rgb_lr is not None and image.rgb_hr is not None:
        if sr.shape[1] == 1:
            sr = with_chroma(sr, image.rgb_lr, scale)
        bicubic, hr = enlarge(image.rgb_lr, scale), image.rgb_hr
    shown = [to_uint8(x[0]) for x in (bicubic, sr, hr)]
    return [np.ascontiguousarray(np.broadcast_to(x, (*x.shape[:2], 3))) for x in shown], error


def _marked(pixels: Pixels, size: tuple[int, int], box: list[int]) -> Pixels:
    """Pixels at another size (width, height), enlarged ones as squares, with a frame in them."""
    resampling = Image.Resampling.LANCZOS if size[0] < pixels.shape[1] else Image.Resampling.NEAREST
    shown = Image.fromarray(pixels).resize(size, resampling)
    ImageDraw.Draw(shown).rectangle(box, outline=MARK, width=2)
    return np.asarray(shown)
