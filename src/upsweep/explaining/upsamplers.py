"""What the upsampler of a trained network does, the same way for deconvolution, sub-pixel convolution and resizing.

All are linear maps of features, so each equals a deconvolution (Shi et al. 2016, "Is the deconvolution layer the same
as a convolutional layer?"): what it makes of one LR pixel is the kernel. Every s-th tap of it is a *phase*: the kernel
that makes one of the s^2 HR pixels in an LR pixel. Where phases differ in what they make of a constant, there is a
checkerboard (Odena et al. 2016, "Deconvolution and checkerboard artifacts"; ICNR of Aitken et al. 2017 starts all
phases alike).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor, nn

from upsweep.common.names import kind_of
from upsweep.explaining.case import Case, unturned
from upsweep.explaining.drawing import COLOURS, SIGNED, TEXT, drawn, plain, row_title, sheet, show
from upsweep.explaining.section import Section
from upsweep.metrics.checkerboard import checkerboard, response
from upsweep.metrics.figure import Figure
from upsweep.networks.upscalers.upscaler import Upscaler

FIGURES = (Figure(name="checkerboard", title="checkerboard", unit="grey levels", better="lower", digits=2),)
SMALL = 24  # LR pixels in a side of the part by which upsamplers are found
REACHES = (2, 5, 10, 20)  # LR pixels around an impulse, within which its response must end
AT_ONCE = 16  # channels whose impulses are answered together
TINY = torch.finfo(torch.float64).tiny
ROUNDING = 1e-9  # of the largest number: what float64 may be off by
WAVES = 33  # frequencies from 0 to the highest of LR
AROUND = 3  # LR pixels on each side of a step
READING = (
    "Kernel: what the layer paints around one LR pixel, red above 0, blue below: the pattern that its channels share "
    "most. Phases: the same, sorted by which pixel of an LR pixel is painted. Waves: how strongly each phase passes "
    "coarse and fine features. Flat: the output for a flat area, as the deviation from its mean, in % of the layer's "
    "output for this image; one colour: no checkerboard. Edge: the output for an edge between the image's dark and "
    "bright features; where the line leaves the grey step, it rings. If the layer makes features, and not the image, "
    "later layers may mend both: the whole network's checkerboard shows whether they do."
)


class Call(NamedTuple):
    """One run of a module, with the images or features that it was given and made, (1, ., h, w)."""

    name: str
    module: nn.Module
    given: Tensor
    made: Tensor

    @property
    def stride(self) -> int:
        """The whole factor by which it enlarges; 1 if it does not."""
        (height, width), made = self.given.shape[-2:], tuple(self.made.shape[-2:])
        factor = made[0] // height
        return factor if factor > 1 and made == (factor * height, factor * width) else 1

    @property
    def inside(self) -> str:
        """The name of the module that holds it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class UpsamplingLayer:
    """What enlarges features: modules that run one after the other, (N, I, h, w) -> (N, O, s h, s w).

    Attributes:
        parts: the modules.
        stride: s.
        channels: I.
    """

    parts: tuple[nn.Module, ...]
    stride: int
    channels: int

    @property
    def learned(self) -> bool:
        """Whether it has weights."""
        return any(True for part in self.parts for _ in part.parameters())

    def exact(self) -> nn.Module:
        """A copy that computes in float64, on the processor."""
        return copy.deepcopy(nn.Sequential(*self.parts)).cpu().double().eval()


