"""The receptive field: how far a network's layers reach, and how far its output really depends on the input.

The effective field is that of Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional
Neural Networks", section 2: the size of an output pixel's gradient with respect to each pixel of the input.
"""

from collections.abc import Sequence
from itertools import cycle
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from upsweep.common.errors import UserError
from upsweep.explaining.case import Case
from upsweep.explaining.drawing import COLOURS, STRENGTH, TEXT, as_is, drawn, folded, legend_below, plain, sheet, show
from upsweep.explaining.section import Section
from upsweep.metrics.figure import Figure
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers.tiling import margin_of, spread

FIGURES = (
    Figure(name="field", title="field", unit="px", digits=0),
    Figure(name="effective_field", title="ERF 95 %", unit="px", digits=1),
)
SHARE = 0.95  # of the gradient, within the square that is the field's size
FARTHEST = 64  # LR pixels, in each direction, that the effective field looks at
PLACES = 64  # in the image, over which it is averaged, if that takes no more than
PIXELS = 2**17  # LR pixels in all of the crops around them
AT_ONCE = 2**14  # LR pixels that go through the network at once: larger batches are no faster
TILES = 4  # in a row, at most
LETTERS = 36  # of a name, in a line above a tile
SHOWN = 41  # LR pixels at most, of a field without a limit
READING = (
    "How much the SR of one LR pixel, in the middle, depends on each LR pixel around it, on average over many places "
    "of the image. Brightness is the square root of the gradient, so that faint pixels show. The solid square holds "
    "95 % of the gradient; the dashed square is as far as the layers reach, whatever their weights are. A square "
    "that is larger than the picture is not drawn."
)


def theoretical_field(network: Upscaler) -> int | None:
    """The side of the square of LR pixels on which the s x s output pixels of one LR pixel may depend.

    From the layers alone, whatever the weights are: of convolutions, 1 + the sum of (k - 1) j, where j is a layer's
    pixel in LR pixels. Bicubic enlargement, in front or as the skip, counts with the 5 x 5 LR pixels that its phases
    see together (each sees 4 x 4, so that layers behind it may see one less at a side). Where a network pools, the side
    is rounded up to whole cells of `network.stride`. None where no end is found: an output pixel sees the whole image
    (instance or group norm), or the network pools and does not say so.
    """
    try:
        found = spread(network)
    except UserError:
        return None
    if found is None:
        return None
    cell = network.scale * network.stride
    return network.stride * max(1 + ceil(axis.before / cell) + ceil(axis.after / cell) for axis in found)


def surroundings(network: Upscaler) -> int | None:
    """LR pixels around a part of an image with which its SR is that of the whole image; None where no end is found."""
    try:
        return margin_of(network)
    except UserError:
        return None


