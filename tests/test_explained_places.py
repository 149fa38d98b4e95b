"""Places are told as `at=` has them, also in a part of a photo; titles stay short."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from upsweep.common.errors import UserError
from upsweep.common.progress import Bar
from upsweep.explaining.photo import LARGEST, Photo
from upsweep.explaining.request import _together
from upsweep.explaining.upscalers import BeforePhoto
from upsweep.networks.upscalers.bicubic import Bicubic

SIZE = 1400, 1200


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat photo with one bright spot, at [1300,1100]."""
    pixels = np.full((*reversed(SIZE), 3), 90, np.uint8)
    pixels[1100:1104, 1300:1304] = 255
    file: Path = tmp_path_factory.mktemp("photos") / "large.png"
    Image.fromarray(pixels).save(file)
    return file


def test_a_window_in_a_large_photo_is_told_in_the_pixels_of_its_file(large: Path) -> None:
    photo = Photo.read(large, [1300, 1100])
    asked = BeforePhoto(photo=photo).at(1300, 1100, 16)
    assert asked.square == [1300, 1100, 16] and "the 16x16 HR pixels at [1300,1100]" in asked.before
    hr = photo.seen(1, 1).hr[0, 0][asked.window.slices]
    assert float(hr[:4, :4].min()) > float(hr[4:, 4:].max()), "the spot lies in the window's corner"
    assert f"the {LARGEST}x{LARGEST} from" in asked.notes[0]


def test_a_window_that_leaves_a_large_photo_is_refused_with_the_place_that_was_typed(large: Path) -> None:
    with pytest.raises(UserError, match=r"at=\[1390,1100\] with size=16 is not inside large.* from \[376,176\] on"):
        BeforePhoto(photo=Photo.read(large, [1390, 1100])).at(1390, 1100, 16)


def test_a_window_beyond_the_last_whole_lr_pixel_is_refused(large: Path) -> None:
    asked = BeforePhoto(photo=Photo.read(large, [1384, 1184]), parts=("attribution",)).at(1384, 1184, 16)
    with Bar(1) as bar, pytest.raises(UserError, match="1023x1023 HR pixels"):
        list(asked.sections({"x3": Bicubic(scale=3)}, bar))


def test_a_network_that_makes_nan_does_not_say_where_networks_differ() -> None:
    broken, photo = Bicubic(scale=2), Photo.read(None)
    broken.register_forward_hook(lambda _module, _inputs, made: made * float("nan"))
    asked = BeforePhoto(photo=photo)
    alone = asked.where_they_differ([("sound", Bicubic(scale=4))], 16)
    assert asked.where_they_differ([("broken", broken), ("sound", Bicubic(scale=4))], 16).square == alone.square
    with pytest.raises(UserError, match="broken makes NaN"):
        asked.where_they_differ([("broken", broken)], 16)


def test_a_title_names_few_networks_and_counts_many() -> None:
    assert _together(["fsrcnn_x2", "deconvnet_x2"]) == "fsrcnn_x2, deconvnet_x2"
    assert _together([f"deconvnet norm=instance init=he seed={i}" for i in range(6)]) == "6 networks"
    assert _together(["a" * 200]) == "a" * 200
