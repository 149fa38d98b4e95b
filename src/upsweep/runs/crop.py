"""A run's picture for the report (`crop.png`): what was made beside what it is compared with, a name on each tile.

The names are a text in the PNG itself, so that a reader of the file need not know the task.
"""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from upsweep.common.files import write_whole
from upsweep.imaging import marks
from upsweep.runs.layout import GAP

Role = Literal["baseline", "made", "wanted"]
KEY = "upsweep"  # of the PNG's text
UNNAMED = {"baseline": "baseline", "made": "made", "wanted": "target"}  # tiles of a file, or a task, that says nothing


@dataclass(frozen=True)
class Tile:
    """A part of the picture: its place in the comparison, what people call it, and a PNG in base64 with its width."""

    role: Role
    title: str
    png: str
    width: int


@dataclass(frozen=True)
class Crop:
    """The tiles from left to right, one of them made by the network; `shows` says what all of them show."""

    tiles: tuple[Tile, ...]
    shows: str = ""

    @property
    def made(self) -> Tile:
        """What the network made."""
        return next(tile for tile in self.tiles if tile.role == "made")

    @property
    def others(self) -> tuple[Tile, ...]:
        """What that is compared with: the same in all runs on the same data."""
        return tuple(tile for tile in self.tiles if tile.role != "made")


def write(file: Path, pixels: np.ndarray, titles: Mapping[str, str] = UNNAMED, shows: str = "") -> Path:
    """Write a picture (H, W, 3) uint8, whole or not at all.

    Args:
        titles: role -> title of each of its tiles, which are equally wide, with gaps of 8 pixels.
        shows: a sentence on all of them, for the report.
    """
    text, data = marks.png_texts(), io.BytesIO()
    text.add_itxt(KEY, json.dumps({"tiles": dict(titles), "shows": shows}))
    Image.fromarray(pixels).save(data, "PNG", pnginfo=text)
    return write_whole(file, data.getvalue())


def read(file: Path) -> Crop:
    """The tiles of a file; without names they are baseline, made and target. Raises ValueError, OSError."""
    with Image.open(file) as picture:
        panel = picture.convert("RGB")
        said = json.loads(picture.info.get(KEY) or json.dumps({"tiles": UNNAMED}))
    titles = said["tiles"]
    if "made" not in titles or not titles.keys() <= set(get_args(Role)):
        raise ValueError(f"its tiles are {', '.join(titles)}")
    width = (panel.width + GAP) // len(titles) - GAP
    if width < 1:
        raise ValueError(f"its width is {panel.width}")
    cuts = (panel.crop((x, 0, x + width, panel.height)) for x in range(0, panel.width, width + GAP))
    tiles = (Tile(role, title, _png(cut), width) for (role, title), cut in zip(titles.items(), cuts, strict=True))
    return Crop(tuple(tiles), said.get("shows", ""))


def _png(tile: Image.Image) -> str:
    red, green, blue = tile.split()
    grey = red.tobytes() == green.tobytes() == blue.tobytes()
    data = io.BytesIO()
    (red if grey else tile).save(data, "PNG", optimize=True)
    return base64.b64encode(data.getvalue()).decode("ascii")