def effective_field(network: Upscaler, lr: Tensor) -> Tensor:
    """The mean of |d y / d x| over places in an image: (S, S) float64 with sum 1, S odd, LR pixels.

    y is an output pixel of the LR pixel in the middle, x the LR pixels around it, all channels summed. Each place is
    that of another of the s x s C output values of an LR pixel in turn, so that all count alike in one backward pass.
    A crop around a place is so large that activations are those of the whole image. S is at most 129, and the
    image's side: what lies beyond is not counted, and where a network sees farther, it sees a crop's borders.

    Args:
        network: in evaluation mode.
        lr: (1, C, h, w) in [0, 1], in the precision of the network.

    Raises:
        UserError: the image is too small.
    """
    height, width = lr.shape[-2:]
    reach, cell = surroundings(network), network.stride
    half = min(FARTHEST if reach is None else reach, FARTHEST, (min(height, width) - cell) // 2)
    if half < 1:
        raise UserError(
            f"An image of {width}x{height} LR pixels is too small for an effective receptive field (parts=)."
        )
    side, values = 2 * half + cell, network.channels * network.scale**2
    turns = ceil(min(PLACES, max(1, PIXELS // side**2)) / values)
    places, at_once = _places(height, width, side, cell, turns * values), max(1, AT_ONCE // side**2)
    total = torch.zeros(2 * half + 1, 2 * half + 1, dtype=torch.float64)
    for start in range(0, len(places), at_once):
        total += _slopes(network, lr, places[start : start + at_once], half, start)
    return total / total.sum().clamp(min=torch.finfo(total.dtype).tiny)


class Place(NamedTuple):
    """An LR pixel that is looked at: the corner of the crop around it, and where in the crop's middle cell it lies."""

    top: int
    left: int
    row: int
    column: int


def _places(height: int, width: int, side: int, cell: int, count: int) -> list[Place]:
    """Places at random, always the same; crops start with whole cells, as the network pools them."""
    random = torch.Generator().manual_seed(0)

    def below(end: int) -> list[int]:
        drawn: list[int] = torch.randint(end, (count,), generator=random).tolist()
        return drawn

    tops, lefts = ([cell * i for i in below((size - side) // cell + 1)] for size in (height, width))
    return list(map(Place, tops, lefts, below(cell), below(cell)))


def _slopes(network: Upscaler, lr: Tensor, places: Sequence[Place], half: int, first: int) -> Tensor:
    """The sum over places of |d y / d x| around them, (2 half + 1, 2 half + 1) on the CPU.

    The output value y of a place is the next in turn of its LR pixel's; that of the first place is the `first`.
    """
    s, side = network.scale, 2 * half + network.stride
    crops = torch.cat([lr[..., p.top : p.top + side, p.left : p.left + side] for p in places]).requires_grad_()
    turns = [(i // s**2 % network.channels, i // s % s, i % s) for i in range(first, first + len(places))]
    channels = [channel for channel, _, _ in turns]
    rows = [s * (half + p.row) + y for p, (_, y, _) in zip(places, turns, strict=True)]
    columns = [s * (half + p.column) + x for p, (_, _, x) in zip(places, turns, strict=True)]
    y = network(crops)[range(len(places)), channels, rows, columns]
    (slopes,) = torch.autograd.grad(y.sum(), crops)
    slopes = slopes.abs().sum(1).double().cpu()
    around = [
        one[p.row : p.row + 2 * half + 1, p.column : p.column + 2 * half + 1]
        for p, one in zip(places, slopes, strict=True)
    ]
    return torch.stack(around).sum(0)


def share_within(field: Tensor) -> Tensor:
    """The part of a field (S, S) that lies in the centred square of side 2 r + 1, for r = 0, 1, ...: (S // 2 + 1,)."""
    distance = (torch.arange(len(field)) - len(field) // 2).abs()
    rings = torch.maximum(distance[:, None], distance[None, :])
    return torch.bincount(rings.flatten(), field.flatten()).cumsum(0)


def effective_side(field: Tensor, share: float = SHARE) -> float:
    """The side of the centred square that holds a share of a field (S, S), in pixels.

    Within a ring of pixels the field counts as even, so that the side is no whole number: S sqrt(share) of an even one.
    """
    within = F.pad(share_within(field), (1, 0))  # 0 in no square at all
    ring = min(int((within[1:] < share).sum()), len(within) - 2)
    inner, outer = max(0, 2 * ring - 1), 2 * ring + 1
    part = (share - float(within[ring])) / max(float(within[ring + 1] - within[ring]), 1e-300)
    return sqrt(inner**2 + min(1.0, part) * (outer**2 - inner**2))


def fields(cases: Sequence[Case]) -> Section:
    """The effective field of each case, with both squares, and how much of it lies within squares of each size."""
    found = [effective_field(case.network, case.image.lr) for case in cases]
    limits = [theoretical_field(case.network) for case in cases]
    sides = [effective_side(field) for field in found]
    rows = ceil((len(cases) + 1) / TILES)
    lines = max(folded(as_is(case.name), LETTERS).count("\n") for case in cases)
    made, places = sheet(rows, ceil((len(cases) + 1) / rows), width=2.6, height=2.6 + 0.15 * lines)
    shown = _shown(found, limits)
    for axes, case, field, side, limit in zip(places.flat, cases, found, sides, limits, strict=False):
        _draw(axes, case.name, field, side, limit, shown)
    _draw_shares(places.flat[len(cases)], [case.name for case in cases], found, shown)
    legend_below(made, places.flat[len(cases)])
    for axes in places.flat[len(cases) + 1 :]:
        axes.set_axis_off()
    return Section(
        name="fields",
        title="What it can see, and what it looks at",
        picture=drawn(made),
        reading=READING,
        said=tuple(map(_said, cases, sides, limits)),
        figures={case.name: _figures(side, limit) for case, side, limit in zip(cases, sides, limits, strict=True)},
        tiles={case.name: _tile(field, shown) for case, field in zip(cases, found, strict=True)},
    )


def _figures(side: float, limit: int | None) -> dict[str, float]:
    return {**({} if limit is None else {"field": limit}), "effective_field": side}


def _said(case: Case, side: float, limit: int | None) -> str:
    said = (
        f"{case.name}: {100 * SHARE:.0f} % of the gradient of SR at an LR pixel lies in {side:.1f}x{side:.1f} LR pixels"
    )
    return f"{said}; its layers {'set no limit that was found' if limit is None else f'reach {limit}x{limit}'}."


def _shown(found: Sequence[Tensor], limits: Sequence[int | None]) -> int:
    """The side, odd, that holds all squares but those of a case that sees the whole image."""
    sides = [limit or min(ceil(effective_side(field, 0.99)), SHOWN) for field, limit in zip(found, limits, strict=True)]
    return max(sides) // 2 * 2 + 3


def _middle(field: Tensor, side: int) -> Tensor:
    """A field cut, or padded with zeros, to an odd side."""
    edge = (side - len(field)) // 2
    return F.pad(field, (edge, edge, edge, edge))


def _tile(field: Tensor, side: int) -> NDArray[np.uint8]:
    """A field's middle in colours, (side, side, 3)."""
    middle = _middle(field, side)
    coloured = colormaps[STRENGTH]((middle / middle.max()).sqrt().numpy(), bytes=True)
    return np.asarray(coloured[..., :3], np.uint8)


def _draw(axes: Axes, name: str, field: Tensor, side: float, limit: int | None, shown: int) -> None:
    """A field's middle, with its two squares; coordinates are LR pixels from the middle."""
    reach = "layers: no limit" if limit is None else f"layers: {limit} LR px"
    show(
        axes,
        _middle(field, shown),
        f"{folded(as_is(name), LETTERS)}\n{100 * SHARE:.0f} %: {side:.1f}, {reach}",
        cmap=STRENGTH,
        norm=PowerNorm(0.5, vmin=0),
        extent=(-shown / 2, shown / 2, shown / 2, -shown / 2),
    )
    for length, style in ((side, "-"), (limit, "--")):
        if length is not None:
            corner = (-length / 2, -length / 2)
            axes.add_patch(Rectangle(corner, length, length, fill=False, color="white", linestyle=style, linewidth=1))


def _draw_shares(axes: Axes, names: Sequence[str], found: Sequence[Tensor], shown: int) -> None:
    for name, field, colour in zip(names, found, cycle(COLOURS), strict=False):
        shares = 100 * share_within(field)
        axes.plot(1 + 2 * np.arange(len(shares)), shares, color=colour, label=as_is(name), linewidth=1.4)
    axes.axhline(100 * SHARE, color="#8d939b", linestyle=":", linewidth=1)
    axes.set_xlim(1, shown)
    axes.set_ylim(0, 102)
    plain(axes, "side of the square, LR pixels", "gradient, %")
    axes.set_title("gradient within a square\n(dotted: 95 %)", fontsize=TEXT)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
