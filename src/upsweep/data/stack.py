"""Images of one number of channels in one array of bytes: what a generator learns to make, prepared once.

Sixty thousand digits are one memory map, so that opening them costs nothing for each, and a batch is one gather. With a
cache folder (see `upsweep.data.cache`) the array lies beside a JSON index:

    <cache_dir>/<key>/pixels.bin    the images (C, H, W) back to back
    <cache_dir>/<key>/index.json    names, sizes, digests, labels; the files that were refused, and why
"""

import json
import mmap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from upsweep.common.errors import UserError
from upsweep.data.cache import INDEX, PIXELS, cached, digest_of, digests_of, each, key_of
from upsweep.data.containers import File, Inside, read_picture, states_of
from upsweep.data.sources import Files
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import Picture, to_tensor
from upsweep.imaging.resize import imresize

FORMAT = 1  # raise it whenever the same files and settings give other bytes

Crop = Literal["centre", "random", "resize"]
Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """What becomes of an image.

    Attributes:
        size: the side of the square that is wanted.
        channels: 1 (Y of BT.601; a grey image as it is) or 3 (RGB).
        crop: centre takes the largest square in the middle and shrinks it to the size, antialiased; resize does so to
            the whole image; random keeps the image whole, so that squares of the size can be cut out of it.
    """

    size: int
    channels: int
    crop: Crop

    @property
    def numbers(self) -> int:
        """How many a square of the size has."""
        return self.channels * self.size * self.size


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageStack:
    """Prepared images of one number of channels.

    Attributes:
        shape: what was made of the files.
        pixels: of all images, (C, H, W) each, back to back.
        starts: where in the pixels each begins, (N,).
        sizes: height and width of each, (N, 2).
        names: of the images.
        digests: of the pixels of their files, whatever was then made of them.
        labels: their classes, empty where they are not known.
        refused: a sentence for each file that could not be prepared, by name.
        folder: of the cache that the pixels are mapped from; None: they are in memory.
    """

    shape: Shape
    pixels: Bytes
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: Sequence[str]
    digests: Sequence[str]
    labels: Sequence[str]
    refused: dict[str, str]
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, row: int) -> Bytes:
        """One image (C, H, W), a view."""
        height, width = self.sizes[row]
        return self.pixels[self.starts[row] :][: self.shape.channels * height * width].reshape(-1, height, width)

    def cut(self, rows: Ints, tops: Ints, lefts: Ints) -> Bytes:
        """Squares (N, C, size, size) out of some images, by their top left corners."""
        if self.shape.crop != "random":
            return self._squares()[self.starts[rows] // self.shape.numbers]
        size, places = self.shape.size, zip(rows.tolist(), tops.tolist(), lefts.tolist(), strict=True)
        return np.stack([self[row][:, top : top + size, left : left + size] for row, top, left in places])

    def whole(self) -> Bytes:
        """All images (N, C, size, size), unless they are kept for random crops; a view, where none was taken out."""
        squares = self._squares()
        return squares if len(squares) == len(self) else squares[self.starts // self.shape.numbers]

    def _squares(self) -> Bytes:
        return self.pixels.reshape(-1, self.shape.channels, self.shape.size, self.shape.size)

    def without(self, names: Collection[str]) -> "ImageStack":
        """The images of other names."""
        return self.of([row for row, name in enumerate(self.names) if name not in names])

    def of(self, rows: Sequence[int]) -> "ImageStack":
        """Some of the images, of the same pixels."""
        names, digests, labels = ([said[row] for row in rows] for said in (self.names, self.digests, self.labels))
        where = np.asarray(rows, np.int64)
        starts, sizes = self.starts[where], self.sizes[where]
        return replace(self, starts=starts, sizes=sizes, names=names, digests=digests, labels=labels)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a mapped stack as its place: a worker maps the same cache."""
        if self.folder is None:
            return partial(ImageStack, **vars(self)), ()
        return _mapped, (self.folder, self.shape, self.starts)


class Fitted(NamedTuple):
    """One image as it is kept, with its name, digest and label."""

    pixels: Bytes  # (C, H, W)
    name: str
    digest: str
    label: str


def open_stack(files: Files, shape: Shape, cache_dir: Path | None) -> ImageStack:
    """Prepare every file, or map what an earlier call with the same files and shape has prepared.

    Args:
        files: by the name that each image shall have.
        shape: what is made of them.
        cache_dir: the folder of all caches, made where missing; None prepares in memory.

    Raises:
        UserError: the cache cannot be written.
    """
    if cache_dir is None:
        refused: dict[str, str] = {}
        fitted = list(_prepared(files, shape, refused))
        pixels = np.concatenate([np.empty(0, np.uint8), *(image.pixels.ravel() for image in fitted)])
        return _stack(shape, pixels, _index(fitted), refused)
    key = key_of("stack", FORMAT, repr(shape), list(files), states_of(files.values()))
    return cached(cache_dir, key, partial(_read, shape=shape), partial(_write, files=files, shape=shape))


def fit(name: str, file: File, shape: Shape) -> Fitted:
    """One image as a shape says; its label is that of a file of many, or the folder that it lies in.

    Raises:
        UserError: it cannot be read, or is smaller than the size: nothing is enlarged.
    """
    picture = read_picture(file)
    height, width = picture.pixels.shape[:2]
    if min(height, width) < shape.size:
        what = f"{width}x{height} pixels are too few for data.size={shape.size} (images are not enlarged)"
        raise UserError(f"{file}: {what}: choose a smaller size")
    label = file.label if isinstance(file, Inside) else PurePosixPath(name).parent.name
    return Fitted(_fitted(picture, shape), name, digest_of(picture), label)


def _fitted(picture: Picture, shape: Shape) -> Bytes:
    pixels = picture.pixels
    if shape.crop == "centre":
        side, (height, width) = min(pixels.shape[:2]), pixels.shape[:2]
        top, left = (height - side) // 2, (width - side) // 2
        pixels = pixels[top : top + side, left : left + side]
    fits = shape.crop == "random" or pixels.shape[:2] == (shape.size, shape.size)
    if fits and pixels.dtype == np.uint8 and pixels.shape[-1] <= shape.channels:  # nothing is calculated
        levels = pixels.transpose(2, 0, 1)
    else:
        image = to_tensor(pixels, np.float64)  # rounding must not hang on the last bits of a float32
        image = image if fits else imresize(image, (shape.size, shape.size)).clamp(0, 1)
        image = rgb_to_y(image) if len(image) > shape.channels else image
        levels = image.mul(255).round().to(torch.uint8).numpy()
    return np.ascontiguousarray(np.broadcast_to(levels, (shape.channels, *levels.shape[1:])))


def _prepared(files: Files, shape: Shape, refused: dict[str, str]) -> Iterator[Fitted]:
    return each(list(files), lambda name: fit(name, files[name], shape), refused)


def _index(fitted: Iterable[Fitted]) -> dict[str, Any]:
    """What is known of images, in columns: sixty thousand digits are read at once."""
    names, digests, labels, sizes = [], [], [], []
    for image in fitted:
        names.append(image.name)
        digests.append(image.digest)
        labels.append(image.label)
        sizes.append(image.pixels.shape[1:])
    return {"names": names, "digests": digests, "labels": labels, "sizes": sizes}


def _write(part: Path, files: Files, shape: Shape) -> None:
    refused: dict[str, str] = {}
    with (part / PIXELS).open("wb") as out:

        def written() -> Iterator[Fitted]:
            for image in _prepared(files, shape, refused):
                out.write(image.pixels.data)
                yield image

        index = _index(written())
    index |= {"blocks": digests_of(part / PIXELS), "refused": refused}
    (part / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _read(folder: Path, shape: Shape, *, check: bool = True) -> ImageStack | None:
    """Map a cache; None where there is none, or one whose pixels are not those that were written."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        if check and digests_of(folder / PIXELS) != index.pop("blocks"):
            return None
        refused = index.pop("refused")
        if not index["names"]:
            return _stack(shape, np.empty(0, np.uint8), index, refused)
        with (folder / PIXELS).open("rb") as file:  # a private copy of what is written to, which torch insists on
            pixels = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None
    return replace(_stack(shape, pixels, index, refused), folder=folder)


def _stack(shape: Shape, pixels: Bytes, index: dict[str, Any], refused: dict[str, str]) -> ImageStack:
    sizes = np.asarray(index["sizes"], np.int64).reshape(-1, 2)
    numbers = shape.channels * sizes.prod(axis=1)
    told = {key: index[key] for key in ("names", "digests", "labels")}
    return ImageStack(
        shape=shape, pixels=pixels, starts=numbers.cumsum() - numbers, sizes=sizes, refused=refused, **told
    )


def _mapped(folder: Path, shape: Shape, starts: Ints) -> ImageStack:
    """Some images of a cache, in a worker process."""
    opened = _reopened(folder, shape)
    if opened is None:
        raise UserError(f"The cache {folder} was deleted while it was in use: start again.")
    return opened.of(np.searchsorted(opened.starts, starts).tolist())


_reopened = lru_cache(maxsize=2)(partial(_read, check=False))  # the process that started this one has checked it
