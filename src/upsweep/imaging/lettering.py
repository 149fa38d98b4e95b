"""Words above pictures: Pillow's own letters, black on white."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from upsweep.imaging.tiles import GAP, side_by_side

SIZE = 14  # pixels: of the letters
LINE = 22  # pixels: from one line to the next
LEAST = 112  # pixels: the width in which a label can be read
Pixels = NDArray[np.uint8]


def labelled(pixels: Pixels, labels: Sequence[str]) -> Pixels:
    """A picture (H, W, 3) of tiles of equal width with gaps of 8 pixels, a label above each of them: (H', W', 3).

    One label stands above all of it. Small tiles are enlarged as squares until words have room, and long labels are
    broken into lines: none is cut.
    """
    width = (pixels.shape[1] + GAP) // len(labels) - GAP
    times = max(1, -(-LEAST // width))
    tiles = [pixels[:, x : x + width] for x in range(0, pixels.shape[1], width + GAP)]
    lines = [list(broken(label, times * width)) for label in labels]
    height = max(map(len, lines))
    heads = [words([*of, *[""] * (height - len(of))], times * width) for of in lines]
    enlarged = [tile.repeat(times, 0).repeat(times, 1) for tile in tiles]
    return side_by_side([np.concatenate(column) for column in zip(heads, enlarged, strict=True)])


def words(lines: Sequence[str], width: int) -> Pixels:
    """Lines of words, one below the other: (22 x lines, width, 3)."""
    sheet = Image.new("RGB", (width, LINE * len(lines)), "white")
    for number, line in enumerate(lines):
        ImageDraw.Draw(sheet).text((2, LINE * number + 2), line, fill="black", font=_font())
    return np.asarray(sheet)


def broken(text: str, width: int) -> Iterator[str]:
    """A text in lines of at most so many pixels, broken between words, or within one that is longer than a line."""
    room, line = width - 4, ""
    for word in text.split():
        longer = f"{line} {word}".lstrip()
        if _font().getlength(longer) <= room:
            line = longer
            continue
        if line:
            yield line
        line = ""
        for letter in word:
            if line and _font().getlength(line + letter) > room:
                yield line
                line = ""
            line += letter
    yield line


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(SIZE)
