"""The mark of images that upsweep made: it is written into each of them, and read without decoding a pixel.

The mark is the field in which every format names the program that wrote the file: the text `Software` of a PNG (PNG
specification, 11.3.3.2), and the tag `Software` (305, TIFF 6.0) of a TIFF, and of the EXIF of a JPEG or a WebP.
"""

import io
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import IO, TypeVar

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SOFTWARE = "upsweep"

P = TypeVar("P", bound=PurePath)

_TAG = 305
_TEXT = f"Software\0{SOFTWARE}".encode()
_CROP = b"upsweep\0"  # the text by which `upsweep.runs.crop` has always named its tiles
_SCAN, _MOST_PARTS = 0xDA, 10_000
_ENLARGED = re.compile(r"(?P<source>.+)_x(?P<scale>[2-9]|1\d)")  # what upscale.py makes of a stem


def png_chunk() -> bytes:
    """The mark as a chunk of a PNG."""
    body = b"tEXt" + _TEXT
    return struct.pack(">I", len(_TEXT)) + body + struct.pack(">I", zlib.crc32(body))


def png_texts() -> PngInfo:
    """The mark as Pillow takes it for a PNG, `pnginfo`; other texts may be added."""
    texts = PngInfo()
    texts.add_text("Software", SOFTWARE)
    return texts


def marked(pixels: np.ndarray) -> Image.Image:
    """Pixels (H, W, 3) uint8 as an image that has the mark in whatever PNG a tracker makes of it."""
    image = Image.fromarray(pixels)
    image.encoderinfo = {"pnginfo": png_texts()}
    return image


def exif() -> Image.Exif:
    """The mark as Pillow takes it for a JPEG or a WebP, `exif`."""
    tags = Image.Exif()
    tags[_TAG] = SOFTWARE
    return tags


def is_marked(file: IO[bytes]) -> bool:
    """Whether the image in an open file has the mark; a broken file, or one of another kind, has none."""
    head = file.read(12)
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            file.seek(8)
            return _in_png(file)
        if head.startswith(b"\xff\xd8"):
            file.seek(2)
            return _in_jpeg(file)
        if head.startswith(b"RIFF") and head[8:] == b"WEBP":
            return _in_webp(file)
        return head.startswith((b"II", b"MM")) and _in_tiff(file)
    except (struct.error, KeyError, EOFError):
        return False


def made_here(files: Iterable[P], opened: Callable[[P], IO[bytes]]) -> list[P]:
    """The image files that upsweep made, out of `files`.

    Files from before the mark are known by name and size: `a_x2.png` is ours if `a.jpg`, or any image of that
    name, is among the files of the same folder, and is exactly half as high and wide.

    Args:
        files: all images of a folder or an archive.
        opened: opens one of them.
    """
    known = [*files]
    beside: dict[tuple[PurePath, str], list[P]] = {}
    for path in known:
        for stem in {path.stem, f"{path.stem}_{path.suffix[1:]}"}:
            beside.setdefault((path.parent, stem), []).append(path)
    return [path for path in known if _marked(path, opened) or _enlarges(path, beside, opened)]


def _marked(path: P, opened: Callable[[P], IO[bytes]]) -> bool:
    try:
        with opened(path) as file:
            return is_marked(file)
    except Exception:  # an archive raises more than files do; whoever reads the image says what is wrong
        return False


def _enlarges(path: P, beside: Mapping[tuple[PurePath, str], list[P]], opened: Callable[[P], IO[bytes]]) -> bool:
    found = _ENLARGED.fullmatch(path.stem)
    sources = beside.get((path.parent, found["source"]), []) if found else []
    if found is None or not sources or (size := _size(path, opened)) is None:
        return False
    wanted = {small for source in sources if (small := _size(source, opened)) is not None}
    scale = int(found["scale"])
    # EXIF may turn the source, whose enlargement is upright
    return any(size in ((scale * a, scale * b), (scale * b, scale * a)) for a, b in wanted)


def _size(path: P, opened: Callable[[P], IO[bytes]]) -> tuple[int, int] | None:
    """Width and height in the file's header; None if it has none."""
    try:
        with opened(path) as file, Image.open(file) as image:
            return image.size
    except Exception:  # Pillow raises anything of broken files
        return None


# ---- where each format has it ----


def _in_png(file: IO[bytes]) -> bool:
    for _ in range(_MOST_PARTS):
        size, name = struct.unpack(">I4s", file.read(8))
        if name == b"IDAT":
            break
        body = file.read(size + 4)[:-4] if name in (b"tEXt", b"iTXt") else file.seek(size + 4, io.SEEK_CUR)
        if body == _TEXT or (name == b"iTXt" and isinstance(body, bytes) and body.startswith(_CROP)):
            return True
    return False


def _in_jpeg(file: IO[bytes]) -> bool:
    for _ in range(_MOST_PARTS):
        filled, marker, size = struct.unpack(">BBH", file.read(4))
        if filled != 0xFF or marker == _SCAN:
            break
        if marker == 0xE1 and (body := file.read(size - 2)).startswith(b"Exif\0\0"):
            return _in_tiff(io.BytesIO(body[6:]))
        if marker != 0xE1:
            file.seek(size - 2, io.SEEK_CUR)
    return False


def _in_webp(file: IO[bytes]) -> bool:
    for _ in range(_MOST_PARTS):
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"EXIF":
            return _in_tiff(io.BytesIO(file.read(size).removeprefix(b"Exif\0\0")))
        file.seek(size + size % 2, io.SEEK_CUR)
    return False


def _in_tiff(file: IO[bytes]) -> bool:
    """In a TIFF of either kind (TIFF 6.0; BigTIFF, whose numbers have eight bytes)."""
    file.seek(0)
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    (version,) = struct.unpack(f"{order}H", file.read(2))
    count, offset, start = {42: ("H", "I", 4), 43: ("Q", "Q", 8)}[version]

    def number(kind: str) -> int:
        value: int
        (value,) = struct.unpack(f"{order}{kind}", file.read(struct.calcsize(f"{order}{kind}")))
        return value

    file.seek(start)
    file.seek(number(offset))
    for _ in range(min(number(count), _MOST_PARTS)):
        tag, _, length = number("H"), number("H"), number(offset)
        if tag == _TAG:
            if length > struct.calcsize(offset):
                file.seek(number(offset))
            return file.read(length).rstrip(b"\0") == SOFTWARE.encode()
        number(offset)
    return False
