"""The pictures of a run: what a person is promised to see, pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from upsweep.imaging.colour import rgb_to_y
from upsweep.imaging.lettering import LINE, broken, labelled, words
from upsweep.imaging.resize import imresize, shrink
from upsweep.imaging.tiles import GAP
from upsweep.metrics.figure import Figure
from upsweep.tasks.super_resolution.data import EvalImage, batch_of_one
from upsweep.tasks.super_resolution.pictures import busiest, comparison, labels

PSNR = Figure(name="psnr", title="PSNR", unit="dB")
SSIM = Figure(name="ssim", title="SSIM", digits=4)
ERROR = Figure(name="error", title="Error", unit="levels", better="lower")


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """A smooth random colour image (3, H, W) in [0, 1]."""
    coarse = torch.rand(3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return imresize(coarse, (height, width)).clamp(0, 1)


def tiles(pixels: np.ndarray) -> list[np.ndarray]:
    """The three tiles of a panel, once its gaps are seen to be white."""
    width = (pixels.shape[1] - 2 * GAP) // 3
    starts = [k * (width + GAP) for k in range(3)]
    for start in starts[1:]:
        assert (pixels[:, start - GAP : start] == 255).all()
    return [pixels[:, start : start + width] for start in starts]


def image(hr: torch.Tensor, lr: torch.Tensor, name: str = "x", rgb_hr: torch.Tensor | None = None) -> EvalImage:
    """HR and LR (C, H, W), as a batch of one; with `rgb_hr` in colour."""
    colours = (None, None) if rgb_hr is None else (shrink(rgb_hr, 2), rgb_hr)
    return batch_of_one([EvalImage(name, lr, hr, *colours)])


def codes(image: torch.Tensor) -> np.ndarray:
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def test_a_colour_panel_is_bicubic_sr_and_hr_of_the_whole_image():
    hr = photo(64, 96)
    lr = shrink(hr, 2)
    sr = 1 - hr
    panel = comparison(image(hr, lr, "set/coffee cup.png"), sr[None], figure=PSNR, value=30.5, baseline=29.25)
    left, middle, right = tiles(panel.pixels)
    assert panel.pixels.dtype == np.uint8
    assert abs(left.astype(int) - codes(imresize(lr.double(), (64, 96)))).max() <= 1
    np.testing.assert_array_equal(middle, codes(sr))
    np.testing.assert_array_equal(right, codes(hr))
    assert panel.name == "set/coffee cup.png"
    assert panel.caption == "set/coffee cup.png: bicubic 29.25 dB | SR 30.50 dB (+1.25) | HR"


def test_a_luma_generator_is_shown_in_colour_and_only_its_luma_differs():
    rgb_hr = photo(64, 64)
    rgb_lr = shrink(rgb_hr, 2)
    hr = rgb_to_y(rgb_hr)
    panel = comparison(image(hr, shrink(hr, 2), rgb_hr=rgb_hr), hr[None])
    left, middle, right = (tile.astype(int) for tile in tiles(panel.pixels))
    # Bicubic of Y with bicubic chroma is bicubic of RGB, as all of it is linear.
    assert abs(left - codes(imresize(rgb_lr.double(), (64, 64)))).max() <= 1
    np.testing.assert_array_equal(right, codes(rgb_hr))
    luma = [rgb_to_y(torch.tensor(tile / 255).permute(2, 0, 1)) for tile in (middle, right)]
    assert (luma[0] - luma[1]).abs().max() < 1.5 / 255  # SR had the true luma; its chroma is enlarged
    assert abs(middle - right).max() > 1


def test_a_grey_image_stays_grey():
    hr = photo(40, 48)[:1]
    panel = comparison(image(hr, shrink(hr, 4)), hr[None])
    assert panel.pixels.shape == (40, 3 * 48 + 2 * GAP, 3)
    assert (panel.pixels == panel.pixels[..., :1]).all()


def test_a_large_image_is_cut_to_the_same_busy_place_in_all_three():
    hr = torch.full((3, 1200, 1600), 0.5)
    hr[:, 700:900, 1000:1200] = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(1))
    lr = imresize(hr, (600, 800)).clamp(0, 1)
    small = comparison(image(hr, lr), hr[None], size=200)
    assert small.pixels.shape == (200, 3 * 200 + 2 * GAP, 3)
    _, middle, right = tiles(small.pixels)
    np.testing.assert_array_equal(middle, right)
    assert abs(right.astype(int) - codes(hr[:, 700:900, 1000:1200])).max(axis=(0, 2)).astype(bool).sum() <= 2
    assert comparison(image(hr, lr), hr[None]).pixels.shape[0] < 1000
    assert comparison(image(hr, lr), hr[None], size=None).pixels.shape[0] == 1200


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_busiest_window_is_the_one_that_looking_at_every_window_finds(data):
    height, width = data.draw(st.integers(2, 12)), data.draw(st.integers(2, 12))
    rows, columns = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    image = np.array(data.draw(st.lists(st.integers(0, 9), min_size=height * width, max_size=height * width)))
    image = image.reshape(height, width)
    energy = np.zeros((height, width), int)
    energy[:-1] += (image[1:] - image[:-1]) ** 2
    energy[:, :-1] += (image[:, 1:] - image[:, :-1]) ** 2
    sums = sliding_window_view(energy, (rows, columns)).sum(axis=(2, 3))
    best = np.unravel_index(sums.argmax(), sums.shape)
    assert busiest(torch.tensor(image)[None], (rows, columns)) == best


@pytest.mark.parametrize(
    ("figure", "value", "baseline", "text"),
    [
        (None, None, None, "bicubic | SR | HR"),
        (PSNR, None, None, "bicubic | SR | HR"),
        (PSNR, 28.0, 28.5, "bicubic 28.50 dB | SR 28.00 dB (-0.50) | HR"),
        (PSNR, 28.0, None, "bicubic | SR 28.00 dB | HR"),
        (SSIM, 0.85, 0.82, "bicubic SSIM 0.8200 | SR SSIM 0.8500 (+0.0300) | HR"),
        (ERROR, 3.0, 4.5, "bicubic 4.50 levels | SR 3.00 levels (+1.50) | HR"),
    ],
)
def test_the_labels_say_what_is_known_of_the_headline(figure, value, baseline, text):
    assert " | ".join(labels(figure, value, baseline)) == text


@pytest.mark.parametrize(("side", "times"), [(24, 5), (60, 2), (320, 1)])
def test_a_file_has_a_label_above_each_tile_and_none_is_cut(side, times):
    hr = photo(side, side)
    panel = comparison(image(hr, shrink(hr, 2)), hr[None], figure=PSNR, value=30.5, baseline=29.25)
    made = labelled(panel.pixels, panel.labels)
    lines = 2 if times * side < 200 else 1
    height, width = times * side, 3 * times * side + 2 * GAP
    assert made.shape == (lines * LINE + height, width, 3)
    for above, below, tile in zip(tiles(made[:-height]), tiles(made[-height:]), tiles(panel.pixels), strict=True):
        np.testing.assert_array_equal(below, tile.repeat(times, 0).repeat(times, 1))
        assert above.min() < 100, "words"
        assert (above[:, -2:] == 255).all() and (above[-2:] == 255).all(), "they end before the edge"


@given(st.text(st.sampled_from("abc mW|."), max_size=60), st.integers(40, 300))
def test_lines_keep_every_letter_and_fit(text, width):
    lines = list(broken(text, width))
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all((words([line], width)[:, -1] == 255).all() for line in lines)


def test_what_has_no_labels_has_its_caption_above_all_of_it():
    pixels = np.zeros((30, 300, 3), np.uint8)
    made = labelled(pixels, ["a latent walk: each row goes from one latent to the next in 8 steps, and more"])
    assert made.shape[1] == 300 and (made.shape[0] - 30) // LINE >= 2 and not made[-30:].any()
