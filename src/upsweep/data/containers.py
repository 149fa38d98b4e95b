"""Pictures inside of files that hold many: idx (MNIST), the python batches of CIFAR, zips of image files.

What is read comes from strangers: a pickle is never run, a packed file never fills the memory, and whatever is broken
ends in one sentence.
"""

import gzip
import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from math import prod
from pathlib import Path
from threading import RLock
from typing import IO, Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from upsweep.common.errors import UserError, first_line
from upsweep.data.cache import stamp
from upsweep.data.foreign import foreign
from upsweep.imaging.files import Picture, decode_image, read_image
from upsweep.imaging.listing import is_image

MAX_BYTES = 4 << 30  # of a file, unpacked; MNIST has 47 MB, a batch of CIFAR 31 MB
MAX_MEMBER = 1 << 28  # of one image file in a zip
IDX_BYTES = 8  # the code of unsigned bytes in an idx file

UNPACK: dict[str, Callable[[Path, Literal["rb"]], object]] = {".gz": gzip.open, ".xz": lzma.open}

Bytes = NDArray[np.uint8]


class Inside(NamedTuple):  # sixty thousand of them are made quickly
    """A picture inside of a file that holds many.

    Attributes:
        file: that file.
        place: the number of the picture in it, or its name in a zip.
        label: its class, where that is known.
    """

    file: Path
    place: int | str
    label: str = ""

    def __str__(self) -> str:
        return f"{self.file}: image {self.place}"

    def read(self) -> Picture:
        """The picture; UserError where the file, or what lies at the place, is broken."""
        with _lock:  # of several threads one unpacks the file, the others wait for it
            read = _reader(self.file, stamp(self.file))
        return read(self.place)


File = Path | Inside


def path_of(file: File) -> Path:
    """Of the file on the disk."""
    return file.file if isinstance(file, Inside) else file


def read_picture(file: File) -> Picture:
    """The picture that a file is, or that lies inside of one; UserError where it cannot be read."""
    return file.read() if isinstance(file, Inside) else read_image(file)


def states_of(files: Iterable[File | None]) -> list[Any]:
    """What shows, in the key of a cache, that files have changed: path, size, times, and the place in each."""
    state = cache(lambda path: (str(path.resolve()), *stamp(path)))  # many pictures lie in one file
    return [
        (*state(one.file), one.place, one.label) if isinstance(one, Inside) else one and state(one) for one in files
    ]


def idx_pictures(images: Path, labels: Path | None = None) -> list[Inside]:
    """The pictures of an idx file, with their labels from another.

    Raises:
        UserError: a file is broken, or the two differ in number.
    """
    count = len(read_idx(images))
    if labels is None:
        return [Inside(images, place) for place in range(count)]
    classes = read_idx(labels)
    if classes.shape != (count,):
        raise UserError(f"{labels} has labels of shape {classes.shape} for the {count} images of {images.name}.")
    return [Inside(images, place, str(label)) for place, label in enumerate(classes.tolist())]


def batch_pictures(file: Path, names: Sequence[str] = ()) -> list[Inside]:
    """The pictures of a python batch of CIFAR, labelled by numbers, or by the names of the classes.

    Raises:
        UserError: the file is broken, or not such a batch.
    """
    labels = read_batch(file)[1]
    if names and not all(0 <= label < len(names) for label in labels):
        raise _broken(file, "python batch", ValueError(f"it has labels beyond those of {len(names)} classes"))
    return [Inside(file, place, names[label] if names else str(label)) for place, label in enumerate(labels)]


