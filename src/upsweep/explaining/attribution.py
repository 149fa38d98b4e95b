"""Local attribution maps (LAM): which LR pixels the detail in a window of SR comes from.

Gu and Dong 2021, "Interpreting Super-Resolution Networks with Local Attribution Maps", CVPR (arXiv 2011.11036). LR is
blurred, and sharpened again step by step; at every step, the gradient of the window's detail with respect to LR, times
the change of LR, says what each pixel adds (integrated gradients, Sundararajan et al. 2017, along another path).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import ceil

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from upsweep.common.checks import at_least, hold_to_signature
from upsweep.common.errors import UserError
from upsweep.explaining.case import Case, Square
from upsweep.explaining.drawing import TEXT, drawn, heat_over, row_title, sheet, show
from upsweep.explaining.fields import surroundings
from upsweep.explaining.section import Section
from upsweep.imaging.files import to_uint8
from upsweep.metrics.figure import Figure
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers.tiling import Span, span

FIGURES = (Figure(name="di", title="DI", digits=2),)
SHARE = 0.95  # of the attribution, within the reported distance
AT_ONCE = 2**14  # LR pixels that go through the network at once: larger batches are no faster
TILE = 32  # LR pixels in a side of the small pictures: the same for every job of a sweep
SHOWN = 24  # LR pixels around the window's middle, at most
NOTHING = 1e-3  # a quarter of a grey level: a map whose absolute values sum to less is rounding
LONGEST = 10_000  # steps of a path
WIDEST = 255  # LR pixels of a blur
READING = (
    "Which LR pixels the detail in the window (the box) comes from. In the middle: LR around the window; "
    "red pixels add to the strength of SR's edges in the window, blue ones take from it, and full colour is each map's "
    "strongest pixel. The diffusion index DI is 100 if all pixels around the window count equally, and near 0 if few "
    "count: compare it between networks on the same window."
)

Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LAM:
    """How a local attribution map is made.

    Attributes:
        sigma: of the Gaussian blur that the path begins with, in LR pixels.
        fold: steps of the path; each costs a forward and a backward pass.
        kernel: side of the blur's kernel, odd, in LR pixels.
        around: side of the square of LR around the window over which DI is taken, so that it does not depend on the
            size of the image; None: the whole image, as in the paper.
    """

    sigma: float = 1.2
    fold: int = 50
    kernel: int = 9
    around: int | None = 64

    def __post_init__(self) -> None:
        """Raises UserError: a value is of another kind, or out of its range, or the kernel is even."""
        hold_to_signature(LAM, vars(self), lambda name: f"lam.{name}")
        if not 0 < self.sigma <= WIDEST:
            raise UserError(f"lam.sigma={self.sigma} must be above 0, and at most {WIDEST} (LR pixels).")
        at_least("lam", 1, fold=self.fold, around=1 if self.around is None else self.around)
        at_least("lam", 3, kernel=self.kernel)
        if self.fold > LONGEST:
            raise UserError(f"lam.fold={self.fold} must be at most {LONGEST} (steps).")
        if self.kernel % 2 == 0 or self.kernel > WIDEST:
            raise UserError(f"lam.kernel={self.kernel} must be odd, and at most {WIDEST} (LR pixels).")


def detector(sr: Tensor) -> Tensor:
    """The paper's objective, its gradient detector: the sum of |grad SR| over (N, C, size, size) -> (N,).

    Differences are those between neighbours inside of the window; the authors' code takes one more row and column from
    beyond it. Where SR is flat, the slope of the root is taken for 0.
    """
    down, right = sr[..., 1:, :-1] - sr[..., :-1, :-1], sr[..., :-1, 1:] - sr[..., :-1, :-1]
    slope: Tensor = torch.linalg.vector_norm(torch.stack([down, right]), dim=0)
    return slope.sum((1, 2, 3))


def attribution_map(
    network: Upscaler, lr: Tensor, window: Square, asked: LAM, objective: Objective = detector
) -> Tensor:
    """What each LR pixel adds to the objective on the way from the blurred LR to LR: (h, w), summed over channels.

    LAM_i = sum over k of dD(SR(g(k + 1/2)))/dI_i (g(k + 1) - g(k))_i, where g(k) is LR blurred by a Gaussian of
    sigma (1 - k / fold). The gradient is taken halfway between two steps (the authors' code
    takes it at the later one): as many passes, an error of the order of 1 / fold^2 instead of 1 / fold, and the map of
    a linear network is exact. The sum of the map is D(SR(LR)) - D(SR(blurred LR)). Beyond LR's borders the blur sees
    the edge repeated (in the authors' code, mirrored), so that LR may be of any size.

    Only the window's surroundings go through the network, as far as they can matter; the rest of the map is 0.

    Args:
        network: in evaluation mode.
        lr: (1, C, h, w) in [0, 1], in the precision of the network.
        window: the part of SR that is explained.
        asked: the path.
        objective: SR of the window (N, C, size, size) -> (N,), which the map explains.
    """
    total = lr.new_zeros(lr.shape[-2:])
    rows, columns = cut(network, window, *lr.shape[-2:])
    radius, s = asked.kernel // 2, network.scale
    around = F.pad(lr, (radius, radius, radius, radius), mode="replicate")
    around = around[..., rows.cut_start : rows.cut_stop + 2 * radius, columns.cut_start : columns.cut_stop + 2 * radius]
    inside = Square(window.top - s * rows.cut_start, window.left - s * columns.cut_start, window.size).slices
    part = total[rows.cut_start : rows.cut_stop, columns.cut_start : columns.cut_stop]
    at_once = max(1, AT_ONCE // part.numel())
    sigmas = torch.linspace(asked.sigma, 0, asked.fold + 1, dtype=torch.float64)
    for start in range(0, asked.fold, at_once):
        steps = sigmas[start : start + at_once + 1]
        halfway = blurred(around, (steps[1:] + steps[:-1]) / 2, asked.kernel).requires_grad_()
        value = objective(network(halfway)[(..., *inside)])
        (slope,) = torch.autograd.grad(value.sum(), halfway)
        change = blurred(around, steps, asked.kernel).diff(dim=0)
        part += (slope * change).sum((0, 1))
    return total


def cut(network: Upscaler, window: Square, height: int, width: int) -> tuple[Span, Span]:
    """The rows and columns of LR (height, width) with which SR of the window is that of the whole image."""
    margin = surroundings(network)
    rows, columns = (
        span(part.start, part.stop, size, size if margin is None else margin, network.stride)
        for part, size in zip(window.in_lr(network.scale), (height, width), strict=True)
    )
    return rows, columns


def blurred(padded: Tensor, sigmas: Tensor, side: int) -> Tensor:
    """An image (1, C, h + side - 1, w + side - 1) blurred by Gaussians of S sigmas, in pixels: (S, C, h, w).

    The kernels are sampled on side x side pixels and sum to 1; that of sigma 0 changes nothing.
    """
    x = torch.arange(side, dtype=torch.float64) - side // 2
    kernels = torch.exp(-0.5 * (x / sigmas[:, None].clamp(min=1e-3)).square())
    kernels = (kernels / kernels.sum(1, keepdim=True)).to(padded)
    down = F.conv2d(padded.transpose(0, 1), kernels[:, None, :, None])  # (C, S, h, w + side - 1)
    return F.conv2d(down, kernels[:, None, None, :], groups=len(sigmas)).transpose(0, 1)


def gini(values: Tensor) -> float:
    """The Gini coefficient of values >= 0, of any shape (as in the paper): 0 all alike, (n - 1) / n all in one.

    The mean difference of two values, over twice their mean. Zeros alone are alike: 0.
    """
    ordered = values.detach().flatten().double().sort().values
    total, n = float(ordered.sum()), len(ordered)
    ranks = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=ordered.device) - n - 1
    return float((ranks * ordered).sum()) / (n * total) if total > 0 else 0.0


def diffusion_index(attribution: Tensor) -> float:
    """DI = (1 - Gini(|LAM|)) x 100 over the LR pixels that are given: how widely a map is spread, up to 100.

    Pixels of no effect count, so that the same map in a larger image has a smaller DI, in inverse proportion.
    """
    return 100 * (1 - gini(attribution.abs()))


def square(window: Square, scale: int, side: int, height: int, width: int) -> tuple[slice, slice]:
    """The side x side pixels of LR (height, width) around the window, moved into it at its borders; or all of them."""
    starts = (
        max(0, min((corner + window.size // 2) // scale - side // 2, size - side))
        for corner, size in zip((window.top, window.left), (height, width), strict=True)
    )
    rows, columns = (slice(start, start + side) for start in starts)
    return rows, columns


def distance_of(attribution: Tensor, window: Square, scale: int, share: float = SHARE) -> float:
    """LR pixels around the window's middle within which lies a share of a map's absolute values; 0 where all are 0."""
    strength = attribution.abs().double()
    strength, total = strength.flatten(), float(strength.sum())
    if total == 0:
        return 0.0
    y, x = (
        torch.arange(size, device=strength.device) + 0.5 - (corner + window.size / 2) / scale
        for size, corner in zip(attribution.shape, (window.top, window.left), strict=True)
    )
    near, order = torch.hypot(y[:, None], x[None, :]).flatten().sort()
    within = strength[order].cumsum(0)
    return float(near[min(int((within < share * total).sum()), len(near) - 1)])


def attribution(cases: Sequence[Case], window: Square, asked: LAM) -> Section:
    """A row a case: LR and the window, the map over LR around it, and SR there."""
    maps = [_seen(attribution_map(case.network, case.image.lr, window, asked).cpu()) for case in cases]
    spread = [spread_of(one, window, case.scale, asked.around) for case, one in zip(cases, maps, strict=True)]
    area = _around(maps, window, cases[0].scale)
    made, places = sheet(len(cases), 3, width=2.4)
    for axes, title in zip(places[0], ("LR and the window", "attribution: red adds, blue takes", "SR"), strict=True):
        axes.set_title(title, fontsize=TEXT)
    for axes, case, one, di in zip(places, cases, maps, spread, strict=True):
        _draw(axes, case, one, di, window, area)
    near = square(window, cases[0].scale, TILE, *maps[0].shape)
    return Section(
        name="attribution",
        title="Where the detail in the window comes from",
        picture=drawn(made),
        reading=READING,
        said=tuple(map(_said, cases, maps, spread, repeat(window))),
        figures={case.name: {"di": di} for case, di in zip(cases, spread, strict=True) if di is not None},
        tiles={case.name: to_uint8(_over(case, one, near)) for case, one in zip(cases, maps, strict=True)},
    )


def _seen(attribution: Tensor) -> Tensor:
    """A map, or zeros where it is rounding: colours are stretched to the strongest pixel, and would show that."""
    return attribution if float(attribution.abs().sum()) > NOTHING else torch.zeros_like(attribution)


def spread_of(attribution: Tensor, window: Square, scale: int, around: int | None) -> float | None:
    """DI over the square of LR around the window; None where there is nothing to attribute."""
    if float(attribution.abs().sum()) <= NOTHING:
        return None
    height, width = attribution.shape
    return diffusion_index(attribution[square(window, scale, around or max(height, width), height, width)])


def _over(case: Case, attribution: Tensor, area: tuple[slice, slice]) -> Tensor:
    """The map over LR's `area`, (3, h, w)."""
    return heat_over(case.image.lr[(0, slice(None), *area)], attribution[area])


def _said(case: Case, attribution: Tensor, di: float | None, window: Square) -> str:
    if di is None:
        return f"{case.name}: SR in the window does not change when LR is blurred, so there is nothing to attribute."
    near = ceil(distance_of(attribution, window, case.scale))
    return (
        f"{case.name}: DI {FIGURES[0].format(di)}; {100 * SHARE:.0f} % of the attribution "
        f"lies within {near} LR pixels of the window's middle."
    )


def _around(maps: Sequence[Tensor], window: Square, scale: int) -> tuple[slice, slice]:
    """Rows and columns of LR that show the window and nearly all of every map, but of one that is spread widely."""
    farthest = max(distance_of(one, window, scale, 0.99) for one in maps)
    half = max(min(ceil(farthest) + 1, SHOWN), window.size // scale)
    middles = ((corner + window.size // 2) // scale for corner in (window.top, window.left))
    rows, columns = (
        slice(max(0, middle - half), min(size, middle + half))
        for middle, size in zip(middles, maps[0].shape, strict=True)
    )
    return rows, columns


def _draw(
    axes: Sequence[Axes], case: Case, one: Tensor, di: float | None, window: Square, area: tuple[slice, slice]
) -> None:
    """LR of a case, the map over LR's `area`, and SR there; the titles of a sheet's first row stand already."""
    s, (rows, columns) = case.scale, area
    whole, near, made = axes
    show(whole, case.image.lr[0], whole.get_title())
    row_title(whole, case.name)
    _box(whole, window, s, 0, 0)
    found = "nothing to attribute" if di is None else f"DI {FIGURES[0].format(di)}"
    show(near, _over(case, one, area), f"{near.get_title()}\n{found}".strip())
    _box(near, window, s, rows.start, columns.start)
    sr = case.sr[0, :, s * rows.start : s * rows.stop, s * columns.start : s * columns.stop]
    show(made, sr, made.get_title())
    _box(made, window, 1, s * rows.start, s * columns.start)


def _box(axes: Axes, window: Square, scale: int, top: int, left: int) -> None:
    """The window in a picture whose first pixel is (top, left), with `scale` HR pixels to a pixel."""
    corner = window.left / scale - left - 0.5, window.top / scale - top - 0.5
    side = window.size / scale
    axes.add_patch(Rectangle(corner, side, side, fill=False, color="#f0c419", linewidth=1.2))
