"""One picture of any kind through a generator, in tiles that fit into memory."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isqrt
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn

from upsweep.blocks.layout import as_channels_last, in_channels_last
from upsweep.common.devices import device_holding
from upsweep.common.errors import UserError, within_memory
from upsweep.imaging.colour import rgb_to_y, with_chroma
from upsweep.imaging.files import Picture, Pixels, to_tensor
from upsweep.imaging.resize import enlarge
from upsweep.networks.upscalers.upscaler import Upscaler
from upsweep.networks.wrappers import Tiled
from upsweep.networks.wrappers.tiling import Span
from upsweep.networks.wrappers.wrapper import Wrapper
from upsweep.upscaling.engines import Accelerated

BUDGET = 256 * 2**20  # bytes that the features of one tile may take, roughly
CACHED = 48 * 2**20  # on a CPU: what is not far from its cache is faster, although the margins are made twice

BAND, FAR = 256, 64  # rows: of a piece of a transparent picture, and around it

Advance = Callable[[float], None]  # is called with the share of a picture, of 1 in all, that was just done


class Painter(Wrapper):
    """A generator for the samples of a picture, whatever channels it has itself.

    A luma generator makes Y, and the chroma is enlarged bicubically; grey goes through it as it is. An RGB generator
    sees grey three times, and the mean of its three outputs is the grey. Alpha is enlarged bicubically, on its own.

    Args:
        generator: of 1 or 3 channels.
        samples: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    """

    def __init__(self, generator: Upscaler, samples: int) -> None:
        super().__init__(generator)
        self.channels = samples

    def body(self, x: Tensor) -> Tensor:
        """(N, samples, H, W) -> (N, samples, s H, s W)."""
        colours = 3 if self.channels > 2 else 1
        y, alpha = self._paint(x[:, :colours]), x[:, colours:]
        return torch.cat([y, enlarge(alpha, self.scale)], dim=1) if alpha.shape[1] else y

    def _paint(self, x: Tensor) -> Tensor:
        own = self.generator.channels
        if x.shape[1] == own:
            return self._made(x)
        if own == 1:
            return with_chroma(self._made(rgb_to_y(x)), x, self.scale)
        return self._made(x.expand(-1, own, -1, -1)).mean(dim=1, keepdim=True)

    def _made(self, x: Tensor) -> Tensor:
        y: Tensor = self.generator(as_channels_last(x) if x.device.type == "cpu" else x)
        if not y.isfinite().all() and x.isfinite().all():  # the probe for a network's reach puts NaN in
            raise UserError(
                "The generator makes NaN or infinity of this picture, so it was not enlarged: train it again."
            )
        return y


class Enlarger:
    """Enlarges pictures by a generator's scale: grey stays grey, alpha, depth and colour profile stay.

    No float copy of a whole picture is made: each tile is rounded into its place.

    Args:
        generator: of Y or RGB, in evaluation mode, on the device that is to work; on a CPU its kernels are laid out as
            NHWC, which is faster there. An `Accelerated` one inside is told how long a picture takes.
        tile: side of the tiles in LR pixels; 0: no tiles; None: none as long as a picture is small, else as large as
            `BUDGET` allows, with PyTorch on a CPU about as large as `CACHED` where that adds little work.
    """

    def __init__(self, generator: Upscaler, tile: int | None = None) -> None:
        self.generator, self.tile = generator, tile
        if self.device.type == "cpu":
            in_channels_last(generator)
        self._accelerated = next((part for part in generator.modules() if isinstance(part, Accelerated)), None)
        self._tiled: dict[tuple[int, bool], Tiled | UserError] = {}

    @torch.inference_mode()
    def __call__(self, picture: Picture, advance: Advance = lambda _: None) -> Picture:
        """Enlarge a picture (H, W) of 8 or 16 bits to (s H, s W); `advance` is called for every tile.

        Raises:
            UserError: the picture needs tiles, and the generator cannot be tiled; the memory is too small; or the
                generator makes NaN or infinity of it.
        """
        lr = picture.samples
        height, width, channels = lr.shape
        s = self.generator.scale
        painter = Painter(self.generator, channels)
        with within_memory(f"Out of memory for a picture of {s * width}x{s * height} pixels."):
            lr = lr if picture.alpha is None else _filled(lr)
            hr = np.empty((s * height, s * width, channels), lr.dtype)
        full = np.iinfo(lr.dtype).max
        begun, done = time.perf_counter(), 0.0
        for rows, columns in self._tiles(painter, height, width):
            cut = lr[rows.cut_start : rows.cut_stop, columns.cut_start : columns.cut_stop]
            place = hr[s * rows.start : s * rows.stop, s * columns.start : s * columns.stop]
            smaller = max(1, max(place.shape[:2]) // (2 * s))
            at_once = f"{cut.shape[1]}x{cut.shape[0]} pixels at once"
            with within_memory(f"Out of memory for {at_once}: choose smaller tiles, such as tile={smaller}."):
                sr = painter(to_tensor(cut)[None].to(self.device))[0]
                sr = sr[:, rows.kept(s), columns.kept(s)].mul(full).round_().clamp_(0, full)
                np.copyto(place, sr.permute(1, 2, 0).cpu().numpy(), casting="unsafe")
            share = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
            advance(share)
            done += share
            if self._accelerated is not None:
                self._accelerated.expect((time.perf_counter() - begun) * (1 / done - 1))
        return replace(picture, samples=hr)

    @property
    def device(self) -> torch.device:
        """Where the generator works."""
        return device_holding(self.generator)

    @property
    def engine(self) -> str:
        """Who runs the generator at present: torch, or another of `engines`."""
        return "torch" if self._accelerated is None else self._accelerated.engine

    @property
    def _by_cache(self) -> bool:
        """Whether tiles that are not far from the cache are faster: other engines see to that themselves."""
        return self.device.type == "cpu" and self.engine == "torch"

    def _tiles(self, painter: Painter, height: int, width: int) -> Sequence[tuple[Span, Span]]:
        whole = [(Span(0, height, 0, height), Span(0, width, 0, width))]
        if self.tile == 0:
            return whole
        pixel = appetite(painter)
        fits = self.tile is None and height * width <= BUDGET // pixel
        if fits and (not self._by_cache or height * width <= CACHED // pixel):
            return whole
        tiled = self._tiling(painter, pixel)
        if isinstance(tiled, UserError):
            if fits:
                return whole
            raise tiled
        tiles = list(tiled.tiles(height, width))
        work = sum((r.cut_stop - r.cut_start) * (c.cut_stop - c.cut_start) for r, c in tiles)
        return whole if fits and work > 1.25 * height * width else tiles

    def _tiling(self, painter: Painter, pixel: int) -> Tiled | UserError:
        """How a painter is tiled, or why it cannot be; found out once, when every LR pixel takes `pixel` bytes."""
        key = painter.channels, self._by_cache
        if key not in self._tiled:
            try:
                tiled = Tiled(painter, self.tile or 1)
                if self.tile is None:
                    tiled.tile = -(-self._side(pixel, tiled.margin()) // tiled.stride) * tiled.stride
                self._tiled[key] = tiled
            except UserError as error:
                self._tiled[key] = error
        return self._tiled[key]

    def _side(self, pixel: int, margin: int) -> int:
        """Of a tile, when every LR pixel takes so many bytes."""
        side = isqrt(BUDGET // pixel) - 2 * margin
        if self._by_cache:
            # Smaller than the memory asks for, but not so small that the margins double the work: 1.21 at 20 margins.
            side = min(side, max(isqrt(CACHED // pixel) - 2 * margin, 20 * margin))
        # The margins may take more than the budget, but no more than three times the work of what is kept.
        return max(side, 2 * margin, 16)


def _filled(samples: Pixels) -> Pixels:
    """Samples (H, W, 2 or 4) whose invisible pixels have the colour of the nearest visible one within FAR rows.

    Often they are black; the network, which sees colours alone, would draw that into the visible edge.
    """
    filled = samples.copy()
    for top in range(0, len(samples), BAND):  # in bands: what is noted of each pixel takes more memory than the picture
        above = min(top, FAR)
        part = samples[top - above : top + BAND + FAR]
        hidden = part[..., -1] == 0
        if hidden.any() and not hidden.all():
            nearest = distance_transform_edt(hidden, return_distances=False, return_indices=True)
            place = slice(above, above + BAND)
            rows, columns = nearest[:, place][:, hidden[place]]
            filled[top : top + BAND, :, :-1][hidden[place]] = part[rows, columns, :-1]
    return filled


@torch.inference_mode()
def appetite(generator: Upscaler, side: int = 16) -> int:
    """About how many bytes a generator needs for each LR pixel: twice what its widest layer takes in and gives."""
    probe = copy.deepcopy(generator).cpu()
    sizes: list[int] = []

    def look(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        sizes.append(sum(t.numel() * t.element_size() for t in (*inputs, output) if isinstance(t, Tensor)))

    for name, module in probe.named_modules():
        if "parametrizations" not in name:  # those make kernels, and not features
            module.register_forward_hook(look)
    probe(torch.zeros(1, generator.channels, side, side))
    return 2 * -(-max(sizes) // side**2)
