"""Image files of the world, read into one plain form.

Pillow reads what has 8 bits; TIFF goes through tifffile and 16-bit PNG through imagecodecs, since Pillow
would drop their lower byte; so does grey PNG of 2 or 4 bits, of which Pillow would lose the transparency.
"""

import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from upsweep.common.errors import UserError, first_line
from upsweep.imaging import metadata
from upsweep.imaging.metadata import EXIF, PROFILE

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("upsweep")

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

MAX_PIXELS = 200_000_000
_ORIENTATION = 0x0112


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as stored, upright.

    samples: uint8 or uint16 (H, W, 1 to 4): grey, grey and alpha, RGB, or RGB and alpha (not premultiplied).
    icc_profile: the colour profile that the pixels are in, or None (sRGB is then meant).
    png_colour: what else a PNG says of its colours, whole chunks by name (`metadata.COLOUR`); only a PNG can hold them.
    """

    samples: Pixels
    icc_profile: bytes | None = None
    png_colour: Mapping[bytes, bytes] = field(default_factory=dict)

    @property
    def pixels(self) -> Pixels:
        """Grey or RGB, (H, W, 1 or 3)."""
        return self.samples[..., : 3 if self.samples.shape[-1] > 2 else 1]

    @property
    def alpha(self) -> Pixels | None:
        """(H, W), or None where the image is opaque."""
        return self.samples[..., -1] if self.samples.shape[-1] in (2, 4) else None


def read_image(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a PNG, JPEG, BMP, TIFF or WebP file.

    The EXIF orientation is applied, a palette becomes RGB, grey stays one channel, 16 bits stay 16. One warning says
    what is left out: all frames but the first, and metadata that are broken, or do not fit the pixels. Raises
    UserError, with the file and the reason, where the pixels cannot be read, and, before anything is decoded, where
    the header promises more than `max_pixels`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return decode_image(data, str(path), max_pixels=max_pixels)


def decode_image(data: bytes, path: str, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read the bytes of an image file as `read_image` does; `path` is what sentences call it."""
    if not data:
        raise UserError(f"{path}: the file is empty")

    def check_size(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise UserError(
                f"{path}: {width}x{height} pixels are more than the limit of {max_pixels}; "
                "raise max_pixels if you trust the file"
            )

    read = _read_tiff if data[:4] in _TIFF_MAGIC else _read_other
    left_out: list[str] = []
    try:
        picture = fitting(read(data, check_size, left_out), left_out)
    except UserError:
        raise
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: not an image that can be read (PNG, JPEG, BMP, TIFF, WebP)") from error
    except Exception as error:  # the decoders raise anything on broken bytes
        raise UserError(f"{path}: broken or unsupported image: {error or type(error).__name__}") from error
    if left_out:
        log.warning("%s: %s.", path, "; ".join(left_out))
    return picture


def to_tensor(pixels: Pixels, dtype: type[np.float32 | np.float64] = np.float32) -> "Tensor":
    """Turn uint8 or uint16 pixels (H, W, C) into float32 (C, H, W) in [0, 1], or float64 where `dtype` says so."""
    import torch  # who only lists and reads files does without

    full = np.iinfo(pixels.dtype).max
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=dtype)).div_(full)


def to_uint8(image: "Tensor") -> NDArray[np.uint8]:
    """Round and clip an image (C, H, W) in [0, 1] to uint8 pixels (H, W, C)."""
    import torch

    codes = (image.detach().cpu().float() * 255).round().clamp(0, 255).to(torch.uint8)
    return codes.permute(1, 2, 0).contiguous().numpy()


# ---- reading ----

CheckSize = Callable[[int, int], None]

_TIFF, _PACKED = tifffile.PHOTOMETRIC, tifffile.COMPRESSION
_COLOURS = {_TIFF.MINISBLACK: 1, _TIFF.MINISWHITE: 1, _TIFF.PALETTE: 1, _TIFF.RGB: 3, _TIFF.YCBCR: 3}  # channels
_ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)
_PLAIN = (  # what unpacks to no more than it is asked for
    *(_PACKED.NONE, _PACKED.CCITTRLE, _PACKED.CCITT_T4, _PACKED.CCITT_T6, _PACKED.LZW, _PACKED.PACKBITS),
    *(_PACKED.DEFLATE, _PACKED.ADOBE_DEFLATE, _PACKED.LZMA, _PACKED.ZSTD, _PACKED.ZSTD_DEPRECATED),
)
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_READERS: tuple[tuple[int, bytes, Callable[[io.BytesIO, str], Image.Image]], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", PngImageFile),
    (0, b"\xff\xd8\xff", jpeg_factory),
    (0, b"BM", BmpImageFile),
    (8, b"WEBP", WebPImageFile),
)


