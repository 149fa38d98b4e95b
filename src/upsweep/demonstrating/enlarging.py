"""A photo in; its enlargement, what a bicubic one would be, and a sentence out."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from upsweep.common.errors import UserError
from upsweep.imaging.files import MAX_PIXELS, Picture, decode_image
from upsweep.imaging.writing import write_image
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.upscaling.picture import Advance, Enlarger

WIPED = 2048  # pixels: the sides of what a browser wipes over without effort


@dataclass(frozen=True)
class Enlarged:
    """The files of one enlargement.

    Attributes:
        file: the whole, as `upscale.py` writes it.
        bicubic, ours: what the wipe compares, of the same size: the whole, or of a large photo the middle.
        said: sizes and time.
    """

    file: Path
    bicubic: Path
    ours: Path
    said: str


def enlarge(
    photo: Path, enlarger: Enlarger, folder: Path, *, max_pixels: int = MAX_PIXELS, advance: Advance = lambda _: None
) -> Enlarged:
    """Enlarge a photo into files in an existing folder; `advance` is told of every tile.

    Raises:
        UserError: the photo cannot be read or is too large, or the network cannot enlarge it; by the photo's name.
    """
    begun = time.perf_counter()
    scale = enlarger.generator.scale
    picture = decode_image(photo.read_bytes(), photo.name, max_pixels=max_pixels)
    try:
        larger = enlarger(picture, advance)
    except UserError as error:
        raise UserError(f"{photo.name}: {error}") from error
    seconds = time.perf_counter() - begun
    file = folder / f"{photo.stem}_x{scale}.png"
    write_image(file, larger)
    bicubic, ours = folder / "bicubic.png", file
    part = _middle(picture, WIPED // scale)
    write_image(bicubic, Enlarger(Bicubic(scale=scale, channels=part.pixels.shape[-1]))(part))
    whole = part.samples.shape == picture.samples.shape
    if not whole:
        ours = folder / "ours.png"
        write_image(ours, _middle(larger, WIPED // scale * scale, scale))
    said = f"{_size(picture)} became {_size(larger)} in {seconds:.2f} s on {enlarger.device} by {enlarger.engine}."
    shown = "" if whole else f" The wipe shows its middle, {_size(part, scale)}."
    return Enlarged(file, bicubic, ours, f"{said} The PNG has {file.stat().st_size / 1e3:,.0f} kB.{shown}")


def _middle(picture: Picture, most: int, unit: int = 1) -> Picture:
    """The middle of a picture, of at most so many pixels a side, cut at multiples of `unit`."""
    height, width = picture.samples.shape[:2]
    top, left = (max(0, (side - most) // (2 * unit) * unit) for side in (height, width))
    return replace(picture, samples=picture.samples[top : top + most, left : left + most])


def _size(picture: Picture, scale: int = 1) -> str:
    height, width = picture.samples.shape[:2]
    return f"{scale * width}x{scale * height}"