def zip_pictures(file: Path) -> list[Inside]:
    """The image files in a zip that upsweep did not make, sorted by names, labelled by the folders that they lie in.

    Raises:
        UserError: the file is broken, or not a zip.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            paths = (Path(info.filename) for info in archive.infolist() if not info.is_dir())
            images = sorted(path for path in paths if is_image(path) and _shown(path))
            images = foreign(images, file, lambda path: archive.open(path.as_posix()))
    except _BROKEN as error:
        raise _broken(file, "zip", error) from error
    return [Inside(file, path.as_posix(), path.parent.name) for path in images]


def _shown(path: Path) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in path.parts)


# ---- what the files are ----

_BROKEN = (OSError, EOFError, RuntimeError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, KeyError)


def read_idx(file: Path) -> Bytes:
    """The array of unsigned bytes in an idx file, plain or packed by gzip or xz.

    The format is that of http://yann.lecun.com/exdb/mnist: two zeros, the type, the number of axes, their lengths as
    four bytes each, big end first, and the values.

    Raises:
        UserError: the file is broken, or holds something else.
    """
    try:
        with cast(IO[bytes], UNPACK.get(file.suffix.lower(), open)(file, "rb")) as content:
            head = content.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != IDX_BYTES or not 1 <= head[3] <= 4:
                raise ValueError(f"it begins with {head.hex() or 'nothing'}")
            shape = tuple(np.frombuffer(_exactly(content, 4 * head[3]), ">u4").tolist())
            if prod(shape) > MAX_BYTES:
                raise ValueError(f"its shape {shape} is too large")
            values = np.frombuffer(_exactly(content, prod(shape)), np.uint8).reshape(shape)
            if content.read(1):
                raise ValueError("it has more bytes after its last value")
            return values
    except _BROKEN as error:
        raise _broken(file, "idx file", error) from error


def _exactly(content: IO[bytes], count: int) -> bytes:
    read = content.read(count)
    if len(read) < count:
        raise ValueError("it ends too early")
    return read


def read_batch(file: Path) -> tuple[Bytes, list[int]]:
    """Pixels (N, 32, 32, 3) and labels of a python batch of CIFAR-10 or CIFAR-100, without running its pickle.

    Raises:
        UserError: the file is broken, would run something, or holds something else.
    """
    try:
        with file.open("rb") as content:
            found = _Plain(content, encoding="latin1").load()
        pixels, labels = found["data"], found.get("labels", found.get("fine_labels"))
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3 * 32 * 32,):
            raise ValueError("its data are not rows of 3072 bytes")
        if not isinstance(labels, list) or len(labels) != len(pixels) or not all(type(one) is int for one in labels):
            raise ValueError("it does not have a label for every image")
    except Exception as error:  # broken pickles raise anything
        raise _broken(file, "python batch", error) from error
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels


class _Plain(pickle.Unpickler):
    """Builds numbers, texts, lists, dicts and numpy arrays, and nothing else, whatever a pickle asks for."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _encode,
            **{(f"numpy.{core}.multiarray", "_reconstruct"): _RECONSTRUCT for core in ("core", "_core")},
            **{(f"numpy.{core}.numeric", "_frombuffer"): _array for core in ("core", "_core")},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which images do not need")
        return known[module, name]


_RECONSTRUCT = np.empty(0).__reduce__()[0]


def _array(values: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], *_: Any) -> NDArray[Any]:
    return np.frombuffer(values, dtype).reshape(shape)  # by rows: whoever asks checks what it is


def _encode(text: str, _: str) -> bytes:
    return text.encode("latin1")


def _broken(file: Path, kind: str, error: Exception) -> UserError:
    return UserError(f"{file}: not a readable {kind} ({first_line(error)}): get it again.")


# ---- reading one picture ----

_lock = RLock()


@lru_cache(maxsize=2)  # pictures are read in their order
def _reader(file: Path, _: tuple[int, int, int]) -> Callable[[Any], Picture]:
    """What gives the picture at a place of a file, which is kept open or unpacked."""
    if file.suffix.lower() == ".zip":
        try:
            return _of_zip(file, zipfile.ZipFile(file))
        except _BROKEN as error:
            raise _broken(file, "zip", error) from error
    pixels = read_idx(file)[..., None] if "idx" in file.name.casefold() else read_batch(file)[0]
    if pixels.ndim != 4:
        raise UserError(f"{file} holds an array of shape {pixels.shape[:-1]}, not images.")
    return lambda place: Picture(pixels[place])


def _of_zip(file: Path, archive: zipfile.ZipFile) -> Callable[[str], Picture]:
    def read(name: str) -> Picture:
        try:
            with archive.open(name) as content:
                data = content.read(MAX_MEMBER + 1)
            if len(data) > MAX_MEMBER:
                raise ValueError(f"{name} unpacks to more than {MAX_MEMBER >> 20} MB")
        except _BROKEN as error:
            raise _broken(file, "zip", error) from error
        return decode_image(data, f"{file}: {name}")

    return read
