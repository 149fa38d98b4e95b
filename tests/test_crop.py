"""The picture that a run leaves for the report: what it was made of is what is read, tile by tile."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upsweep.imaging.files import Picture
from upsweep.imaging.tiles import Panel, side_by_side
from upsweep.imaging.writing import write_image
from upsweep.runs import crop
from upsweep.runs.record import UnreadableError, read

SAMPLES = {"made": "samples", "wanted": "real images"}


def tiles(count: int, colour: bool = True) -> list[np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3 if colour else 1), np.uint8)
    return [*np.broadcast_to(pixels, (count, 20, 24, 3))]


def pixels_of(tile: crop.Tile) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(tile.png))) as picture:
        return np.asarray(picture.convert("RGB"))


RESTORED = {"baseline": "bicubic", "made": "SR", "wanted": "HR"}


@pytest.mark.parametrize("titles", [SAMPLES, {"made": "samples"}, RESTORED])
def test_tiles_are_read_back_with_their_titles_however_many_there_are(tmp_path: Path, titles: dict[str, str]) -> None:
    made = tiles(len(titles))
    found = crop.read(crop.write(tmp_path / "crop.png", side_by_side(made), titles, "Samples of the same latents"))
    assert {tile.role: tile.title for tile in found.tiles} == titles and found.shows == "Samples of the same latents"
    for tile, pixels in zip(found.tiles, made, strict=True):
        assert tile.width == 24
        np.testing.assert_array_equal(pixels_of(tile), pixels)
    assert found.made.title == titles["made"] and found.made not in found.others


def test_a_file_that_names_nothing_is_baseline_made_and_target(tmp_path: Path) -> None:
    made = tiles(3)
    write_image(tmp_path / "crop.png", Picture(side_by_side(made)))  # as upsweep 0.2 wrote it
    found = crop.read(tmp_path / "crop.png")
    assert [tile.title for tile in found.tiles] == ["baseline", "made", "target"]
    np.testing.assert_array_equal(pixels_of(found.made), made[1])


def test_a_panel_that_names_nothing_has_the_tiles_of_such_a_file() -> None:
    assert Panel("x", tiles(1)[0], "").tiles == crop.UNNAMED


def test_grey_tiles_take_the_bytes_of_grey(tmp_path: Path) -> None:
    grey, colour = (
        crop.read(crop.write(tmp_path / f"{name}.png", side_by_side(tiles(2, name == "colour")), SAMPLES))
        for name in ("grey", "colour")
    )
    assert len(grey.made.png) < len(colour.made.png) / 2


@pytest.mark.parametrize("titles", [{"wanted": "HR"}, {"made": "SR", "other": "x"}, {}])
def test_a_picture_without_what_was_made_or_of_unknown_tiles_is_named(tmp_path: Path, titles: dict[str, str]) -> None:
    file = crop.write(tmp_path / "crop.png", side_by_side(tiles(2)), titles)
    with pytest.raises(UnreadableError, match=r"crop\.png cannot be read"):
        read(crop.read, file)
