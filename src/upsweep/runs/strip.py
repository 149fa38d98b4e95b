"""A run's strip for the report (`why.png`): small pictures of an explanation side by side, made smaller for a page.

What they show is a text in the PNG itself.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from upsweep.common.files import write_whole
from upsweep.imaging.marks import png_texts

KEY = "upsweep strip"  # of the PNG's text
MOST_BYTES, MOST_PIXELS = 2_000_000, 1_000_000  # of a file: a larger one is not opened
QUALITY = 80  # of WebP: a third of the PNG's size, so the page holds more


@dataclass(frozen=True)
class Strip:
    """A picture as WebP in base64, its width in pixels, and a sentence on what it shows, or nothing."""

    webp: str
    width: int
    shows: str = ""


def write_strip(file: Path, pixels: NDArray[np.uint8], shows: str) -> Path:
    """Write a picture (H, W, 3) whole or not at all; `shows` says what it shows, from left to right."""
    text, data = png_texts(), io.BytesIO()
    text.add_itxt(KEY, shows)
    Image.fromarray(pixels).save(data, "PNG", pnginfo=text)
    return write_whole(file, data.getvalue())


def read_strip(file: Path) -> Strip:
    """The strip of a PNG file. Raises ValueError: it is larger than a strip may be; OSError: it is not a picture."""
    if (size := file.stat().st_size) > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, more than {MOST_BYTES:,}")
    with Image.open(file, formats=["PNG"]) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"it has {picture.width}x{picture.height} pixels, more than {MOST_PIXELS:,}")
        data = io.BytesIO()
        picture.convert("RGB").save(data, "WEBP", quality=QUALITY, method=2)  # twice as fast as 4, which is 3 % smaller
        shows = str(picture.info.get(KEY, ""))
        return Strip(base64.b64encode(data.getvalue()).decode("ascii"), picture.width, shows)
