"""Where networks fail: planted faults are found where they are, and only what can be seen is counted."""

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.explaining.case import case
from upsweep.explaining.failures import Judged, Patches, apart, failures, judged, own, patch_errors, psnr, search
from upsweep.imaging.resize import shrink
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.tasks.super_resolution.data import EvalImage


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.25 + 0.5 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def faulty(name: str, faults: dict[tuple[int, int], float], seed: int = 0) -> Judged:
    """64x96 pixels: SR is 2 grey levels off, bicubic 4, and some 16x16 patches (x, y) of SR so many levels."""
    hr = noise(1, 64, 96, seed=seed)
    sr = hr + 2 / 255
    for (x, y), levels in faults.items():
        sr[:, y : y + 16, x : x + 16] = hr[:, y : y + 16, x : x + 16] + levels / 255
    return Judged(name, hr, sr, hr + 4 / 255)


def test_the_error_of_a_patch_is_that_of_its_pixels_and_of_no_others() -> None:
    hr = noise(1, 50, 70)
    sr = hr.clone()
    sr[:, 18:34, 34:50] += 10 / 255
    errors = patch_errors(sr, hr, 16, shave=2)
    expected = np.zeros((2, 4))  # 46 x 66 pixels inside the border
    expected[1, 2] = 100
    np.testing.assert_allclose(errors, expected, atol=1e-3)


def test_the_error_of_colours_is_that_of_their_luma_and_values_are_clipped() -> None:
    hr = torch.ones(3, 8, 8)
    # BT.601 in studio range: 219 of 255 levels.
    np.testing.assert_allclose(patch_errors(hr - 10 / 255, hr, 8), [[(10 * 219 / 255) ** 2]], rtol=1e-4)
    np.testing.assert_array_equal(patch_errors(hr + 0.5, hr, 8), [[0]])


def test_psnr_is_that_of_scikit_image() -> None:
    a, b = noise(8, 8).double().numpy(), noise(8, 8, seed=1).double().numpy()
    assert psnr(((a - b) ** 2).mean() * 255**2) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
    assert psnr(0.0) == 100


def test_chosen_places_do_not_touch_and_are_the_largest_that_are_left() -> None:
    scores = np.random.default_rng(0).random((9, 12))
    scores[0, 0] = -np.inf
    places = apart(scores, 100)
    assert scores[places[0]] == scores.max()
    values = [scores[place] for place in places]
    assert values == sorted(values, reverse=True)
    gaps = [max(abs(a[0] - b[0]), abs(a[1] - b[1])) for a in places for b in places if a != b]
    assert min(gaps) == 2 and (0, 0) not in places
    # None is left that touches nothing.
    free = [p for p in np.ndindex(9, 12) if all(max(abs(p[0] - q[0]), abs(p[1] - q[1])) > 1 for q in places)]
    assert free in ([], [(0, 0)])


def test_planted_faults_are_found_and_counted() -> None:
    asked = Patches(side=16, count=2)
    found = search([[faulty("a", {(32, 16): 20})], [faulty("b", {(80, 48): 10, (0, 0): 4.1})]], asked)
    assert [(patch.image, patch.x, patch.y) for patch in found.lost] == [("a", 32, 16), ("b", 80, 48)]
    assert [(patch.image, patch.x, patch.y) for patch in found.gained] == [("a", 32, 16), ("b", 80, 48)]
    assert found.gained[0].gain == pytest.approx(20 * np.log10(4 / 20), abs=1e-3)
    assert [patch.image for patch in found.worst] == ["a"]
    assert (found.worse, found.patches) == ([3], 2 * 24) and found.share(0) == 100 * 3 / 48
    bicubic, sr, hr = found.lost[0].seen
    torch.testing.assert_close(sr - hr, torch.full((1, 16, 16), 20 / 255))
    torch.testing.assert_close(bicubic - hr, torch.full((1, 16, 16), 4 / 255))


