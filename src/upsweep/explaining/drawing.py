"""How explanations are drawn: rows of small pictures and curves by matplotlib, all in one style."""

import io
from textwrap import fill
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Sheet
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from upsweep.imaging.files import to_uint8

DPI = 110
TEXT = 8  # points
COLOURS = ("#3f83d8", "#e2803a", "#37a06f", "#b268cf", "#c9a227", "#d9566b", "#27a3b5", "#8d939b")  # the report's
SIGNED, STRENGTH = "RdBu_r", "magma"  # colour maps: of values around 0, of values from 0


def sheet(
    rows: int, columns: int, *, width: float = 2.1, height: float = 2.1, **more: Any
) -> tuple[Sheet, NDArray[Any]]:
    """A sheet of rows x columns places, each so many inches wide and high, and its axes (rows, columns)."""
    made = Sheet(figsize=(width * columns, height * rows), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(made)
    return made, made.subplots(rows, columns, squeeze=False, **more)


def show(axes: Axes, pixels: Tensor | NDArray[Any], title: str = "", **how: Any) -> None:
    """Draw an image (C, H, W) in [0, 1], or values (H, W) in a colour map, with square pixels and no ticks."""
    if isinstance(pixels, Tensor):
        pixels = pixels.detach().float().cpu()
        pixels = pixels.numpy() if pixels.ndim == 2 else np.broadcast_to(to_uint8(pixels), (*pixels.shape[1:], 3))
    axes.imshow(pixels, interpolation="nearest", **how)
    axes.set_title(title, fontsize=TEXT)
    axes.set_xticks([])
    axes.set_yticks([])


def row_title(axes: Axes, text: str) -> None:
    """Name a row, left of its first picture; long names are broken at spaces."""
    axes.set_ylabel(folded(as_is(text), 18), fontsize=TEXT)


def as_is(name: str) -> str:
    """A name as Matplotlib shows it unchanged: else what is between two $ is TeX, and legends leave out a leading _."""
    return ("\N{NO-BREAK SPACE}" if name.startswith("_") else "") + name.replace("$", r"\$")


def folded(text: str, letters: int) -> str:
    """A text in lines of at most so many letters, broken at spaces."""
    return fill(text, letters, break_long_words=False, break_on_hyphens=False)


def legend_below(made: Sheet, axes: Axes) -> None:
    """Name the curves of `axes` below the sheet, which grows: as many in a line as the longest name has room for."""
    handles, names = axes.get_legend_handles_labels()
    line = int(made.get_figwidth() * 72 / (0.6 * TEXT))  # letters; one is about 0.6 of its size wide
    names = [folded(name, line - 8) for name in names]
    columns = max(1, line // (8 + max(len(part) for name in names for part in name.splitlines())))
    lines = -(-len(names) // columns) * max(name.count("\n") + 1 for name in names)
    made.set_figheight(made.get_figheight() + lines * 1.4 * TEXT / 72)
    made.legend(handles, names, loc="outside lower center", ncols=columns, fontsize=TEXT, frameon=False)


def plain(axes: Axes, x: str, y: str) -> None:
    """Name the axes of curves, in the sheet's small letters."""
    axes.set_xlabel(x, fontsize=TEXT)
    axes.set_ylabel(y, fontsize=TEXT)
    axes.tick_params(labelsize=TEXT - 1)
    axes.grid(color="#dfe3e8", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def drawn(made: Sheet) -> NDArray[np.uint8]:
    """The sheet as pixels (H, W, 3)."""
    file = io.BytesIO()
    made.savefig(file, format="png", dpi=DPI)
    return np.asarray(Image.open(file).convert("RGB"))


def heat_over(image: Tensor, heat: Tensor, most: float | None = None) -> Tensor:
    """Values (H, W) around 0 in colours over a grey image (C, H, W) in [0, 1]: (3, H, W); red above 0, blue below.

    `most` is the value of full colour; None: the largest there is.
    """
    grey = 0.35 + 0.65 * image.detach().float().cpu().mean(0).clamp(0, 1)
    heat = heat.detach().float().cpu()
    strength = (heat / max(most or float(heat.abs().max()), 1e-12)).clamp(-1, 1)
    colour = torch.where(
        (strength > 0)[None],
        torch.tensor([0.80, 0.09, 0.11])[:, None, None],
        torch.tensor([0.10, 0.32, 0.75])[:, None, None],
    )
    opacity = strength.abs().sqrt()[None]
    return (1 - opacity) * grey + opacity * colour
