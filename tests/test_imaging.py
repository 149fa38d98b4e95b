"""Promises of `upsweep.imaging`: what is read, what the resize computes, what the colours mean."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable
from fractions import Fraction
from math import ceil, floor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.imaging.colour import rgb_to_y, rgb_to_ycbcr, with_chroma, ycbcr_to_rgb
from upsweep.imaging.files import Picture, read_image, to_tensor, to_uint8
from upsweep.imaging.listing import find_images
from upsweep.imaging.resize import crop_to_multiple, enlarge, imresize, shrink
from upsweep.imaging.writing import write_image

# ---- resize: against the definition, pixel by pixel ----


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x <= 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def mirrored(line: list[float], i: int) -> float:
    while not 0 <= i < len(line):
        i = -1 - i if i < 0 else 2 * len(line) - 1 - i
    return line[i]


def reference_line(line: list[float], out_size: int, scale: float) -> list[float]:
    """MATLAB's imresize of one line, from its definition: a kernel widened by 1/scale when shrinking."""
    widening = max(1.0, 1 / scale)
    out = []
    for k in range(out_size):
        centre = (k + 0.5) / scale - 0.5
        reach = range(floor(centre - 2 * widening) - 1, ceil(centre + 2 * widening) + 2)
        weights = [cubic((centre - i) / widening) for i in reach]
        values = [mirrored(line, i) for i in reach]
        out.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return out


def reference(image: np.ndarray, out: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    columns = np.array([reference_line(list(c), out[0], scales[0]) for c in image.T]).T
    return np.array([reference_line(list(r), out[1], scales[1]) for r in columns])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


sides = st.integers(1, 13)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([2, 3, 4, 8, 0.5, 1 / 3, 0.25, 1.5, 0.7, Fraction(2, 7), 1]))
def test_imresize_is_its_definition(height: int, width: int, scale: float | Fraction) -> None:
    image = noise(2, height, width)
    out = imresize(image, scale)
    exact = Fraction(scale).limit_denominator(10_000)
    size = ceil(height * exact), ceil(width * exact)
    assert out.shape == (2, *size)
    for plane, resized in zip(image, out, strict=True):
        expected = reference(plane.numpy(), size, (float(exact), float(exact)))
        np.testing.assert_allclose(resized.numpy(), expected, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(sides, sides, st.integers(1, 20), st.integers(1, 20))
def test_imresize_to_a_size_is_its_definition(height: int, width: int, rows: int, columns: int) -> None:
    image = noise(height, width)
    expected = reference(image.numpy(), (rows, columns), (rows / height, columns / width))
    actual = imresize(image, (rows, columns)).numpy()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-12)


def test_imresize_of_a_step_by_hand() -> None:
    # Half of 0, 0, 0, 0, 1, 1, 1, 1: the kernel sampled at odd quarters, (-3, -9, 29, 111, 111, ...) / 256.
    step = torch.tensor([0.0, 0, 0, 0, 1, 1, 1, 1], dtype=torch.float64).expand(2, 8)
    taps = torch.tensor([-3.0, -9, 29, 111, 111, 29, -9, -3], dtype=torch.float64) / 256
    half = torch.stack([taps[7:].sum(), taps[5:].sum(), taps[3:].sum(), taps[1:].sum()])
    torch.testing.assert_close(imresize(step, 0.5)[0], half, rtol=0, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([1, 2, 3, 4, 5, 8]), st.integers(1, 3))
