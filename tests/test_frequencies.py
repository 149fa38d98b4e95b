"""Frequencies: what is restored and what is invented, held to closed forms."""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from upsweep.blocks import Recipe
from upsweep.blocks.dropout import Dropout
from upsweep.blocks.init import He
from upsweep.blocks.norm import Norm
from upsweep.blocks.upsampler import Deconv
from upsweep.common.errors import UserError
from upsweep.explaining.case import Case, case
from upsweep.explaining.frequencies import CORRELATED, FIGURES, Spectra, compare, frequencies, rings, spectrum
from upsweep.imaging.resize import enlarge, shrink
from upsweep.networks.upscalers.bicubic import Bicubic
from upsweep.networks.upscalers.fsrcnn import FSRCNN
from upsweep.tasks.super_resolution.data import EvalImage

pytestmark = pytest.mark.usefixtures("one_thread")


class Size(NamedTuple):
    height: int
    width: int


LARGE = Size(240, 320)


def noise(seed: int, size: tuple[int, int] = LARGE) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def upper(values: Tensor) -> Tensor:
    return values[len(values) // 2 :]


# ---------------------------------------------------------------------------------------------------------
# The transform and its rings
# ---------------------------------------------------------------------------------------------------------


def test_the_power_of_all_frequencies_is_the_energy_of_the_windowed_plane() -> None:
    """Parseval."""
    plane = noise(0) + 3
    window = torch.outer(*(torch.hann_window(side, dtype=torch.float64) for side in LARGE))
    window /= window.square().mean().sqrt()
    windowed = window * (plane - (window * plane).sum() / window.sum())
    assert spectrum(plane).abs().square().sum().item() == pytest.approx(windowed.square().sum().item(), rel=1e-12)


def test_the_power_of_white_noise_is_its_variance_in_every_ring() -> None:
    spectra = compare(2 * noise(1), noise(1))
    assert spectra.power.sum() > 0 and (spectra.count * spectra.power).sum() / spectra.count.sum() == pytest.approx(
        4, rel=0.02
    )
    assert upper(spectra.power).numpy() == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("down", "right"), [(0.3, 0.0), (0.0, 0.7), (0.55, 0.2), (0.95, 0.95)])
def test_a_sine_lies_in_the_ring_of_its_larger_frequency(down: float, right: float) -> None:
    y, x = (torch.arange(side, dtype=torch.float64) for side in LARGE)
    wave = torch.cos(math.pi * (down * y[:, None] + right * x[None, :]) + 0.4)
    power = (spectra := compare(wave, wave)).power * spectra.count
    assert power.argmax() == int(max(down, right) * len(power))
    assert power.max() > 0.6 * power.sum()  # Hann's window spreads it to the neighbours, which may be another ring's


def test_a_constant_has_no_power_and_every_frequency_has_a_ring() -> None:
    assert compare(torch.full(LARGE, 0.7), noise(2)).power.max() < 1e-20
    for size, count in (((240, 320), 32), ((16, 500), 4), ((101, 67), 16)):
        ring = rings(*size)
        assert ring.shape == size and torch.equal(ring.unique(), torch.arange(count))
    assert (compare(noise(3, (101, 67)), noise(4, (101, 67))).count.sum()) == 101 * 67


# ---------------------------------------------------------------------------------------------------------
# Restored and invented
# ---------------------------------------------------------------------------------------------------------


def filtered(plane: Tensor, gain: Tensor) -> Tensor:
    """The plane with each frequency (H, W) multiplied."""
    made: Tensor = torch.fft.ifft2(torch.fft.fft2(plane) * gain).real
    return made


def frequency(size: tuple[int, int]) -> Tensor:
    y, x = (torch.fft.fftfreq(side, 0.5, dtype=torch.float64).abs() for side in size)
    return torch.maximum(y[:, None], x[None, :])


def test_of_white_noise_through_a_filter_its_squared_gain_is_restored_and_nothing_invented() -> None:
    hr = noise(5)
    spectra = compare(filtered(hr, 1 - 0.8 * frequency(LARGE)), hr)
    assert spectra.restored.numpy() == pytest.approx((1 - 0.8 * spectra.frequency).square().numpy(), abs=0.02)
    assert spectra.invented.max() < 0.02


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_independent_noise_on_hr_is_invented_with_its_power(strength: float) -> None:
    spectra = compare(0.6 * noise(6) + strength * noise(7), noise(6))
    restored, invented = spectra.detail or (0.0, 0.0)
    assert restored == pytest.approx(36, abs=1.5) and invented == pytest.approx(100 * strength**2, rel=0.05, abs=0.5)


def test_of_hr_itself_all_is_restored_and_of_other_noise_nothing() -> None:
    assert compare(noise(8), noise(8)).detail == pytest.approx((100, 0), abs=1e-9)
    other = compare(noise(9), noise(8))
    assert (other.detail or (9, 0))[0] < 1  # the mean coherence of noise, 1/n, is taken off


def test_the_coherence_of_small_rings_of_noise_is_about_what_is_taken_off() -> None:
    """1/n of n independent samples (Carter 1987), fewer than frequencies by the correlation of Hann's window."""
    size, found, left = Size(48, 48), [], []
    of_ring = rings(*size)
    ring = torch.nn.functional.one_hot(of_ring.flatten()).double()
    for i in range(40):
        a, b = noise(2 * i, size), noise(2 * i + 1, size)
        x, y = spectrum(a).flatten(), spectrum(b).flatten()
        power = (x.abs().square() @ ring) * (y.abs().square() @ ring)
        found.append(((x * y.conj()).real @ ring).square() / power)
        left.append(compare(a, b).coherence)
    taken = CORRELATED / ring.sum(0)
    relative = (torch.stack(found).mean(0) / taken).mean().item()
    assert 0.6 < relative < 1.05  # rings are narrow: not all neighbours are in the same one
    assert (torch.stack(left).mean(0) / taken).mean() < 0.6


