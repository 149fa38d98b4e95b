"""Pictures for the log: tiles beside each other, and the part of an image that is worth a look."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch.nn.functional as F
from torch import Tensor

GAP = 8  # white pixels between two tiles


class Panel(NamedTuple):
    """A picture for the log.

    Attributes:
        name: of the image; whoever keeps it as a file or logs it by a key makes a safe name of it.
        pixels: (H, W, 3) uint8.
        caption: what is seen, with its figures.
        tiles: what its parts are called, from left to right: of the `baseline`, of what was `made`, of the `wanted`,
            or of some of them; the report shows them one by one.
        shows: what all of them show, for the report.
        labels: what a file has above each of its tiles, from left to right; the caption where there are none.
    """

    name: str
    pixels: np.ndarray
    caption: str
    tiles: Mapping[str, str] = MappingProxyType({"baseline": "baseline", "made": "made", "wanted": "target"})
    shows: str = ""
    labels: Sequence[str] = ()


Cell = float | int | str | Panel | None
"""What stands in a table of a log: a number, a word, a picture, or nothing."""


def apart(panel: Panel) -> list[Panel]:
    """The tiles of a panel, from left to right, each a panel named by its title; the captions are the labels."""
    titles = [*panel.tiles.values()]
    width = (panel.pixels.shape[1] + GAP) // len(titles) - GAP
    captions = panel.labels if len(panel.labels) == len(titles) else titles
    lefts = (i * (width + GAP) for i in range(len(titles)))
    return [
        Panel(title, np.ascontiguousarray(panel.pixels[:, left : left + width]), caption)
        for title, left, caption in zip(titles, lefts, captions, strict=True)
    ]


def side_by_side(tiles: list[np.ndarray]) -> np.ndarray:
    """Tiles (H, W, 3) uint8 of one height in a row, with white gaps: (H, W1 + 8 + W2 + ..., 3)."""
    gap = np.full((tiles[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for tile in tiles for part in (tile, gap)]
    return np.concatenate(row[:-1], axis=1)


def fullest(energy: Tensor, window: tuple[int, int]) -> tuple[int, int]:
    """Top left corner of the window (rows, columns) with the largest sum of `energy` (H, W).

    The first one in reading order where several are equal, so that the place never changes between runs.
    """
    # A summed-area table: the sum of every window in four look-ups.
    table = F.pad(energy.cumsum(0).cumsum(1), (1, 0, 1, 0))
    rows, columns = window
    total = table[rows:, columns:] - table[:-rows, columns:] - table[rows:, :-columns] + table[:-rows, :-columns]
    return divmod(int(total.argmax()), total.shape[1])
