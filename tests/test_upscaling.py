"""Enlarging photos: every kind stays what it is, tiles leave no trace, and no file is lost."""

import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from tests.small_job import NET, RECIPE
from torch import Tensor, nn

from upsweep import release
from upsweep.common.devices import device_of
from upsweep.common.errors import UserError
from upsweep.imaging.colour import rgb_to_ycbcr
from upsweep.imaging.files import Picture, read_image
from upsweep.imaging.resize import enlarge
from upsweep.imaging.writing import write_image
from upsweep.networks import checkpoints
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers import Tiled
from upsweep.upscaling import model
from upsweep.upscaling import picture as upscaling
from upsweep.upscaling.files import Photo, enlarge_all, plan
from upsweep.upscaling.picture import Enlarger, Painter

ROOT = Path(__file__).parents[1]
SPEC: dict[str, Any] = {
    **NET,
    "recipe": {**RECIPE, "dropout": {"_target_": "upsweep.blocks.dropout.Dropout", "p": 0.0}},
    "scale": 2,
    "channels": 1,
}


class Plain(Upscaler):
    """Bicubic enlargement, so that what comes out is known."""

    def __init__(self, channels: int, scale: int = 2) -> None:
        super().__init__(scale, channels)

    def body(self, x: Tensor) -> Tensor:
        return enlarge(x, self.scale)