def test_a_place_is_counted_from_the_corner_of_the_image_not_from_the_border_that_is_left_out() -> None:
    (patch,) = search([[faulty("a", {(34, 18): 20})]], Patches(side=16, count=1), shave=2).lost
    assert (patch.x, patch.y) == (34, 18) and patch.loss == pytest.approx(400, rel=1e-3)
    torch.testing.assert_close(patch.seen[1] - patch.seen[2], torch.full((1, 16, 16), 20 / 255))


def test_a_place_in_a_part_of_a_photo_is_that_in_its_file() -> None:
    part = replace(faulty("a", {(32, 16): 20}), corner=(1000, 700))
    (patch,) = search([[part]], Patches(side=16, count=1)).lost
    assert (patch.x, patch.y) == (1032, 716)
    torch.testing.assert_close(patch.seen[1] - patch.seen[2], torch.full((1, 16, 16), 20 / 255))


def test_what_cannot_be_seen_is_not_worse_than_bicubic() -> None:
    hr = noise(1, 32, 32)
    image = Judged("near", hr, hr + 0.9 / 255, hr + 0.1 / 255)
    found = search([[image]], Patches(side=16))
    assert found.worse == [0] and not found.gained and found.lost


def test_several_cases_are_shown_the_patches_in_which_they_fail_in_the_mean() -> None:
    both = [faulty("a", {(0, 0): 20, (64, 32): 17}), faulty("a", {(64, 32): 18})]
    found = search([both], Patches(side=16, count=1))
    assert [(patch.x, patch.y) for patch in found.lost] == [(64, 32)]
    assert [(patch.x, patch.y) for patch in found.worst] == [(0, 0), (64, 32)]
    assert found.worse == [2, 1]


def test_one_bad_image_does_not_fill_the_sheet() -> None:
    bad = {(x, y): 30.0 for x in range(0, 96, 32) for y in range(0, 64, 32)}
    images = [[faulty("bad", bad)], *([faulty(name, {(32, 32): 8})] for name in "bcd")]
    found = search(images, Patches(side=16, count=4))
    assert [patch.image for patch in found.lost] == ["bad", "bad", "b", "c"]
    assert [patch.image for patch in search(images[:1], Patches(side=16, count=4)).lost] == ["bad"] * 4


def test_a_benchmark_is_never_held_whole() -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def stream() -> Iterator[tuple[Judged]]:
        nonlocal most
        for number in range(8):
            image = faulty(str(number), {(0, 0): 9}, seed=number)
            alive.append(weakref.ref(image.hr))
            most = max(most, sum(one() is not None for one in alive))
            yield (image,)

    found = search(stream(), Patches(side=16, count=8))
    assert len(found.lost) == 8 and most <= 2  # the one that was looked at, and the next
    for patch in (*found.lost, *found.gained, *found.worst):  # no view of an image, which would hold all of it
        assert all(seen.untyped_storage().nbytes() == 16 * 16 * 4 for seen in patch.seen)


def test_bicubic_is_nowhere_worse_than_itself_and_the_section_says_so() -> None:
    hr = noise(1, 1, 96, 128)
    image = EvalImage("noise", shrink(hr, 2), hr, None, None)
    cases = [case(name, Bicubic(scale=2), image) for name in ("one", "two")]
    section = failures(cases, Patches(side=32, count=2), [[own(one)] for one in cases])
    assert section.figures == {"one": {"worse": 0}, "two": {"worse": 0}}
    assert (
        section.said[1].startswith("two: the worst patch is at [")
        and "worse than bicubic in 0.0 % of 6" in section.said[1]
    )
    assert section.picture.dtype == np.uint8 and section.picture.std() > 10
    stream = [judged(one.network, [image.each(lambda x: x[0])]) for one in cases]
    assert failures(cases, Patches(side=32, count=2), stream).said == section.said


def test_what_is_of_no_use_is_said_in_a_sentence() -> None:
    for wrong in ({"side": 2}, {"count": 0}, {"of_one": 0}):
        with pytest.raises(UserError, match=r"patches\.\w+=\d must be at least"):
            Patches(**wrong)
    with pytest.raises(UserError, match=r"patches\.side=65 is larger than the images"):
        search([[faulty("a", {})]], Patches(side=65))
