"""Metadata of image files: EXIF, colour, texts. Any of it may be broken although the pixels are whole.

A part of a file is a chunk of a PNG, or a segment of a JPEG with the scan behind it.
"""

import re
import threading
import warnings
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager

# By what PNG and JPEG call them.
EXIF = frozenset({b"eXIf", b"\xe1"})
PROFILE = frozenset({b"iCCP", b"\xe2"})
COLOUR = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}  # bytes of a PNG's chunks

MAX_SCANS = 100  # of a JPEG: each goes over the whole frame, however few its bytes; writers make ten

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd8]")  # neither a byte of a scan, nor filling, nor a restart
_SCAN, _END = b"\xda", b"\xd9"
_ASIDE = frozenset({b"\xfe", *(bytes([n]) for n in range(0xE0, 0xF0) if n != 0xEE)})  # comment, APPn but Adobe's
_LOCK = threading.Lock()


@contextmanager
def strict() -> Iterator[None]:
    """Make Pillow's warnings about broken metadata errors, in one thread at a time."""
    with _LOCK, warnings.catch_warnings():
        warnings.filterwarnings("error", category=UserWarning, module=r"PIL\.(Tiff|Jpeg|Png)ImagePlugin")
        yield


def without(data: bytes, keep: Collection[bytes] = ()) -> bytes:
    """A PNG or a JPEG without its metadata, but for the parts named in `keep`; any other file as it is."""
    view, kept, at = memoryview(data), [], 0
    for name, start, stop in _parts(data):
        if _aside(name) and name not in keep:
            kept.append(view[at:start])
            at = stop
    return b"".join([*kept, view[at:]]) if kept else data


def check(data: bytes) -> None:
    """Refuse what decoders would not: pixels of a PNG that are not those written, a JPEG with scans without end.

    Raises:
        ValueError: it is one of these.
    """
    scans = 0
    for name, start, stop in _parts(data):
        if len(name) == 4 and not _aside(name) and not _whole(data, start, stop):
            raise ValueError(f"its {name.decode('latin-1')} is damaged (wrong checksum)")
        scans += name == _SCAN
        if scans > MAX_SCANS:
            raise ValueError(f"it has more than {MAX_SCANS} scans")


def colour_chunks(data: bytes) -> tuple[dict[bytes, bytes], list[str]]:
    """The chunks by which a PNG says its colours, each whole and by name; and the names of those that are broken."""
    found: dict[bytes, bytes] = {}
    broken: list[str] = []
    for name, start, stop in _parts(data):
        if name == b"IDAT":
            break
        if name in COLOUR and name not in found:
            if stop - start == 12 + COLOUR[name] and _whole(data, start, stop):
                found[name] = data[start:stop]
            else:
                broken.append(name.decode())
    return found, broken


def misfit(profile: bytes, channels: int) -> str | None:
    """Why an ICC profile cannot be that of grey (1 or 2 channels) or RGB (3 or 4) samples; None where it can."""
    size, tags = int.from_bytes(profile[:4], "big"), int.from_bytes(profile[128:132], "big")
    table = [profile[at : at + 12] for at in range(132, min(132 + 12 * tags, len(profile)), 12)]
    ends = [132 + 12 * tags, *(int.from_bytes(t[4:8], "big") + int.from_bytes(t[8:], "big") for t in table)]
    if profile[36:40] != b"acsp" or max(ends) > size or size > len(profile):
        return "is broken"
    space = profile[16:20].decode("latin-1").strip()
    own = "RGB" if channels > 2 else "GRAY"
    return None if space == own else f"is for {space}, and the picture is {own}"


def _parts(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of every whole part of a PNG or a JPEG."""
    if data.startswith(_PNG):
        at = len(_PNG)
        while (stop := at + 12 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
            yield data[at + 4 : at + 8], at, stop
            at = stop
    elif data.startswith(_JPEG):
        found = _MARKER.search(data, len(_JPEG))
        while found and (name := found[0][1:]) != _END:
            stop = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
            start, found = found.start(), _MARKER.search(data, stop)
            if name == _SCAN:
                stop = found.start() if found else len(data)
            yield name, start, min(stop, len(data))


def _aside(name: bytes) -> bool:
    return name in _ASIDE or (len(name) == 4 and bool(name[0] & 32) and name != b"tRNS")


def _whole(data: bytes, start: int, stop: int) -> bool:
    """Whether a chunk of a PNG has the checksum that it says."""
    view = memoryview(data)
    return zlib.crc32(view[start + 4 : stop - 4]) == int.from_bytes(view[stop - 4 : stop], "big")
