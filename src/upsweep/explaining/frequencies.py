"""Frequencies: which ones of HR are restored in SR, and which are invented, compared with bicubic.

Rings of frequencies are square: f is the larger of |f_x| and |f_y|, and 1 is the highest that HR's grid holds. So f up
to 1 / s is what LR's grid can hold, everything above is what it cannot, and the corners belong to their ring.

In a ring, SR is split into a multiple of HR and a rest that is unrelated to HR. The share of SR's power in the
first is the magnitude-squared coherence (Carter 1987, "Coherence and time delay estimation", eq. 3), with a ring's
frequencies for samples: this power is *restored*, the rest of SR's is *invented*. Where a network restores one
direction better than another, or shifts what it restores, some of that counts as invented too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.explaining.case import Case
from upsweep.explaining.drawing import COLOURS, TEXT, as_is, drawn, legend_below, plain, sheet
from upsweep.explaining.section import Section
from upsweep.imaging.colour import luma
from upsweep.metrics.figure import Figure

FIGURES = (
    Figure(name="restored", title="restored detail", unit="%", better="higher", digits=1),
    Figure(name="invented", title="invented detail", unit="%", better="lower", digits=1),
)
RINGS = 32  # of a large image
SMALLEST = 16  # HR pixels in a side
# So many frequencies, at most, count as an independent one: Hann's window, which is (-1/4, 1/2, -1/4) on an axis of
# frequencies, correlates each with its neighbours by 2/3 and 1/6, and 1 + 2 (4/9 + 1/36) = 35/18.
CORRELATED = (35 / 18) ** 2
LEVELS = 255**2  # from [0, 1] to grey levels, of power
NOTHING = 1e-12  # power: a millionth of the way from black to white, squared
READING = (
    "Coarse structure is at the left of each plot, the finest at the right. The first plot shows the power of the "
    "images; the second the power of HR that SR restores; the third the power of SR that is not in HR. LR cannot hold "
    "the frequencies in the shaded part: a network can only guess them."
)


@dataclass(frozen=True, eq=False)
class Spectra:
    """What an image has of another one's frequencies, ring by ring: (rings,) float64 each.

    Attributes:
        power: the mean power of what was made, a frequency; of white noise, its variance.
        wanted: that of HR.
        coherence: the share of `power` that moves with HR, 0 to 1.
        count: frequencies in the ring.
    """

    power: Tensor
    wanted: Tensor
    coherence: Tensor
    count: Tensor

    @property
    def frequency(self) -> Tensor:
        """The middle of each ring; 1 is the highest frequency of HR."""
        return (torch.arange(len(self.power)) + 0.5) / len(self.power)

    @property
    def ratio(self) -> Tensor:
        """Power relative to HR's: restored + invented. 0 where HR has none."""
        return torch.where(self.wanted > NOTHING, self.power / self.wanted.clamp(min=NOTHING), 0.0)

    @property
    def restored(self) -> Tensor:
        """Power that moves with HR, relative to HR's."""
        return self.coherence * self.ratio

    @property
    def invented(self) -> Tensor:
        """Power that does not, relative to HR's."""
        return (1 - self.coherence) * self.ratio

    @property
    def detail(self) -> tuple[float, float] | None:
        """Restored and invented power in the upper half of HR's spectrum, in % of HR's there; None where that is 0."""
        upper = slice(len(self.power) // 2, None)
        power, wanted = (self.count * one for one in (self.power, self.wanted))
        if float(self.wanted[upper].max()) < NOTHING:
            return None
        restored = float((self.coherence * power)[upper].sum() / wanted[upper].sum())
        return 100 * restored, 100 * float(power[upper].sum() / wanted[upper].sum()) - 100 * restored


def spectrum(plane: Tensor) -> Tensor:
    """The Fourier transform of a plane (H, W) without its mean, under Hann's window: (H, W) complex128.

    The window keeps the borders, which do not fit together, from drawing a cross. Scaled so that white noise keeps its
    variance: the mean of the power over all frequencies is that of the windowed plane's square.
    """
    window = torch.outer(*(torch.hann_window(side, dtype=torch.float64) for side in plane.shape))
    window = window / window.square().mean().sqrt()
    plane = plane.double()
    plane = plane - (window * plane).sum() / window.sum()
    transform: Tensor = torch.fft.fft2(window * plane, norm="ortho")
    return transform


def rings(height: int, width: int) -> Tensor:
    """The ring of each frequency of an image, from 0: (height, width) int64; 32 rings, fewer where the image is small.

    A ring is at least two frequencies wide, and their number is even, so that one begins at 0.5.
    """
    count = min(RINGS, min(height, width) // 8 * 2)
    y, x = (torch.fft.fftfreq(side, 0.5, dtype=torch.float64).abs() for side in (height, width))
    f = torch.maximum(y[:, None], x[None, :])
    return (f * count).long().clamp(max=count - 1)  # the highest frequency itself belongs to the last ring


def compare(made: Tensor, wanted: Tensor) -> Spectra:
    """Rings of a made plane and of HR, (H, W) each, on the processor.

    The coherence g of n independent samples of noise is 1 / n, and not 0 (Carter 1987): (g - 1/n) / (1 - 1/n) is taken
    for it, but nothing below 0. n counts a ring's frequencies that are independent of each other.
    """
    x, y = spectrum(made), spectrum(wanted)
    ring = rings(*made.shape).flatten()

    def over(values: Tensor) -> Tensor:
        return torch.bincount(ring, values.flatten())

    count, power, of_hr = torch.bincount(ring).double(), over(x.abs().square()), over(y.abs().square())
    cross = x * y.conj()
    shared = over(cross.real).square() + over(cross.imag).square()
    coherence = torch.where(power * of_hr > 0, shared / (power * of_hr), 0.0)
    bias = (CORRELATED / count).clamp(max=0.5)
    coherence = ((coherence - bias) / (1 - bias)).clamp(0, 1)
    return Spectra(power / count, of_hr / count, coherence, count)


def plane_of(image: Tensor) -> Tensor:
    """The Y plane (H, W) of an image (1, C, H, W), clipped to [0, 1]; C 1, which is Y, or 3 (RGB)."""
    return luma(image.cpu().float().clamp(0, 1))[0, 0]


def frequencies(cases: Sequence[Case]) -> Section:
    """Spectra of the cases' Y planes beside those of HR and of bicubic.

    Raises:
        UserError: an image is too small for rings.
    """
    for case in cases:
        height, width = case.image.hr.shape[-2:]
        if min(height, width) < SMALLEST:
            raise UserError(
                f"{case.image.name} has {width}x{height} HR pixels: frequencies need {SMALLEST} in each side."
            )
    found = {case.name: compare(plane_of(case.sr), plane_of(case.image.hr)) for case in cases}
    bicubic = compare(plane_of(cases[0].bicubic), plane_of(cases[0].image.hr))
    names = [figure.name for figure in FIGURES]
    return Section(
        name="frequencies",
        title="Frequencies",
        picture=_picture(found, bicubic, cases[0].scale),
        reading=READING,
        said=tuple(_sentence(name, spectra, bicubic) for name, spectra in found.items()),
        figures={name: dict(zip(names, spectra.detail or (), strict=False)) for name, spectra in found.items()},
        spectrum={name: _columns(spectra) for name, spectra in found.items()},
    )


def _columns(spectra: Spectra) -> dict[str, list[float]]:
    columns = {"power": spectra.ratio, "restored": spectra.restored, "invented": spectra.invented}
    return {"frequency": spectra.frequency.tolist(), **{name: values.tolist() for name, values in columns.items()}}


def _sentence(name: str, spectra: Spectra, bicubic: Spectra) -> str:
    if spectra.detail is None or bicubic.detail is None:
        return f"{name}: HR has no power in the upper half of its spectrum, so nothing can be restored there."
    restored, invented = spectra.detail
    return (
        f"In the upper half of the spectrum {name} restores {restored:.1f} % of HR's power and invents {invented:.1f} "
        "%; bicubic {:.1f} % and {:.1f} %.".format(*bicubic.detail)
    )


def _picture(found: Mapping[str, Spectra], bicubic: Spectra, scale: int) -> NDArray[np.uint8]:
    made, axes = sheet(1, 3, width=3.4, height=2.9)
    powers, restored, invented = axes[0]
    hr = next(iter(found.values()))
    powers.plot(hr.frequency, LEVELS * hr.wanted.clamp(min=NOTHING), color="black", label="HR", linewidth=1.6)
    lines = {"bicubic": (bicubic, "#7a828c", ":")}
    lines |= {name: (one, colour, "-") for (name, one), colour in zip(found.items(), cycle(COLOURS), strict=False)}
    for name, (one, colour, style) in lines.items():
        values = LEVELS * one.power.clamp(min=NOTHING), 100 * one.restored, 100 * one.invented
        for place, curve in zip(axes[0], values, strict=True):
            place.plot(one.frequency, curve, color=colour, linestyle=style, linewidth=1.4, label=as_is(name))
    powers.set_yscale("log")
    _place(powers, "how much there is", "power, squared grey levels", scale)
    _place(restored, "restored: moves with HR", "% of HR's power", scale)
    _place(invented, "invented: does not", "% of HR's power", scale)
    legend_below(made, powers)
    return drawn(made)


def _place(axes: Axes, title: str, unit: str, scale: int) -> None:
    """Name a plot, and mark what LR's grid cannot hold."""
    plain(axes, "frequency (1: the finest of HR)", unit)
    axes.set_title(title, fontsize=TEXT + 1)
    axes.set_xlim(0, 1)
    axes.margins(y=0.12)  # room for the words
    axes.axvspan(1 / scale, 1, color="#f3f0e8", zorder=0)
    axes.axvline(1 / scale, color="#8d8468", linewidth=0.9)
    axes.text(1 / scale + 0.02, 0.96, "LR cannot hold", transform=axes.get_xaxis_transform(), fontsize=TEXT - 1)