# ---------------------------------------------------------------------------------------------------------
# Which layer enlarges
# ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def calls_of(network: nn.Module, lr: Tensor) -> list[Call]:
    """The runs of all modules that make one map of one, in the order in which they end."""
    calls: list[Call] = []
    names = {module: name for name, module in network.named_modules()}

    def keep(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        if len(given) == 1 and all(isinstance(one, Tensor) and one.ndim == 4 for one in (*given, made)):
            calls.append(Call(names[module], module, given[0], made))

    hooks = [module.register_forward_hook(keep) for module in names]
    try:
        network(lr)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def upsampler_of(network: Upscaler, lr: Tensor) -> UpsamplingLayer | None:
    """The layer that enlarges features to the image, or nearest to it; None where there is no linear one.

    It is the last module that enlarges by a whole factor and has no such module inside. A module that sees features is
    preferred to one that sees images (LapSRN enlarges both). A network that is linear as a whole (bicubic) is its own.

    Args:
        lr: an image (1, C, h, w), only a small part is used.
    """
    calls = calls_of(network, lr[..., :SMALL, :SMALL])
    enlarging = [call for call in calls if call.stride > 1]
    modules = {call.module for call in enlarging}
    innermost = [call for call in enlarging if not modules & (set(call.module.modules()) - {call.module})]
    layers = [layer for call in innermost if is_linear(layer := _whole(call, calls), call.given.shape[-2:])]
    layers = [layer for layer in layers if layer.channels > network.channels] or layers
    return layers[-1] if layers else None


def _whole(call: Call, calls: Sequence[Call]) -> UpsamplingLayer:
    """The layer of a module that enlarges: one without weights is only half of it, beside a convolution.

    A pixel shuffle follows its convolution. An interpolation belongs to one that stands beside it, behind or before.
    """
    if not any(True for _ in call.module.parameters()):
        convolutions = [other for other in calls if isinstance(other.module, nn.Conv2d)]
        before = [other for other in convolutions if other.made is call.given]
        after = [other for other in convolutions if other.given is call.made and other.inside == call.inside]
        shuffles = call.made.shape[1] < call.given.shape[1]
        if after and not shuffles:
            return UpsamplingLayer((call.module, after[0].module), call.stride, call.given.shape[1])
        if before and (shuffles or before[0].inside == call.inside):
            return UpsamplingLayer((before[0].module, call.module), call.stride, before[0].given.shape[1])
    return UpsamplingLayer((call.module,), call.stride, call.given.shape[1])


@torch.no_grad()
def is_linear(layer: UpsamplingLayer, size: Sequence[int]) -> bool:
    """Whether its answer to a sum of features is the sum of the answers, apart from a constant (its bias)."""
    exact, generator = layer.exact(), torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 1, layer.channels, *size, generator=generator, dtype=torch.float64)
    sums: Tensor = exact(a + b) + exact(torch.zeros_like(a))
    return torch.allclose(sums, exact(a) + exact(b), rtol=0, atol=ROUNDING * max(1.0, float(sums.abs().max())))


# ---------------------------------------------------------------------------------------------------------
# What it does
# ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def equal_deconvolution(layer: UpsamplingLayer) -> Tensor:
    """The kernel (I, O, K, K) float64 of the deconvolution that the layer equals, away from borders.

    It is what the layer makes of one LR pixel that is 1 in one channel, without the bias. It covers whole LR pixels, as
    many on each side: K = s (2 a + 1), and `F.conv_transpose2d` needs a stride of s, a padding of s a and an output
    padding of 0.
    """
    s, exact = layer.stride, layer.exact()
    for reach in REACHES:
        side = 2 * reach + 1
        impulses = torch.zeros(layer.channels, layer.channels, side, side, dtype=torch.float64)
        impulses[:, :, reach, reach] = torch.eye(layer.channels, dtype=torch.float64)
        kernel: Tensor = torch.cat([exact(some) for some in torch.split(impulses, AT_ONCE)]) - exact(
            torch.zeros_like(impulses[:1])
        )
        kernel[kernel.abs() <= ROUNDING * kernel.abs().max()] = 0
        if not _rim(kernel, s).any():
            break
    while kernel.shape[-1] > s and not _rim(kernel, s).any():
        kernel = kernel[..., s:-s, s:-s]
    return kernel


def _rim(kernel: Tensor, width: int) -> Tensor:
    """Where the border of a kernel is not 0, in any order."""
    inner = F.pad(torch.zeros_like(kernel[0, 0, width:-width, width:-width]), [width] * 4, value=1.0)
    return kernel.abs().amax((0, 1))[inner > 0] if kernel.shape[-1] > width else kernel.abs().flatten()