def _read_other(data: bytes, check_size: CheckSize, left_out: list[str]) -> Picture:
    metadata.check(data)
    picture = _salvaged(data, check_size, left_out)
    chunks, broken = metadata.colour_chunks(data)
    left_out += [f"its {name} is broken and was left out" for name in broken]
    return replace(picture, png_colour=chunks)


def _salvaged(data: bytes, check_size: CheckSize, left_out: list[str]) -> Picture:
    """Decode a file, without its metadata, or without some, where they are what is broken."""
    found: list[str] = []
    try:
        picture = _decoded(data, check_size, found, EXIF | PROFILE)
    except UserError:
        raise
    except Exception as error:  # of the pixels, in which case the next line raises too, or of the metadata alone
        picture = _decoded(metadata.without(data), check_size, [], frozenset())
        left_out.append(f"broken metadata were left out ({first_line(error)})")
        for kept in (EXIF | PROFILE, PROFILE, EXIF, frozenset[bytes]()):
            found = []
            with suppress(Exception):
                picture = _decoded(metadata.without(data, kept), check_size, found, kept)
                break
    left_out += found
    return picture


def _decoded(data: bytes, check_size: CheckSize, left_out: list[str], kept: frozenset[bytes]) -> Picture:
    """Decode a file with Pillow and the metadata that are `kept`; raises anything where pixels or these are broken."""
    if data[8:12] == b"WEBP":
        check_size(*_webp_size(data))  # its decoder takes the memory when it is opened
    with metadata.strict():
        image = _open(data)
    with image:
        check_size(*image.size)
        image.load()
        with metadata.strict():
            if kept & EXIF:  # Pillow may have tried it when it opened the file, and then says no more that it is broken
                Image.Exif().load(image.info.get("exif", b""))
            orientation = image.getexif().get(_ORIENTATION, 1) if kept & EXIF else 1
        if (frames := getattr(image, "n_frames", 1)) > 1:
            left_out.append(_first_of(frames))
        profile = (image.info["icc_profile"] or b"") if kept & PROFILE and "icc_profile" in image.info else None
        if profile is not None and image.mode == "CMYK":  # it says nothing about the RGB that they became
            profile = None
            left_out.append("the colour profile of its inks (CMYK) was left out")
        depth, kind = data[24:26] if image.format == "PNG" else (8, 0)
        if depth == 16 or (depth in (2, 4) and kind == 0):  # kind 0: grey
            samples = imagecodecs.png_decode(data)
        else:  # as L, LA, RGB or RGBA, whichever holds all that the image says
            colours = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
            samples = np.asarray(image.convert(colours + "A" * image.has_transparency_data))
    return _picture(samples, orientation, profile)


def _first_of(frames: int) -> str:
    return f"only the first of its {frames} frames is read"


class _Unmeasured(io.BytesIO):
    # Pillow's reader of WebP holds the size that it finds in its first read, of 30 bytes, against a global of its own.
    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(16 if size == 30 else size)