def test_a_shift_by_a_pixel_is_less_restored_the_finer_the_detail() -> None:
    """Its gain exp(-i pi f_x) turns within a square ring of f: on its two sides of constant f_x not at all, else from
    -f to f. The mean is (cos(pi f) + sinc(f)) / 2, and its square is what moves with HR."""
    hr = noise(10, (600, 600))
    spectra = compare(hr.roll(1, 1), hr)
    f = spectra.frequency
    assert spectra.coherence.numpy() == pytest.approx(
        ((torch.cos(math.pi * f) + torch.sinc(f)) / 2).square().numpy(), abs=0.05
    )
    assert spectra.coherence[:6].min() > 0.8


@given(st.integers(0, 10_000), st.integers(16, 60), st.integers(16, 60), st.floats(0, 1), st.booleans())
@settings(max_examples=25, deadline=None)
def test_restored_and_invented_are_the_whole_and_never_below_0(
    seed: int, height: int, width: int, share: float, flat: bool
) -> None:
    size = (height, width)
    hr = torch.zeros(size) if flat else noise(seed, size)
    spectra = compare(share * hr + (1 - share) * noise(seed + 1, size), hr)
    torch.testing.assert_close(spectra.restored + spectra.invented, spectra.ratio)
    assert spectra.restored.min() >= 0 and spectra.invented.min() >= 0
    assert spectra.coherence.max() <= 1 and spectra.ratio.isfinite().all()
    assert (spectra.detail is None) == flat


# ---------------------------------------------------------------------------------------------------------
# Networks side by side
# ---------------------------------------------------------------------------------------------------------


def photo(channels: int, scale: int, height: int = 48, width: int = 72) -> EvalImage:
    hr = noise(11, (height, width)).float().mul(0.2).add(0.5).clamp(0, 1).expand(1, channels, -1, -1)
    return EvalImage("photo", shrink(hr, scale), hr, None, None)


def cases(scale: int) -> list[Case]:
    recipe = Recipe(He(), torch.nn.ReLU, Norm(), Dropout(), Deconv())
    return [
        case("bicubic again", Bicubic(scale=scale, channels=3), photo(3, scale)),
        case("fsrcnn", FSRCNN(recipe, scale=scale, channels=1), photo(1, scale)),
    ]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_a_section_has_figures_curves_and_a_sentence_of_each(scale: int) -> None:
    section = frequencies(cases(scale))
    assert section.picture.ndim == 3 and section.picture.dtype.name == "uint8"
    for name, sentence in zip(("bicubic again", "fsrcnn"), section.said, strict=True):
        figures, curves = section.figures[name], section.spectrum[name]
        assert [*figures] == [figure.name for figure in FIGURES]
        assert {len(column) for column in curves.values()} == {12}  # of 48 pixels
        assert all(f"{value:.1f} %" in sentence for value in figures.values())
        whole = [a + b for a, b in zip(curves["restored"], curves["invented"], strict=True)]
        assert whole == pytest.approx(curves["power"])


def test_what_is_said_of_bicubic_is_what_is_measured_of_it() -> None:
    section = frequencies(cases(2))
    restored, invented = section.figures["bicubic again"].values()
    assert all(sentence.endswith(f"bicubic {restored:.1f} % and {invented:.1f} %.") for sentence in section.said)


def test_sr_is_clipped_as_it_is_seen() -> None:
    one = cases(2)[1]
    same = Case(
        name="hr",
        network=one.network,
        image=one.image,
        sr=one.image.hr + 9 * (one.image.hr - 0.5).sign() * ((one.image.hr == 0) | (one.image.hr == 1)),
    )
    assert [*frequencies([same]).figures["hr"].values()] == pytest.approx([100, 0])


def test_a_flat_image_has_nothing_to_restore_and_a_tiny_one_no_rings() -> None:
    flat = EvalImage("flat", torch.full((1, 1, 12, 12), 0.5), torch.full((1, 1, 24, 24), 0.5), None, None)
    section = frequencies([case("bicubic", Bicubic(), flat)])
    assert section.figures["bicubic"] == {} and "nothing" in section.said[0]
    noisy = compare(flat.hr[0, 0] + 1e-5 * torch.rand(24, 24), flat.hr[0, 0])
    assert float(noisy.power.min()) > 0 == float(noisy.ratio.max()), "a share of nothing is no number"
    with pytest.raises(UserError, match="photo has 72x8 HR pixels"):
        frequencies([case("bicubic", Bicubic(), photo(1, 2, 8))])


def test_bicubic_restores_all_that_is_coarse_and_nothing_that_is_fine() -> None:
    y, x = (torch.arange(side, dtype=torch.float32) for side in (96, 128))
    coarse = 0.5 + 0.2 * torch.cos(0.05 * math.pi * (y[:, None] + x[None, :]))[None, None]
    spectra: Spectra = compare(enlarge(shrink(coarse, 2), 2)[0, 0], coarse[0, 0])
    assert spectra.restored[1] == pytest.approx(1, abs=0.03)
    assert frequencies(cases(2)).figures["bicubic again"]["restored"] < 10