def test_enlarge_equals_imresize(height: int, width: int, scale: int, channels: int) -> None:
    image = noise(2, channels, height, width)
    torch.testing.assert_close(enlarge(image, scale), imresize(image, scale), rtol=0, atol=1e-13)
    torch.testing.assert_close(enlarge(image.float(), scale).double(), imresize(image, scale), rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_shrink_cuts_no_light_and_enlarge_keeps_a_flat_image_flat(scale: int) -> None:
    flat = torch.full((1, 3, 8 * scale, 6 * scale), 0.7)
    lr = shrink(flat, scale)
    assert lr.shape == (1, 3, 8, 6)
    torch.testing.assert_close(lr, torch.full_like(lr, 0.7))
    torch.testing.assert_close(enlarge(lr, scale), flat)


def test_enlarge_is_differentiable() -> None:
    image = noise(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: enlarge(x, 3), image)


def test_enlarge_keeps_float32_under_autocast() -> None:
    image = noise(1, 1, 9, 9).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = enlarge(image, 2)
    assert torch.equal(inside, enlarge(image, 2))


def test_enlarge_exports_with_free_sizes() -> None:
    class Enlarge(torch.nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return enlarge(image, 3)

    free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Enlarge(), (noise(2, 1, 6, 7),), dynamic_shapes=(free,))
    other = noise(5, 1, 9, 4)
    torch.testing.assert_close(program.module()(other), imresize(other, 3), rtol=0, atol=1e-13)


def test_shrink_refuses_what_does_not_divide() -> None:
    image = noise(3, 11, 12)
    with pytest.raises(ValueError, match="crop_to_multiple"):
        shrink(image, 4)
    cropped = crop_to_multiple(image, 4)
    assert torch.equal(cropped, image[:, :8, :12])
    assert shrink(cropped, 4).shape == (3, 2, 3)


def test_uint8_resize_rounds_after_each_pass() -> None:
    image = (noise(8, 6) * 255).round() / 255
    rows = torch.from_numpy(reference(image.numpy(), (4, 6), (0.5, 1.0)))
    rows = (rows * 255).round().clamp(0, 255) / 255
    both = torch.from_numpy(reference(rows.numpy(), (4, 3), (1.0, 0.5)))
    expected = (both * 255).round().clamp(0, 255)
    torch.testing.assert_close(imresize(image, 0.5, uint8=True) * 255, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(expected, (imresize(image, 0.5) * 255).round())


# ---- colour ----


def test_luma_of_the_primaries_are_the_codes_of_bt601() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    codes = rgb_to_ycbcr(colours[..., None, None])[..., 0, 0] * 255
    expected = [[16, 128, 128], [235, 128, 128], [81, 90, 240], [145, 54, 34], [41, 240, 110]]
    assert codes.round().int().tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_ycbcr_comes_back(seed: int) -> None:
    rgb = noise(2, 3, 4, 5, seed=seed)
    ycbcr = rgb_to_ycbcr(rgb)
    torch.testing.assert_close(ycbcr_to_rgb(ycbcr), rgb, rtol=0, atol=1e-14)
    torch.testing.assert_close(rgb_to_y(rgb), ycbcr[:, :1])


def test_with_chroma_keeps_the_luma_and_takes_the_hue_of_the_lr() -> None:
    rgb_lr = torch.full((1, 3, 4, 4), 0.5) + torch.tensor([0.1, 0.0, -0.1])[:, None, None]
    y = 0.4 + 0.2 * noise(1, 1, 8, 8).float()
    rgb = with_chroma(y, rgb_lr, 2)
    torch.testing.assert_close(rgb_to_y(rgb), y, rtol=0, atol=1e-6)
    chroma = rgb_to_ycbcr(rgb_lr)[:, 1:, :1, :1].expand(1, 2, 8, 8)
    torch.testing.assert_close(rgb_to_ycbcr(rgb)[:, 1:], chroma, rtol=0, atol=1e-6)
    assert with_chroma(torch.ones(1, 1, 8, 8), rgb_lr, 2).max() <= 1


# ---- files ----

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7, 1), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP_GREY = RNG.integers(0, 65536, (5, 7, 1), dtype=np.uint16)
DEEP_RGB = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
DEEP_ALPHA = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def check(picture: Picture, pixels: np.ndarray, alpha: np.ndarray | None = None) -> None:
    assert picture.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(picture.pixels, pixels)
    if alpha is None:
        assert picture.alpha is None
    else:
        assert picture.alpha is not None and picture.alpha.dtype == alpha.dtype
        np.testing.assert_array_equal(picture.alpha, alpha)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_grey_and_rgb_as_others_write_them(tmp_path: Path, suffix: str) -> None:
    for pixels in (GREY, RGB):
        Image.fromarray(pixels.squeeze()).save(tmp_path / f"a{suffix}")
        check(read_image(tmp_path / f"a{suffix}"), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_stays(tmp_path: Path, suffix: str) -> None:
    for pixels in (GREY, RGB):
        Image.fromarray(np.dstack([pixels, ALPHA])).save(tmp_path / f"a{suffix}")
        check(read_image(tmp_path / f"a{suffix}"), pixels, ALPHA)


def test_lossless_webp(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True)
    check(read_image(tmp_path / "a.webp"), RGB)
    Image.fromarray(np.dstack([RGB, ALPHA])).save(tmp_path / "b.webp", lossless=True, exact=True)
    check(read_image(tmp_path / "b.webp"), RGB, ALPHA)


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    for pixels in (GREY, RGB):
        Image.fromarray(pixels.squeeze()).save(tmp_path / "a.jpg")
        with Image.open(tmp_path / "a.jpg") as image:
            check(read_image(tmp_path / "a.jpg"), np.asarray(image).reshape(pixels.shape))


def test_cmyk_jpeg_becomes_rgb_and_loses_the_profile_of_its_inks(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", icc_profile=b"inks")
    picture = read_image(tmp_path / "a.jpg")
    assert picture.pixels.shape == (8, 8, 3) and picture.icc_profile is None
    assert picture.pixels[..., 0].min() > 250 and picture.pixels[..., 1:].max() < 5


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_palette_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    paletted = Image.fromarray(RGB).quantize(8)
    paletted.save(tmp_path / f"a{suffix}")
    check(read_image(tmp_path / f"a{suffix}"), np.asarray(paletted.convert("RGB")))


def test_transparent_colours_become_alpha(tmp_path: Path) -> None:
    paletted = Image.fromarray(RGB).quantize(4)
    paletted.save(tmp_path / "palette.png", transparency=bytes([0, 100, 200, 255]))
    with Image.open(tmp_path / "palette.png") as image:
        expected = np.asarray(image.convert("RGBA"))
    check(read_image(tmp_path / "palette.png"), expected[..., :3], expected[..., 3])

    level = int(GREY[0, 0, 0])
    Image.fromarray(GREY[..., 0]).save(tmp_path / "grey.png", transparency=level)
    check(read_image(tmp_path / "grey.png"), GREY, np.where(GREY[..., 0] == level, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("transparent", [None, 0, 1])
def test_grey_pngs_of_few_bits_keep_their_transparent_level(tmp_path: Path, bits: int, transparent: int | None) -> None:
    levels = np.arange(40).reshape(5, 8) % 2**bits
    rows = np.packbits((levels[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(5, -1), axis=1)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", 8, 5, bits, 0, 0, 0, 0),
        **({} if transparent is None else {b"tRNS": struct.pack(">H", transparent)}),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in parts.items())
    (tmp_path / "a.png").write_bytes(content)
    alpha = None if transparent is None else np.where(levels == transparent, 0, 255).astype(np.uint8)
    check(read_image(tmp_path / "a.png"), (levels * 255 // (2**bits - 1)).astype(np.uint8)[..., None], alpha)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_black_and_white_becomes_grey(tmp_path: Path, suffix: str) -> None:
    bits = GREY[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / f"a{suffix}")
    check(read_image(tmp_path / f"a{suffix}"), (bits[..., None] * 255).astype(np.uint8))


def test_16_bit_png_of_another_writer(tmp_path: Path) -> None:
    for pixels, alpha in [
        (DEEP_GREY, None),
        (DEEP_RGB, None),
        (DEEP_GREY, DEEP_ALPHA),
        (DEEP_RGB, DEEP_ALPHA),
    ]:
        samples = pixels if alpha is None else np.dstack([pixels, alpha])
        (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(samples.squeeze()))
        check(read_image(tmp_path / "a.png"), pixels, alpha)


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"planarconfig": "separate"}, {"tile": (16, 16)}])
def test_16_bit_tiff_of_another_writer(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(
        tmp_path / "rgb.tif",
        np.moveaxis(DEEP_RGB, -1, 0) if "planarconfig" in options else DEEP_RGB,
        photometric="rgb",
        byteorder=">",
        **options,
    )
    check(read_image(tmp_path / "rgb.tif"), DEEP_RGB)


def test_odd_tiffs(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "white_is_zero.tif", GREY[..., 0], photometric="miniswhite")
    check(read_image(tmp_path / "white_is_zero.tif"), 255 - GREY)
    twelve_bits = DEEP_GREY[..., 0] >> 4
    tifffile.imwrite(tmp_path / "12.tif", twelve_bits, bitspersample=12, compression=None, photometric="minisblack")
    stretched = read_image(tmp_path / "12.tif").pixels[..., 0]
    np.testing.assert_allclose(stretched / 65535, twelve_bits / 4095, rtol=0, atol=1 / 65535)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREY[..., 0], 255 - GREY[..., 0]]), photometric="minisblack")
    check(read_image(tmp_path / "pages.tif"), GREY)
    tifffile.imwrite(tmp_path / "float.tif", noise(5, 7).numpy(), photometric="minisblack")
    with pytest.raises(UserError, match="float64"):
        read_image(tmp_path / "float.tif")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255, 0, 0
    upright[8:, 24:] = 0, 0, 255
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = Image.fromarray(upright)
    stored = stored.transpose(undo[orientation]) if orientation in undo else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    faithful: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".jpg": {"subsampling": 0}}
    stored.save(tmp_path / f"a{suffix}", exif=exif, **faithful.get(suffix, {}))
    difference = read_image(tmp_path / f"a{suffix}").pixels.astype(int) - upright
    assert abs(difference).mean() < (4 if suffix == ".jpg" else 1e-9)


def test_colour_profile_is_kept(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for suffix in (".png", ".jpg", ".tif", ".webp"):
        write_image(tmp_path / f"a{suffix}", Picture(RGB, icc_profile=profile))
        assert read_image(tmp_path / f"a{suffix}").icc_profile == profile
        with Image.open(tmp_path / f"a{suffix}") as image:
            assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff"])
@pytest.mark.parametrize(
    ("pixels", "alpha"),
    [(p, a) for p in (GREY, RGB) for a in (None, ALPHA)]
    + [(p, a) for p in (DEEP_GREY, DEEP_RGB) for a in (None, DEEP_ALPHA)],
)
def test_round_trip(tmp_path: Path, suffix: str, pixels: np.ndarray, alpha: np.ndarray | None) -> None:
    write_image(tmp_path / f"a{suffix}", Picture(pixels if alpha is None else np.dstack([pixels, alpha])))
    check(read_image(tmp_path / f"a{suffix}"), pixels, alpha)
    assert [path.name for path in tmp_path.iterdir()] == [f"a{suffix}"]


def test_16_bits_are_rounded_to_8_where_the_format_has_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "a.webp", Picture(DEEP_RGB))
    check(read_image(tmp_path / "a.webp"), np.round(DEEP_RGB / 257).astype(np.uint8))
    assert "a .webp holds 8 bits" in caplog.text


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Picture(RGB))
    with pytest.raises(ValueError, match="dtype"):
        write_image(tmp_path / "a.png", Picture(RGB.astype(np.complex128)))  # type: ignore[arg-type]
    check(read_image(tmp_path / "a.png"), RGB)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.gif.*\.png"):
        write_image(tmp_path / "a.gif", Picture(RGB))
    with pytest.raises(UserError, match=r"a\.jpg.*transparency"):
        write_image(tmp_path / "a.jpg", Picture(np.dstack([RGB, ALPHA])))
    with pytest.raises(UserError, match=r"nowhere.*cannot be written"):
        write_image(tmp_path / "nowhere" / "a.png", Picture(RGB))


def tifffile_bytes(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb")
    return buffer.getvalue()


ENCODERS: dict[str, Callable[[np.ndarray], bytes | bytearray]] = {
    ".png": imagecodecs.png_encode,
    ".jpg": imagecodecs.jpeg_encode,
    ".webp": imagecodecs.webp_encode,
    ".tif": tifffile_bytes,
}
ENCODED = {suffix: bytes(encode(np.tile(RGB, (20, 20, 1)))) for suffix, encode in ENCODERS.items()}


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_files_are_named(tmp_path: Path, suffix: str, share: float) -> None:
    data = ENCODED[suffix]
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data)
    read_image(path)
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=re.escape(path.name)):
        read_image(path)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([".png", ".jpg", ".tif", ".webp"]), st.data())
