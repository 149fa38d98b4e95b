"""The image that networks are explained on: read once, for networks of any scale and number of channels."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.data.photos import VAL, photo_files
from upsweep.data.store import Settings, prepare
from upsweep.imaging.files import Picture, read_image
from upsweep.tasks.super_resolution.data import EvalImage, EvalImages, batch_of_one

LARGEST = 1024  # HR pixels in a side: only a part of a larger photo is used
DEFAULT = VAL[1]  # coffee


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as HR.

    Attributes:
        name: of its file, without the ending.
        picture: its pixels, at most `LARGEST` in a side.
        corner: of these pixels in the file: column and row.
        size: of the file: width and height.
    """

    name: str
    picture: Picture
    corner: tuple[int, int]
    size: tuple[int, int]
    _seen: dict[tuple[int, int], EvalImage] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def read(cls, path: str | Path | None, around: Sequence[int] | None = None) -> Self:
        """The photo of a file, or coffee; of a large one the part around a place [x, y], or its middle.

        Raises:
            UserError: the file cannot be read, or the place is not in it.
        """
        file = photo_files((DEFAULT,))[DEFAULT] if path is None else Path(path).expanduser()
        picture = read_image(file)
        height, width = picture.samples.shape[:2]
        x, y = place(around, file.name, width, height) if around is not None else (width // 2, height // 2)
        left, top = (max(0, min(i - LARGEST // 2, side - LARGEST)) for i, side in ((x, width), (y, height)))
        part = picture.samples[top : top + LARGEST, left : left + LARGEST]
        return cls(file.stem, replace(picture, samples=part), (left, top), (width, height))

    @property
    def said(self) -> str:
        """The sentence that says that only a part of the photo is used, or nothing."""
        height, width = self.picture.samples.shape[:2]
        if (width, height) == self.size:
            return ""
        whole, (left, top) = "{}x{}".format(*self.size), self.corner
        return f"{self.name} has {whole} pixels; only the {width}x{height} from [{left},{top}] on are used."

    def seen(self, scale: int, channels: int) -> EvalImage:
        """As a network sees it, with N = 1: HR cropped to a multiple of the scale, and its bicubic shrink as LR.

        Raises:
            UserError: it is smaller than an LR pixel.
        """
        if (scale, channels) not in self._seen:
            stored = prepare(self.name, self.picture, Settings(scale, channels, colour=True))
            image = batch_of_one([EvalImages([stored])[0]])
            self._seen[scale, channels] = image._replace(lr=_wide(image.lr, channels), hr=_wide(image.hr, channels))
        return self._seen[scale, channels]


def place(at: object, name: str, width: int, height: int) -> tuple[int, int]:
    """Column and row of a pixel, as given.

    Raises:
        UserError: they are not whole numbers, or not in the image.
    """
    if not isinstance(at, list | tuple) or len(at) != 2 or not all(type(value) is int for value in at):
        raise UserError(f"at={at} must be two whole numbers, at=[x,y]: column and row of a corner in HR pixels.")
    x, y = at
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"at=[{x},{y}] is not in {name}, which has {width}x{height} pixels.")
    return x, y


def _wide(image: Tensor, channels: int) -> Tensor:
    """A grey image for a network of RGB: the same three times."""
    return image.expand(-1, channels, -1, -1)