def _open(data: bytes) -> Image.Image:
    # Image.open has a size limit that is a global of Pillow; its readers, called directly, leave it to ours.
    for start, magic, reader in _READERS:
        if data.startswith(magic, start):
            return reader(_Unmeasured(data) if reader is WebPImageFile else io.BytesIO(data), "")
    raise UnidentifiedImageError


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height, from the first chunk of a WebP."""
    number = partial(int.from_bytes, byteorder="little")
    if data[12:16] == b"VP8X":
        return number(data[24:27]) + 1, number(data[27:30]) + 1
    if data[12:16] == b"VP8L":
        return (number(data[21:25]) & 0x3FFF) + 1, (number(data[21:25]) >> 14 & 0x3FFF) + 1
    return number(data[26:28]) & 0x3FFF, number(data[28:30]) & 0x3FFF


def _read_tiff(data: bytes, check_size: CheckSize, left_out: list[str]) -> Picture:
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        check_size(int(page.imagewidth), int(page.imagelength))
        if page.is_tiled:  # tiles are decoded whole, however little of them the image shows
            width, length = int(page.tilewidth), int(page.tilelength)
            check_size(-(-page.imagewidth // width) * width, -(-page.imagelength // length) * length)
        if page.photometric not in _COLOURS or (page.photometric == _TIFF.YCBCR and page.compression in _PLAIN):
            kind = getattr(page.photometric, "name", page.photometric)
            raise ValueError(f"its colours ({kind}) are not supported: convert it to RGB")
        extra = page.samplesperpixel - _COLOURS[page.photometric]
        if page.axes not in ("YX", "YXS", "SYX") or page.tiledepth > 1 or extra not in (0, 1):
            raise ValueError(f"{page.samplesperpixel} samples a pixel in the order {page.axes} are not a picture")
        if page.dtype is None or page.dtype.kind not in "bu" or page.bitspersample > 16:
            raise ValueError(f"{page.dtype} samples are not supported, only whole numbers of up to 16 bits")
        # tifffile would fill what is missing with zeros.
        segments = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        if len(segments) < prod(page.chunked) or any(n == 0 or at + n > len(data) for at, n in segments):
            raise ValueError("the file is truncated")
        if page.compression not in _PLAIN:
            _check_inner(page, [data[at : at + n] for at, n in segments])
        if (frames := len(file.pages)) > 1:
            left_out.append(_first_of(frames))
        samples = _tiff_samples(page)
        if extra and page.extrasamples and page.extrasamples[0] not in _ALPHA:
            samples = samples[..., :-1]
            left_out.append("its last channel, which is no transparency, was left out")
        return _picture(samples, page.tags.valueof(_ORIENTATION, default=1), page.iccprofile)


def _check_inner(page: Any, segments: Sequence[bytes]) -> None:
    """Refuse a TIFF whose segments are files, such as JPEG, of a larger size: decoders take the memory for that."""
    for segment in segments:
        try:
            metadata.check(segment)
            with _open(segment) as image:
                fits = prod(image.size) <= prod(page.chunks)
        except Exception as error:
            raise ValueError(f"its compression {_PACKED(page.compression).name} is broken or not supported") from error
        if not fits:
            raise ValueError("its segments are larger than it says")


def _tiff_samples(page: Any) -> NDArray[Any]:
    """Decode a tifffile page to uint8 or uint16 (H, W[, C]): grey, grey and alpha, RGB or RGBA."""
    samples: NDArray[Any] = page.asarray()
    if page.axes == "SYX":
        samples = np.moveaxis(samples, 0, -1)
    if page.photometric == _TIFF.PALETTE:
        colours: NDArray[np.uint8] = (page.colormap.T[samples] >> 8).astype(np.uint8)
        return colours
    if page.bitspersample not in (8, 16):
        dtype = np.uint8 if page.bitspersample < 8 else np.uint16
        full = np.iinfo(dtype).max
        samples = (samples.astype(np.uint32) * full // (2**page.bitspersample - 1)).astype(dtype)
    if page.extrasamples and page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA:
        samples = _not_premultiplied(samples)
    if page.photometric == _TIFF.MINISWHITE:
        grey = samples[..., :1] if page.extrasamples else samples
        np.subtract(np.iinfo(samples.dtype).max, grey, out=grey)
    return samples


def _not_premultiplied(samples: NDArray[Any]) -> NDArray[Any]:
    """Divide the colours (H, W, 1 or 3) by the alpha behind them, rounded; where that is 0 they become black."""
    full = np.iinfo(samples.dtype).max
    for row in samples:  # by rows, as the wider numbers in between would take four times the memory of an image
        alpha = row[:, -1:].astype(np.uint32)
        row[:, :-1] = np.minimum((row[:, :-1] * np.uint32(full) + alpha // 2) // np.maximum(alpha, 1), full) * (
            alpha > 0
        )
    return samples


def _picture(samples: NDArray[Any], orientation: int, icc_profile: bytes | None) -> Picture:
    """Check decoded samples (H, W[, C]) and turn them upright, as an EXIF orientation of 1 to 8 says."""
    samples = samples[..., None] if samples.ndim == 2 else samples
    if samples.ndim != 3 or samples.size == 0 or samples.shape[-1] > 4:
        raise ValueError(f"samples of shape {samples.shape} are not a picture")
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return Picture(np.ascontiguousarray(samples), icc_profile)


def fitting(picture: Picture, left_out: list[str]) -> Picture:
    """The picture without a colour profile that cannot be its own."""
    if picture.icc_profile is None or not (why := metadata.misfit(picture.icc_profile, picture.samples.shape[-1])):
        return picture
    left_out.append(f"its colour profile {why}: it was left out")
    return replace(picture, icc_profile=None)
