"""The walk of an image from its file to arrays that can be cropped: read and prepared once, memory-mapped.

`open_images` is the whole of it. With a cache folder, the prepared arrays of all files lie back to back in
one file beside a JSON index:

    <cache_dir>/<key>/pixels.bin    every array, C-contiguous, 64-byte aligned
    <cache_dir>/<key>/index.json    names, shapes and offsets; the files that were refused, and why; a digest a block

When the folder is made, and by whom: `upsweep.data.cache`.
"""

import json
import mmap
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.data.cache import INDEX, PIXELS, cached, digest_of, digests_of, each, key_of
from upsweep.data.containers import File, read_picture, states_of
from upsweep.data.degradation import BICUBIC, Chain, stream_of
from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.files import Picture, to_tensor
from upsweep.imaging.resize import crop_to_multiple, imresize

FORMAT = 5  # raise it whenever the same files and settings give other bytes
ALIGNMENT = 64
STORED: dict[str, type[np.generic]] = {"hr": np.uint8, "lr": np.float32, "rgb_hr": np.uint8, "rgb_lr": np.float32}

Pairs = Mapping[str, tuple[File, File | None]]  # by the name of the image: HR, and LR where it has a file


@dataclass(frozen=True)
class Settings:
    """What the prepared arrays depend on, beside the files."""

    scale: int
    channels: int  # what the generator sees: 1 (Y) or 3 (RGB)
    colour: bool  # whether RGB is kept beside Y (validation: pictures, RGB protocols)
    degradation: Chain = BICUBIC  # how LR is made of the whole HR; what is random in it follows the name of the image
    size: float = 1.0  # the share of its height and width to which the picture is shrunk before anything else


class Mapped(NamedTuple):
    """Where an image lies: the cache, the place in it, and the map through which it is read."""

    folder: Path
    settings: Settings
    number: int
    map: mmap.mmap