def test_garbled_files_never_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / f"garbled{suffix}"
    content = bytearray(ENCODED[suffix])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(4, 200) | st.integers(4, len(content) - 1))
        content[place % len(content)] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            picture = read_image(path, max_pixels=10**6)
        except UserError as error:
            assert str(path) in str(error)
        else:
            height, width, channels = picture.pixels.shape
            assert 0 < height * width <= 10**6 and channels in (1, 3)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=r"empty\.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(UserError, match=r"text\.jpg: not an image"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(UserError, match=r"folder\.png"):
        read_image(tmp_path / "folder.png")
    with pytest.raises(UserError, match=r"missing\.png.*No such file"):
        read_image(tmp_path / "missing.png")


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(UserError, match=r"bomb\.png: 60000x60000 pixels"):
        read_image(tmp_path / "bomb.png")

    (tmp_path / "a.tif").write_bytes(tifffile_bytes(RGB))
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        with pytest.raises(UserError, match="limit of 34"):
            read_image(tmp_path / name, max_pixels=34)
        check(read_image(tmp_path / name, max_pixels=35), RGB)


def test_the_limit_can_be_raised_above_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    check(read_image(tmp_path / "a.png"), RGB)


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/c.jpeg", "a/.hidden.png", ".cache/x.png", "a.txt", "z.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == [
        "a/c.jpeg",
        "b.PNG",
        "z.webp",
    ]
    with pytest.raises(UserError, match="no such folder"):
        find_images(tmp_path / "missing")


