"""Pictures, written as image files."""

import io
import logging
import os
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from upsweep.common.errors import UserError
from upsweep.common.files import write_whole
from upsweep.imaging import marks
from upsweep.imaging.files import Picture, fitting

log = logging.getLogger("upsweep")

_LONGEST = {
    ".webp": 16_383,
    ".jpg": 65_500,
    ".jpeg": 65_500,
    ".png": 1_000_000,
}  # pixels a side, as their encoders allow


def write_image(path: str | os.PathLike[str], picture: Picture, *, marked: bool = True) -> None:
    """Write a picture as PNG, TIFF, JPEG or WebP (lossless) by the suffix, whole or not at all.

    PNG and TIFF keep 16 bits; JPEG and WebP take the rounded 8; a WebP of grey is RGB. One warning says what is left
    out. The file says that upsweep made it, so that no data set takes it for a photo; `marked=False` is for a copy.
    Raises UserError on an unknown suffix, a picture that the file cannot hold (`check_fits`), and where it cannot be
    written.
    """
    path = Path(path)
    encode = _ENCODERS.get(path.suffix.lower())
    if encode is None:
        raise UserError(f"{path}: unknown kind of image file; choose one of {', '.join(sorted(WRITABLE))}")
    check_fits(path, *picture.samples.shape[:2], transparent=picture.alpha is not None)
    left_out: list[str] = []
    if encode is _encode_webp and picture.pixels.shape[-1] == 1:
        picture = replace(picture, samples=picture.samples[..., [0, 0, 0, *range(1, picture.samples.shape[-1])]])
    picture = fitting(picture, left_out)
    said = set(picture.png_colour)
    # Without any of them sRGB is meant; and beside a profile, or sRGB, all but cICP only say the same less well.
    if encode is not _encode_png and (
        b"cICP" in said or (said and picture.icc_profile is None and b"sRGB" not in said)
    ):
        names = b", ".join(sorted(said)).decode()
        left_out.append(f"only a .png can hold the colour metadata of its source ({names})")
    if encode in (_encode_jpeg, _encode_webp) and picture.samples.dtype == np.uint16:
        left_out.append(f"a {path.suffix} holds 8 bits, so the lower 8 of 16 were rounded away")
    if left_out:
        log.warning("%s: %s.", path, "; ".join(left_out))
    try:
        write_whole(path, encode(picture, marked))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_fits(path: Path, height: int, width: int, *, transparent: bool) -> None:
    """Raises UserError: a file of this suffix cannot hold so large a picture, or a transparent one."""
    suffix = path.suffix.lower()
    if max(height, width) > (most := _LONGEST.get(suffix, sys.maxsize)):
        raise UserError(f"{path}: a {suffix} holds up to {most} pixels a side, not {width}x{height}; choose .tif")
    if suffix in (".jpg", ".jpeg") and transparent:
        raise UserError(f"{path}: a JPEG cannot hold the transparency of this picture; choose .png, .tif or .webp")


Parts = Sequence[bytes | bytearray | memoryview]


def _samples(picture: Picture) -> NDArray[Any]:
    """(H, W) for plain grey, else (H, W, 2 to 4)."""
    return picture.samples[..., 0] if picture.samples.shape[-1] == 1 else picture.samples


def _encode_png(picture: Picture, marked: bool) -> Parts:
    png = imagecodecs.png_encode(np.ascontiguousarray(_samples(picture)))
    chunks = [chunk for name, chunk in picture.png_colour.items() if name != b"sRGB" or picture.icc_profile is None]
    if picture.icc_profile is not None:
        body = b"iCCPicc\0\0" + zlib.compress(picture.icc_profile)
        chunks.append(struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)))
    if marked:
        chunks.append(marks.png_chunk())
    header_end = 33  # signature and IHDR: what says the colours must come before the pixels
    return [png[:header_end], *chunks, memoryview(png)[header_end:]]  # in parts: a large picture is not copied


def _encode_tiff(picture: Picture, marked: bool) -> Parts:
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        _samples(picture),
        photometric="rgb" if picture.pixels.shape[-1] == 3 else "minisblack",
        planarconfig="contig" if _samples(picture).ndim == 3 else None,
        extrasamples=None if picture.alpha is None else ["unassalpha"],
        compression="zlib",
        predictor=True,
        iccprofile=picture.icc_profile,
        metadata=None,
        software=marks.SOFTWARE if marked else None,
    )
    return [buffer.getbuffer()]


def _encode_with_pillow(picture: Picture, marked: bool, **options: Any) -> Parts:
    samples = _samples(picture)
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
    buffer = io.BytesIO()
    said = options | ({"exif": marks.exif()} if marked else {})
    Image.fromarray(samples).save(buffer, icc_profile=picture.icc_profile, **said)
    return [buffer.getbuffer()]


_encode_jpeg = partial(_encode_with_pillow, format="JPEG", quality=95, subsampling=0)
_encode_webp = partial(_encode_with_pillow, format="WEBP", lossless=True)
_ENCODERS: dict[str, Callable[[Picture, bool], Parts]] = {
    ".png": _encode_png,
    ".tif": _encode_tiff,
    ".tiff": _encode_tiff,
    ".jpg": _encode_jpeg,
    ".jpeg": _encode_jpeg,
    ".webp": _encode_webp,
}
WRITABLE = frozenset(_ENCODERS)  # suffixes
