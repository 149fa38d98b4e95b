"""A part of an explanation: a picture, what it shows, and its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from upsweep.imaging.tiles import Panel


@dataclass(frozen=True, eq=False, kw_only=True)
class Section:
    """One view of one network, or of several side by side.

    Attributes:
        name: of its picture's file, without the suffix: `attribution`.
        title: what the page calls it.
        picture: (H, W, 3) uint8.
        reading: how to read the picture, in a sentence or two, whatever it shows.
        said: a sentence on what it shows of each network.
        figures: by the name of a case, its figures by their names.
        tiles: by the name of a case, a small picture (H, W, 3) uint8 of it, for the report of a sweep.
        spectrum: by the name of a case, columns of equal length by their names, for the report, which draws them anew.
    """

    name: str
    title: str
    picture: NDArray[np.uint8]
    reading: str
    said: tuple[str, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tiles: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    spectrum: Mapping[str, Mapping[str, list[float]]] = field(default_factory=dict)


def figures_of(sections: Sequence[Section], name: str) -> dict[str, float]:
    """All figures of one case."""
    return {key: value for section in sections for key, value in section.figures.get(name, {}).items()}


def panels(sections: Sequence[Section]) -> list[Panel]:
    """The pictures, for a log."""
    return [
        Panel(section.name, section.picture, " ".join([section.title + ".", *section.said])) for section in sections
    ]