def test_find_images_follows_links_once_and_knows_unusual_endings(tmp_path: Path) -> None:
    for name in ("a/b.png", "a/c.jfif", "a/d.JPE", "a/.hidden/e.png", "a/f.gif"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outside = tmp_path / "outside" / "deep"
    outside.mkdir(parents=True)
    (outside / "x.png").touch()
    (tmp_path / "root" / "aa").symlink_to(tmp_path / "outside")  # comes before what it repeats
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "z").symlink_to(tmp_path / "outside" / "deep")
    (tmp_path / "root" / "0").symlink_to(tmp_path / "root" / "a")
    (tmp_path / "root" / "gone").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(tmp_path / "root").as_posix() for path in find_images(tmp_path / "root")]
    assert found == ["a/b.png", "a/c.jfif", "a/d.JPE", "aa/deep/x.png"]


def test_tensors_and_pixels() -> None:
    tensor = to_tensor(RGB)
    assert tensor.shape == (3, 5, 7) and tensor.dtype == torch.float32
    np.testing.assert_array_equal(to_uint8(tensor), RGB)
    assert float(to_tensor(np.full((1, 1, 1), 65535, np.uint16))) == 1
    assert to_uint8(torch.tensor([[[-0.2, 0.499 / 255, 0.501 / 255, 1.3]]])).ravel().tolist() == [
        0,
        0,
        1,
        255,
    ]


