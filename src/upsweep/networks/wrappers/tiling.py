"""Large images in tiles, with the same result as in one piece.

A pixel of the output sees only so much of the input. A tile that is cut with that much around it, and is cropped
afterwards, gives exactly the pixels of the whole image: a network's own borders (zeros, mirrored or repeated pixels)
show at the image's true borders only.
"""

import copy
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from upsweep.blocks.deconv import run_as
from upsweep.common.errors import UserError
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers.wrapper import Wrapper

FARTHEST = 512  # LR pixels that the probe for a network's reach looks at, in each direction


class Sides(NamedTuple):
    """Along one axis: how many output pixels before and after those of a part of the input depend on it."""

    before: int
    after: int


class Span(NamedTuple):
    """Along one axis, in LR pixels: the part of a tile that is kept, and what is cut out for it."""

    start: int
    stop: int
    cut_start: int
    cut_stop: int

    def kept(self, scale: int) -> slice:
        """The part to keep of what was made of the cut, in output pixels."""
        return slice(scale * (self.start - self.cut_start), scale * (self.stop - self.cut_start))


def span(start: int, stop: int, size: int, margin: int, stride: int = 1) -> Span:
    """A part of an axis of `size` pixels, with a margin around it as far as the image goes.

    What is cut starts a multiple of `stride` from the image's start and stops a multiple of it from its end, so that a
    network that pools finds the same cells as in the whole image, also where it sees the image flipped.
    """
    cut_stop = size - max(0, size - stop - margin) // stride * stride
    return Span(start, stop, max(0, start - margin) // stride * stride, cut_stop)


def spans(size: int, tile: int, margin: int, stride: int = 1) -> Iterator[Span]:
    """Cover an axis of `size` pixels with tiles, a margin around each (see `span`).

    `tile` and `margin` must be multiples of `stride`.
    """
    for start in range(0, size, tile):
        yield span(start, min(start + tile, size), size, margin, stride)


def margin_of(generator: Upscaler) -> int:
    """The LR pixels around a part that it needs to be as in the whole image: the reach, and one cell more with pooling.

    Raises UserError as `reach` does.
    """
    return reach(generator) + (generator.stride if generator.stride > 1 else 0)


def reach(generator: Upscaler) -> int:
    """How far from an output pixel, in LR pixels, an input pixel can affect it, whatever the weights are.

    A multiple of the generator's stride. Raises UserError where an output pixel sees the whole image (instance or group
    norm, batch norm in training), or the generator does not move with its input by its declared stride.
    """
    found = spread(generator)
    if found is None:
        raise UserError(
            "This generator cannot work in tiles, since each of its pixels depends on the whole image (as with "
            "instance or group norm, or batch norm in training): give it whole images (upscale.py: tile=0)."
        )
    return -(-max(map(max, found)) // (generator.scale * generator.stride)) * generator.stride


@torch.no_grad()
def spread(generator: Upscaler) -> tuple[Sides, Sides] | None:
    """How far a cell of input, `stride` pixels wide, spreads beyond its own output pixels: in rows, in columns.

    None where it has no end, or one more than 512 LR pixels away. Measured on a copy, in its mode: a band of NaN in the
    input makes NaN of everything that depends on it, whatever the weights are, the bicubic skip included. Raises
    UserError where the generator does not move with its input by its declared stride.
    """
    probed = copy.deepcopy(generator).cpu().float()
    run_as(probed, "deconv")  # the other forms multiply by zeros, and zero times NaN is NaN
    if (rows := _end(probed, -2)) is None or (columns := _end(probed, -1)) is None:
        return None
    return rows, columns


def _end(generator: Upscaler, axis: int) -> Sides | None:
    half = 16
    while (found := _sides(generator, axis, half)) is None:
        if half >= FARTHEST:
            return None
        half *= 4
    if _sides(generator, axis, half, shift=generator.stride) not in (found, None):
        raise UserError(
            f"{generator.called} pools or works in windows, in cells that are not {generator.stride} LR pixel(s) wide: "
            "set its attribute `stride` to their width (docs/upscaling.md), or give it whole images, without tiles."
        )
    return found


def _sides(generator: Upscaler, axis: int, half: int, shift: int = 0) -> Sides | None:
    """The spread of a band of input, `stride` wide.

    None where they reach the border of the probe, `half` LR pixels away, rounded up to the stride.
    """
    scale, stride = generator.scale, generator.stride
    half = -(-half // stride) * stride
    size = {axis: 2 * half + stride, -3 - axis: -(-8 // stride) * stride}
    x = torch.full((1, generator.channels, size[-2], size[-1]), 0.5)
    x.narrow(axis, half + shift, stride).fill_(torch.nan)
    other = tuple(i for i in range(4) if i != axis % 4)
    seen = generator(x).isnan().any(other).nonzero().flatten().tolist()
    if not seen:
        return Sides(0, 0)
    first, last = seen[0], seen[-1]
    if first == 0 or last == scale * size[axis] - 1:
        return None
    start = scale * (half + shift)  # of the band
    return Sides(max(0, start - first), max(0, last + 1 - start - scale * stride))


class Tiled(Wrapper):
    """Runs a generator tile by tile: the same image, in the memory of a tile.

    `tile` is a tile's side in LR pixels, rounded up to the generator's stride; what lies around it comes on top. Raises
    UserError, as `forward` does, where the generator cannot be tiled (see `reach`), or `tile` is not positive.
    """

    def __init__(self, generator: Upscaler, tile: int) -> None:
        super().__init__(generator)
        if tile < 1:
            raise UserError(f"tile={tile} must be at least 1 (LR pixels).")
        self.tile = -(-tile // self.stride) * self.stride
        self._margins: dict[bool, int] = {}
        self.margin()

    def margin(self) -> int:
        """LR pixels around a tile, in the present mode (see `margin_of`)."""
        if self.training not in self._margins:
            self._margins[self.training] = margin_of(self.generator)
        return self._margins[self.training]

    def tiles(self, height: int, width: int) -> Iterator[tuple[Span, Span]]:
        """The tiles of an LR image, row by row."""
        rows, columns = (spans(size, self.tile, self.margin(), self.stride) for size in (height, width))
        return product(rows, columns)

    def body(self, x: Tensor) -> Tensor:
        s, (height, width) = self.scale, x.shape[-2:]
        y = x.new_empty(*x.shape[:2], 0, 0)
        for rows, columns in self.tiles(height, width):
            part = self.generator(x[..., rows.cut_start : rows.cut_stop, columns.cut_start : columns.cut_stop])
            if not y.numel():  # of the dtype that the generator makes
                y = part.new_empty(*x.shape[:2], s * height, s * width)
            kept = part[..., rows.kept(s), columns.kept(s)]
            y[..., s * rows.start : s * rows.stop, s * columns.start : s * columns.stop] = kept
        return y