def phases_of(kernel: Tensor, stride: int) -> Tensor:
    """A kernel (..., K, K) by the HR pixel that it paints in an LR pixel: (..., s, s, K / s, K / s)."""
    taps = kernel.shape[-1] // stride
    apart = kernel.reshape(*kernel.shape[:-2], taps, stride, taps, stride)
    return apart.movedim((-3, -1), (-4, -3))


def principal(kernel: Tensor) -> tuple[Tensor, float]:
    """The pattern (K, K) that the channels of a kernel (I, O, K, K) share most, and its share of the kernel's energy.

    It is the first right singular vector of the matrix of all I O kernels, with the sign that makes its largest number
    positive, times the root mean square of what the kernels have of it.
    """
    flat = kernel.flatten(2).flatten(0, 1)
    _, values, vectors = torch.linalg.svd(flat, full_matrices=False)
    first = vectors[0] * vectors[0][vectors[0].abs().argmax()].sign()
    share = values[0].square() / values.square().sum().clamp(min=TINY)
    return (first * values[0] / len(flat) ** 0.5).view(kernel.shape[-2:]), float(share)


def waves(phases: Tensor) -> Tensor:
    """How strongly each phase of (I, O, s, s, k, k) passes waves along an axis: (s^2, 33) from 0 to LR's highest.

    The magnitude of the Fourier transform at (f, 0) and (0, f): root mean square over both, and over all channels.
    """
    taps = phases.shape[-1]
    angle = torch.pi * torch.linspace(0, 1, WAVES, dtype=torch.float64)[:, None] * torch.arange(taps)
    transform = torch.polar(torch.ones_like(angle), angle)
    lines = torch.stack([phases.sum(-1), phases.sum(-2)]).flatten(3, 4).to(transform.dtype)
    return (lines @ transform.T).abs().square().mean((0, 1, 2)).sqrt()


@torch.no_grad()
def answer_to_flat(layer: UpsamplingLayer, features: Tensor, reach: int) -> Tensor:
    """What the layer, with its bias, makes of features (I,) that are everywhere the same: (O, s, s) float64.

    As it is linear, this is also the mean of what it makes of any features of that mean, HR pixel by HR pixel of an LR
    pixel, apart from borders. `reach` is that of its kernel in LR pixels.
    """
    s, side = layer.stride, 2 * reach + 1
    made: Tensor = layer.exact()(features.cpu().double()[None, :, None, None].expand(1, -1, side, side))
    return made[0, :, s * reach : s * (reach + 1), s * reach : s * (reach + 1)]