class StoredImage(NamedTuple):
    """One prepared image: read-only arrays, in memory or mapped.

    HR is uint8, cropped to a multiple of the scale (top left kept). LR is what the degradation makes of the whole HR
    (bicubically shrunk: in [0, 1] with slight overshoot, not rounded), or was read from a file of its own.
    """

    name: str
    hr: NDArray[np.uint8]  # (C, H, W), C = Settings.channels
    lr: NDArray[np.float32]  # (C, H / scale, W / scale)
    rgb_hr: NDArray[np.uint8] | None = None  # (3, H, W); None: stored grey, or not asked for
    rgb_lr: NDArray[np.float32] | None = None  # (3, H / scale, W / scale)
    digest: str = ""  # of the pixels of its files, whatever was then made of them
    mapped: Mapped | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the place of a mapped image, not its bytes: a worker maps the same cache."""
        return (StoredImage, tuple(self)) if self.mapped is None else (_mapped, self.mapped[:3])


class StoredImages(list[StoredImage]):
    """Images of a set, as a source asks for them."""

    @property
    def names(self) -> list[str]:
        """Of the images; one may come several times."""
        return [image.name for image in self]

    def without(self, names: Collection[str]) -> "StoredImages":
        """The images of other names."""
        return StoredImages(image for image in self if image.name not in names)


@dataclass(frozen=True)
class Opened:
    """The images that could be prepared, and one sentence for each file that could not, by name."""

    images: list[StoredImage]
    refused: dict[str, str]


def prepare(name: str, picture: Picture, settings: Settings, real_lr: Picture | None = None) -> StoredImage:
    """HR and LR of one picture, as the generator sees them.

    Y is that of BT.601, rounded to whole numbers; a grey picture is used as it is, for 3 channels replicated.
    16 bits become 8; alpha is left aside.

    Args:
        name: of the image; it decides what a random degradation does.
        picture: the HR.
        settings: what is prepared.
        real_lr: an LR from a file of its own, whose Y is not rounded; None makes it from the HR.

    Raises:
        UserError: the picture is smaller than one LR pixel, or the LR is not the scale's part of it.
    """
    whole = to_tensor(picture.pixels, np.float64)  # rounding must not hang on the last bits of a float32
    if settings.size != 1:
        whole = imresize(whole, settings.size).clamp(0, 1)
    height, width = whole.shape[1:]
    if min(height, width) < settings.scale:
        raise UserError(f"{name}: {width}x{height} pixels are too few for x{settings.scale}")
    stored = crop_to_multiple(whole, settings.scale).mul(255).round()
    digest = digest_of(picture, real_lr)
    small = None if real_lr is None else to_tensor(real_lr.pixels, np.float64)
    if small is not None:
        h, w = small.shape[1:]
        if (height, width) != (h * settings.scale, w * settings.scale):
            raise UserError(f"{name}: HR of {width}x{height} is not x{settings.scale} of its LR of {w}x{h} pixels")
        if small.shape[0] != stored.shape[0]:  # one of the two is stored grey
            stored, small = stored.expand(3, -1, -1), small.expand(3, -1, -1)
    grey = stored.shape[0] == 1

    def pair(levels: Tensor, lr: Tensor | None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if lr is None:
            # luma and RGB begin the same random numbers: one blur, one quality for both
            lr = settings.degradation(levels / 255, settings.scale, stream_of(name))
        return levels.to(torch.uint8).contiguous().numpy(), lr.to(torch.float32).contiguous().numpy()

    if grey or settings.channels == 3:
        seen = pair(stored, small)
        colours = None if grey else seen
    else:
        luma = rgb_to_y(stored / 255).mul(255).round()
        seen = pair(luma, None if small is None else rgb_to_y(small))
        colours = pair(stored, small) if settings.colour else None
    rgb_hr, rgb_lr = colours or (None, None)
    return StoredImage(name, *seen, rgb_hr, rgb_lr, digest)


def open_images(
    files: Mapping[str, File], settings: Settings, cache_dir: Path | None, *, lr_files: Mapping[str, File] | None = None
) -> Opened:
    """Prepare every file, or map what an earlier call with the same files and settings has prepared.

    Args:
        files: the HR files, or places inside of files, by the name they shall have.
        settings: what is prepared.
        cache_dir: the folder of all caches, made where missing; None prepares in memory.
        lr_files: real LR files under the same names; None makes LR by the settings' degradation.

    Raises:
        UserError: the cache cannot be written.
    """
    pairs = {name: (path, lr_files[name] if lr_files else None) for name, path in files.items()}
    if cache_dir is None:
        refused: dict[str, str] = {}
        return Opened([_as_seen(i, settings) for i in _prepared(pairs, settings, refused)], refused)
    return cached(
        cache_dir,
        _key(pairs, settings),
        read=lambda folder: _read(folder, settings),
        write=lambda part: _write(part, pairs, settings),
    )


def _prepared(files: Pairs, settings: Settings, refused: dict[str, str]) -> Iterator[StoredImage]:
    """The files that can be prepared, in their order; the others go to `refused`, and why."""

    def make(name: str) -> StoredImage:
        hr, lr = files[name]
        return prepare(name, read_picture(hr), settings, None if lr is None else read_picture(lr))

    return each(list(files), make, refused)


def _key(files: Pairs, settings: Settings) -> str:
    states = states_of(file for pair in files.values() for file in pair)
    own = settings.degradation.own
    return key_of(FORMAT, repr(settings), list(files), states, *([own] if own else []))


def _write(part: Path, files: Pairs, settings: Settings) -> None:
    refused: dict[str, str] = {}
    with (part / PIXELS).open("wb") as out:
        images = [_append(out, image) for image in _prepared(files, settings, refused)]
    index = {"digests": digests_of(part / PIXELS), "images": images, "refused": refused}
    (part / INDEX).write_text(json.dumps(index), encoding="utf-8")


def _append(out: BinaryIO, image: StoredImage) -> dict[str, Any]:
    """Write the arrays of one image; its entry in the index."""
    written: dict[int, list[int]] = {}  # RGB generators: hr and rgb_hr are one array, stored once
    for value in image:
        if isinstance(value, np.ndarray) and id(value) not in written:
            out.write(bytes(-out.tell() % ALIGNMENT))
            written[id(value)] = [out.tell(), *value.shape]
            out.write(np.ascontiguousarray(value).data)
    return {field: written.get(id(value), value) for field, value in image._asdict().items()}


def _read(folder: Path, settings: Settings, *, check: bool = True) -> Opened | None:
    """Map a cache; None where there is none, or one whose pixels are not those that were written (see `digests_of`)."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        if check and digests_of(folder / PIXELS) != index["digests"]:
            return None
        if not index["images"]:
            return Opened([], index["refused"])
        with (folder / PIXELS).open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None

    def array(place: list[int] | None, dtype: type[np.generic]) -> Any:
        if place is None:
            return None
        offset, *shape = place
        return np.ndarray(shape, dtype, whole, offset)  # slicing an np.memmap would cost several times as much

    def image(number: int, entry: dict[str, Any]) -> StoredImage:
        hr, lr, rgb_hr, rgb_lr = (array(entry[field], dtype) for field, dtype in STORED.items())
        mapped = Mapped(folder, settings, number, whole)
        return _as_seen(StoredImage(entry["name"], hr, lr, rgb_hr, rgb_lr, entry["digest"], mapped), settings)

    return Opened([image(*numbered) for numbered in enumerate(index["images"])], index["refused"])


def _mapped(folder: Path, settings: Settings, number: int) -> StoredImage:
    """One image of a cache, in a worker process."""
    opened = _reopened(folder, settings)
    if opened is None:
        raise UserError(f"The cache {folder} was deleted while it was in use: start again.")
    return opened.images[number]


_reopened = lru_cache(maxsize=2)(partial(_read, check=False))  # the process that started this one has checked it


def _as_seen(image: StoredImage, settings: Settings) -> StoredImage:
    """A grey image under a 3-channel generator: replicated as a view, which takes no space."""
    channels = settings.channels
    return image._replace(
        hr=np.broadcast_to(image.hr, (channels, *image.hr.shape[1:])),
        lr=np.broadcast_to(image.lr, (channels, *image.lr.shape[1:])),
    )
