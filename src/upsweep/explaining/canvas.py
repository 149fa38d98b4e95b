"""A sheet of many small pictures, laid out pixel by pixel: quicker and sharper than an axes for each of them."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from upsweep.explaining.drawing import DPI, TEXT
from upsweep.imaging.files import to_uint8

SIZE = round(TEXT * DPI / 72)  # pixels: letters as high as those of the other pictures
LINE = SIZE + 4  # pixels from one line of words to the next
GREY = "#5b6570"


class Canvas:
    """White, of a height that grows with what is put on it; places are (x, y) in pixels from the top left."""

    def __init__(self, width: int) -> None:
        self._sheet = Image.new("RGB", (width, 64), "white")
        self._lowest = 0

    def picture(self, at: tuple[int, int], image: Tensor, size: tuple[int, int]) -> None:
        """An image (C, H, W) in [0, 1] at a size (width, height): enlarged as squares, shrunk smoothly."""
        pixels = to_uint8(image.detach())
        shown = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
        how = Image.Resampling.BOX if size[0] < shown.width else Image.Resampling.NEAREST
        self._reach(at[1] + size[1])
        self._sheet.paste(shown.resize(size, how), at)

    def words(self, at: tuple[int, int], text: str, *, anchor: str = "la", bold: bool = False, **how: str) -> None:
        """A line of text; `anchor` as Pillow has it: `la` begins at the place, `ma` is centred below it."""
        self._reach(at[1] + LINE)
        self._pen.text(at, text, font=_font(bold), anchor=anchor, **{"fill": "black", **how})  # type: ignore[arg-type]

    def heading(self, top: int, name: str) -> int:
        """A name in bold over the whole width, in as many lines as it needs; gives the row of pixels below."""
        lines = broken(name, self._sheet.width - 8, bold=True)
        for number, line in enumerate(lines):
            self.words((4, top + number * LINE), line, bold=True)
        return top + len(lines) * LINE

    def caption(self, at: tuple[int, int], name: str, more: Sequence[str] = (), *, width: int) -> None:
        """A name in black, and more in grey below it; lines are broken to fit a width."""
        lines = [(line, "black") for line in broken(name, width)]
        lines += [(line, GREY) for text in more for line in broken(text, width)]
        for number, (line, colour) in enumerate(lines):
            self.words((at[0], at[1] + number * LINE), line, fill=colour)

    def box(
        self, at: tuple[int, int], size: tuple[int, int], *, edge: str | None = None, fill: str | None = None
    ) -> None:
        """A rectangle of a size (width, height): a frame of 2 pixels around it, or filled."""
        (x, y), (width, height) = at, size
        self._reach(y + height + 2)
        if edge is not None:
            self._pen.rectangle((x - 2, y - 2, x + width + 1, y + height + 1), outline=edge, width=2)
        if fill is not None and width > 0:
            self._pen.rectangle((x, y, x + width - 1, y + height - 1), fill=fill)

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3), with a margin below what lies lowest."""
        return np.asarray(self._sheet.crop((0, 0, self._sheet.width, self._lowest + 8)))

    @property
    def _pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._sheet)

    def _reach(self, low: int) -> None:
        """Make room down to a row."""
        self._lowest = max(self._lowest, low)
        if low + 8 > self._sheet.height:
            taller = Image.new("RGB", (self._sheet.width, 2 * (low + 8)), "white")
            taller.paste(self._sheet)
            self._sheet = taller


def broken(text: str, width: int, *, bold: bool = False) -> list[str]:
    """Text in lines of at most so many pixels, or of a word that is longer: broken within."""
    return wrap(text, max(4, int(width / _font(bold).getlength("n")))) or [""]


@lru_cache(maxsize=2)
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """Matplotlib's letters, which its wheel carries."""
    name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), SIZE)