@torch.no_grad()
def answer_to_edge(layer: UpsamplingLayer, left: Tensor, right: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """What it makes across an edge from features (I,) to others: three LR pixels on each side, (O, 6 s) float64.

    Mean over the rows of an LR pixel. Besides, what left and right become far from the edge, mean over phases: (2, O).
    """
    s, half = layer.stride, AROUND + reach
    sides = [one.cpu().double()[:, None, None].expand(-1, 2 * reach + 1, half) for one in (left, right)]
    made: Tensor = layer.exact()(torch.cat(sides, dim=2)[None])[0]
    across = made[:, s * reach : s * (reach + 1), s * reach : s * (reach + 2 * AROUND)].mean(1)
    return across, torch.stack([answer_to_flat(layer, one, reach).mean((1, 2)) for one in (left, right)])


# ---------------------------------------------------------------------------------------------------------
# In a trained network, on an image
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Behaviour:
    """An upsampler on an image.

    Attributes:
        layer: itself.
        kernel: of the equal deconvolution, (I, O, K, K).
        flat: its answer to the mean features of the image, (O, s, s).
        edge: its answer to an edge from the mean features of the darker half to those of the brighter, (O, 6 s).
        sides: what it makes far from the edge, (2, O).
        strength: the root mean square of what it makes of the image.
    """

    layer: UpsamplingLayer
    kernel: Tensor
    flat: Tensor
    edge: Tensor
    sides: Tensor
    strength: float

    @property
    def extent(self) -> int:
        """The side of the square of HR pixels that one LR pixel can reach."""
        used = self.kernel.abs().amax((0, 1)) > 0
        rows, columns = used.any(1).nonzero(), used.any(0).nonzero()
        return max([1, *(int(one[-1] - one[0]) + 1 for one in (rows, columns) if len(one))])

    @property
    def deviation(self) -> Tensor:
        """The answer to a flat area without its mean, relative to the strength: (O, s, s)."""
        return (self.flat - self.flat.mean((1, 2), keepdim=True)) / max(self.strength, TINY)

    @property
    def step(self) -> tuple[Tensor, float]:
        """The answer to the edge relative to the strength, (6 s,), and where it ends.

        Of the channel whose sides differ most, which begins at 0, with the sign that makes it rise.
        """
        left, right = self.sides
        channel = int((right - left).abs().argmax())
        rise = float(right[channel] - left[channel])
        line = (self.edge[channel] - left[channel]) * (1 if rise >= 0 else -1)
        return line / max(self.strength, TINY), abs(rise) / max(self.strength, TINY)

    @property
    def ringing(self) -> float:
        """By how much `step` leaves the range between its two sides, at most."""
        line, end = self.step
        return max(float(line.max()) - end, -float(line.min()), 0.0)

    @property
    def checkerboard(self) -> float:
        """Which part of what the layer makes of the image is the same pattern in every LR pixel, 0 to 1.

        The root mean square of `deviation`; squared, it is the share of the energy. (A share of the mean would have no
        bound where a layer makes the details that are added to an enlarged image, whose mean is 0.)
        """
        return float(self.deviation.square().mean().sqrt())


@torch.no_grad()
def behaviour(network: Upscaler, lr: Tensor) -> Behaviour | None:
    """What the upsampler of a network does on an image (1, C, h, w); None where no layer enlarges linearly."""
    network = unturned(network)  # or else its features are those of LR turned, and no pixel of LR is above its own
    layer = upsampler_of(network, lr)
    if layer is None:
        return None
    seen: list[Tensor] = []
    hooks = [
        layer.parts[0].register_forward_pre_hook(lambda _, given: seen.append(given[0])),
        layer.parts[-1].register_forward_hook(lambda *run: seen.append(run[-1])),
    ]
    try:
        network(lr)
    finally:
        for hook in hooks:
            hook.remove()
    features, made = (one[0].cpu().double() for one in seen[-2:])
    grey = F.adaptive_avg_pool2d(lr.cpu().mean(1), (features.shape[-2], features.shape[-1]))[0]
    bright = grey > grey.median()
    mean = features.mean((1, 2))
    dark, light = (features[:, half].mean(1) if half.any() else mean for half in (~bright, bright))
    kernel = equal_deconvolution(layer)
    reach = kernel.shape[-1] // layer.stride // 2
    return Behaviour(
        layer,
        kernel,
        answer_to_flat(layer, mean, reach),
        *answer_to_edge(layer, dark, light, reach),
        float(made.square().mean().sqrt()),
    )


def upsamplers(cases: Sequence[Case]) -> Section:
    """What the upsamplers of the cases do, a row each; of a network without one, a sentence says so."""
    found = {case.name: behaviour(case.network, case.image.lr) for case in cases}
    energies = {case.name: _energy(case) for case in cases}
    return Section(
        name="upsamplers",
        title="What the upsampler does",
        picture=_picture({name: one for name, one in found.items() if one is not None}),
        reading=READING,
        said=tuple(_sentence(name, found[name], energy) for name, energy in energies.items()),
        figures={name: {FIGURES[0].name: energy} for name, energy in energies.items()},
    )


def _energy(case: Case) -> float:
    """The checkerboard that the whole network makes of a flat image in grey levels; in [0, 1], training logs it."""
    return 255 * checkerboard(response(case.network, case.network.channels).cpu(), case.scale)


def _sentence(name: str, one: Behaviour | None, energy: float) -> str:
    network = f"Of a flat image the whole network makes a checkerboard of {energy:.2f} grey levels."
    if one is None:
        return f"No linear layer of {name} enlarges, so there is no learned upsampler to show. {network}"
    kind = " and ".join(kind_of(part) for part in one.layer.parts)
    learned = "" if one.layer.learned else "; nothing of it is learned"
    return (
        f"The last upsampler of {name} ({kind}) enlarges {one.layer.stride} times and paints {one.extent}x{one.extent} "
        f"pixels for each it sees{learned}. A pattern that is the same in every LR pixel has "
        f"{100 * one.checkerboard:.2f} % of its strength on this image, the ringing beside an edge "
        f"{100 * one.ringing:.0f} %. {network}"
    )


def _picture(found: Mapping[str, Behaviour]) -> NDArray[np.uint8]:
    """A row a case: kernel, phases, waves, flat, edge."""
    made, axes = sheet(max(1, len(found)), 5, width=2.2, height=1.8, width_ratios=(1, 1, 1.15, 1, 1.15))
    for row, (name, one) in zip(axes, found.items(), strict=False):
        pattern, share = principal(one.kernel)
        most = float(pattern.abs().max())
        show(row[0], pattern, f"kernel ({100 * share:.0f} % of the energy)", cmap=SIGNED, vmin=-most, vmax=most)
        row_title(row[0], name)
        phases = phases_of(pattern, one.layer.stride)
        show(row[1], _apart(phases), f"its {one.layer.stride**2} phases", cmap=SIGNED, vmin=-most, vmax=most)
        _draw_waves(row[2], waves(phases_of(one.kernel, one.layer.stride)))
        _draw_flat(row[3], one)
        _draw_edge(row[4], one)
    for axis in axes[:-1, [2, 4]].flat:
        axis.set_xlabel("")  # the last row says it for all
    if not found:
        for place in axes[0]:
            place.set_axis_off()
        axes[0, 2].text(0.5, 0.5, "no layer that enlarges features", ha="center", fontsize=TEXT + 1)
    return drawn(made)


def _apart(phases: Tensor) -> Tensor:
    """Phases (s, s, k, k) side by side, each tap a square of 8, with lines of NaN between them."""
    large = phases.repeat_interleave(8, -1).repeat_interleave(8, -2)
    framed = F.pad(large, (0, 3, 0, 3), value=torch.nan)
    return framed.movedim(2, 1).flatten(2, 3).flatten(0, 1)[:-3, :-3]


def _draw_waves(axes: Axes, strengths: Tensor) -> None:
    frequency = torch.linspace(0, 1, WAVES)
    for line, colour in zip(strengths, cycle(COLOURS), strict=False):
        axes.plot(frequency, line, color=colour, linewidth=1.0)
    axes.set_ylim(0, 1.1 * float(strengths.max()) or 1)
    axes.set_title("waves, a line a phase", fontsize=TEXT)
    plain(axes, "frequency (1: the finest of LR)", "gain")


def _draw_flat(axes: Axes, one: Behaviour) -> None:
    """The channel with the strongest pattern, over 4 x 4 LR pixels; full colour is the largest deviation, or 1 %."""
    deviation = one.deviation[int(one.deviation.square().sum((1, 2)).argmax())]
    most = float(deviation.abs().max())
    stretch = max(most, 0.01)
    title = f"flat: up to {100 * most:.1f} % off"
    show(axes, deviation.repeat(4, 4), title, cmap=SIGNED, vmin=-stretch, vmax=stretch)


def _draw_edge(axes: Axes, one: Behaviour) -> None:
    line, end = one.step
    place = (torch.arange(len(line)) + 0.5) / one.layer.stride - AROUND
    axes.plot([-AROUND, 0, 0, AROUND], [0, 0, 100 * end, 100 * end], color="#a8aeb6", linewidth=1.0)
    axes.plot(place, 100 * line, color=COLOURS[0], linewidth=1.2, marker=".", markersize=3)
    axes.set_title(f"edge: rings by {100 * one.ringing:.0f} %", fontsize=TEXT)
    plain(axes, "LR pixels from the edge", "% of its strength")