def samples(channels: int, height: int = 13, width: int = 17, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(0)  # from 1 on: nothing is invisible
    return rng.integers(1, np.iinfo(dtype).max + 1, (height, width, channels)).astype(dtype)


def network(channels: int = 1, **changes: Any) -> Upscaler:
    torch.manual_seed(0)
    built = checkpoints.build({**SPEC, "channels": channels, **changes})
    return checkpoints.as_upscaler(built, "the test").eval()


def same(picture: Picture, advance: Callable[[float], None]) -> Picture:
    advance(1)
    return picture


# One picture


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("own", [1, 3])
def test_every_kind_of_picture_stays_what_it_is(own: int, channels: int, dtype: type) -> None:
    lr = samples(channels, dtype=dtype)
    larger = Enlarger(Plain(own))(Picture(lr, b"profile", {b"gAMA": b"chunk"}))
    assert larger.png_colour == {b"gAMA": b"chunk"}
    assert larger.pixels.shape == (26, 34, 3 if channels > 2 else 1)
    assert (larger.alpha is None) == (channels % 2 == 1)
    assert larger.pixels.dtype == dtype and larger.icc_profile == b"profile"
    # Whatever the generator's channels, bicubic of every sample is what must come out, to a code.
    expected = enlarge(torch.from_numpy(lr.astype(np.float64)).permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0).numpy()
    found = larger.samples.astype(np.float64)
    assert np.abs(found - expected.clip(0, np.iinfo(dtype).max)).max() <= 0.5 + 1e-6 * np.iinfo(dtype).max + 0.1 * (
        dtype is np.uint16
    )


def test_a_luma_generator_leaves_the_chroma_bicubic() -> None:
    lr = samples(3)[:, :, :] // 4 + 96  # no colour near the edge of what RGB holds
    sr = Enlarger(network(skip="bicubic"))(Picture(lr.astype(np.uint8))).pixels

    def chroma(pixels: np.ndarray) -> Tensor:
        return rgb_to_ycbcr(torch.from_numpy(pixels / 255).permute(2, 0, 1)[None])[:, 1:]

    y, expected = chroma(sr), enlarge(chroma(lr), 2)
    unclipped = torch.from_numpy(((sr > 0) & (sr < 255)).all(axis=2))
    assert unclipped.float().mean() > 0.5
    assert (y - expected)[..., unclipped].abs().max() < 1.5 / 255


def test_alpha_is_enlarged_on_its_own() -> None:
    grey, alpha = samples(1), samples(1, dtype=np.uint8)[::-1]
    both = Enlarger(network())(Picture(np.concatenate([grey, alpha], axis=2)))
    alone = Enlarger(network())(Picture(grey))
    assert np.array_equal(both.pixels, alone.pixels)
    only = Enlarger(Plain(1))(Picture(np.ascontiguousarray(alpha)))
    assert both.alpha is not None and np.array_equal(both.alpha, only.pixels[..., 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("tile", [0, 16])
def test_what_lies_under_invisible_pixels_does_not_show(
    tile: int, colours: int, dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A white disc with a soft edge, on black or on noise that is fully transparent, stays white."""
    monkeypatch.setattr(upscaling, "BAND", 7)
    full = np.iinfo(dtype).max
    y, x = np.mgrid[:40, :44]
    alpha = np.clip(14.5 - np.hypot(y - 20, x - 20), 0, 1)
    white = Enlarger(network(), tile=tile)(Picture(np.full((40, 44, colours), full, dtype)))
    for under in (np.zeros((40, 44, colours)), samples(colours, 40, 44, dtype)):
        disc: np.ndarray = np.dstack([np.where(alpha[..., None] > 0, full, under), alpha * full]).astype(dtype)
        before = disc.copy()
        larger = Enlarger(network(), tile=tile)(Picture(disc))
        assert larger.alpha is not None and np.array_equal(disc, before)
        seen = larger.alpha > 0
        assert np.array_equal(larger.pixels[seen], white.pixels[seen])


def test_invisible_pixels_have_the_nearest_visible_colour_and_stay_where_there_is_none() -> None:
    for height in (5, 300, 900):  # one band, and more
        picture = samples(4, height, 9)
        picture[2:, :, 3] = 0
        filled = upscaling._filled(picture)
        assert np.array_equal(filled[2 : 2 + upscaling.FAR, :, :3], picture[1:2, :, :3].repeat(len(filled[2:66]), 0))
        assert np.array_equal(filled[..., 3], picture[..., 3]) and np.array_equal(filled[:2], picture[:2])
    nothing = samples(2) * np.array([1, 0], np.uint8)
    assert np.array_equal(upscaling._filled(nothing), nothing)


@pytest.mark.parametrize("channels", [1, 4])
def test_tiles_leave_no_trace(channels: int) -> None:
    lr = Picture(samples(channels, 61, 47, np.uint16))
    shares: list[float] = []
    whole = Enlarger(network(), tile=0)(lr).samples.astype(int)
    tiled = Enlarger(network(), tile=10)(lr, shares.append).samples.astype(int)
    assert np.abs(whole - tiled).max() <= 1  # the rounding of float32, in 65,536 levels
    assert len(shares) == 7 * 5 and sum(shares) == pytest.approx(1)


def test_large_pictures_are_tiled_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = network()
    seen: list[int] = []
    generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:].numel()))
    lr = Picture(samples(1, 200, 150))
    upscaler = Enlarger(generator)
    whole = upscaler(lr).pixels
    assert max(seen) == 200 * 150
    monkeypatch.setattr(upscaling, "BUDGET", 4000 * upscaling.appetite(Painter(generator, 1)))
    seen.clear()
    assert np.abs(Enlarger(generator)(lr).pixels.astype(int) - whole).max() <= 1
    assert max(seen[1:]) <= 4000


@pytest.mark.parametrize("depth", [1, 12])  # how far a pixel sees
def test_tiles_on_a_cpu_are_small_but_their_margins_add_no_more_than_a_quarter(depth: int) -> None:
    generator = network(depth=depth)
    seen: list[int] = []
    generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:].numel()))
    Enlarger(generator)(Picture(samples(1, 800, 900)))
    tiles = seen[1:]  # the first is the probe
    assert len(tiles) > 1 and sum(tiles) < 1.25 * 800 * 900 + 2 * max(tiles)
    assert max(tiles) * upscaling.appetite(generator) < upscaling.BUDGET


def test_a_picture_whose_tiles_would_be_more_work_than_itself_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = network(depth=12)
    pixel = upscaling.appetite(Painter(generator, 1))
    monkeypatch.setattr(upscaling, "CACHED", 100 * 100 * pixel)
    monkeypatch.setattr(upscaling, "BUDGET", 150 * 150 * pixel)
    for side, whole in ((110, True), (200, False)):  # beyond the cache; beyond the memory
        seen: list[int] = []
        hook = generator.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].shape[-2:].numel()))
        Enlarger(generator)(Picture(samples(1, side, side)))
        hook.remove()
        assert (max(seen) == side**2) is whole


def test_a_generator_that_sees_the_whole_image_still_enlarges_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = {"_target_": "upsweep.blocks.norm.InstanceNorm"}
    generator = network(recipe={**SPEC["recipe"], "norm": norm})
    lr = Picture(samples(1))
    expected = Enlarger(generator)(lr).pixels
    monkeypatch.setattr(upscaling, "CACHED", 0)  # no longer small for the cache, but for the memory
    tried: list[int] = []

    def tiling(generator: Upscaler, tile: int) -> Tiled:
        tried.append(tile)
        return Tiled(generator, tile)

    monkeypatch.setattr(upscaling, "Tiled", tiling)
    upscaler = Enlarger(generator)
    for _ in range(2):
        assert np.array_equal(upscaler(lr).pixels, expected)
    assert len(tried) == 1  # that it cannot be tiled is found out once
    with pytest.raises(UserError, match="whole image"):
        Enlarger(generator, tile=8)(Picture(samples(1)))


@pytest.mark.parametrize("tile", [0, 8])
def test_values_that_are_no_numbers_make_no_picture(tile: int) -> None:
    generator = network()
    with torch.no_grad():
        for weight in generator.parameters():
            weight.fill_(1e30)  # finite, and beyond all numbers after two layers
    with pytest.raises(UserError, match="makes NaN or infinity of this picture"):
        Enlarger(generator, tile=tile)(Picture(samples(3)))


class Narrow(Plain):
    """Fails for images of more than 300 pixels."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1)
        self.error = error

    def body(self, x: Tensor) -> Tensor:
        if x.shape[-2:].numel() > 300:
            raise self.error
        return super().body(x)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory"), MemoryError()]
)
def test_a_piece_that_does_not_fit_into_memory_asks_for_smaller_tiles(error: Exception) -> None:
    large = Picture(samples(1, 13, 31))
    with pytest.raises(
        UserError, match=r"^Out of memory for 31x13 pixels at once: choose smaller tiles, such as tile=15\.$"
    ):
        Enlarger(Narrow(error), tile=0)(large)
    assert Enlarger(Narrow(error), tile=8)(large).pixels.shape == (26, 62, 1)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        Enlarger(Narrow(RuntimeError("a fault of ours")), tile=0)(large)


# Files


def photo(path: Path, channels: int = 3, dtype: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, Picture(samples(channels, dtype=dtype)), marked=False)
    return path


def targets(jobs: list[Photo], root: Path) -> dict[str, str]:
    return {str(j.source.relative_to(root)): str(j.target.relative_to(root)) for j in jobs if j.problem is None}


def test_a_folder_a_glob_and_a_list(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "sub/a.png", "c.txt"):
        photo(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    beside = {"a.jpg": "a_x2.png", "b.png": "b_x2.png"}
    assert targets(plan([str(tmp_path)], None, 2).photos, tmp_path) == {**beside, "sub/a.png": "sub/a_x2.png"}
    assert targets(plan([f"{tmp_path}/*"], None, 2).photos, tmp_path) == beside
    assert targets(plan([f"{tmp_path}/a.jpg", f"{tmp_path}/b.png"], None, 2).photos, tmp_path) == beside
    inside = targets(plan([str(tmp_path)], f"{tmp_path}/out", 3).photos, tmp_path)
    assert inside == {"a.jpg": "out/a_x3.png", "b.png": "out/b_x3.png", "sub/a.png": "out/sub/a_x3.png"}
    (job,) = plan([f"{tmp_path}/a.jpg"], f"{tmp_path}/big.tif", 3).photos
    assert job.target == tmp_path / "big.tif"


def test_a_second_run_does_not_enlarge_what_the_first_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo(tmp_path / "a.jpg"), photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    for scale in (2, 3):
        jobs, _ = plan([str(tmp_path)], None, scale)
        assert [job.source.name for job in jobs] == ["a.jpg", "a.png", "b.png"]
        enlarge_all(jobs, same, max_pixels=10**6)
    assert len(list(tmp_path.iterdir())) == 3 * 3
    assert not any(job.problem for job in plan([str(tmp_path)], None, 2, overwrite=True).photos)
    assert len(plan([str(tmp_path)], f"{tmp_path}/elsewhere", 2).photos) == 3
    assert "6 images that upsweep made were left out of" in caplog.text
    with pytest.raises(UserError, match="upsweep made all of these"):
        plan([f"{tmp_path}/*_x2.png"], None, 2)
    (job,) = plan([f"{tmp_path}/b_x2.png"], None, 2).photos
    assert job.target.name == "b_x2_x2.png" and job.problem is None


def test_a_run_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    photo(tmp_path / "a.png"), photo(tmp_path / "b.png"), photo(tmp_path / "c.png")
    enlarge_all(plan([f"{tmp_path}/a.png"], None, 2).photos, same, max_pixels=10**6)
    photos, notes = plan([str(tmp_path)], None, 2)
    assert [each.source.name for each in photos] == ["b.png", "c.png"]
    assert notes == ["1 of 3 have been enlarged before, maybe by other weights; overwrite=true makes them anew."]
    (named,) = plan([f"{tmp_path}/a.png"], None, 2).photos
    assert "overwrite=true" in str(named.problem)


def test_a_photo_is_not_passed_over_for_its_name(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg"), photo(tmp_path / "a_x2.png")
    assert len(plan([str(tmp_path)], str(tmp_path / "out"), 3).photos) == 2


def test_files_of_other_kinds_are_told_once(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for name in ("b.gif", "c.HEIC"):
        (tmp_path / name).touch()
    for where in ([str(tmp_path)], [f"{tmp_path}/*"], [str(tmp_path), f"{tmp_path}/*"]):
        photos, (note,) = plan(where, None, 2)
        assert len(photos) == 1
        assert note == "2 files are passed over (not PNG, JPEG, BMP, TIFF or WebP): b.gif, c.HEIC."
    with pytest.raises(UserError, match=r"no images. 1 file is passed over .*: b\.gif\.$"):
        plan([f"{tmp_path}/*.gif"], None, 2)


def test_what_others_made_is_not_taken_for_an_enlargement(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png"), photo(tmp_path / "in" / "b.png")
    photo(tmp_path / "out" / "a_x2.png")
    (tmp_path / "out" / "b_x2.png").mkdir()
    photos, notes = plan([str(tmp_path / "in")], str(tmp_path / "out"), 2)
    assert not notes and all("already exists" in str(each.problem) for each in photos) and len(photos) == 2


def test_an_input_that_holds_enlargements_alone_does_not_stop_the_others(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    enlarge_all(plan([str(tmp_path)], str(tmp_path / "out"), 2).photos, same, max_pixels=10**6)
    assert len(plan([f"{tmp_path}/*.png", f"{tmp_path}/out/*.png"], None, 3).photos) == 1


def test_two_inputs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    (
        photo(tmp_path / "a.jpg"),
        photo(tmp_path / "a.png"),
        photo(tmp_path / "x" / "b.png"),
        photo(tmp_path / "y" / "b.png"),
    )
    jobs, notes = plan([f"{tmp_path}/*.*"], f"{tmp_path}/out", 2)
    assert len(notes) == 2 and "the same name but for its suffix" in notes[0]
    assert targets(jobs, tmp_path) == {"a.jpg": "out/a_jpg_x2.png", "a.png": "out/a_png_x2.png"}
    jobs, notes = plan([f"{tmp_path}/*/b.png"], f"{tmp_path}/out", 2)
    assert not notes and not targets(jobs, tmp_path) and all("another input" in str(job.problem) for job in jobs)


def test_bad_wishes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    for inputs, output, word in [
        ([], None, "input=photo.jpg"),
        (["nothing.jpg"], None, "no such file"),
        (["nothing*.jpg"], None, "there are no images"),
        ([str(tmp_path / "empty")], None, "there are no images"),
        ([str(tmp_path)], str(tmp_path / "x.png"), "one file"),
        ([str(tmp_path / "a.png")], str(tmp_path / "x.gif"), "neither an existing folder nor an image"),
    ]:
        with pytest.raises(UserError, match=word):
            plan(inputs, output, 2)
    (job,) = plan([str(tmp_path / "a.png")], str(tmp_path / "a.png"), 2, overwrite=True).photos
    assert "itself an input" in str(job.problem)


def test_what_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "b.png"), (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xffnothing"), photo(tmp_path / "c.png", 4)
    with pytest.raises(UserError, match="1 of 3"):
        enlarge_all(plan([str(tmp_path)], None, 2).photos, same, max_pixels=10**6)
    said, complaints = (text.splitlines() for text in capsys.readouterr())
    assert len(said) == 2 and len(complaints) == 1 and "a.jpg" in complaints[0]
    photo(tmp_path / "new" / "z.png")
    write_image(tmp_path / "new" / "wide.png", Picture(samples(1, 13, 31)), marked=False)
    for error in (RuntimeError("no kernel"), MemoryError("too little")):
        with pytest.raises(UserError, match="1 of 2"):
            jobs = plan([str(tmp_path / "new")], None, 2, overwrite=True).photos
            enlarge_all(jobs, Enlarger(Narrow(error), tile=0), max_pixels=10**6)
        said, complaints = (text.splitlines() for text in capsys.readouterr())
        assert len(said) == 1 and "z.png" in said[0] and len(complaints) == 1
        assert re.match(rf".*wide\.png: ({error}|Out of memory .* tile=15)\.$", complaints[0])
        with pytest.raises((RuntimeError, UserError)):  # a single one: with all that is known
            enlarge_all(jobs[:1], Enlarger(Narrow(error), tile=0), max_pixels=10**6)
    for name, word in (("c.jpg", "cannot hold the transparency"), ("c.webp", "up to 16383 pixels a side, not")):
        (job,) = plan([str(tmp_path / "c.png")], str(tmp_path / name), 2).photos
        with pytest.raises(UserError, match=word):
            enlarge_all([replace(job, scale=2000)], lambda *_: pytest.fail("after all the work"), max_pixels=10**6)


# Weights


def test_the_package_says_which_weights_it_carries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"scale=2 \(it has none at all\): give a checkpoint"):
        release.path(None, 2)
    for name in ("fsrcnn_x2", "edsr_x2", "edsr_x3", "espcn_x3", "readme"):
        (tmp_path / f"{name}.safetensors").touch()
    assert set(release.available()) == {("fsrcnn", 2), ("edsr", 2), ("edsr", 3), ("espcn", 3)}
    assert release.path(None, 2).stem == "fsrcnn_x2"
    assert release.path("edsr", 2).stem == "edsr_x2"
    assert release.path(None, 3).stem == "edsr_x3"
    with pytest.raises(UserError, match=r"weights espcn for scale=2 .*it has x3"):
        release.path("espcn", 2)


def test_weights_dropped_into_the_package_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save_release(network(), SPEC, tmp_path / "fsrcnn_x2.safetensors")
    monkeypatch.setattr(release, "FOLDER", tmp_path)
    generator, source = model.load(None, None, None)
    assert generator.scale == 2 and source.endswith("fsrcnn_x2.safetensors")


def test_choices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoints.save_release(network(), SPEC, path)
    with pytest.raises(UserError, match="enlarges 2 times, not scale=3"):
        model.load(str(path), None, 3)
    with pytest.raises(UserError, match="both name weights"):
        model.load(str(path), "fsrcnn", None)
    with pytest.raises(UserError, match="device=warp"):
        device_of("warp")
    for wrong in (-1, "big", 1.5, True):
        with pytest.raises(UserError, match="tile="):
            model.tile_of(wrong)  # type: ignore[arg-type]
    assert (model.tile_of("auto"), model.tile_of(7)) == (None, 7)


# The doors, as a user meets them


def door(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "src" / f"{name}.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "x.safetensors"
    path.parent.mkdir()
    checkpoints.save_release(network(), SPEC, path)
    return path


def bomb(path: Path, side: int = 60_000) -> Path:
    """A small PNG whose header promises a large square of grey."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    return path


def test_a_photo_is_enlarged_beside_itself_upright_and_in_its_colours(tmp_path: Path, checkpoint: Path) -> None:
    pixels = samples(3, 20, 12)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = Image.fromarray(pixels)
    photo.save(tmp_path / "my photo (1).jpg", exif=exif, icc_profile=profile, quality=95)
    bomb(tmp_path / "bomb.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    done = door("upscale", "input=.", f"checkpoint={checkpoint}", cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3 and "60000x60000" in lines[0] and "max_pixels" in lines[0]
    assert "broken.png" in lines[1] and "2 of 3" in lines[2]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["bomb.png", "broken.png", "my photo (1).jpg", "my photo (1)_x2.png", "weights"]
    )
    with Image.open(tmp_path / "my photo (1)_x2.png") as larger:
        assert larger.size == (40, 24) and larger.mode == "RGB"
        assert larger.info["icc_profile"] == profile and larger.getexif().get(0x0112, 1) == 1
    again = door("upscale", "input=my photo (1).jpg", f"checkpoint={checkpoint}", cwd=tmp_path)
    assert again.returncode == 1 and "overwrite=true" in again.stderr and len(again.stderr.splitlines()) == 1


def test_without_weights_or_a_photo_a_sentence_says_so(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    done = door("upscale", "input=a.png", "scale=8", cwd=tmp_path)
    assert done.returncode == 1 and "checkpoint=PATH" in done.stderr and len(done.stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


class Command:
    """Runs a shell command where a pickle of it is read."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upscale", "export"])
def test_the_doors_run_nothing_that_a_checkpoint_says(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.png")
    state = {"state_dict": {}, checkpoints.KEY: checkpoints.describe(SPEC)}
    evil = {**SPEC, "_target_": "os.system", "command": "touch ran"}
    huge = {**SPEC, "width": 10**9}
    for file, content in [
        ("pickle.ckpt", {**state, "more": Command("touch ran")}),
        ("huge.ckpt", {**state, checkpoints.KEY: checkpoints.describe(huge)}),
    ]:
        torch.save(content, tmp_path / file)
    checkpoints.save_release(network(), evil, tmp_path / "target.safetensors")
    for file in ("pickle.ckpt", "huge.ckpt", "target.safetensors"):
        more = "input=a.png" if name == "upscale" else "format=safetensors"
        done = door(
            name,
            more,
            f"checkpoint={file}",
            "output=out.safetensors" if name == "export" else "overwrite=true",
            cwd=tmp_path,
        )
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert file in done.stderr and "was not loaded" in done.stderr
        assert not (tmp_path / "ran").exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_50_megapixels_fit_into_2_gigabytes(tmp_path: Path, checkpoint: Path) -> None:
    block = samples(4, 50, 100, np.uint16)  # the most that a picture can hold
    block[:, :70, 3] = 0
    write_image(tmp_path / "large.png", Picture(np.tile(block, (50, 50, 1)), b"profile"))
    code = (
        "import pathlib, runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
        # of this program alone: ru_maxrss begins with what the process had that started it
        "print(pathlib.Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "src" / "upscale.py"), "input=large.png", f"checkpoint={checkpoint}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    peak = int(done.stdout.splitlines()[-1]) * 1024
    assert peak < 2e9
    larger = read_image(tmp_path / "large_x2.png")
    assert larger.pixels.shape == (5000, 10_000, 3) and larger.pixels.dtype == np.uint16


def test_an_image_that_could_not_be_written_leaves_nothing(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    jobs, _ = plan([str(tmp_path / "a.png")], str(tmp_path / "file" / "sub"), 2)
    with pytest.raises(UserError, match="cannot be made"):
        enlarge_all(jobs, same, max_pixels=10**6)


def test_the_limit_on_pixels_can_be_raised(tmp_path: Path) -> None:
    jobs, _ = plan([str(photo(tmp_path / "a.png"))], None, 2)
    with pytest.raises(UserError, match="limit of 200"):
        enlarge_all(jobs, same, max_pixels=200)
    enlarge_all(jobs, same, max_pixels=221)


def test_a_generator_of_any_device_is_asked_on_its_own() -> None:
    class Where(Plain):
        def __init__(self) -> None:
            super().__init__(1)
            self.layer = nn.Conv2d(1, 1, 1)

        def body(self, x: Tensor) -> Tensor:
            assert x.device == self.layer.weight.device
            return super().body(x)

    Enlarger(Where())(Picture(samples(3)))