# ---- what lies beside the pixels ----

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SIDEWAYS = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # EXIF: orientation 6


def chunk(name: bytes, body: bytes, *, broken: bool = False) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) ^ broken)


def icc(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def png(*before: bytes, after: bytes = b"", pixels: np.ndarray = RGB) -> bytes:
    """A PNG with these chunks before its pixels, and those behind them."""
    data = bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels)))
    return data[:33] + b"".join(before) + data[33:-12] + after + data[-12:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    data = ENCODED[".jpg"]
    said = (b"\xff" + bytes([kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return data[:2] + b"".join(said) + data[2:]


def tiff(payload: bytes, compression: int, **more: int) -> bytes:
    """A TIFF of 8x8 grey pixels in one strip, as no writer would make it."""
    tags = {256: 8, 257: 8, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 8, 279: len(payload)}
    tags |= {int(tag.removeprefix("tag_")): value for tag, value in more.items()}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + payload


def read(folder: Path, data: bytes, suffix: str = ".png", **more: Any) -> Picture:
    (folder / f"a{suffix}").write_bytes(data)
    return read_image(folder / f"a{suffix}", **more)


COLOURS = {
    b"cICP": chunk(b"cICP", bytes([9, 16, 0, 1])),
    b"gAMA": chunk(b"gAMA", struct.pack(">I", 100_000)),
    b"cHRM": chunk(b"cHRM", bytes(range(32))),
    b"sRGB": chunk(b"sRGB", b"\0"),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", [False, True])
def test_associated_alpha_is_taken_out_of_the_colours(tmp_path: Path, dtype: type, planar: bool) -> None:
    stored = np.array([[[200, 100, 50, 255], [100, 50, 25, 128], [9, 9, 9, 0], [1, 0, 3, 2]]])
    straight = np.array([[[200, 100, 50, 255], [199, 100, 50, 128], [0, 0, 0, 0], [128, 0, 255, 2]]])
    unit = np.iinfo(dtype).max // 255
    layout: dict[str, Any] = {"planarconfig": "separate"} if planar else {}
    samples: np.ndarray = (stored * unit).astype(dtype)
    samples = np.moveaxis(samples, -1, 0) if planar else samples
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"], **layout)
    found = read_image(tmp_path / "a.tif").samples
    assert found.dtype == dtype and np.abs(found.astype(int) - straight * unit).max() <= unit
    write_image(tmp_path / "b.tif", Picture(found))  # with straight alpha
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif").samples, found)


def test_white_is_zero_does_not_turn_the_alpha(tmp_path: Path) -> None:
    samples = np.dstack([GREY, ALPHA])
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="miniswhite", extrasamples=["unassalpha"])
    check(read_image(tmp_path / "a.tif"), 255 - GREY, ALPHA)


@pytest.mark.parametrize("layout", [{}, {"planarconfig": "separate"}])
def test_a_band_that_is_no_alpha_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, layout: dict[str, Any]
) -> None:
    samples = np.dstack([RGB, ALPHA])
    samples = np.moveaxis(samples, -1, 0) if layout else samples
    tifffile.imwrite(tmp_path / "nir.tif", samples, photometric="rgb", extrasamples=["unspecified"], **layout)
    check(read_image(tmp_path / "nir.tif"), RGB)
    assert "nir.tif: its last channel, which is no transparency, was left out" in caplog.text


@pytest.mark.parametrize("kind", ["ycbcr", "separated", "cielab"])
def test_tiffs_of_other_colours_are_refused_and_named(tmp_path: Path, kind: str) -> None:
    samples = np.dstack([RGB, ALPHA]) if kind == "separated" else RGB
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=kind, compression="zlib")
    with pytest.raises(UserError, match=rf"its colours \((?i:{kind})\) are not supported: convert it to RGB"):
        read_image(tmp_path / "a.tif")


def test_a_webp_of_grey_is_rgb_and_has_no_profile_of_grey(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey = SRGB[:16] + b"GRAY" + SRGB[20:]
    for alpha in (None, ALPHA):
        samples = GREY if alpha is None else np.dstack([GREY, ALPHA])
        write_image(tmp_path / "a.webp", Picture(samples, grey))
        assert "is for GRAY, and the picture is RGB: it was left out" in caplog.text
        caplog.clear()
        picture = read_image(tmp_path / "a.webp")
        assert picture.icc_profile is None and not caplog.messages
        seen = np.full(GREY.shape[:2], True) if alpha is None else alpha != 0
        assert np.array_equal(picture.pixels[seen], np.dstack([GREY] * 3)[seen])


@pytest.mark.parametrize(
    ("name", "sides"),
    [("a.webp", (1, 16_384)), ("a.jpg", (65_501, 1)), ("a.jpeg", (1, 70_000)), ("a.png", (1_000_001, 1))],
)
def test_what_a_format_cannot_hold_is_said(tmp_path: Path, name: str, sides: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"{name}: a .* holds up to .* pixels a side, not {sides[1]}x{sides[0]}"):
        write_image(tmp_path / name, Picture(np.zeros((*sides, 1), np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    frames = [Image.fromarray(np.roll(RGB, n, axis=0)) for n in range(3)]
    exact = {"lossless": True} if form == "WEBP" else {}
    frames[0].save(tmp_path / "many.x", form, save_all=True, append_images=frames[1:], **exact)
    check(read_image(tmp_path / "many.x"), RGB)
    (said,) = caplog.messages
    assert "many.x: only the first of its 3 frames is read" in said
    frames[0].save(tmp_path / "one.x", form, **exact)
    read_image(tmp_path / "one.x")
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match=r"a\.gif: not an image that can be read"):
        read_image(tmp_path / "a.gif")
    assert len(caplog.messages) == 1


def test_what_a_png_says_of_its_colours_is_kept_in_a_png(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for pixels in (RGB, GREY[..., 0], DEEP_RGB):
        picture = read(tmp_path, png(*COLOURS.values(), pixels=pixels))
        write_image(tmp_path / "b.png", picture)
        assert read_image(tmp_path / "b.png").png_colour == picture.png_colour == COLOURS
    with_profile = read(tmp_path, png(icc(SRGB), COLOURS[b"gAMA"]))
    write_image(tmp_path / "b.png", with_profile)
    assert read_image(tmp_path / "b.png").png_colour == {b"gAMA": COLOURS[b"gAMA"]}
    assert read_image(tmp_path / "b.png").icc_profile == SRGB
    write_image(tmp_path / "b.jpg", with_profile)  # which says it better
    write_image(tmp_path / "b.jpg", read(tmp_path, png(COLOURS[b"sRGB"])))  # as is meant without
    assert not caplog.messages
    for suffix in (".jpg", ".webp", ".tif"):
        write_image(tmp_path / f"b{suffix}", picture)
        assert re.search(rf"b\{suffix}: only a \.png .*\(cHRM, cICP, gAMA, sRGB\)", caplog.messages.pop())
        caplog.clear()


@pytest.mark.parametrize(
    ("data", "suffix", "word"),
    [
        (png(icc(SRGB), pixels=GREY[..., 0]), ".png", "is for RGB, and the picture is GRAY"),
        (png(icc(SRGB[:16] + b"GRAY" + SRGB[20:])), ".png", "is for GRAY, and the picture is RGB"),
        (png(icc(SRGB[:16] + b"CMYK" + SRGB[20:])), ".png", "is for CMYK"),
        (png(icc(SRGB[:-40])), ".png", "is broken"),
        (png(icc(SRGB[:4] + bytes(60))), ".png", "is broken"),
        (png(icc(b"")), ".png", "is broken"),
        (png(chunk(b"iCCP", b"x\0\0garbage")), ".png", "is broken"),
        (jpeg((0xE2, b"ICC_PROFILE\0\1\2" + SRGB)), ".jpg", "is broken"),
    ],
)
def test_a_profile_that_cannot_be_the_pictures_is_dropped_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes, suffix: str, word: str
) -> None:
    assert read(tmp_path, data, suffix).icc_profile is None
    (said,) = caplog.messages
    assert f"a{suffix}: its colour profile" in said and word in said


def test_no_profile_is_written_that_cannot_be_the_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_image(tmp_path / "a.png", Picture(GREY, SRGB))
    assert b"iCCP" not in (tmp_path / "a.png").read_bytes()
    assert "a.png: its colour profile is for RGB" in caplog.messages[0]


LONG_TEXT = zlib.compress(bytes(3 << 20))


@pytest.mark.parametrize(
    ("data", "suffix", "kept"),
    [
        (png(icc(SRGB), chunk(b"eXIf", b"garbage")), ".png", "profile"),
        (png(icc(SRGB), after=chunk(b"eXIf", b"garbage")), ".png", "profile"),
        (png(icc(SRGB), chunk(b"eXIf", SIDEWAYS[:14])), ".png", "profile"),
        (png(icc(SRGB), chunk(b"eXIf", SIDEWAYS), chunk(b"zTXt", b"a\0\0" + LONG_TEXT)), ".png", "both"),
        (png(icc(SRGB), chunk(b"eXIf", SIDEWAYS), after=chunk(b"zTXt", b"a\0\0" + LONG_TEXT)), ".png", "both"),
        (png(icc(SRGB), chunk(b"iTXt", b"a\0\1\0\0\0" + LONG_TEXT)), ".png", "profile"),
        (png(*(chunk(b"tEXt", b"a\0" + bytes(1 << 20)) for _ in range(70))), ".png", ""),
        (png(icc(SRGB), chunk(b"tEXt", b"a\0b", broken=True)), ".png", "profile"),
        (png(icc(SRGB), chunk(b"gAMA", b"\0")), ".png", "profile"),
        (png(icc(SRGB + bytes(2 << 20)), chunk(b"eXIf", SIDEWAYS)), ".png", "upright"),
        (png(icc(SRGB), chunk(b"eXIf", b"garbage"), pixels=DEEP_RGB), ".png", "profile"),
        (jpeg((0xE2, b"ICC_PROFILE\0\1\1" + SRGB), (0xE1, b"Exif\0\0garbage")), ".jpg", "profile"),
        (jpeg((0xE2, b"ICC_PROFILE\0\1\1" + SRGB), (0xE1, b"Exif\0\0" + SIDEWAYS[:14])), ".jpg", "profile"),
        (jpeg((0xE2, b"ICC_PROFILE\0"), (0xE1, b"Exif\0\0" + SIDEWAYS)), ".jpg", "upright"),
        (jpeg((0xE2, b"MPF\0garbage")), ".jpg", ""),
        (jpeg((0xE0, b"JFIF\0")), ".jpg", ""),
    ],
)
def test_broken_metadata_cost_a_warning_and_no_pixel(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    recwarn: pytest.WarningsRecorder,
    data: bytes,
    suffix: str,
    kept: str,
) -> None:
    picture = read(tmp_path, data, suffix)
    whole = read_image(tmp_path / f"a{suffix}").pixels  # as often as one likes
    np.testing.assert_array_equal(picture.pixels, whole)
    turned = kept in ("both", "upright")
    height, width = (100, 140) if suffix == ".jpg" else (5, 7)
    assert picture.pixels.shape == ((width, height, 3) if turned else (height, width, 3))
    if suffix == ".png":
        expected = DEEP_RGB if picture.pixels.dtype == np.uint16 else RGB
        np.testing.assert_array_equal(picture.pixels, np.rot90(expected, -1) if turned else expected)
    assert picture.icc_profile == (SRGB if kept in ("both", "profile") else None)
    assert len(caplog.messages) == 2 and f"a{suffix}: broken metadata" in caplog.messages[0]
    assert not recwarn.list


def test_broken_exif_of_a_webp_costs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.webp", lossless=True, exif=b"garbage!", icc_profile=SRGB)
    picture = read_image(tmp_path / "a.webp")
    check(picture, RGB)
    assert picture.icc_profile == SRGB and len(caplog.messages) == 1


def test_damaged_pixels_are_refused_whatever_the_metadata(tmp_path: Path) -> None:
    for data, suffix in (
        (png(chunk(b"eXIf", b"garbage")), ".png"),
        (png(icc(SRGB)), ".png"),
        (jpeg((0xE1, b"Exif\0\0garbage")), ".jpg"),
    ):
        with pytest.raises(UserError, match=rf"a\{suffix}: broken"):
            read(tmp_path, data[: -len(data) // 4], suffix)
    flipped = bytearray(png())
    flipped[-20] ^= 1
    with pytest.raises(UserError, match=r"IDAT is damaged"):
        read(tmp_path, bytes(flipped))


# ---- bounds ----


def test_no_limit_but_ours_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)  # any file is then as one of 180 megapixels
    forms: list[dict[str, Any]] = [{"lossless": True}, {"lossless": False}, {"lossless": True, "exif": SIDEWAYS}]
    for options in forms:
        Image.fromarray(RGB).save(tmp_path / "a.webp", **options)
        read_image(tmp_path / "a.webp", max_pixels=35)
        with pytest.raises(UserError, match="7x5 pixels are more than the limit of 34"):
            read_image(tmp_path / "a.webp", max_pixels=34)


def test_what_a_tiff_packs_may_be_no_larger_than_it_says(tmp_path: Path) -> None:
    big = np.zeros((2000, 2000), np.uint8)
    for data in (imagecodecs.jpeg_encode(big), imagecodecs.png_encode(big)):
        with pytest.raises(UserError, match="segments are larger than it says"):
            read(tmp_path, tiff(bytes(data), 7 if data[:2] == b"\xff\xd8" else 34933), ".tif")
    with pytest.raises(UserError, match="JPEG2000 is broken or not supported"):
        read(tmp_path, tiff(b"any", 34712), ".tif")
    for data, compression in ((zlib.compress(bytes(1 << 28)), 8), (imagecodecs.zstd_encode(bytes(1 << 28)), 50000)):
        with pytest.raises(UserError, match="broken"):
            read(tmp_path, tiff(bytes(data), compression), ".tif")
    check(read(tmp_path, tiff(bytes(imagecodecs.jpeg_encode(big[:8, :8])), 7), ".tif"), big[:8, :8, None])


def test_tiles_count_whole(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 300), np.uint8), tile=(1024, 16), compression="zlib")
    with pytest.raises(UserError, match="304x1024 pixels are more than the limit of 300000"):
        read_image(tmp_path / "a.tif", max_pixels=300_000)
    assert read_image(tmp_path / "a.tif", max_pixels=320_000).pixels.shape == (3, 300, 1)


@pytest.mark.parametrize("junk", [b"", b"junk"])
def test_a_jpeg_of_endless_scans_is_refused(tmp_path: Path, junk: bytes) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert read(tmp_path, data, ".jpg").pixels.shape == (100, 140, 3)
    last, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    with pytest.raises(UserError, match="more than 100 scans"):
        read(tmp_path, data[:end] + (junk + data[last:end]) * 100 + data[end:], ".jpg")
